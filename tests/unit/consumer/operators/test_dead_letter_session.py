"""What `rehome dead` works on: dead letters by their ids, copies as one, and the filters of the command line."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer.commands import dead_letters
from rehome_consumer.engine import headers
from rehome_consumer.errors import NotFound
from rehome_consumer.operators.dead_letter_session import (
    DeadLetterSession,
    matches,
    none_matches,
    with_copies,
)
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import DEAD
from rehome_events.envelope import encode
from tests.fakes.broker import FakeBroker
from tests.support.events import emitted, failed

if TYPE_CHECKING:
    from tests.fakes.broker import FakeDelivery

INSTANCE, OTHER = uuid4(), uuid4()
NOW = datetime.now(UTC)


def dead_lettered(
    node: FakeBroker, instance: Any, handler: str, *, hours: float, reason: str = "failed"
) -> str:
    """Publish a dead letter that failed so many hours ago; returns its id."""
    event = emitted(failed(instance), uuid4())
    carried = {
        headers.HANDLER: handler,
        headers.REASON: reason,
        headers.FAILED_AT: (NOW - timedelta(hours=hours)).isoformat(),
    }
    message = Message.of_event(encode(event))
    dead_letter = Message(message.body, message_id=message.message_id, type=message.type, headers=carried)
    node.publish(DEAD, handler, dead_letter, mandatory=True)
    return str(event.id)


def held(node: FakeBroker) -> list[FakeDelivery]:
    found = []
    while (delivery := node.get(DEAD)) is not None:
        found.append(delivery)
    return found


def session_of(deliveries: list[Any]) -> DeadLetterSession:
    nothing: Any = None
    return DeadLetterSession(with_copies(deliveries), nothing, nothing, nothing, None, "")


def chosen(session: DeadLetterSession, *options: str) -> list[str]:
    parser = argparse.ArgumentParser()
    dead_letters.filters(parser)
    args = parser.parse_args(options)
    return [dead_letter.id for dead_letter, _ in session.dead_letters if matches(dead_letter, args)]


async def test_copies_of_a_dead_letter_are_one_and_leave_together() -> None:
    node = FakeBroker()
    name = dead_lettered(node, INSTANCE, "restore", hours=2)
    (first,) = held(node)
    node.publish(DEAD, "restore", first.message, mandatory=True)
    deliveries = [first, *held(node)]
    ((dead_letter, copies),) = session_of(deliveries).dead_letters
    assert dead_letter.id == name
    await copies.ack()
    assert [one.acknowledged for one in deliveries] == [True, True]


async def test_dead_letters_without_an_id_are_named_by_their_place() -> None:
    node = FakeBroker()
    for _ in range(2):
        node.publish(DEAD, "accept", Message(b"{"), mandatory=True)
    assert [dead_letter.id for dead_letter, _ in session_of(held(node)).dead_letters] == ["?0", "?1"]


async def test_a_dead_letter_is_named_by_its_id_or_by_a_unique_prefix() -> None:
    node = FakeBroker()
    names = [dead_lettered(node, INSTANCE, "restore", hours=1) for _ in range(2)]
    session = session_of(held(node))
    assert session.find(names[0])[0].id == session.find(names[0][:9])[0].id == names[0]
    short, unknown = "must have 6 characters or more", "no dead letter"
    for wanted, words in ((names[0][:5], short), ("", short), ("nosuchletter", unknown)):
        with pytest.raises(NotFound, match=words):
            session.find(wanted)
    twins = DeadLetterSession(
        [*session.dead_letters, *session.dead_letters],
        session.journal,
        session.views,
        session.broker,
        None,
        "",
    )
    with pytest.raises(NotFound, match="2 dead letters start with"):
        twins.find(names[0][:9])


async def test_dead_letters_are_chosen_by_handler_type_instance_reason_and_age() -> None:
    node = FakeBroker()
    old = dead_lettered(node, INSTANCE, "restore", hours=30)
    new = dead_lettered(node, OTHER, "prepare", hours=0.1, reason="crashed")
    session = session_of(held(node))
    assert chosen(session) == [old, new]
    assert chosen(session, "--handler", "restore") == [old]
    assert chosen(session, "--instance", str(OTHER)) == [new]
    assert chosen(session, "--reason", "crashed") == [new]
    assert chosen(session, "--older-than", "24") == [old]
    assert chosen(session, "--type", "migration.failed") == [old, new]
    assert chosen(session, "--handler", "restore", "--instance", str(OTHER)) == []


def test_where_nothing_matches_the_message_says_how_many_there_are() -> None:
    node = FakeBroker()
    assert none_matches(session_of([])) == "no dead letters"
    dead_lettered(node, INSTANCE, "restore", hours=1)
    assert none_matches(session_of(held(node))) == "no dead letter matches the filters; there are 1 in all"


def test_an_unknown_handler_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        chosen(session_of([]), "--handler", "back-up")
    assert end.value.code == 2
    assert "back_up" in capsys.readouterr().err
