"""What a rollback leaves behind: one rule for every place where a move has made something.

- The pool is waited for. The customer's own database is there, and what a copy follows by keeps WAL there.
- The dedicated server and the backup place are not: the customer would be down for the sake of leftovers. Each is tried
  by itself; what could not be removed is named in `migration.rolled_back`, once for each place. All of it has a name or
  a tag of its migration's, by which `rehome doctor` finds it when the place answers again.
- What belongs to another migration is left alone, and named.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import NotFound, NotOurs, NotReady, Queued, TableInUse, TimedOut, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from rehome_consumer.model import Server
    from rehome_consumer.move import Move

NOT_REACHED: Final = (NotReady, TimedOut, Unreachable)
_WHY: Final = " could not be removed: "


async def removed(what: str, *removals: Callable[[], Awaitable[object]]) -> tuple[str, ...]:
    """Do each of these removals in one place; returns what had to be left there, in words.

    Args:
        what: that is removed, with its place, such as "acme on pool-1".
        removals: in this order; a place that does not answer is not asked again.
    """
    left: list[str] = []
    for remove in removals:
        try:
            await remove()
        except NotOurs as error:
            left.append(f"{what}: left alone: {error}")
        except NOT_REACHED as error:
            left.append(f"what is left of {what}{_WHY}{error}")
            break
    return tuple(left)


async def from_target(move: Move, *databases: str, role: str | None = None) -> tuple[str, ...]:
    """These databases do not stay on the dedicated server, nor a session, nor anything by which a copy follows.

    A server that is not in `db_servers` any more has nothing that could be reached.

    Args:
        move: that is rolled back.
        databases: that are dropped, if they are of this migration.
        role: that may not log in any more; None: it never could.
    """
    try:
        target = await move.target()
    except NotFound:
        return ()
    return await removed(
        f"{(await move.instance()).database} on {target.name}",
        *([lambda: move.databases.close_role(target, role)] if role else []),
        lambda: move.databases.end_sessions(target, move.migration_id),
        *(partial(move.databases.drop, target, name, move.migration_id) for name in databases),
        lambda: move.replicator.remove(target, move.migration_id),
    )


@contextmanager
def waiting_for_tables() -> Iterator[None]:
    """While the instance serves: wait for a table that others use, such as a dump, for hours; no try is counted.

    Raises:
        Queued: a table cannot get its replica identity back yet.
    """
    try:
        yield
    except TableInUse as error:
        raise Queued(str(error)) from error


async def lent_identities(move: Move, source: Server) -> tuple[str, ...]:
    """What a copy followed by is not on the pool any more, which is waited for.

    A table that is in use, such as one that is being dumped, may keep its temporary replica identity: that keeps no
    WAL and hinders nobody, so it is named, and not waited for.
    """
    try:
        await move.replicator.remove(source, move.migration_id)
    except TableInUse as error:
        return (f"a temporary replica identity: {error}. `rehome doctor --repair` puts it back",)
    return ()


async def from_backup_place(move: Move, *backups: str) -> tuple[str, ...]:
    """None of these backups stays."""
    return await removed(
        f"{move.backup_id} in the backup place", *(partial(move.copier.discard, one) for one in backups)
    )


def distinct(leftovers: Iterable[str]) -> tuple[str, ...]:
    """Each place that did not answer once, however many undos met it."""
    found: dict[str, str] = {}
    for text in leftovers:
        place, why, _ = text.partition(_WHY)
        found.setdefault(place if why else text, text)
    return tuple(found.values())
