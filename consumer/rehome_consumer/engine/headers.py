"""Copies of a delivery for the delay queues and the dead letters: same body and ids, the engine's headers added."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rehome_consumer.ports.engine import BROKER_HEADERS
from rehome_consumer.rabbitmq.topology import REDELIVERIES

if TYPE_CHECKING:
    from datetime import datetime

    from rehome_consumer.ports.engine import Delivery, Message

TRIES = "rehome-tries"
DEFERRALS = "rehome-deferrals"
EARLY_RETURNS = "rehome-early-returns"
EXCHANGE = "rehome-original-exchange"
ROUTING_KEY = "rehome-original-routing-key"
HANDLER = "rehome-handler"
ERROR = "rehome-error"
REASON = "rehome-reason"
FAILED_AT = "rehome-failed-at"

UNDECODABLE = "undecodable"
UNKNOWN_MIGRATION = "unknown_migration"
FAILED = "failed"
GAVE_UP = "gave_up_waiting"
CRASHED = "crashed"
"""Reason of a dead letter that the broker made itself, after too many redeliveries."""

ERROR_LENGTH = 2000


def retry_message(delivery: Delivery, handler: str, tries: int, error: str) -> Message:
    """For a delay queue, after try number `tries`."""
    return _copy(delivery, handler, {TRIES: tries, ERROR: error[:ERROR_LENGTH]})


def deferral_message(delivery: Delivery, handler: str, counter: str, times: int, why: str) -> Message:
    """For a delay queue, not counted as a try; `times` is how often it came back so (DEFERRALS or EARLY_RETURNS)."""
    return _copy(delivery, handler, {counter: times, ERROR: why[:ERROR_LENGTH]})


def dead_letter(delivery: Delivery, handler: str, reason: str, error: str, at: datetime) -> Message:
    """For the dead letters: why, since when, and where it came from."""
    return _copy(delivery, handler, {REASON: reason, ERROR: error[:ERROR_LENGTH], FAILED_AT: at.isoformat()})


def count(delivery: Delivery, counter: str) -> int:
    """How often this delivery came back without a try (DEFERRALS or EARLY_RETURNS)."""
    value = delivery.message.headers.get(counter, 0)
    return max(value, 0) if isinstance(value, int) else 0


def is_last(delivery: Delivery) -> bool:
    """Whether the broker makes this delivery a dead letter if its consumer dies once more."""
    return count(delivery, "x-delivery-count") >= REDELIVERIES


def _copy(delivery: Delivery, handler: str, headers: dict[str, Any]) -> Message:
    message = delivery.message
    first = {EXCHANGE: delivery.exchange, ROUTING_KEY: delivery.routing_key, HANDLER: handler}
    carried = {k: v for k, v in message.headers.items() if not k.startswith(BROKER_HEADERS)}
    return dataclasses.replace(message, headers={**first, **carried, **headers})
