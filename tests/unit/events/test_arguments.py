"""What cannot work is refused at construction, and what can is not."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest

from rehome_events.client import Publisher, RecentEvents, Subscriber
from rehome_events.errors import EventError, NotAwaitable
from rehome_events.testing import Story, play_into

if TYPE_CHECKING:
    from rehome_events.envelope import CloudEvent

URL = "amqp://crm@localhost/"


def synchronous(event: object) -> None:
    """What a newcomer writes first."""


async def good(event: object) -> None:
    """Handle nothing."""


LATER = lambda event: good(event)  # noqa: E731, PLW0108 - what people write


class Handler:
    async def __call__(self, event: CloudEvent[Any]) -> None:
        """As an object."""

    def blocking(self, event: CloudEvent[Any]) -> None:
        """No coroutine function."""


class SynchronousDedup:
    def has(self, event_id: object) -> bool:
        return False

    def add(self, event_id: object) -> None:
        """Forget it."""


def subscriber(handler: Any = good, **arguments: Any) -> Subscriber:
    return Subscriber(URL, handler, **{"team": "crm", "name": "x", **arguments})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"handler": synchronous}, "handler synchronous is not a coroutine function: write `async def`"),
        ({"handler": Handler().blocking}, "handler Handler.blocking is not a coroutine function"),
        ({"handler": functools.partial(synchronous)}, "not a coroutine function"),
        ({"handler": print}, "handler print is not a coroutine function"),
        ({"handler": Handler}, "handler Handler is not a coroutine function"),
        ({"handler": None}, "handler must be a function that is called with an event, not None"),
        ({"tries": 0}, "tries must be a whole number from 1, not 0"),
        ({"tries": -1}, "tries must be a whole number from 1"),
        ({"tries": 2.5}, "tries must be a whole number from 1"),
        ({"retry_delay": -1.0}, "retry_delay must be 0 or more and at most 4e"),
        ({"retry_delay": 1e9}, "retry_delay must be"),
        ({"retry_delay": float("nan")}, "retry_delay must be"),
        ({"timeout": 10**400}, "timeout must be more than 0"),
        ({"timeout": 0}, r"timeout must be more than 0 \(seconds\), not 0"),
        ({"watch": -1}, "watch must be more than 0"),
        ({"types": []}, "types is empty: name at least one, such as"),
        ({"types": "migration.completed"}, "types must be several, such as .*not 'migration.completed'"),
        ({"types": [3]}, "types: 3 is neither the name of a type nor a model"),
        ({"types": ["plan.upgraded"]}, "not for subscribers: plan.upgraded"),
        ({"team": "CRM"}, "team 'CRM' must be lower-case"),
        ({"name": "upgrades\n"}, "name 'upgrades.n' must be lower-case"),
        ({"team": "a" * 130, "name": "b" * 130}, "longer than 235 characters"),
        ({"dedup": object()}, r"has no has"),
        ({"dedup": SynchronousDedup()}, "dedup.has SynchronousDedup.has is not a coroutine function"),
    ],
)
def test_a_subscriber_that_cannot_work_is_not_made(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(EventError, match=says):
        subscriber(**arguments)


@pytest.mark.parametrize(
    "handler",
    [good, Handler(), Handler().__call__, functools.partial(good), LATER, AsyncMock()],
)
def test_whatever_can_be_awaited_is_a_handler(handler: Any) -> None:
    subscriber(handler)


@pytest.mark.parametrize(
    "arguments", [{"tries": 0}, {"timeout": 0}, {"timeout": float("inf")}, {"name": ""}, {"name": None}]
)
def test_a_publisher_that_cannot_work_is_not_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(EventError, match="must be"):
        Publisher(URL, **arguments)


def test_what_is_no_url_or_no_tls_context_is_refused() -> None:
    with pytest.raises(EventError, match="the broker's URL must be text, not NoneType: is it configured"):
        Publisher(None)  # type: ignore[arg-type]
    with pytest.raises(EventError, match=r"ssl_context must be an ssl.SSLContext, not str"):
        Publisher("amqps://crm@localhost/", ssl_context="ca.pem")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"outcome": "complete"}, "outcome must be one of 'completed', 'failed', .*, not 'complete'"),
        ({"attempt": 0}, "attempt must be a whole number from 1, not 0"),
        ({"instance_id": "7d9f2a54"}, "instance_id must be a uuid.UUID, not '7d9f2a54'"),
        ({"migration_id": None}, "migration_id must be a uuid.UUID, not None"),
        ({"start": datetime(2026, 1, 1)}, "start must be a datetime with a time zone"),  # noqa: DTZ001 - the mistake
        ({"start": "now"}, "start must be a datetime with a time zone, not 'now'"),
        ({"models": ["migration.completed"]}, "models: 'migration.completed' is no model of an event"),
    ],
)
def test_a_story_that_cannot_be_told_is_not_made(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(EventError, match=says):
        Story(**arguments)


def test_a_disorder_that_is_misspelt_is_not_taken_for_order() -> None:
    with pytest.raises(EventError, match=r"disorder must be one of 'in order', .*, not 'twice'"):
        Story().disturbed("twice")  # type: ignore[arg-type]


def test_a_memory_of_nothing_is_not_made() -> None:
    with pytest.raises(EventError, match="size must be a whole number from 1, not 0"):
        RecentEvents(0)


async def test_events_are_not_played_into_what_is_no_handler() -> None:
    events = Story("completed").events
    with pytest.raises(EventError, match="not a coroutine function"):
        await play_into(synchronous, events)  # type: ignore[arg-type]
    with pytest.raises(EventError, match="tries must be"):
        await play_into(good, events, tries=0)
    with pytest.raises(NotAwaitable, match="not a coroutine function"):
        await play_into(lambda _: None, events)  # type: ignore[arg-type, return-value]
