"""The rehearsal: the data is moved once while the instance serves, into a scratch database that is dropped again.

No list of checks knows all that a restore can refuse, or change in silence. So before anything is stopped the source is
dumped from one snapshot, restored on the dedicated server, and compared with the same snapshot. What cannot be moved is
found then, in PostgreSQL's own words, and how long the copy takes is measured.

It leaves nothing: its database has the name and the tag of the move's own scratch database, and its dump a name of this
attempt's, so whatever finds leftovers of the move (the next run, a rollback, the doctor) finds its, too.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from rehome_consumer.errors import Conflict, FellBehind, NotOurs, Queued, RehomeError, VerificationFailed
from rehome_consumer.facts import BEGUN_AT, MAY_FOLLOW, REHEARSAL, REHEARSED_DEFINITIONS, SIGNATURES, STRATEGY
from rehome_consumer.fingerprint import definitions_digest
from rehome_consumer.model import DEFINITIONS, Scope, Signatures
from rehome_consumer.steps import provision
from rehome_consumer.steps.support import pacing, repeated, warm, witnessed
from rehome_consumer.steps.support.comparing import Fingerprinted, differences, fact_differences, named
from rehome_consumer.steps.support.slots import Slot, rehearsal_slot, take
from rehome_events.parts import Rehearsal

if TYPE_CHECKING:
    from datetime import datetime

    from rehome_consumer.model import Policy, Server
    from rehome_consumer.move import Move

log = logging.getLogger(__name__)

LOOKS: Final = 2
"""Rehearsals until a difference counts: a table that is rewritten meanwhile looks empty to an older snapshot."""

ROUNDS: Final = 3
"""Rehearsals before a stop, where the definitions change each time."""


NO_ROWS: Final = (
    "the rehearsal copied no rows (REHOME_REHEARSE, REHOME_REHEARSE_UP_TO): duplicates below a unique index, rows that "
    "a check refuses, what a materialized view reads, and how long the copy takes are found after the stop"
)
"""What a rehearsal of definitions leaves unknown."""


@dataclass(frozen=True, slots=True)
class _Rehearsed:
    result: Rehearsal
    definitions: str
    signatures: Signatures | None
    """Of both databases' catalogs, where the copy is to follow."""
    differences: tuple[str, ...]
    cold: str | None = None
    """Why the copy does not follow its source; None: it does."""


def mode_for(policy: Policy, size: int) -> Literal["full", "definitions"] | None:
    """How much of a database of this size (bytes) is rehearsed; None: nothing."""
    if policy.rehearse == "off":
        return None
    too_large = policy.rehearse_up_to is not None and size > policy.rehearse_up_to
    return "definitions" if too_large else policy.rehearse


async def run(move: Move) -> Rehearsal | None:
    """Rehearse, once per attempt; None where the settings want none.

    Raises:
        Queued: another rehearsal of this source is under way, or it is not the time for it.
        VerificationFailed: the copy differs, and did so again.
        RehomeError: as `dump` and `restore` say.
    """
    source, instance = await move.source(), await move.instance()
    done = await move.facts.recall(REHEARSAL)
    if done is None:
        size = await move.databases.database_size(source, instance.database)
        mode = mode_for(move.policy, size)
        cold = await _why_cold(move, mode)
        if mode is None:
            await warm.decided(move, cold)
            return None
        may_follow = await move.facts.remember(MAY_FOLLOW, cold is None)
        if not may_follow:  # else it would follow from now on until the window opens
            cold = cold or "it could not follow when that was looked at first"
        await _take_slot(move, may_follow=may_follow)
        rehearsed = await rehearse(move, mode, size, cold=cold)
        await _remember(move, rehearsed)
        done = await move.facts.remember(REHEARSAL, rehearsed.result)
        await warm.decided(move, rehearsed.cold)
    elif await move.facts.recall(STRATEGY) is None:
        await clear(move)
        await warm.decided(move, "the run that made the copy was cut off")
    # Also where an earlier try has rehearsed: it may have ended before it released its slot.
    await release_slot(move)
    return done


async def wait_for_a_slot(move: Move) -> None:
    """Take a slot to read the source, unless nothing (more) is to be rehearsed.

    Raises:
        Queued: other rehearsals of this source are under way, or it is not the time for it.
    """
    if move.policy.rehearse != "off" and await move.facts.recall(REHEARSAL) is None:
        await _take_slot(move, may_follow=await move.facts.recall(MAY_FOLLOW) or False)


async def _take_slot(move: Move, *, may_follow: bool) -> None:
    try:
        await _require_hours(move, may_follow=may_follow)
    except Queued:
        await release_slot(move)
        raise
    source, places = await move.source(), move.policy.rehearsals_per_server
    await take(
        move.facts, Slot(rehearsal_slot(source), places, f"{places} rehearsal(s) of {source.name} at a time")
    )
    await move.facts.remember(BEGUN_AT, move.clock.now())


async def _require_hours(move: Move, *, may_follow: bool) -> None:
    """Raises Queued where it is not the time for a rehearsal."""
    policy = move.policy
    if policy.rehearsal_hours is not None:
        if not policy.rehearsal_hours.has(move.clock.now()):
            raise Queued(f"rehearsals run from {policy.rehearsal_hours}; waiting for that time")
    elif may_follow and await move.facts.recall(BEGUN_AT) is None:
        # Not all day long, at the pool's cost, until the instance may be stopped. Hours that
        # somebody has set are kept to alone: both together might never come.
        await pacing.require_window(move)


async def release_slot(move: Move) -> None:
    """Let the next migration rehearse, and do not wait in line any more."""
    await move.facts.release_slots((rehearsal_slot(await move.source()),))


async def require_current(move: Move) -> None:
    """What is about to be stopped has the definitions that were rehearsed; else it is rehearsed again.

    Raises:
        Conflict: they change all the time.
        RehomeError: as `run`.
    """
    done, known = await move.facts.recall(REHEARSAL), await repeated.last(move.facts, REHEARSED_DEFINITIONS)
    if done is None or known is None:
        return
    source, database, role = await move.source(), (await move.instance()).database, (await move.tenant()).user
    scope = replace(DEFINITIONS, jobs=move.policy.rehearsal_jobs)
    for _ in range(ROUNDS):
        now = await move.verifier.fingerprint(source, database, role, scope)
        if definitions_digest(now) == known:
            return
        log.info("rehearsal.outdated migration=%s database=%s", move.migration_id, database)
        # What follows its source has the old definitions: a new copy follows, or none.
        was_warm = await warm.is_warm(move)
        cold = await _why_cold(move, done.mode) if was_warm else "it was decided before"
        again = await rehearse(move, done.mode, done.database_bytes, cold=cold)
        if was_warm and again.cold is not None:
            await warm.give_up(move, again.cold)
        # It may have taken until the window was closed; what was rehearsed counts the next time.
        await _remember(move, again)
        known = again.definitions
    raise Conflict(
        f"the definitions in {database} changed during each of {ROUNDS} rehearsals: a module is being installed or "
        "upgraded? The instance serves on, and the move waits"
    )


async def _remember(move: Move, rehearsed: _Rehearsed) -> None:
    await repeated.add(move.facts, REHEARSED_DEFINITIONS, rehearsed.definitions)
    if rehearsed.signatures is not None:
        await repeated.add(move.facts, SIGNATURES, rehearsed.signatures)


async def rehearse(
    move: Move, mode: Literal["full", "definitions"], size: int, *, cold: str | None
) -> _Rehearsed:
    """Rehearse now, and leave nothing behind but, in a warm move, the copy that follows its source.

    Args:
        move: whose data is copied.
        mode: how much of it.
        size: bytes of it.
        cold: why the copy is not to follow; None: it is.

    Raises:
        VerificationFailed: the copy differs, and did so again.
        RehomeError: as `dump` and `restore` say.
    """
    try:
        rehearsed = await _once(move, mode, size, cold)
        for _ in range(1, LOOKS):
            if not rehearsed.differences:
                break
            log.info(
                "rehearsal.repeated migration=%s difference=%s", move.migration_id, rehearsed.differences[0]
            )
            rehearsed = await _once(move, mode, size, cold)
        if rehearsed.cold is None and not rehearsed.differences:
            try:
                await warm.catch_up(move)
            except FellBehind as error:
                rehearsed = replace(rehearsed, cold=str(error))
            else:
                return rehearsed  # its dump stays, too: the backup until `complete` makes one of the fenced source
    except Exception:
        with suppress(RehomeError):  # the error counts; the next run removes what is left
            await clear(move)
        raise
    await clear(move)
    if rehearsed.differences:
        source, target = await move.source(), await move.target()
        raise VerificationFailed(
            f"rehearsal: a copy on {target.name} would differ from {source.name}: {named(rehearsed.differences)}. "
            "The instance was not stopped"
        )
    return rehearsed


async def _why_cold(move: Move, mode: Literal["full", "definitions"] | None) -> str | None:
    """Why no copy is to follow; None: it is."""
    if why := await warm.why_not_now(move):
        return why
    database, tenant = (await move.instance()).database, (await move.tenant()).user
    return await warm.why_cold(move.ports, database, tenant, await move.source(), await move.target(), mode)


async def clear(move: Move) -> None:
    """Remove what a rehearsal of this attempt left.

    A server that does not answer keeps nothing but its own part.

    Raises:
        RehomeError: the last of what went wrong, after everything was tried.
    """
    try:
        try:
            await move.databases.end_sessions(await move.source(), move.migration_id)
            await warm.remove(move)
        finally:
            await move.copier.discard(move.rehearsal_id)
    finally:
        await _clear_target(move)


async def _clear_target(move: Move) -> None:
    target = await move.target()
    await move.databases.end_sessions(target, move.migration_id)
    with suppress(NotOurs):  # left alone
        await move.databases.drop(target, await move.scratch_name(), move.migration_id)


async def _once(move: Move, mode: Literal["full", "definitions"], size: int, cold: str | None) -> _Rehearsed:
    source, database, role = await move.source(), (await move.instance()).database, (await move.tenant()).user

    async def held(snapshot: str) -> _Rehearsed:
        jobs, nice = move.policy.rehearsal_jobs, move.policy.rehearsal_nice
        scope = Scope(snapshot=snapshot, rows=mode == "full", positions=False, jobs=jobs, nice=nice)
        return await _from_snapshot(move, mode, size, scope, follows=cold is None)

    await clear(move)
    if cold is None:
        try:
            return await move.replicator.with_slot(await warm.followed(move), move.policy.sync_limit, held)
        except FellBehind as error:
            cold = str(error)
            await clear(move)
    rehearsed = await move.verifier.with_snapshot(source, database, role, held)
    return replace(rehearsed, cold=cold)


async def _signature(move: Move, server: Server, database: str, snapshot: str | None = None) -> str | None:
    """A signature of the catalogs; None where it cannot be read: definitions are then compared after the stop."""
    found, why = await witnessed.told(move.verifier.signature(server, database, snapshot))
    if why:
        log.warning("rehearsal.unsigned migration=%s database=%s why=%s", move.migration_id, database, why)
    return found


async def _from_snapshot(
    move: Move, mode: Literal["full", "definitions"], size: int, scope: Scope, *, follows: bool
) -> _Rehearsed:
    source, target, scratch = await move.source(), await move.target(), await move.scratch_name()
    database, old, new = (await move.instance()).database, await move.tenant(), await move.new_tenant()
    signed = await _signature(move, source, database, scope.snapshot) if follows else None
    # As `require_current` will read them.
    definitions = await move.verifier.fingerprint(
        source, database, old.user, replace(DEFINITIONS, snapshot=scope.snapshot, jobs=scope.jobs)
    )
    began = move.clock.now()
    await move.copier.dump(source, database, old.user, move.rehearsal_id, move.facts, scope)
    backup = await move.copier.seal(move.rehearsal_id, {}, {})
    dumped = move.clock.now()
    like = await provision.make(move)
    async with asyncio.TaskGroup() as together:
        together.create_task(
            move.copier.restore(
                *(target, scratch, backup, new.user, move.facts),
                jobs=move.policy.rehearsal_restore_jobs,
                nice=scope.nice,
                vacuum=follows,  # its rows are counted once more, after the stop
            )
        )
        reading = together.create_task(move.verifier.fingerprint(source, database, old.user, scope))
    if follows and scope.snapshot is not None:
        await move.replicator.restore_identities(await warm.followed(move), scope.snapshot)
    restored = move.clock.now()
    before, there = reading.result(), replace(scope, snapshot=None)
    signatures = None
    if signed is not None:  # of the copy before it is read: what changes it from here on is noticed
        copy_signed = await _signature(move, target, scratch)
        signatures = None if copy_signed is None else Signatures(signed, copy_signed)
    after = await move.verifier.fingerprint(target, scratch, new.user, there)
    found = await differences(
        move.verifier,
        Fingerprinted(source, database, old.user, before, scope),
        Fingerprinted(target, scratch, new.user, after, there),
    )
    found += fact_differences(like, await move.databases.database_facts(target, scratch, new.user))
    return _Rehearsed(
        Rehearsal(
            mode=mode,
            database_bytes=size,
            dump_seconds=_seconds(began, dumped),
            restore_seconds=_seconds(dumped, restored),
            compare_seconds=_seconds(restored, move.clock.now()),
        ),
        definitions_digest(definitions),
        signatures,
        tuple(found),
    )


def _seconds(start: datetime, end: datetime) -> float:
    return round(max((end - start).total_seconds(), 0.0), 3)
