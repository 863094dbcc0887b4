"""Fixtures for pytest, found by the package's entry point: nothing needs to be configured.

``play_migration`` is the one to start with: a test that uses it runs once for every outcome and every disorder.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from rehome_events.data import EventData
from rehome_events.envelope import CloudEvent
from rehome_events.testing.checks import assert_valid_event
from rehome_events.testing.playing import Played, play_into
from rehome_events.testing.stories import DISORDERS, OUTCOMES, Disorder, Outcome, Story


@pytest.fixture(name="assert_valid_event")
def _assert_valid_event() -> Callable[[Any], CloudEvent[Any]]:
    """Assert that an event, its JSON or its bytes are valid, and hold nothing unknown."""
    return assert_valid_event


@pytest.fixture
def migration_story() -> Callable[..., Story]:
    """Makes a migration: ``migration_story("rolled_back").events``."""
    return Story


@pytest.fixture(params=OUTCOMES)
def migration_outcome(request: pytest.FixtureRequest) -> Outcome:
    """How the migration of `any_migration` ends; each in turn."""
    outcome: Outcome = request.param
    return outcome


@pytest.fixture(params=DISORDERS)
def migration_disorder(request: pytest.FixtureRequest) -> Disorder:
    """What happens to the events of `any_migration`; each in turn."""
    disorder: Disorder = request.param
    return disorder


@pytest.fixture
def migration_models() -> tuple[type[EventData], ...]:
    """Models of the versions that `any_migration` has; none for the oldest. Override it with yours."""
    return ()


@pytest.fixture
def any_migration(
    migration_outcome: Outcome, migration_disorder: Disorder, migration_models: tuple[type[EventData], ...]
) -> Sequence[CloudEvent[Any]]:
    """The events of a migration, as a subscriber may get them."""
    return Story(migration_outcome, models=migration_models).disturbed(migration_disorder)


@pytest.fixture
def play_migration(any_migration: Sequence[CloudEvent[Any]]) -> Callable[..., Awaitable[Played]]:
    """A function that plays `any_migration` into a handler as a subscriber would get it.

    ``await play_migration(handler)``, or in a test that is no coroutine ``asyncio.run(play_migration(handler))``.
    Repeats are dropped, failures are tried again; ``types`` and ``tries`` are as `rehome_events.client.Subscriber`
    takes them.
    """
    return partial(play_into, events=any_migration)
