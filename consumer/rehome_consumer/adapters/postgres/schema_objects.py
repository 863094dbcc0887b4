"""Everything of a database but its rows, in a form by which two servers can be compared, and that stays small.

The server sorts names into parts and sends a digest of each (`parts`); names are sent only on request, and only
some of them (`some`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from rehome_consumer.adapters.postgres.checksums import run_together
from rehome_consumer.adapters.postgres.names import spelt
from rehome_consumer.fingerprint import (
    ADMINISTRATOR,
    COUNTED,
    DEFAULT_HOLDERS,
    HOLDERS,
    LISTED,
    OUTSIDE,
    OWNED,
    PARTS,
    SEQUENCES,
    TENANT,
    Fold,
    Shortlist,
)
from rehome_consumer.model import EVERYTHING, Named, Part
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import asyncpg

    from rehome_consumer.adapters.postgres.kinds import TenantSession
    from rehome_consumer.model import Scope

_SQL: Final = load("verification")
_BY_NAME: Final = load("fingerprint")

_SEQUENCES_AT_ONCE: Final = 200
_CUT: Final = 500  # characters: more than people are shown of any name or value

_EXTENSION: Final = "extension"


def _queries() -> dict[str, str]:
    """Kind -> its query. Kinds that are compared in two ways are in it twice."""
    queries = {name.replace("_", " "): _plain(statement) for name, statement in _BY_NAME.items()}
    owner, grant = queries["owner"], queries["grant"]
    queries[OWNED] = (
        "SELECT w.label, w.name, CASE "  # noqa: S608 - from sql/
        f"WHEN w.value = '{ADMINISTRATOR}' AND w.label NOT IN ('schema', 'extension') THEN '{TENANT}' "
        f"ELSE w.value END AS value FROM ({owner}) AS w"
    )
    queries[HOLDERS] = (
        f"SELECT w.label, w.name, '' AS value FROM ({grant}) AS w "  # noqa: S608 - from sql/
        "WHERE w.label <> 'schema' OR w.name[1] <> 'public'"
    )
    queries[DEFAULT_HOLDERS] = f"SELECT w.label, w.name, '' AS value FROM ({queries['default grant']}) AS w"  # noqa: S608 - from sql/
    del queries[_EXTENSION]  # there are few: `extensions`
    return queries


def _plain(statement: str) -> str:
    """The query, with the names that it gives as every version of PostgreSQL writes them."""
    return _SQL["plain"].replace("{kind}", statement.rstrip(";")).rstrip(";")


_KINDS: Final = _queries()

KINDS: Final = tuple(_KINDS)
"""Kinds whose parts `objects` reads."""


class Others(NamedTuple):
    """What is neither rows nor parts of kinds, as in a fingerprint."""

    sequences: dict[int, Part]
    counts: dict[str, int]
    extensions: dict[str, str]
    database: dict[str, str]


async def others(reader: TenantSession, scope: Scope = EVERYTHING) -> Others:
    """All that."""
    return Others(
        await sequence_parts(reader, scope),
        await counts(reader),
        await extensions(reader),
        await database(reader),
    )


async def objects(
    readers: Sequence[TenantSession], *, definitions: bool = True
) -> dict[str, dict[int, Part]]:
    """The parts of every kind, or of those outside of the database, by several sessions at once."""
    todo, found = deque(KINDS if definitions else OUTSIDE), dict[str, dict[int, Part]]()

    async def work(reader: TenantSession) -> None:
        while todo:
            kind = todo.popleft()
            found[kind] = await parts(reader, kind)

    await run_together([work(reader) for reader in readers])
    return found


async def counts(reader: TenantSession) -> dict[str, int]:
    """How many there are of some kinds."""
    return {
        kind: int(await reader.fetchval(_SQL["count"].replace("{kind}", _BY_NAME[kind].rstrip(";"))))
        for kind in COUNTED
    }


async def parts(reader: TenantSession, kind: str) -> dict[int, Part]:
    """The parts of one kind: how many objects are in each, and their digest.

    The session's setting `rehome.tenant` names the role that is written <tenant>.
    """
    rows = await reader.fetch(_SQL["parts"].replace("{kind}", _KINDS[kind]), PARTS - 1)
    return {row["part"]: Part(row["count"], row["digest"]) for row in rows}


async def some(reader: TenantSession, kind: str, wanted: Sequence[int]) -> dict[int, list[Named]]:
    """The first objects of some parts, with what must be the same, both cut to what people are shown."""
    query = _SQL["some"].replace("{kind}", _KINDS[kind])
    found: dict[int, list[Named]] = {part: [] for part in wanted}
    for row in await reader.fetch(query, PARTS - 1, wanted, LISTED, _CUT):
        label = f"{row['label']} " if row["label"] else ""
        found[row["part"]].append(Named(row["key"], label + spelt(row["name"]), row["value"], row["digest"]))
    return found


async def sequence_parts(reader: TenantSession, scope: Scope = EVERYTHING) -> dict[int, Part]:
    """The parts of 'schema.sequence' -> its position, if the scope has it, and how it counts."""
    fold = Fold()
    async for name, state in _sequences(reader, scope):
        fold.add(name, state)
    return fold.parts()


async def some_sequences(
    reader: TenantSession, wanted: Sequence[int], scope: Scope = EVERYTHING
) -> dict[int, list[Named]]:
    """The first sequences of some parts."""
    shortlist = Shortlist(wanted)
    async for name, state in _sequences(reader, scope):
        shortlist.add(name, state)
    return shortlist.found


async def sequence_positions(
    reader: TenantSession,
) -> AsyncIterator[list[tuple[str, int, bool]]]:
    """Where sequences stand, some at a time: name as the server quotes it, last_value, is_called."""
    last = 0
    while page := await reader.fetch(_SQL["sequences"], last, _SEQUENCES_AT_ONCE):
        queries = [
            f"SELECT {place}, last_value, is_called FROM {row['quoted']}"  # noqa: S608 - quoted by the server
            for place, row in enumerate(page)
        ]
        yield [
            (page[place]["quoted"], value, called)
            for place, value, called in await reader.fetch(" UNION ALL ".join(queries))
        ]
        last = page[-1]["oid"]


async def _sequences(reader: TenantSession, scope: Scope) -> AsyncIterator[tuple[str, str]]:
    last = 0
    while page := await reader.fetch(_SQL["sequences"], last, _SEQUENCES_AT_ONCE):
        positions = await _positions(reader, page) if scope.positions else [""] * len(page)
        for row, position in zip(page, positions, strict=True):
            name = spelt(row["name"])
            if scope.has(SEQUENCES, name):
                yield name, f"{position}{row['definition']}"
        last = page[-1]["oid"]


async def _positions(reader: TenantSession, page: Sequence[asyncpg.Record]) -> list[str]:
    queries = [
        f"SELECT {place}, last_value, is_called FROM {row['quoted']}"  # noqa: S608 - quoted by the server
        for place, row in enumerate(page)
    ]
    found = {
        place: f"last_value={value} is_called={str(called).lower()} "
        for place, value, called in await reader.fetch(" UNION ALL ".join(queries))
    }
    return [found[place] for place in range(len(page))]


async def extensions(reader: TenantSession) -> dict[str, str]:
    """Name -> version."""
    return {spelt(row["name"]): row["value"] for row in await reader.fetch(_BY_NAME[_EXTENSION])}


async def database(reader: TenantSession) -> dict[str, str]:
    """Encoding, locale, and the server's major version."""
    row = await reader.fetchrow(_SQL["database"])
    return dict(row) if row is not None else {}
