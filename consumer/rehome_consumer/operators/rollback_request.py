"""A rollback that an operator asks for: the one way that `rehome roll-back` and the console have."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from rehome_consumer.errors import Incompatible, TimedOut
from rehome_consumer.ports.engine import OutboxEvent, encode_for_outbox
from rehome_consumer.ports.operators import signed
from rehome_events.envelope import event_id, new_event
from rehome_events.migration import MigrationFailed, MigrationRejected

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.state.claims import PostgresClaims
    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.adapters.state.views import PostgresJournalViews
    from rehome_consumer.operators.rollback_plan import Order
    from rehome_consumer.ports.operators import ClaimHolder

TAKEN_UP_WITHIN = 10.0  # seconds in which a running consumer must notice the request
LOOK_EVERY = 0.2
ASK_TIMES = 3
"""How often a holder is asked to give its claim up before its session is ended; the claim is waited for each time."""
OPERATOR: Final = "Operator"
"""Stands for the class of an error in `migration.failed` where an operator asked for the rollback."""
CANCELLED: Final = "cancelled"
"""The reason in `migration.rejected` where an operator rolled back an upgrade before its first step was done."""


async def request(
    views: PostgresJournalViews,
    journal: PostgresJournal,
    claims: PostgresClaims,
    order: Order,
    *,
    reason: str,
    wait: float,
    by: str = "",
) -> None:
    """Commit the request with the instance's claim held.

    A current holder is asked to stop, which every consumer does that lives. If it does not, its session is ended, which
    stops everything that this consumer works on.

    Args:
        views: of the state database.
        journal: of the same.
        claims: of the same.
        order: what is to be undone.
        reason: why, for event and journal.
        by: who asked for it, for the journal.
        wait: seconds within which a running step must be stopped.

    Raises:
        TimedOut: other processes took the claim again and again.
        Incompatible: this login may not end the holder's session.
    """
    migration = order.migration
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait
    asked: Counter[int] = Counter()
    while True:
        holder = (await views.holders([migration.instance_id])).get(migration.instance_id)
        if holder is not None and asked[holder.pid] == ASK_TIMES:
            await _cut(views, holder)
        elif holder is not None:
            asked[holder.pid] += 1
            await views.revoke(migration.instance_id)
        async with claims.claim(migration.instance_id) as claim:
            if claim is not None:
                state = "rejected" if order.cancel else "failing"
                await journal.ask_roll_back(
                    migration, failed_event(order, reason), signed(by, reason), state=state
                )
                return
        if clock() > deadline:
            raise TimedOut(
                f"consumers took the claim on instance {migration.instance_id} again and again for {wait:g} s. "
                "Nothing was changed. Try again with a longer --wait, or stop the consumers"
            )


async def _cut(views: PostgresJournalViews, holder: ClaimHolder) -> None:
    try:
        await views.cut(holder)
    except Incompatible as error:
        raise Incompatible(
            f"the running step could not be stopped: {error}. Use the consumer's login, or stop the consumer "
            f"at {holder.address}"
        ) from None


def failed_event(order: Order, reason: str) -> OutboxEvent:
    """The event that starts the rollback, or that rejects an upgrade whose first step is not done."""
    migration = order.migration
    forward = [step for step in order.started if step != saga.ROLL_BACK.name]
    data: MigrationFailed | MigrationRejected = MigrationFailed(
        instance_id=migration.instance_id,
        step=forward[-1] if forward else saga.MIGRATION[0].name,
        error=OPERATOR,
        message=reason,
        tries=1,
        next="roll_back",
    )
    if order.cancel:
        data = MigrationRejected(
            instance_id=migration.instance_id,
            to_plan=order.view.to_plan,
            reason=CANCELLED,
            message=reason,
        )
    event = new_event(
        data,
        subject=migration.instance_id,
        id=event_id(migration.id, migration.attempt, data.TYPE),
        time=datetime.now(UTC),
        migrationid=migration.id,
        attempt=migration.attempt,
    )
    return encode_for_outbox(event)


async def is_taken_up(views: PostgresJournalViews, migration_id: UUID) -> bool:
    """Whether a running consumer has sent the event: then it also does the work."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + TAKEN_UP_WITHIN
    while True:
        sent = await views.is_sent(migration_id)
        if sent or clock() > deadline:
            return sent
        await asyncio.sleep(LOOK_EVERY)
