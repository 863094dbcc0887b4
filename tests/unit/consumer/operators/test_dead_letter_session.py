"""What `rehome dead` works at: letters by their names, copies as one, and the filters of the command line."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer.commands import dead_letters
from rehome_consumer.engine import headers
from rehome_consumer.errors import NotFound
from rehome_consumer.operators.dead_letter_session import DeadLetterSession, gathered, matches, none_matches
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import DEAD
from rehome_events.envelope import encode
from tests.fakes.broker import FakeBroker
from tests.support.events import emitted, failed

if TYPE_CHECKING:
    from tests.fakes.broker import FakeDelivery

INSTANCE, OTHER = uuid4(), uuid4()
NOW = datetime.now(UTC)


def parked(node: FakeBroker, instance: Any, handler: str, *, hours: float, reason: str = "failed") -> str:
    """A dead letter of so many hours ago; returns its id."""
    event = emitted(failed(instance), uuid4())
    carried = {
        headers.HANDLER: handler,
        headers.REASON: reason,
        headers.FAILED_AT: (NOW - timedelta(hours=hours)).isoformat(),
    }
    message = Message.of_event(encode(event))
    kept = Message(message.body, message_id=message.message_id, type=message.type, headers=carried)
    node.publish(DEAD, handler, kept, mandatory=True)
    return str(event.id)


def held(node: FakeBroker) -> list[FakeDelivery]:
    found = []
    while (delivery := node.get(DEAD)) is not None:
        found.append(delivery)
    return found


def desk_of(deliveries: list[Any]) -> DeadLetterSession:
    nothing: Any = None
    return DeadLetterSession(gathered(deliveries), nothing, nothing, nothing, None, "")


def chosen(dead_letter_session: DeadLetterSession, *options: str) -> list[str]:
    parser = argparse.ArgumentParser()
    dead_letters.filters(parser)
    args = parser.parse_args(options)
    return [
        dead_letter.id for dead_letter, _ in dead_letter_session.dead_letters if matches(dead_letter, args)
    ]


async def test_copies_of_a_letter_are_one_and_leave_together() -> None:
    node = FakeBroker()
    name = parked(node, INSTANCE, "restore", hours=2)
    (first,) = held(node)
    node.publish(DEAD, "restore", first.message, mandatory=True)
    deliveries = [first, *held(node)]
    ((dead_letter, copies),) = desk_of(deliveries).dead_letters
    assert dead_letter.id == name
    await copies.ack()
    assert [one.acknowledged for one in deliveries] == [True, True]


async def test_letters_without_an_id_are_told_apart_by_their_place() -> None:
    node = FakeBroker()
    for _ in range(2):
        node.publish(DEAD, "accept", Message(b"{"), mandatory=True)
    assert [dead_letter.id for dead_letter, _ in desk_of(held(node)).dead_letters] == ["?0", "?1"]


async def test_a_letter_is_named_by_its_id_or_by_how_that_begins_if_no_other_does() -> None:
    node = FakeBroker()
    names = [parked(node, INSTANCE, "restore", hours=1) for _ in range(2)]
    dead_letter_session = desk_of(held(node))
    assert (
        dead_letter_session.find(names[0])[0].id == dead_letter_session.find(names[0][:9])[0].id == names[0]
    )
    short, unknown = "takes 6 characters or more", "no dead letter"
    for wanted, words in ((names[0][:5], short), ("", short), ("nosuchletter", unknown)):
        with pytest.raises(NotFound, match=words):
            dead_letter_session.find(wanted)
    twins = DeadLetterSession(
        [*dead_letter_session.dead_letters, *dead_letter_session.dead_letters],
        dead_letter_session.journal,
        dead_letter_session.views,
        dead_letter_session.broker,
        None,
        "",
    )
    with pytest.raises(NotFound, match="2 dead letters start with"):
        twins.find(names[0][:9])


async def test_letters_are_chosen_by_handler_type_instance_reason_and_age() -> None:
    node = FakeBroker()
    old = parked(node, INSTANCE, "restore", hours=30)
    new = parked(node, OTHER, "prepare", hours=0.1, reason="crashed")
    dead_letter_session = desk_of(held(node))
    assert chosen(dead_letter_session) == [old, new]
    assert chosen(dead_letter_session, "--handler", "restore") == [old]
    assert chosen(dead_letter_session, "--instance", str(OTHER)) == [new]
    assert chosen(dead_letter_session, "--reason", "crashed") == [new]
    assert chosen(dead_letter_session, "--older-than", "24") == [old]
    assert chosen(dead_letter_session, "--type", "migration.failed") == [old, new]
    assert chosen(dead_letter_session, "--handler", "restore", "--instance", str(OTHER)) == []


def test_where_nothing_matches_it_is_said_whether_there_are_letters_at_all() -> None:
    node = FakeBroker()
    assert none_matches(desk_of([])) == "no dead letters"
    parked(node, INSTANCE, "restore", hours=1)
    assert none_matches(desk_of(held(node))) == "no dead letter matches; 1 wait(s) in all"


def test_a_handler_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        chosen(desk_of([]), "--handler", "back-up")
    assert end.value.code == 2
    assert "back_up" in capsys.readouterr().err
