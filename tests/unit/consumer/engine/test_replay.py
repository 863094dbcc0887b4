"""A dead letter: read as far as it can be read, and replayed only where that is safe."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer import saga
from rehome_consumer.engine import headers
from rehome_consumer.engine.dead_letter import DeadLetter, read_dead_letter
from rehome_consumer.engine.replay import Case, forward, plan
from rehome_consumer.errors import Refused
from rehome_consumer.ports.engine import ENDED, Message, MigrationRow
from rehome_consumer.rabbitmq.topology import DEAD, HANDLER
from rehome_events.envelope import decode, encode
from tests.support.events import emitted, failed
from tests.support.events import upgrade as upgraded
from tests.support.rig import Rig

if TYPE_CHECKING:
    from tests.fakes.broker import FakeDelivery

INSTANCE, MIGRATION = uuid4(), uuid4()
TRIGGER = upgraded(INSTANCE)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_row(state: str = "failed", **columns: Any) -> MigrationRow:
    over = NOW if state in ENDED else None
    trigger = encode(TRIGGER)
    row = MigrationRow(MIGRATION, INSTANCE, 1, state, False, None, NOW, NOW, over, trigger=trigger, token=0)
    return replace(row, **columns)


def a_dead_letter(handler: str = "roll_back", *, attempt: int = 1, **fields: Any) -> DeadLetter:
    """A dead letter of a step (of the rollback, whose event is easily made)."""
    event = emitted(failed(INSTANCE), MIGRATION, attempt)
    dead_letter = DeadLetter(
        id=str(event.id),
        handler=handler,
        type=event.type,
        reason="failed",
        error="no",
        failed_at=NOW,
        tries=1,
        event=event,
        trouble=None,
        instance=str(INSTANCE),
        message=Message.of_event(encode(event)),
    )
    return replace(dead_letter, **fields)


async def dead_after(rig: Rig, step: str) -> FakeDelivery:
    """Let a step be refused, and everything that follows happen; returns its dead letter."""
    rig.upgraded()
    rig.fail(f"{step}.platform.instance.before", Refused("no such thing"))
    await rig.run()
    delivery = rig.node.get(DEAD)
    assert delivery
    return delivery


async def case_of(rig: Rig, dead_letter: DeadLetter) -> Case:
    """What the journal says of its migration."""
    assert dead_letter.migration_id
    row = await rig.journal.migration(dead_letter.migration_id)
    assert row
    steps = [one for key, one in rig.journal.steps.items() if key[:2] == (row.id, row.attempt)]
    return Case(row, frozenset(one.step for one in steps if one.state == "done"))


def send(rig: Rig, dead_letter: DeadLetter, case: Case) -> None:
    """As `rehome dead replay` does."""
    planned = plan(dead_letter, case)
    assert planned.message
    rig.node.publish(HANDLER, planned.handler, planned.message, mandatory=True)


async def test_a_dead_letter_says_which_step_gave_up_why_when_and_after_how_many_tries() -> None:
    dead_letter = read_dead_letter(await dead_after(Rig(), "prepare"), 0)
    assert (dead_letter.handler, dead_letter.reason, dead_letter.error, dead_letter.tries) == (
        "prepare", "failed", "no such thing", 1,
    )  # fmt: skip
    assert dead_letter.event
    assert (dead_letter.id, dead_letter.type) == (str(dead_letter.event.id), "migration.requested")
    assert dead_letter.failed_at is not None
    assert dead_letter.migration_id == dead_letter.event.migrationid


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b'"text"',
        b'{"subject": 7}',
        b'{"subject": "' + b"x" * 100 + b'"}',
        b"null",
    ],
)
def test_a_dead_letter_can_be_read_whatever_is_in_it(body: bytes) -> None:
    rig = Rig()
    given = {headers.FAILED_AT: "yesterday", headers.TRIES: "x"}
    rig.node.publish(DEAD, "", Message(body, headers=given), mandatory=True)
    delivery = rig.node.get(DEAD)
    assert delivery
    dead_letter = read_dead_letter(delivery, 3)
    assert (dead_letter.id, dead_letter.handler, dead_letter.reason) == ("?3", "unknown", headers.CRASHED)
    assert (dead_letter.event, dead_letter.failed_at, dead_letter.tries) == (None, None, 0)
    assert dead_letter.trouble
    assert plan(dead_letter, Case()).message is None


def test_a_dead_letter_that_the_broker_made_was_a_crash() -> None:
    rig = Rig()
    rig.node.publish(
        DEAD, "restore", Message.of_event(encode(emitted(failed(INSTANCE), MIGRATION))), mandatory=True
    )
    delivery = rig.node.get(DEAD)
    assert delivery
    dead_letter = read_dead_letter(delivery, 0)
    assert (dead_letter.handler, dead_letter.reason) == ("restore", headers.CRASHED)
    assert "repeatedly" in dead_letter.error


LATER = "migration 7, requested"
REFUSALS: dict[str, tuple[DeadLetter, Case]] = {
    "there is no handler": (a_dead_letter("no_such_step"), Case(a_row())),
    "the journal has no such migration": (a_dead_letter(), Case()),
    "it is of attempt 1": (a_dead_letter("restore"), Case(a_row(attempt=2))),
    "it has been rolled back since": (a_dead_letter(), Case(a_row("rolled_back"))),
    "is completed": (a_dead_letter("complete"), Case(a_row("completed"))),
    "is rejected": (a_dead_letter("prepare"), Case(a_row("rejected"))),
    "is being rolled back": (a_dead_letter("restore"), Case(a_row("failing"))),
    "is past the point of no return": (a_dead_letter(), Case(a_row(past_pivot=True))),
    "was done since": (a_dead_letter("restore"), Case(a_row(), done=frozenset({"restore"}))),
    "its rollback was started": (a_dead_letter("restore"), Case(a_row(), undoing=True)),
    "a later upgrade of this instance came": (
        a_dead_letter("restore"),
        Case(a_row("rolled_back"), newer=LATER),
    ),
    "a later upgrade": (a_dead_letter("accept", event=TRIGGER), Case(newer=LATER)),
}


@pytest.mark.parametrize(
    ("reason", "dead_letter", "case"), [(why, *of) for why, of in REFUSALS.items()], ids=REFUSALS
)
def test_a_replay_is_refused_with_the_reason_where_it_is_unsafe_or_pointless(
    reason: str, dead_letter: DeadLetter, case: Case
) -> None:
    planned = plan(dead_letter, case)
    assert planned.message is None
    assert planned.what.startswith("refused: ")
    assert reason in planned.what


@pytest.mark.parametrize(
    ("dead_letter", "case"),
    [
        (a_dead_letter("restore"), Case(a_row("requested"))),
        (a_dead_letter("complete"), Case(a_row(past_pivot=True))),
        (a_dead_letter(), Case(a_row())),
        (a_dead_letter(), Case(a_row("failing"))),
        (a_dead_letter("restore"), Case(a_row(), undoing=True, as_left=True)),
        (a_dead_letter("accept", event=TRIGGER), Case()),
    ],
    ids=[
        "dead_lettered",
        "only forward",
        "rollback failed",
        "rolling back",
        "nothing was undone",
        "never opened",
    ],
)
def test_a_replay_goes_to_the_handler_that_failed_with_a_new_id_that_names_the_first(
    dead_letter: DeadLetter, case: Case
) -> None:
    planned = plan(dead_letter, case)
    assert planned.handler == dead_letter.handler
    assert planned.message
    assert dead_letter.event
    event = decode(planned.message.body)
    assert event.replayof == dead_letter.event.id
    assert event.id not in (dead_letter.event.id, event.replayof)
    assert plan(dead_letter, case) == planned  # a tool that died sends the very same
    again = plan(replace(dead_letter, failed_at=NOW.replace(hour=9)), case).message
    assert again
    assert again.message_id != planned.message.message_id  # what failed once more is another replay


def test_what_cannot_be_read_is_sent_as_it_is_without_what_we_wrote_on_it() -> None:
    given = {headers.REASON: "undecodable", "x-death": [], "ce-type": "plan.upgraded"}
    message = Message(b"{", message_id="m", headers=given)
    planned = plan(a_dead_letter("accept", event=None, trouble="not JSON", message=message), Case())
    assert planned.message == replace(message, headers={"ce-type": "plan.upgraded"})
    assert "not JSON" in planned.what


async def test_what_was_rolled_back_opens_one_new_attempt_however_often_it_is_replayed() -> None:
    rig = Rig()
    dead_letter = read_dead_letter(await dead_after(rig, "back_up"), 0)
    case = await case_of(rig, dead_letter)
    assert case.migration
    assert case.migration.state == "rolled_back"
    assert "would open attempt 2" in plan(dead_letter, case).what
    send(rig, dead_letter, case)
    send(rig, dead_letter, case)
    await rig.run()
    send(rig, dead_letter, case)  # and once more after its end
    await rig.run()
    row = rig.journal.migrations[case.migration.id]
    assert (row.attempt, row.state) == (2, "completed")
    assert rig.published().count("migration.completed") == 1
    assert plan(dead_letter, await case_of(rig, dead_letter)).message is None


async def test_a_step_past_the_point_of_no_return_is_run_again_and_a_second_replay_changes_nothing() -> None:
    rig = Rig()
    dead_letter = read_dead_letter(await dead_after(rig, "complete"), 0)
    case = await case_of(rig, dead_letter)
    send(rig, dead_letter, case)
    send(rig, dead_letter, case)
    await rig.run()
    assert case.migration
    assert rig.journal.migrations[case.migration.id].state == "completed"
    assert [one for one in rig.published() if one == "migration.completed"] == ["migration.completed"]
    assert "is completed" in plan(dead_letter, await case_of(rig, dead_letter)).what


@pytest.mark.parametrize("step", [step.name for step in saga.MIGRATION[1:-2]])
async def test_every_step_that_failed_can_be_replayed_to_the_end(step: str) -> None:
    rig = Rig()
    dead_letter = read_dead_letter(await dead_after(rig, step), 0)
    assert dead_letter.handler == step
    send(rig, dead_letter, await case_of(rig, dead_letter))
    await rig.run()
    assert "migration.completed" in rig.published()


STARTED = frozenset(step.name for step in saga.MIGRATION if step.name != "complete")
STOPPED = Case(a_row(), STARTED - {"start", "roll_back"}, STARTED, undoing=True, as_left=True)
"""A migration whose rollback was refused, because users have written to the new database."""
WAKING = encode(TRIGGER)


@pytest.mark.parametrize(
    ("dead_letter", "case", "waking", "why"),
    [
        (a_dead_letter("start"), STOPPED, WAKING, "only the dead letter of a rollback can be turned forward"),
        (
            a_dead_letter(),
            replace(STOPPED, as_left=False),
            WAKING,
            "something was undone, or could not be checked",
        ),
        (a_dead_letter(), replace(STOPPED, done=frozenset()), WAKING, "something was undone"),
        (a_dead_letter(), replace(STOPPED, migration=a_row("failing")), WAKING, "is being rolled back; wait"),
        (
            a_dead_letter(),
            replace(STOPPED, migration=a_row("completed")),
            WAKING,
            "is completed; discard the dead letter",
        ),
        (
            a_dead_letter(),
            replace(STOPPED, migration=a_row(past_pivot=True)),
            WAKING,
            "past the point of no return",
        ),
        (
            a_dead_letter(),
            STOPPED,
            None,
            "the journal has no migration.restored any more, which would wake step start",
        ),
    ],
)
def test_only_an_untouched_refused_rollback_is_turned_forward(
    dead_letter: DeadLetter, case: Case, waking: bytes | None, why: str
) -> None:
    planned = forward(dead_letter, case, waking)
    assert planned.message is None
    assert planned.what.startswith("refused: ")
    assert why in planned.what


def test_a_refused_rollback_is_turned_forward_to_a_step_that_was_never_started() -> None:
    """The event that wakes it was lost on its way."""
    planned = forward(a_dead_letter(), replace(STOPPED, started=STOPPED.done | {"roll_back"}), WAKING)
    assert planned.message
    assert planned.handler == "start"


async def test_a_rollback_that_would_lose_what_users_wrote_is_turned_forward() -> None:
    """A start is interrupted by an operator's rollback after users have written: it has no dead letter of its own."""
    rig = Rig()
    event = rig.upgraded()
    instance = rig.instance(event)
    rig.at["start.runtime.start.after"] = [lambda: assert_saved(rig.site.write(instance, 7))]
    rig.fail("start.platform.set_service.before", Refused("no"))
    await rig.run()
    rig.node.get(DEAD)  # as if the start had been interrupted, not refused
    delivery = rig.node.get(DEAD)
    assert delivery
    dead_letter = read_dead_letter(delivery, 0)
    case = replace(await case_of(rig, dead_letter), started=STARTED, undoing=True, as_left=True)
    (restored,) = rig.events("migration.restored")
    planned = forward(dead_letter, case, encode(restored))
    assert planned.what.startswith("would run start again")
    assert planned.message
    for _ in range(2):
        rig.node.publish(HANDLER, planned.handler, planned.message, mandatory=True)
    await rig.run()
    assert rig.row(event).state == "completed"
    assert rig.site.orders(instance)[f"postgres-dedicated-{instance.hex[:8]}"] == [7]
    assert rig.published().count("migration.completed") == 1


def assert_saved(saved: bool) -> None:
    assert saved
