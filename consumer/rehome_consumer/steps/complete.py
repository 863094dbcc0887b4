"""Last step: proof that the instance uses the dedicated server and nothing uses the old one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rehome_consumer.errors import Conflict, Transient
from rehome_consumer.facts import (
    BACKUP_BYTES,
    CONNECTIONS_CHECKED,
    HEALTHY_AT,
    LENT_LEFT,
    PLAN_TIER,
    REHEARSAL,
    REPLICAS,
    SOURCE_RETAINED_UNTIL,
    STOPPED_AT,
    VERIFIED,
)
from rehome_consumer.model import TERMINATED
from rehome_consumer.steps import back_up
from rehome_consumer.steps.support import leaving, warm
from rehome_consumer.steps.support.fences import require_fence
from rehome_consumer.steps.support.situation import UNKNOWN
from rehome_events.migration import MigrationCompleted

if TYPE_CHECKING:
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation

log = logging.getLogger(__name__)


async def run(move: Move) -> MigrationCompleted:
    """Count connections to both servers, clean up, write the final status, sum up."""
    instance = await move.instance()
    source = await move.source()
    target = await move.target()
    replicas = await move.facts.recall(REPLICAS) or 0
    if not await move.facts.recall(CONNECTIONS_CHECKED):
        await _check_connections(move)
        await move.facts.remember(CONNECTIONS_CHECKED, value=True)
    strategy = await warm.strategy_now(move)
    if strategy == "warm":  # the customer did not wait for it
        await require_fence(move)
        for left in await leaving.lent_identities(move, source):
            log.warning("complete.left migration=%s why=%s", move.migration_id, left)
            await move.facts.remember(LENT_LEFT, left)
        await back_up.made(move)
        await move.copier.discard(move.rehearsal_id)
    await move.filestore.archive(instance, move.backup_id)
    if not replicas:  # the customer had it stopped before the move; it was up only to prove the new database
        await move.runtime.stop(instance)
    await move.odoo_conf.remove_backup(instance, move.tag)
    if (await move.instance_now()).status != TERMINATED:  # the customer may have left meanwhile
        await move.platform.set_status(instance.id, "running" if replicas else "stopped")
    size = await move.databases.database_size(target, instance.database)
    stopped_at = await move.recorded(STOPPED_AT)
    healthy_at = await move.recorded(HEALTHY_AT)
    retained = await move.facts.remember(SOURCE_RETAINED_UNTIL, move.clock.now() + move.policy.retention)
    return MigrationCompleted(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        plan_tier=await move.recorded(PLAN_TIER),
        source=source.ref,
        target=target.ref,
        strategy=strategy,
        downtime_seconds=(healthy_at - stopped_at).total_seconds(),
        seconds=dict(await move.facts.seconds_per_step()),
        database_bytes=size,
        backup_bytes=await move.facts.recall(BACKUP_BYTES) or 0,
        verification_digest=(await move.recorded(VERIFIED)).digest,
        rehearsal=await move.facts.recall(REHEARSAL),
        source_retained_until=retained,
    )


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    sessions = now.target_database.sessions if now.target_database else UNKNOWN
    return (
        f"would count connections ({sessions} on {now.target_name} now), and write the final status",
        now.source_line(),
    )


async def _check_connections(move: Move) -> None:
    """None to the source, at least one to the dedicated server.

    Raises:
        Conflict: someone passed the fence of the old database.
        Transient: the instance has not connected to the new one yet.
    """
    instance, source, target = await move.instance(), await move.source(), await move.target()
    old_role = (await move.tenant()).user
    on_source = await move.databases.connections(source, instance.database, old_role)
    if on_source:
        raise Conflict(
            f"{on_source} connection(s) to {instance.database} on {source.name}, which is fenced: "
            "see pg_stat_activity there for whose"
        )
    new_role = (await move.new_tenant()).user
    if not await move.databases.connections(target, instance.database, new_role):
        raise Transient(
            f"the instance answers, but has no connection to {instance.database} on {target.name} yet"
        )
