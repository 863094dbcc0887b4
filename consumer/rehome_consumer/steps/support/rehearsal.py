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

from rehome_consumer.errors import Conflict, NotOurs, Queued, RehomeError, VerificationFailed
from rehome_consumer.facts import REHEARSAL, REHEARSED_DEFINITIONS
from rehome_consumer.fingerprint import definitions_digest
from rehome_consumer.model import DEFINITIONS, Scope
from rehome_consumer.steps import provision
from rehome_consumer.steps.support.comparing import Fingerprinted, differences, fact_differences, named
from rehome_consumer.steps.support.slots import rehearsal_slot, take
from rehome_events.parts import Rehearsal

if TYPE_CHECKING:
    from datetime import datetime

    from rehome_consumer.model import Policy
    from rehome_consumer.move import Move

log = logging.getLogger(__name__)

LOOKS: Final = 2
"""Rehearsals until a difference counts: a table that is rewritten meanwhile looks empty to an older snapshot."""

ROUNDS: Final = 3
"""Rehearsals before a stop, where the definitions change each time."""


@dataclass(frozen=True, slots=True)
class _Rehearsed:
    result: Rehearsal
    definitions: str
    differences: tuple[str, ...]


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
        if mode is None:
            return None
        await wait_for_a_slot(move)
        rehearsed = await rehearse(move, mode, size)
        await move.facts.remember(REHEARSED_DEFINITIONS, rehearsed.definitions)
        done = await move.facts.remember(REHEARSAL, rehearsed.result)
    # Also where an earlier try has rehearsed: it may have ended before it released its slot.
    await release_slot(move)
    return done


async def wait_for_a_slot(move: Move) -> None:
    """Take a slot to read the source, unless nothing (more) is to be rehearsed.

    Raises:
        Queued: other rehearsals of this source are under way, or it is not the time for it.
    """
    policy, source = move.policy, await move.source()
    if policy.rehearse == "off" or await move.facts.recall(REHEARSAL) is not None:
        return
    if policy.rehearsal_hours is not None and not policy.rehearsal_hours.has(move.clock.now()):
        raise Queued(f"rehearsals run from {policy.rehearsal_hours}; waiting for that time")
    places = policy.rehearsals_per_server
    await take(
        move.facts,
        rehearsal_slot(source),
        places,
        f"{places} rehearsal(s) of {source.name} under way",
    )


async def release_slot(move: Move) -> None:
    """Let the next migration rehearse."""
    await move.facts.release_slot(rehearsal_slot(await move.source()))


async def require_current(move: Move) -> None:
    """What is about to be stopped has the definitions that were rehearsed; else it is rehearsed again.

    Raises:
        Conflict: they change all the time.
        RehomeError: as `run`.
    """
    done, known = await move.facts.recall(REHEARSAL), await move.facts.recall(REHEARSED_DEFINITIONS)
    if done is None or known is None:
        return
    source, database, role = await move.source(), (await move.instance()).database, (await move.tenant()).user
    scope = replace(DEFINITIONS, jobs=move.policy.rehearsal_jobs)
    for _ in range(ROUNDS):
        now = await move.verifier.fingerprint(source, database, role, scope)
        if definitions_digest(now) == known:
            return
        log.info("rehearsal.outdated migration=%s database=%s", move.migration_id, database)
        known = (await rehearse(move, done.mode, done.database_bytes)).definitions
    raise Conflict(
        f"the definitions in {database} changed during each of {ROUNDS} rehearsals: a module is being installed or "
        "upgraded? The instance serves on, and the move waits"
    )


async def rehearse(move: Move, mode: Literal["full", "definitions"], size: int) -> _Rehearsed:
    """Rehearse now, and leave nothing behind.

    Raises:
        VerificationFailed: the copy differs, and did so again.
        RehomeError: as `dump` and `restore` say.
    """
    try:
        rehearsed = await _once(move, mode, size)
        for _ in range(1, LOOKS):
            if not rehearsed.differences:
                break
            log.info(
                "rehearsal.repeated migration=%s difference=%s", move.migration_id, rehearsed.differences[0]
            )
            rehearsed = await _once(move, mode, size)
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


async def clear(move: Move) -> tuple[str, ...]:
    """Remove what a rehearsal of this attempt left; returns what had to be left alone.

    A server that does not answer keeps nothing but its own part.

    Raises:
        RehomeError: the last of what went wrong, after everything was tried.
    """
    try:
        try:
            await move.databases.end_sessions(await move.source(), move.migration_id)
        finally:
            await move.copier.discard(move.rehearsal_id)
    finally:
        left = await _clear_target(move)
    return left


async def _clear_target(move: Move) -> tuple[str, ...]:
    target = await move.target()
    await move.databases.end_sessions(target, move.migration_id)
    try:
        await move.databases.drop(target, await move.scratch_name(), move.migration_id)
    except NotOurs as error:
        return (f"left alone on {target.name}: {error}",)
    return ()


async def _once(move: Move, mode: Literal["full", "definitions"], size: int) -> _Rehearsed:
    source, database, role = await move.source(), (await move.instance()).database, (await move.tenant()).user

    async def held(snapshot: str) -> _Rehearsed:
        scope = Scope(
            snapshot=snapshot, rows=mode == "full", positions=False, jobs=move.policy.rehearsal_jobs
        )
        return await _from_snapshot(move, mode, size, scope)

    await clear(move)
    return await move.verifier.with_snapshot(source, database, role, held)


async def _from_snapshot(
    move: Move, mode: Literal["full", "definitions"], size: int, scope: Scope
) -> _Rehearsed:
    source, target, scratch = await move.source(), await move.target(), await move.scratch_name()
    database, old, new = (await move.instance()).database, await move.tenant(), await move.new_tenant()
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
        together.create_task(move.copier.restore(target, scratch, backup, new.user, move.facts))
        reading = together.create_task(move.verifier.fingerprint(source, database, old.user, scope))
    restored = move.clock.now()
    before, there = reading.result(), replace(scope, snapshot=None)
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
        tuple(found),
    )


def _seconds(start: datetime, end: datetime) -> float:
    return round(max((end - start).total_seconds(), 0.0), 3)
