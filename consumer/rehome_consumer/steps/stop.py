"""Third step: nobody but the administrator reaches the instance's database; the instance is going away meanwhile.

What is fenced takes no writes, whatever still runs: so the wait for the end of the instance's tasks is not here. It is
in `restore`, before anybody may write to the copy.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from rehome_consumer.errors import Queued, TimedOut
from rehome_consumer.facts import FENCE, PLATFORM_RECORD, REPLICAS, RESTARTED_AT, SPEC, STOPPED_AT
from rehome_consumer.model import TERMINATED
from rehome_consumer.steps.support import leaving, pacing, rehearsal, warm
from rehome_consumer.steps.support.identity import require_alone
from rehome_consumer.steps.support.situation import UNKNOWN
from rehome_consumer.steps.support.slots import DOWN, Slot, dump_slot, take
from rehome_events.migration import MigrationStopped

if TYPE_CHECKING:
    from rehome_consumer.model import Server
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation


async def run(move: Move) -> MigrationStopped:
    """Remember everything a rollback needs, ask the instance to end, and fence meanwhile. Downtime begins here.

    Raises:
        Queued: operators have paused all moves, the maintenance window is closed, or enough other instances are down,
            for a dump of this server or altogether; this one serves meanwhile.
    """
    instance = await move.active_instance()
    source = await move.source()
    serves = await move.facts.recall(FENCE) is None  # nothing is stopped yet
    if serves:
        with leaving.waiting_for_tables():
            await warm.require_close(move)
        await _require_allowed(move, source)
    with nullcontext() if serves else suppress(Queued):  # one that is down already waits for nobody
        await _take_slots(move, source, waits=serves)
    if serves:
        with leaving.waiting_for_tables():
            await rehearsal.require_current(move)
            await warm.require_all_know_it(move)
            await warm.require_close(move)
        await _require_allowed(move, source)  # it may have been rehearsed again, for hours
    role = (await move.tenant()).user
    service = await move.runtime.find(instance)
    replicas = await move.facts.remember(REPLICAS, service.replicas)
    await move.facts.remember(SPEC, service.spec)
    await move.facts.remember(PLATFORM_RECORD, await move.platform.record(instance.id))
    before = await move.facts.remember(
        FENCE, await move.databases.fence_state(source, instance.database, role)
    )
    stopped_at = await move.facts.remember(STOPPED_AT, move.clock.now())
    await move.platform.set_status(instance.id, "maintenance")
    await move.runtime.begin_stop(instance)
    await move.databases.end_sessions(source, move.migration_id)
    policy = move.policy
    await move.databases.fence(source, instance.database, role, policy.fence_limit, policy.transaction_limit)
    # What the role made elsewhere until now could act for it; from here on it makes nothing more.
    require_alone(instance.database, await move.databases.role_facts(source, role, instance.database), source)
    await move.databases.database_facts(source, instance.database, role)  # nor anything that cannot be moved
    return MigrationStopped(
        instance_id=instance.id,
        replicas=replicas,
        stopped_at=stopped_at,
        fenced_at=move.clock.now(),
        connections_ended=before.ended,
    )


async def _take_slots(move: Move, source: Server, *, waits: bool) -> None:
    """Both together: who waits for one of them keeps nobody waiting for the other.

    Raises Queued.
    """
    policy = move.policy
    places, most = policy.dumps_per_server, policy.down_at_once
    slots = [Slot(dump_slot(source), places, f"{places} dump(s) of {source.name} at a time")]
    if most is not None:
        slots.append(Slot(DOWN, most, f"{most} instance(s) down for a move at a time (REHOME_DOWN_AT_ONCE)"))
    await take(move.facts, *slots, waits=waits)


async def _require_allowed(move: Move, source: Server) -> None:
    """Nobody says that the instance must not be stopped now; one that waits for that keeps no slot from others."""
    try:
        await pacing.require_unpaused(move)
        await pacing.require_window(move)
    except Queued:
        await move.facts.release_slots((dump_slot(source), DOWN))
        raise


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    return (f"would ask service {now.service} to end and fence the source", now.source_line())


async def undo(move: Move) -> tuple[str, ...]:
    """Unfence the source and start the instance on it again, as many replicas as before.

    Runs last of all undos but prepare's: by now nothing of the tenant is writable on the dedicated server. Tasks from
    before the move are waited for; one that does not end does not keep the customer down, since it knows no other
    database than this one.
    """
    before = await move.facts.recall(FENCE)
    if before is None:
        return ()
    instance = await move.instance()
    source = await move.source()
    role = (await move.tenant()).user
    await move.databases.end_sessions(source, move.migration_id)  # a lost run of `run` may still work on it
    await move.databases.unfence(source, instance.database, role, before)
    record = await move.facts.recall(PLATFORM_RECORD)
    replicas = await move.facts.recall(REPLICAS) or 0
    if instance.status == TERMINATED:  # the customer has left: nobody starts it again
        replicas, record = 0, {**record, "status": TERMINATED} if record else None
    if replicas:
        # Once something was restarted, what runs is what an earlier run started.
        if await move.facts.recall(RESTARTED_AT) is None:
            with suppress(TimedOut):
                await move.runtime.stop(instance)
        healthy = await move.runtime.start(instance, replicas, None, beside=True)
        await move.facts.remember(RESTARTED_AT, healthy.at)
    if record:
        await move.platform.restore_record(instance.id, record)
    return ()


def describe_undo(now: Situation) -> str:
    """What undoing it would do."""
    if FENCE not in now.facts:
        return "nothing: the source was not fenced"
    name, role = (
        (now.source_database.name, now.source_database.role) if now.source_database else (UNKNOWN, UNKNOWN)
    )
    replicas = now.facts.get(REPLICAS) or 0
    start = f"start service {now.service} with {replicas} replica(s)" if replicas else "leave it stopped"
    return f"let {role} connect to {name} on {now.source_name} again; {start}"
