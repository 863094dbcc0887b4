"""A delivery, read once: its body and headers are not looked at afterwards."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from rehome_consumer.engine import headers
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import CloudEvent, decode
from rehome_events.errors import Undecodable, UnknownVersion
from rehome_events.wire import attributes

if TYPE_CHECKING:
    from rehome_consumer.ports.engine import Delivery
    from rehome_consumer.saga import Step

log = logging.getLogger(__name__)

MIGRATIONS: Final = UUID("b7f5a1c2-6d0e-5b8a-9f43-2c1d7e8a9b04")
"""Namespace of migration ids: UUIDv5 of the id of the `plan.upgraded` that opened it."""
MAX_ATTEMPT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Inbound:
    """A delivery to a step. How often the step was tried is in the journal, not here.

    Attributes:
        step: the handler whose queue it came from.
        delivery: the message, to be copied and acknowledged.
        message_id: the id by which its dead letter is known; empty when it has none.
        deferrals: times that it came back, without a try, while others were at work.
        early_returns: times that it came back because it was too early, or met a defect.
        is_last: the broker makes it a dead letter if its consumer dies once more.
        event: what it says; None when this release cannot read it.
        unreadable: why it cannot be read.
        newer: it cannot be read because it is in a version of a newer release.
        migration_id: the migration that it belongs to, or opens; None when it does not say.
        attempt: of that migration; None is the present one.
        replay: the id of the replay that it is; None when it is none.
    """

    step: Step
    delivery: Delivery
    message_id: str
    deferrals: int
    early_returns: int
    is_last: bool
    event: CloudEvent[Any] | None = None
    unreadable: str = ""
    newer: bool = False
    migration_id: UUID | None = None
    attempt: int | None = None
    replay: UUID | None = None

    @property
    def opens(self) -> bool:
        """Whether it may open a migration."""
        return self.step.on is PlanUpgraded

    @property
    def instance(self) -> str | None:
        """The instance that it is about, for log lines."""
        return self.event.subject if self.event else None


def read(step: Step, delivery: Delivery) -> Inbound:
    """Read a delivery; never fails, whatever is in it."""
    inbound = Inbound(
        step=step,
        delivery=delivery,
        message_id=delivery.message.message_id or "",
        deferrals=headers.count(delivery, headers.DEFERRALS),
        early_returns=headers.count(delivery, headers.EARLY_RETURNS),
        is_last=headers.is_last(delivery),
    )
    try:
        inbound = _with_event(inbound, event_for(step, delivery))
    except UnknownVersion as error:
        inbound = _with_attributes(replace(inbound, unreadable=str(error), newer=True))
    except Undecodable as error:
        inbound = replace(inbound, unreadable=str(error))
    except Exception as error:
        # A defect of rehome: it must not end the process, nor the next one, with all that they have in hand.
        log.exception("delivery.defect step=%s id=%s", step.name, inbound.message_id)
        inbound = replace(inbound, unreadable=f"rehome failed to read it: {type(error).__name__}")
    return inbound


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
    opens = event.type == PlanUpgraded.TYPE
    return opened_by(event.replayof or event.id) if opens else event.migrationid


def opened_by(upgrade_id: UUID) -> UUID:
    """The migration that a `plan.upgraded` of this id opens."""
    return uuid5(MIGRATIONS, str(upgrade_id))


def _with_event(inbound: Inbound, event: CloudEvent[Any]) -> Inbound:
    return replace(
        inbound,
        event=event,
        message_id=inbound.message_id or str(event.id),
        migration_id=migration_id_of(event),
        attempt=event.attempt,
        replay=event.id if event.replayof is not None else None,
    )


def _with_attributes(inbound: Inbound) -> Inbound:
    """With the migration and attempt of an event that cannot be read, where it says enough.

    None of a replay: an operator wants its step run again.
    """
    message = inbound.delivery.message
    found = attributes(message.body, message.content_type, message.headers)
    try:
        if inbound.opens:
            migration_id, attempt = opened_by(UUID(str(found.get("id")))), 1
        else:
            migration_id, attempt = UUID(str(found.get("migrationid"))), int(str(found.get("attempt")))
    except ValueError:
        return inbound
    says_enough = attempt <= MAX_ATTEMPT and found.get("replayof") is None
    return replace(inbound, migration_id=migration_id, attempt=attempt) if says_enough else inbound
