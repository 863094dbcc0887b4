"""What a delivery says: its event, the migration it belongs to, and which replay it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import CloudEvent, decode
from rehome_events.errors import Undecodable

if TYPE_CHECKING:
    from rehome_consumer.ports.engine import Delivery
    from rehome_consumer.saga import Step

MIGRATIONS: Final = UUID("b7f5a1c2-6d0e-5b8a-9f43-2c1d7e8a9b04")
"""Namespace of migration ids: UUIDv5 of the id of the `plan.upgraded` that opened it."""


def event_for(step: Step, delivery: Delivery) -> CloudEvent[Any]:
    """Decode, and refuse what is not for this step.

    Raises:
        Undecodable: naming what is wrong.
    """
    message = delivery.message
    event = decode(message.body, message.content_type, message.headers)
    if event.type != step.on.TYPE:
        raise Undecodable(f"handler {step.name} takes {step.on.TYPE}, not {event.type}")
    if step.on is not PlanUpgraded and (event.migrationid is None or event.attempt is None):
        raise Undecodable(f"{event.type}: migrationid and attempt are missing")
    return event


def migration_id_of(event: CloudEvent[Any]) -> UUID | None:
    """The migration that an event belongs to; of a `plan.upgraded`, the one that it opens."""
    if event.type == PlanUpgraded.TYPE:
        return opened_by(event.replayof or event.id)
    return event.migrationid


def opened_by(upgrade_id: UUID) -> UUID:
    """The migration that a `plan.upgraded` of this id opens."""
    return uuid5(MIGRATIONS, str(upgrade_id))


def replay_of(event: CloudEvent[Any]) -> UUID | None:
    """The id by which a replay is known (each has its own); None when the event is none."""
    return event.id if event.replayof is not None else None
