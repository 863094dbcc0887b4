"""Events in a version that this release does not know: a newer one told them, and this one reads on meanwhile.

They are no rubbish. Mostly the same event came in a known version too; else a newer consumer, which reads the
same queues, can do something with it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from uuid import UUID

from rehome_consumer.engine import headers
from rehome_consumer.engine.inbound import opened_by
from rehome_events.billing import PlanUpgraded
from rehome_events.wire import attributes

if TYPE_CHECKING:
    from rehome_consumer.engine.republish import Republisher
    from rehome_consumer.ports.engine import Delivery, Journal
    from rehome_consumer.saga import Step

log = logging.getLogger(__name__)

MAX_ATTEMPT: Final = 2**31 - 1


async def newer(step: Step, delivery: Delivery, journal: Journal, post: Republisher, why: str) -> None:
    """Acknowledge it if its step is done; else let it come back, and in the end be a dead letter.

    Raises:
        RehomeError: neither the journal nor the broker could take what follows; it is unacknowledged.
    """
    key = _key(step, delivery)
    row = await journal.step(*key, step.name) if key else None
    if row is not None and row.state == "done":
        log.info("delivery.done step=%s migration=%s why=%s", step.name, row.migration_id, why)
        await delivery.ack()
        return
    log.warning("delivery.newer step=%s why=%s", step.name, why)
    if key and post.gives_up(delivery):
        await journal.dead_lettered(*key, step.name, delivery.message.message_id or "", headers.GAVE_UP)
    await post.early(step, delivery, why)


def _key(step: Step, delivery: Delivery) -> tuple[UUID, int] | None:
    """Migration and attempt of the step that the event would wake; None where it does not say enough."""
    told = attributes(delivery.message.body, delivery.message.content_type, delivery.message.headers)
    if told.get("replayof") is not None:
        return None  # an operator wants it done once more
    try:
        if step.on is PlanUpgraded:
            migration_id, attempt = opened_by(UUID(str(told.get("id")))), 1
        else:
            migration_id, attempt = UUID(str(told.get("migrationid"))), int(str(told.get("attempt")))
    except ValueError:
        return None
    return (migration_id, attempt) if attempt <= MAX_ATTEMPT else None
