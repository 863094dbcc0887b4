"""Replay and discard one dead letter: the one way that `rehome dead` and the console have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from rehome_consumer.doctor import forecast
from rehome_consumer.engine import replay
from rehome_consumer.ports.operators import DISCARDED, REPLAYED, signed
from rehome_consumer.rabbitmq.topology import HANDLER

if TYPE_CHECKING:
    from rehome_consumer.engine.dead_letter import DeadLetter
    from rehome_consumer.operators.dead_letter_session import Copies, DeadLetterSession


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did, or would do.

    Attributes:
        handler: to which it goes.
        refused: it is not done, for the reason in `what`.
        in_detail: real names, where they were looked at.
    """

    id: str
    handler: str
    replayed: bool
    refused: bool
    what: str
    in_detail: list[str]


def event_in(dead_letter: DeadLetter, *, shown: int) -> object:
    """The event as JSON if it can be parsed, else the first `shown` bytes of the body as text."""
    try:
        return orjson.loads(dead_letter.message.body)
    except orjson.JSONDecodeError:
        return dead_letter.message.body[:shown].decode(errors="replace")


async def replay_one(
    session: DeadLetterSession,
    dead_letter: DeadLetter,
    copies: Copies,
    *,
    dry_run: bool,
    forward: bool = False,
    by: str = "",
    why: str = "",
) -> Replayed:
    """Replay one dead letter, or with `dry_run` only say what that would do.

    Args:
        session: that holds it.
        dead_letter: which.
        copies: its copies.
        dry_run: change nothing.
        forward: continue the move instead of its rollback.
        by: who asked for it, for the journal.
        why: for the journal, where a reason was given.
    """
    case, snapshot = await session.case(dead_letter, observe=dry_run or forward)
    planned = (
        replay.forward(dead_letter, case, await session.step_event(case))
        if forward
        else replay.plan(dead_letter, case)
    )
    if planned.message is not None and not dry_run:
        if case.migration is not None:
            what = f"{dead_letter.type} to {planned.handler}: {dead_letter.reason}, {dead_letter.error}"
            await session.views.add_to_history(case.migration.id, REPLAYED, signed(by, why, what))
        await session.broker.publish(HANDLER, planned.handler, planned.message, mandatory=True)
        # After the confirm: a tool that dies in between leaves the dead letter, and its second replay is recognized.
        await copies.ack()
    return Replayed(
        id=dead_letter.id,
        handler=planned.handler,
        replayed=planned.message is not None and not dry_run,
        refused=planned.message is None,
        what=planned.what,
        in_detail=forecast.in_detail(planned.handler, snapshot, case.started)
        if planned.message and dry_run
        else [],
    )


async def discard_one(
    session: DeadLetterSession, dead_letter: DeadLetter, copies: Copies, why: str, *, by: str = ""
) -> str | None:
    """Remove a dead letter; the journal keeps a copy. Returns what happens to a migration that is not over.

    Args:
        session: that holds it.
        dead_letter: which.
        copies: its copies.
        why: for the journal.
        by: who asked for it, for the journal.
    """
    why = signed(by, why)
    new = await session.views.discard(
        message_id=dead_letter.id,
        handler=dead_letter.handler,
        type_=dead_letter.type,
        instance=dead_letter.instance,
        migration_id=dead_letter.migration_id,
        reason=dead_letter.reason,
        error=dead_letter.error,
        why=why,
        body=dead_letter.message.body,
    )
    if new and dead_letter.migration_id is not None:
        line = signed("", why, f"{dead_letter.type} of {dead_letter.handler}")
        await session.views.add_to_history(dead_letter.migration_id, DISCARDED, line)
    await copies.ack()  # after the journal has it: a tool that dies in between leaves the dead letter
    row = await session.journal.migration(dead_letter.migration_id) if dead_letter.migration_id else None
    if row is None or row.ended or row.state == "failing":
        return None
    return (
        f"migration {row.id} is still open, state {row.state}; without another delivery it goes no further: "
        f"rehome status {row.instance_id}, rehome roll-back {row.id}"
    )
