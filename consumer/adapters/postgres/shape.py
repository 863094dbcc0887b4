"""Everything of a database but its rows, in a form that two servers can be compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consumer.adapters.postgres.names import spelt
from consumer.sql import load

if TYPE_CHECKING:
    from consumer.adapters.postgres.kinds import TenantSession

_SQL: Final = load("verification")
_KINDS: Final = load("fingerprint")

_SEQUENCES_AT_ONCE: Final = 200


async def objects(reader: TenantSession) -> dict[str, dict[str, str]]:
    """Kind -> name -> what must be the same, for every kind of `fingerprint.sql`.

    The session's setting `rehome.tenant` names the role that is written <tenant>.
    """
    found: dict[str, dict[str, str]] = {}
    for query, statement in _KINDS.items():
        kind = found[query.replace("_", " ")] = {}
        for row in await reader.fetch(statement):
            label = f"{row['label']} " if row["label"] else ""
            kind[label + spelt(row["name"])] = row["value"] or ""
    return found


async def sequences(reader: TenantSession) -> dict[str, str]:
    """'schema.sequence' -> where it stands and how it counts."""
    found = await reader.fetch(_SQL["sequences"])
    positions: dict[int, str] = {}
    for first in range(0, len(found), _SEQUENCES_AT_ONCE):
        looks = [
            f"SELECT {place}, last_value, is_called FROM {row['quoted']}"  # noqa: S608 - quoted by the server
            for place, row in enumerate(found[first : first + _SEQUENCES_AT_ONCE], first)
        ]
        for place, last, called in await reader.fetch(" UNION ALL ".join(looks)):
            positions[place] = f"last_value={last} is_called={str(called).lower()}"
    return {spelt(row["name"]): f"{positions[place]} {row['definition']}" for place, row in enumerate(found)}


async def database(reader: TenantSession) -> dict[str, str]:
    """Encoding, locale, and the server's major version."""
    row = await reader.fetchrow(_SQL["database"])
    return dict(row) if row is not None else {}
