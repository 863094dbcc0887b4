"""The broker's exchanges, queues and bindings, derived from the saga, so that every step has its queue.

`rabbitmq/definitions.json` holds the same, for the broker to load at boot
(`rehome topology check` compares a running broker with it, by `consumer/rehome_consumer/rabbitmq/comparison.py`).
"""

from __future__ import annotations

from typing import Any, Final

from rehome_consumer.saga import MIGRATION, TIERS
from rehome_events.catalog import lookup

VHOST: Final = "migration"
HANDLER: Final = "migration.handler"
DEAD: Final = "migration.dead"
REDELIVERIES: Final = 5
"""How often the broker redelivers what was not acknowledged; after that it is a dead letter."""


def queue_of(step: str) -> str:
    """The queue of a handler."""
    return f"migration.h.{step}"


def retry_exchange(tier: str) -> str:
    """The exchange (and queue) of a delay."""
    return f"migration.retry.{tier}"


def definitions() -> dict[str, Any]:
    """The definitions file: no users, policies or permissions (those are set at deployment)."""
    exchanges = [
        _exchange("billing", "topic"),
        _exchange("migration", "topic"),
        _exchange(HANDLER, "direct"),
        _exchange(DEAD, "fanout"),
        *(_exchange(retry_exchange(tier), "fanout") for tier in TIERS),
    ]
    queues = [
        *(_queue(queue_of(step.name), _handler_arguments(step.name)) for step in MIGRATION),
        *(
            _queue(retry_exchange(tier), _retry_arguments(int(delay.total_seconds() * 1000)))
            for tier, delay in TIERS.items()
        ),
        _queue(DEAD, {"x-queue-type": "quorum", "x-delivery-limit": 1000000}),
    ]
    bindings = [
        *(
            _binding(lookup(step.on.TYPE, step.on.VERSION).exchange, queue_of(step.name), step.on.TYPE)
            for step in MIGRATION
        ),
        *(_binding(HANDLER, queue_of(step.name), step.name) for step in MIGRATION),
        *(_binding(retry_exchange(tier), retry_exchange(tier), "") for tier in TIERS),
        _binding(DEAD, DEAD, ""),
    ]
    return {"vhosts": [{"name": VHOST}], "exchanges": exchanges, "queues": queues, "bindings": bindings}


def _handler_arguments(step: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": REDELIVERIES,
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-routing-key": step,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _retry_arguments(milliseconds: int) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": milliseconds,
        "x-dead-letter-exchange": HANDLER,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _exchange(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": VHOST,
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "vhost": VHOST, "durable": True, "auto_delete": False, "arguments": arguments}


def _binding(source: str, queue: str, key: str) -> dict[str, Any]:
    return {
        "source": source,
        "vhost": VHOST,
        "destination": queue,
        "destination_type": "queue",
        "routing_key": key,
        "arguments": {},
    }
