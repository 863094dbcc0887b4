"""What customers do in a schedule: save orders all the time, and upgrade once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from rehome_consumer.ports.engine import Message
from tests.support.events import body_of, upgrade

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule

WRITES: Final = 12
EAGER: Final = 20
"""Failed tries to save an order after which a customer tries less often."""


async def save_orders(schedule: Schedule, tenant: UUID) -> None:
    """Save orders; while the instance is down try again and again, to be the first when it is up."""
    random = schedule.random
    for number in range(WRITES):
        await schedule.loop.sleep(random.expovariate(0.25))
        tries = 0
        while not schedule.site.write(tenant, number):
            tries += 1
            await schedule.loop.sleep(random.expovariate(0.5 if tries < EAGER else 0.05))
        if schedule.trace is not None:
            schedule.log("customer", f"saved order {number} of {tenant}")


async def install_module(schedule: Schedule, index: int, at: float, restorable: bool) -> None:
    """Change definitions after so many seconds, unless the instance is being stopped; no restore may take them."""
    await schedule.loop.sleep(at)
    tenant = schedule.tenants[index]
    name = schedule.site.platform.instances[tenant]["database_name"]
    found = schedule.site.world.at(schedule.site.pool).databases.get(name)
    stops = {key: row for key, row in schedule.journal.steps.items() if row.step == "stop"}
    if found is None or found.closed or any(row.state in {"running", "waiting"} for row in stops.values()):
        return
    schedule.log("customer", f"installed a module in {name}")
    found.objects["index"] = {**found.objects["index"], "module_idx": "(name)"}
    if not restorable:
        found.unrestorable.append("functions in index expression must be marked IMMUTABLE")
        schedule.unmovable_since[tenant] = frozenset(key for key, row in stops.items() if row.state == "done")


async def upgrade_again(schedule: Schedule, index: int, at: float) -> None:
    """A second upgrade of a tenant, after so many seconds."""
    await schedule.loop.sleep(at)
    event = upgrade(schedule.tenants[index], id=UUID(int=0x100 + index, version=4))
    schedule.log("billing", f"plan.upgraded again {event.id}")
    schedule.upgrades.append(event)
    schedule.node.route("billing", event.type, Message.of_event(body_of(event)))
