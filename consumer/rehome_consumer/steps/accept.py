"""First step: `plan.upgraded` comes in; decide whether the database moves.

Where the data really lives decides, never `instances.db_type`: billing may have written the new plan
into the record before the event reached us (source: the platform's behaviour in the field).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from rehome_consumer.errors import Conflict
from rehome_consumer.model import LARGEST_CPU, LONGEST_LIMIT, LONGEST_TIER, NothingToDo
from rehome_consumer.steps.support import resize
from rehome_consumer.steps.support.common import Event, noted_limits
from rehome_events.migration import InstanceResized, MigrationRejected, MigrationRequested
from rehome_events.parts import Entitlements, Limits

if TYPE_CHECKING:
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.steps import Ports

BUSY = frozenset({"starting", "stopping", "restarting", "updating", "maintenance"})
"""Statuses in which somebody else is at work on the instance: wait for them."""


async def run(
    event: Event, ports: Ports
) -> MigrationRequested | InstanceResized | MigrationRejected | NothingToDo:
    """Reject, resize, open a migration, or find nothing to do."""
    upgrade = event.data
    instance = await ports.platform.instance(upgrade.instance_id)
    if instance is None:
        return _rejected(
            event, "unknown_instance", f"no instance {upgrade.instance_id} in the platform's records"
        )
    found = await _home_and_grant(event, ports, instance)
    if isinstance(found, MigrationRejected):
        return found
    home, granted = found
    if instance.status in BUSY:
        raise Conflict(
            f"instance {instance.id} is in status {instance.status}: somebody else is at work on it; "
            "the upgrade waits for them (set the status to running or stopped if nobody is)"
        )
    limits = Limits(**granted.model_dump(exclude={"db_type"}))
    await ports.facts.remember("source", str(home.id))
    await ports.facts.remember("limits", noted_limits(limits))
    await ports.facts.remember("plan_tier", upgrade.plan_tier)
    if home.kind == "shared" and granted.db_type == "dedicated":
        return await _requested(event, ports, instance, home, limits)
    if home.kind == "dedicated" and await resize.is_applied(ports, instance, limits, upgrade.plan_tier):
        return NothingToDo(
            f"the database is on the dedicated server {home.name} already, and the limits are applied"
        )
    return await resize.run(event, ports, instance, limits)


async def _home_and_grant(
    event: Event, ports: Ports, instance: Instance
) -> tuple[Server, Entitlements] | MigrationRejected:
    """Where the data lives and what the plan grants, or why nothing can be done."""
    if instance.customer_id != event.data.customer_id:
        return _rejected(event, "other_customer", f"instance {instance.id} belongs to another customer")
    if instance.status == "terminated":
        return _rejected(event, "terminated", f"instance {instance.id} is terminated")
    if instance.status == "creating":
        return _rejected(event, "never_provisioned", f"instance {instance.id} is still being created")
    home = await ports.platform.home(instance)
    if home is None:
        why = f"instance {instance.id} has no database server in its record"
        return _rejected(event, "never_provisioned", why)
    granted = await _entitlements(event, ports)
    if granted is None:
        why = f"no entitlements in the event, and no plan {event.data.to_plan} in force"
        return _rejected(event, "unknown_plan", why)
    if unstorable := _unstorable(granted, event.data.plan_tier):
        return _rejected(event, "limits", unstorable)
    if home.kind == "dedicated" and granted.db_type == "shared":
        why = "the plan grants a shared database: a move back is not made"
        return _rejected(event, "move_to_shared", why)
    return home, granted


async def _entitlements(event: Event, ports: Ports) -> Entitlements | None:
    """What the event grants; what it leaves open is filled from the plan in force. None: neither knows."""
    given = event.data.entitlements or Entitlements()
    if None not in given.model_dump().values():
        return given
    plan = await ports.platform.entitlements(event.data.to_plan)
    merged = Entitlements(
        **{**(plan.model_dump() if plan else {}), **given.model_dump(exclude_none=True)},
    )
    return merged if merged.db_type is not None else None


def _unstorable(granted: Entitlements, tier: str) -> str | None:
    """Why the platform's record could not hold these, found out before anything is stopped; None: it can."""
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


async def _requested(
    event: Event, ports: Ports, instance: Instance, home: Server, limits: Limits
) -> MigrationRequested:
    size = await ports.databases.database_size(home, instance.database)
    return MigrationRequested(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        from_plan=event.data.from_plan,
        to_plan=event.data.to_plan,
        plan_tier=event.data.plan_tier,
        source=home.ref,
        target_kind="dedicated",
        strategy="cold",
        database=instance.database,
        database_bytes=size,
        limits=limits,
    )


def _rejected(event: Event, reason: str, message: str) -> MigrationRejected:
    return MigrationRejected(
        instance_id=event.data.instance_id, to_plan=event.data.to_plan, reason=reason, message=message
    )
