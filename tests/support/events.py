"""Events as billing and the engine make them, with defaults for what a test does not set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from rehome_consumer.engine.inbound import migration_id_of
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import CloudEvent, encode, event_id, new_event
from rehome_events.migration import MigrationFailed, MigrationRejected
from rehome_events.parts import Entitlements

if TYPE_CHECKING:
    from rehome_events.data import EventData

AT = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
CUSTOMER = UUID(int=7, version=4)
GRANTED = Entitlements(cpu_limit=4.0, memory_limit="8G", storage_limit="50G", db_type="dedicated")


def upgrade(instance_id: UUID, *, id: UUID | None = None, **fields: Any) -> CloudEvent[PlanUpgraded]:  # noqa: A002 - the attribute's name in CloudEvents
    """A `plan.upgraded` that asks for a dedicated database."""
    data = {
        "customer_id": CUSTOMER,
        "subscription_id": UUID(int=8, version=4),
        "from_plan": "standard-monthly",
        "to_plan": "premium-monthly",
        "plan_tier": "premium",
        "entitlements": GRANTED,
        **fields,
    }
    return new_event(
        PlanUpgraded(instance_id=instance_id, **data), subject=instance_id, id=id or uuid4(), time=AT
    )


def replay_of(event: CloudEvent[Any]) -> CloudEvent[Any]:
    """As an operator's replay makes it: a new id, and whose replay it is."""
    return event.model_copy(update={"id": uuid4(), "replayof": event.replayof or event.id})


def migration_of(event: CloudEvent[Any]) -> UUID:
    """The id of the migration that an event belongs to."""
    found = migration_id_of(event)
    assert found
    return found


def emitted(data: EventData, migration_id: UUID, attempt: int = 1) -> CloudEvent[Any]:
    """An event of a migration, with the id that the engine gives it."""
    return new_event(
        data,
        subject=data.instance_id,
        id=event_id(migration_id, attempt, data.TYPE),
        time=AT,
        migrationid=migration_id,
        attempt=attempt,
    )


def rejected(instance_id: UUID, message: str = "The instance is terminated.") -> MigrationRejected:
    return MigrationRejected(
        instance_id=instance_id, to_plan="premium-monthly", reason="terminated", message=message
    )


def failed(instance_id: UUID, step: str = "restore") -> MigrationFailed:
    return MigrationFailed(
        instance_id=instance_id, step=step, error="Refused", message="no", tries=1, next="roll_back"
    )


def body_of(event: CloudEvent[Any]) -> bytes:
    return encode(event)
