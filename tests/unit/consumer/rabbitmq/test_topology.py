"""The broker's topology: derived from the saga, and the same in the definitions file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rehome_consumer.rabbitmq.topology import DEAD, HANDLER, VHOST, definitions, queue_of, retry_exchange
from rehome_consumer.saga import MIGRATION, TIERS
from rehome_events.catalog import lookup

FILE = Path(__file__).parents[4] / "rabbitmq" / "definitions.json"


def queue(name: str) -> dict[str, Any]:
    (found,) = (one for one in definitions()["queues"] if one["name"] == name)
    return dict(found["arguments"])


def bound(to: str) -> set[tuple[str, str]]:
    return {
        (one["source"], one["routing_key"]) for one in definitions()["bindings"] if one["destination"] == to
    }


def test_the_file_that_the_broker_loads_is_derived_from_the_saga() -> None:
    assert json.loads(FILE.read_text()) == definitions()


def test_the_file_holds_no_user_and_nothing_that_an_old_broker_refuses_at_boot() -> None:
    assert set(json.loads(FILE.read_text())) == {"vhosts", "exchanges", "queues", "bindings"}


def test_everything_is_durable_and_in_the_virtual_host() -> None:
    made = definitions()
    for one in (*made["exchanges"], *made["queues"]):
        assert one["durable"]
        assert not one["auto_delete"]
    assert {one["vhost"] for kind in ("exchanges", "queues", "bindings") for one in made[kind]} == {VHOST}


@pytest.mark.parametrize("step", MIGRATION, ids=lambda step: step.name)
def test_every_step_has_a_queue_for_its_event_its_retries_and_its_replays(step: Any) -> None:
    exchange = lookup(step.on.TYPE).exchange
    assert bound(queue_of(step.name)) == {(exchange, step.on.TYPE), (HANDLER, step.name)}
    assert queue(queue_of(step.name)) == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 5,
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-routing-key": step.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


@pytest.mark.parametrize("tier", TIERS)
def test_every_delay_has_a_queue_that_sends_messages_back_to_their_handler(tier: str) -> None:
    name = retry_exchange(tier)
    assert bound(name) == {(name, "")}
    arguments = queue(name)
    assert arguments["x-message-ttl"] == TIERS[tier].total_seconds() * 1000
    assert arguments["x-dead-letter-exchange"] == HANDLER
    assert "x-dead-letter-routing-key" not in arguments  # the handler's name, by which it came
    assert (arguments["x-dead-letter-strategy"], arguments["x-overflow"]) == (
        "at-least-once", "reject-publish",
    )  # fmt: skip


def test_dead_letters_never_expire() -> None:
    assert bound(DEAD) == {(DEAD, "")}
    assert queue(DEAD) == {"x-queue-type": "quorum", "x-delivery-limit": 1000000}


def test_there_is_no_other_queue() -> None:
    names = {queue_of(step.name) for step in MIGRATION} | {retry_exchange(tier) for tier in TIERS} | {DEAD}
    assert {one["name"] for one in definitions()["queues"]} == names
