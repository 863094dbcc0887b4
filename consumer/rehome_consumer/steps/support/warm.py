"""A warm move: the rehearsal's copy follows its source until the stop, so that nothing needs to be copied after it.

What a warm move cannot do, or does not manage in time, a cold one does: that costs time, never data. So whatever goes
wrong with the copy that follows gives it up (`give_up`), on both servers, and the steps go on as if it had never been.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import FellBehind, NotOurs, Refused, TableInUse, TimedOut, VerificationFailed
from rehome_consumer.facts import CAUGHT_UP, COMPARED, FOLLOWS_SINCE, STRATEGY, WARM_GIVEN_UP
from rehome_consumer.fingerprint import summary
from rehome_consumer.model import Followed, OwnershipTag, Strategy
from rehome_consumer.steps.support import repeated, witnessed
from rehome_consumer.steps.support.comparing import Fingerprinted, differences, fact_differences, named
from rehome_events.data import masked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    from rehome_consumer.model import DatabaseFacts, Fingerprint, Scope, Server
    from rehome_consumer.move import Move
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.steps.support.witnessed import Chosen
    from rehome_events.parts import Verified

log = logging.getLogger(__name__)

STEADY: Final = 2
"""Looks in a row at which the copy must be close behind its source."""

LENT_SHOWN: Final = 5
"""Tables with a temporary replica identity that are named; the others are counted."""

WARM: Final = "the copy follows its source until the stop"


async def followed(move: Move) -> Followed:
    """The source, and the copy that follows it."""
    return Followed(
        migration_id=move.migration_id,
        source=await move.source(),
        database=(await move.instance()).database,
        tenant=(await move.tenant()).user,
        target=await move.target(),
        copy=await move.scratch_name(),
        role=(await move.new_tenant()).user,
    )


async def why_cold(
    ports: Ports,
    database: str,
    tenant: str,
    source: Server,
    target: Server | None,
    rehearsed: Literal["full", "definitions"] | None,
) -> str | None:
    """Why a move of this database would be cold; None: it would be warm.

    Args:
        ports: for the check.
        database: on the source.
        tenant: its role there.
        source: where it is.
        target: where it goes; None: there is no server yet.
        rehearsed: how much of it is rehearsed.
    """
    if ports.policy.strategy == "cold":
        return "REHOME_STRATEGY is cold"
    if rehearsed != "full":
        return "the rehearsal copies no rows (REHOME_REHEARSE, REHOME_REHEARSE_UP_TO), and its copy is what follows"
    found = await ports.replicator.obstacles(source, database, tenant, target)
    return "; ".join(found) or None


async def why_not_now(move: Move) -> str | None:
    """Why no move is warm at present: a consumer that cannot go on with one may be the next that takes it up."""
    if not (earlier := await move.facts.earlier_consumers()):
        return None
    return (
        "consumers of an earlier release still run, which cannot go on with a warm move "
        f"({earlier} connection(s) to the state database, named 'rehome'; a console of that release has some, too): "
        "stop them, or wait until they are replaced"
    )


def with_lent(tables: Sequence[str]) -> str:
    """How the copy follows, and which tables have a temporary replica identity for that."""
    if not tables:
        return WARM
    more = f" and {len(tables) - LENT_SHOWN} more" if len(tables) > LENT_SHOWN else ""
    named_ = f"{', '.join(tables[:LENT_SHOWN])}{more}"
    return f"{WARM}; without a key, and so with REPLICA IDENTITY FULL until then: {named_}"


async def is_warm(move: Move) -> bool:
    """Whether there is a copy that follows its source, as far as this attempt remembers."""
    chosen = await move.facts.recall(STRATEGY)
    return bool(chosen and chosen.name == "warm") and await move.facts.recall(WARM_GIVEN_UP) is None


async def strategy_now(move: Move) -> Literal["warm", "cold"]:
    """How the data of this attempt was copied in the end."""
    return "warm" if await is_warm(move) else "cold"


async def decided(move: Move, why_not: str | None) -> Strategy:
    """Remember how the data is copied; the first decision counts."""
    if why_not:
        return await move.facts.remember(STRATEGY, Strategy("cold", masked(why_not)))
    lent, _ = await witnessed.told(move.replicator.lent(await followed(move)))
    chosen = Strategy("warm", masked(with_lent(lent or ())))
    return await move.facts.remember(STRATEGY, chosen)


async def catch_up(move: Move) -> None:
    """Let the copy, which is as the slot's snapshot, follow its source until it is close behind, and steadily so.

    Raises:
        FellBehind: it does not get there within the limit; or something of it is missing.
    """
    policy, both = move.policy, await followed(move)
    await move.replicator.follow(both, policy.sync_age)
    began, close = move.clock.now(), 0
    await repeated.add(move.facts, FOLLOWS_SINCE, began)
    while close < STEADY:
        left = policy.sync_limit - (move.clock.now() - began)
        if left <= timedelta():
            raise FellBehind(
                f"{both.copy} on {both.target.name} did not catch up with {both.source.name} within "
                f"{policy.sync_limit.total_seconds():g} s (REHOME_SYNC_TIMEOUT)"
            )
        took = await move.replicator.reach(both, left, policy.sync_keep)
        close = close + 1 if took <= policy.sync_lag else 0
    log.info("sync.close migration=%s copy=%s", move.migration_id, both.copy)


async def require_close(move: Move) -> None:
    """Before the stop, also while it waits: the copy is close behind, within all limits; else the move goes on cold."""
    if not await is_warm(move):
        return
    since, now = await repeated.last(move.facts, FOLLOWS_SINCE), move.clock.now()
    if since is not None and now - since > move.policy.sync_age:
        await give_up(
            move, f"the copy has followed since {since:%Y-%m-%d %H:%M} UTC, longer than REHOME_SYNC_HOURS"
        )
        return
    try:
        took = await move.replicator.reach(await followed(move), move.policy.sync_last, move.policy.sync_keep)
        log.info("sync.behind migration=%s seconds=%.3f", move.migration_id, took.total_seconds())
    except FellBehind as error:
        await give_up(move, str(error))


async def require_all_know_it(move: Move) -> None:
    """Directly before the stop: whichever consumer goes on from here can go on with a warm move; else it is cold."""
    if await is_warm(move) and (why := await why_not_now(move)):
        await give_up(move, why)


async def give_up(move: Move, why: str) -> None:
    """The copy follows no more, and is not used: nothing of it stays on either server.

    That is remembered last: a run that is cut off before finds that the copy does not follow, and comes here again.
    """
    log.warning("sync.given_up migration=%s why=%s", move.migration_id, why)
    await remove(move)
    await move.copier.discard(move.rehearsal_id)
    await move.databases.drop(await move.target(), await move.scratch_name(), move.migration_id)
    await move.facts.remember(WARM_GIVEN_UP, masked(why))


async def remove(move: Move) -> None:
    """Nothing follows, or is followed, on either server; a server that does not answer keeps nothing but its own part.

    Raises:
        RehomeError: the last of what went wrong, after both were tried.
    """
    try:
        await move.replicator.remove(await move.source(), move.migration_id)
    finally:
        await move.replicator.remove(await move.target(), move.migration_id)


async def is_kept(move: Move) -> bool:
    """Whether the copy is there, so that none has to be made; a warm move whose copy is missing goes on cold."""
    if not await is_warm(move):
        return False
    target, copy = await move.target(), await move.scratch_name()
    try:
        tag = await move.databases.ownership_tag(target, copy)
    except NotOurs:
        tag = None
    if tag == OwnershipTag(move.migration_id, move.attempt, "scratch"):
        return True
    await give_up(move, f"the copy {copy} on {target.name} is not there any more")
    return False


async def finished(move: Move, like: DatabaseFacts) -> Verified | None:
    """Bring the copy to the fenced source's last position, complete and verify it. None: the move goes on cold.

    Args:
        move: whose source is fenced.
        like: what the copy must be like, as the source was before the fence.
    """
    if not await is_warm(move):
        return None
    try:
        return await _finish(move, like)
    except (FellBehind, Refused, TimedOut) as error:
        await give_up(move, str(error))
    except ExceptionGroup as group:
        _, rest = group.split((FellBehind, Refused, TimedOut))
        if rest is not None:  # the next try decides, unless it is final by itself
            raise rest from None
        await give_up(move, str(_first(group)))
    return None


async def _finish(move: Move, like: DatabaseFacts) -> Verified:
    both = await followed(move)
    async with asyncio.TaskGroup() as together:
        # What is fenced does not change: it is read while the copy gets its last changes.
        choosing = together.create_task(witnessed.by_source(move, both))
        reading = together.create_task(_source(move, both, choosing))
        if not await move.facts.recall(CAUGHT_UP):
            took = await move.replicator.reach(both, move.policy.sync_last, move.policy.sync_keep)
            log.info("sync.reached migration=%s seconds=%.3f", move.migration_id, took.total_seconds())
            await move.facts.remember(CAUGHT_UP, value=True)
        # Sequences and views are none of what the subscription changes.
        async with asyncio.TaskGroup() as apart:
            apart.create_task(move.replicator.detach(both))
            apart.create_task(move.replicator.settle(both))
        # From here on nobody but rehome changes the copy.
        removing = together.create_task(_remove_from_source(move, both, choosing, reading))
        first = await choosing
        # Whoever reads cannot write: what may have been changed is looked for at the same time.
        checking = together.create_task(witnessed.by_copy(move, both, first))
        describing = together.create_task(move.databases.database_facts(both.target, both.copy, both.role))
        after = await move.verifier.fingerprint(both.target, both.copy, both.role, first.scope)
        chosen = await checking
        if chosen.scope != first.scope:
            await reading  # a second reader of the same database waits for the first one
            await removing
            reading = together.create_task(
                move.verifier.fingerprint(both.source, both.database, both.tenant, chosen.scope)
            )
            after = await move.verifier.fingerprint(both.target, both.copy, both.role, chosen.scope)
    before = reading.result()
    await _require_equal(move, both, before, after, chosen.scope, fact_differences(like, describing.result()))
    done = await move.facts.remember(COMPARED, witnessed.compared(chosen))
    log.info(
        "sync.compared migration=%s how=%s tables=%s rows=%s definitions=%s",
        *(move.migration_id, done.how, done.tables, done.rows, done.definitions),
    )
    return summary(before)


async def _source(move: Move, both: Followed, choosing: asyncio.Task[Chosen]) -> Fingerprint:
    chosen = await choosing
    return await move.verifier.fingerprint(both.source, both.database, both.tenant, chosen.scope)


async def _remove_from_source(
    move: Move, both: Followed, choosing: asyncio.Task[Chosen], reading: asyncio.Task[Fingerprint]
) -> None:
    await choosing  # told by a slot, and by catalogs in which the publication is
    if await move.replicator.lent(both):
        # Who reads a table has a lock on it, and the next reader would wait behind who alters it.
        await reading
    try:
        await move.replicator.remove(both.source, move.migration_id)
    except (
        TableInUse
    ) as error:  # all else is removed, and nobody writes there any more: `complete` tries again
        log.warning("sync.identities_left migration=%s why=%s", move.migration_id, error)


async def _require_equal(
    move: Move, both: Followed, before: Fingerprint, after: Fingerprint, scope: Scope, others: Iterable[str]
) -> None:
    """There are no differences, neither between the fingerprints nor `others`. Raises VerificationFailed."""
    found = await differences(
        move.verifier,
        Fingerprinted(both.source, both.database, both.tenant, before, scope),
        Fingerprinted(both.target, both.copy, both.role, after, scope),
    )
    found += others
    if found:
        raise VerificationFailed(
            f"the copy that followed differs: {named(found)}. It is not used; the data is copied again"
        )


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
