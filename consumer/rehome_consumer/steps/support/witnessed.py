"""How much is compared after the stop of a warm move: what was written, or changed, where that is certain.

The copy was compared, whole, with the snapshot that it was made from. What was not written since is not compared again,
except for how many rows each table has. Nor are definitions, if the catalogs' signatures show that none was changed.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from rehome_consumer.errors import ClaimLost, RehomeError
from rehome_consumer.facts import SIGNATURES
from rehome_consumer.model import EVERYTHING, Compared
from rehome_consumer.steps.support import repeated
from rehome_events.data import masked

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Literal

    from rehome_consumer.model import Followed, Scope, Server, Signatures, Written
    from rehome_consumer.move import Move

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is compared.

    Attributes:
        scope: that.
        why: why contents are compared whole; empty: they are not.
        why_definitions: why definitions are compared again; empty: they are not.
    """

    scope: Scope
    why: str
    why_definitions: str


async def by_source(move: Move, both: Followed) -> Chosen:
    """What is compared as far as the fenced source tells, before its slots are removed."""
    signed = await repeated.last(move.facts, SIGNATURES)
    async with asyncio.TaskGroup() as together:
        writing = together.create_task(_written(move, both))
        signing = together.create_task(
            _why_definitions(move, both.source, both.database, signed.source if signed else None)
        )
    written, why = writing.result()
    why_definitions = signing.result()
    return Chosen(
        replace(EVERYTHING, contents=written, definitions=bool(why_definitions)), why, why_definitions
    )


async def by_copy(move: Move, both: Followed, chosen: Chosen) -> Chosen:
    """The same, now that the copy is settled and nothing follows in it any more."""
    signed = await repeated.last(move.facts, SIGNATURES)
    async with asyncio.TaskGroup() as together:
        looking = together.create_task(_strayed(move, both, chosen))
        signing = together.create_task(_redefined(move, both, chosen, signed))
    why, why_definitions = looking.result(), signing.result()
    contents = None if why else chosen.scope.contents
    scope = replace(chosen.scope, contents=contents, definitions=bool(why_definitions))
    return Chosen(scope, why, why_definitions)


async def _written(move: Move, both: Followed) -> tuple[Written | None, str]:
    """What was written; None: why that is not certain."""
    found, why = await told(move.replicator.written(both))
    return found, _logged(move, "sync.unwitnessed", why)


async def _strayed(move: Move, both: Followed, chosen: Chosen) -> str:
    """Why the copy must be compared whole, perhaps though the source says what was written; empty: it need not."""
    if chosen.scope.contents is None:
        return chosen.why
    found, why = await told(move.replicator.strays(both, chosen.scope.contents))
    if found:
        why = f"in the copy somebody else may have written to {', '.join(found[:3])}"
    return _logged(move, "sync.unwitnessed", why)


async def _redefined(move: Move, both: Followed, chosen: Chosen, signed: Signatures | None) -> str:
    """Why definitions are compared again, by the source or else by the copy; empty: they are not."""
    if chosen.why_definitions:
        return chosen.why_definitions
    return await _why_definitions(move, both.target, both.copy, signed.target if signed else None)


async def _why_definitions(move: Move, server: Server, database: str, signed: str | None) -> str:
    """Why definitions may be others than when they were compared; empty: they are not."""
    now, why = None, "no signature of the catalogs was kept when definitions were compared"
    if signed is not None:
        now, why = await told(move.verifier.signature(server, database))
    if now is not None and now != signed:
        why = (
            f"something was made, changed or removed in {database} on {server.name} since they were compared"
        )
    return _logged(move, "sync.redefined", why)


async def told(asked: Awaitable[T]) -> tuple[T | None, str]:
    """The answer, or why there is none."""
    try:
        return await asked, ""
    except ClaimLost:
        raise
    except RehomeError as error:
        return None, str(error) or type(error).__name__


def _logged(move: Move, event: str, why: str) -> str:
    if why:
        log.warning("%s migration=%s why=%s", event, move.migration_id, why)
    return why


def compared(chosen: Chosen) -> Compared:
    """That, for the journal."""
    definitions: Literal["read", "unchanged"] = "read" if chosen.scope.definitions else "unchanged"
    done = Compared(
        "everything",
        masked(chosen.why),
        definitions=definitions,
        definitions_why=masked(chosen.why_definitions),
    )
    if chosen.scope.contents is None:
        return done
    keys = [one for one in chosen.scope.contents.values() if one is not None]
    return replace(
        done,
        how="changed",
        tables=len(chosen.scope.contents),
        by_key=len(keys),
        rows=sum(len(one.rows) for one in keys),
    )
