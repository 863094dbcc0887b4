"""First step: `plan.upgraded` comes in; decide whether the database moves.

Where the data really lives decides, never `instances.db_type`: billing may have written the new plan
into the record before the event arrives (source: the platform's behaviour in the field).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from rehome_consumer.errors import Conflict
from rehome_consumer.facts import LIMITS, NOT_BEFORE, PLAN_TIER, SOURCE
from rehome_consumer.model import LARGEST_CPU, LONGEST_LIMIT, LONGEST_TIER, TERMINATED, NothingToDo
from rehome_consumer.steps.support import resize
from rehome_events.migration import InstanceResized, MigrationRejected, MigrationRequested
from rehome_events.parts import Entitlements, Limits

if TYPE_CHECKING:
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation

BUSY = frozenset({"starting", "stopping", "restarting", "updating", "maintenance"})
"""Statuses in which another process is at work on the instance: the upgrade waits."""

Rejection = Literal[
    "unknown_instance", "other_customer", "terminated", "never_provisioned", "unknown_plan", "limits", "move_to_shared"
]  # fmt: skip
"""Why an upgrade is rejected, as `migration.rejected` says it; docs/runbook.md explains each."""


async def run(move: Move) -> MigrationRequested | InstanceResized | MigrationRejected | NothingToDo:
    """Reject, resize, open a migration, or find nothing to do."""
    upgrade = move.data
    instance = await move.platform.instance(upgrade.instance_id)
    if instance is None:
        return _rejected(
            move, "unknown_instance", f"no instance {upgrade.instance_id} in the platform's records"
        )
    found = await _home_and_grant(move, instance)
    if isinstance(found, MigrationRejected):
        return found
    home, granted = found
    if instance.status in BUSY:
        raise Conflict(
            f"instance {instance.id} is in status {instance.status}: another process is at work on it; "
            "the upgrade waits for its end (set the status to running or stopped if there is none)"
        )
    limits = Limits(**granted.model_dump(exclude={"db_type"}))
    await move.facts.remember(SOURCE, home.id)
    await move.facts.remember(LIMITS, limits)
    await move.facts.remember(PLAN_TIER, upgrade.plan_tier)
    if upgrade.not_before is not None:
        await move.facts.remember(NOT_BEFORE, upgrade.not_before)
    if home.kind == "shared" and granted.db_type == "dedicated":
        return await _requested(move, instance, home, limits)
    if home.kind == "dedicated" and await resize.is_applied(move, instance, limits):
        return NothingToDo(
            f"the database is on the dedicated server {home.name} already, and the limits are applied"
        )
    return await resize.run(move, instance, limits)


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    return (
        f"would decide about the upgrade again; the data is on {now.home or 'no known server'} now",
        now.source_line(),
    )


async def _home_and_grant(move: Move, instance: Instance) -> tuple[Server, Entitlements] | MigrationRejected:
    """Where the data lives and what the plan grants, or why nothing can be done."""
    if instance.customer_id != move.data.customer_id:
        return _rejected(move, "other_customer", f"instance {instance.id} belongs to another customer")
    if instance.status == TERMINATED:
        return _rejected(move, "terminated", f"instance {instance.id} is terminated")
    if instance.status == "creating":
        return _rejected(move, "never_provisioned", f"instance {instance.id} is still being created")
    home = await move.platform.home(instance)
    if home is None:
        why = f"instance {instance.id} has no database server in its record"
        return _rejected(move, "never_provisioned", why)
    granted = await _entitlements(move)
    if granted is None:
        why = f"no entitlements in the event, and no plan {move.data.to_plan} in force"
        return _rejected(move, "unknown_plan", why)
    if unstorable := _unstorable(granted, move.data.plan_tier):
        return _rejected(move, "limits", unstorable)
    if home.kind == "dedicated" and granted.db_type == "shared":
        why = "the plan grants a shared database: a move back is not made"
        return _rejected(move, "move_to_shared", why)
    return home, granted


async def _entitlements(move: Move) -> Entitlements | None:
    """What the event grants; what it leaves open is filled from the plan in force. None: neither knows."""
    given = move.data.entitlements or Entitlements()
    if None not in given.model_dump().values():
        return given
    plan = await move.platform.entitlements(move.data.to_plan)
    merged = Entitlements(
        **{**(plan.model_dump() if plan else {}), **given.model_dump(exclude_none=True)},
    )
    return merged if merged.db_type is not None else None


def _unstorable(granted: Entitlements, tier: str) -> str | None:
    """Why the platform's record could not hold these, found before anything is stopped; None: it can."""
    if granted.cpu_limit is not None and Decimal(str(granted.cpu_limit)) > LARGEST_CPU:
        return f"the record holds at most {LARGEST_CPU} cores, the plan grants {granted.cpu_limit:g}"
    for name, text, longest in (
        ("memory_limit", granted.memory_limit, LONGEST_LIMIT),
        ("storage_limit", granted.storage_limit, LONGEST_LIMIT),
        ("plan_tier", tier, LONGEST_TIER),
    ):
        if text is not None and len(text) > longest:
            return f"the record holds a {name} of at most {longest} characters, not {text!r}"
    return None


async def _requested(move: Move, instance: Instance, home: Server, limits: Limits) -> MigrationRequested:
    size = await move.databases.database_size(home, instance.database)
    return MigrationRequested(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        from_plan=move.data.from_plan,
        to_plan=move.data.to_plan,
        plan_tier=move.data.plan_tier,
        source=home.ref,
        target_kind="dedicated",
        strategy="cold",
        database=instance.database,
        database_bytes=size,
        limits=limits,
    )


def _rejected(move: Move, reason: Rejection, message: str) -> MigrationRejected:
    return MigrationRejected(
        instance_id=move.data.instance_id, to_plan=move.data.to_plan, reason=reason, message=message
    )
