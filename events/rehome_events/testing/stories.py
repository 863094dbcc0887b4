"""Complete migrations as events, in order and in every disorder that a subscriber may meet."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal, get_args
from uuid import UUID, uuid4

import orjson

from rehome_events.catalog import CATALOG, in_use, requested
from rehome_events.client.arguments import require_count, require_one_of
from rehome_events.data import EventData
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, decode, event_id
from rehome_events.errors import EventError
from rehome_events.tools.schema import golden

Outcome = Literal["completed", "failed", "rolled_back", "rejected", "resized"]
"""How an upgrade ends; `failed`: past the point of no return, so that a person must look."""

Disorder = Literal[
    "in order", "every event twice", "reordered", "end first", "first release", "unknown fields"
]
"""What a subscriber may meet: `first release` has required fields only, as events of an old release have."""

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
DISORDERS: Final[tuple[Disorder, ...]] = get_args(Disorder)

_CHAIN: Final = tuple(
    kind for kind, entry in CATALOG.items() if entry.exchange == "migration" and entry.correlated
)
_COMPLETED: Final = _CHAIN[: _CHAIN.index("migration.completed") + 1]
_FOR_A_PERSON: Final = {
    "step": "complete",
    "error": "Unreachable",
    "message": "postgres-pool-1: connection refused",
    "next": "operator",
}
"""Data of `migration.failed` past the point of no return; the golden example is of a failure before it."""
_TYPES: Final[dict[Outcome, tuple[str, ...]]] = {
    "completed": _COMPLETED,
    "failed": (*_COMPLETED[: _COMPLETED.index("migration.completed")], "migration.failed"),
    "rolled_back": (
        *_COMPLETED[: _COMPLETED.index("migration.restored")],
        "migration.failed",
        "migration.rolled_back",
    ),
    "rejected": ("migration.rejected",),
    "resized": ("instance.resized",),
}
_FIRST_OF_THE_EXAMPLES: Final = datetime(2025, 11, 3, 1, 57, 20, tzinfo=UTC)
_LONGEST: Final = timedelta(minutes=15)
"""Longer than the examples take from the first to the last; a test compares."""


@dataclass(frozen=True)
class Story:
    """One upgrade from billing's event to its end.

    Attributes:
        outcome: How it ends.
        instance_id: The instance that it is about.
        migration_id: The migration.
        attempt: Number of the attempt.
        start: When billing published the upgrade; by default so long ago that no event lies in the future.
        models: Versions of its events, where these are not the oldest that are in use: one or several models
            of a type; several are one event in each of these versions, with one id, newest first.

    Raises:
        EventError: One of them is wrong.
    """

    outcome: Outcome = "completed"
    instance_id: UUID = field(default_factory=uuid4)
    migration_id: UUID = field(default_factory=uuid4)
    attempt: int = 1
    start: datetime = field(default_factory=lambda: datetime.now(UTC) - _LONGEST)
    models: tuple[type[EventData], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no event could be made of."""
        require_one_of("outcome", self.outcome, OUTCOMES)
        require_count("attempt", self.attempt)
        for name in ("instance_id", "migration_id"):
            if not isinstance(found := getattr(self, name), UUID):
                raise EventError(f"{name} must be a uuid.UUID, not {found!r}")
        if not isinstance(self.start, datetime) or self.start.tzinfo is None:
            raise EventError(f"start must be a datetime with a time zone, not {self.start!r}")
        for model in self.models:
            if not (isinstance(model, type) and issubclass(model, EventData)):
                raise EventError(f"models: {model!r} is no model of an event")

    @cached_property
    def upgrade(self) -> CloudEvent[Any]:
        """Billing's event that starts it; subscribers do not get it."""
        return _read(self._bodies("plan.upgraded", "full", None)[0])

    @cached_property
    def events(self) -> tuple[CloudEvent[Any], ...]:
        """The events that subscribers get, in order."""
        return tuple(self.disturbed("in order"))

    def disturbed(self, disorder: Disorder, *, seed: int = 0) -> Sequence[CloudEvent[Any]]:
        """The same events as a subscriber may get them.

        Args:
            disorder: What happens to them.
            seed: For the random order of `reordered`.

        Raises:
            EventError: There is no such disorder.
        """
        return [_read(body) for body in self.bodies(disorder, seed=seed)]

    def bodies(self, disorder: Disorder = "in order", *, seed: int = 0) -> Sequence[bytes]:
        """The same as bodies of messages, for a subscriber that reads them without this package."""
        require_one_of("disorder", disorder, DISORDERS)
        example = {"first release": "minimal", "unknown fields": "later-fields"}.get(disorder, "full")
        bodies = [
            body
            for cause, kind in pairwise(("plan.upgraded", *_TYPES[self.outcome]))
            for body in self._bodies(kind, example, cause)
        ]
        match disorder:
            case "every event twice":
                return [body for body in bodies for _ in range(2)]
            case "reordered":
                return random.Random(seed).sample(bodies, len(bodies))  # noqa: S311 - reproducible is wanted
            case "end first":
                return bodies[::-1]
            case _:
                return bodies

    def _bodies(self, kind: str, example: str, cause: str | None) -> list[bytes]:
        """An event in the story's versions."""
        chosen = {requested(model).version for model in self.models if kind == model.TYPE}
        versions = sorted(chosen or {in_use(kind)[-1].version}, reverse=True)
        return [self._body(kind, version, example, cause) for version in versions]

    def _body(self, kind: str, version: int, example: str, cause: str | None) -> bytes:
        """A golden example, moved to this story's instance, migration and time."""
        event = golden(kind, version, "valid")[example]
        if (self.outcome, kind) == ("failed", "migration.failed"):
            event["data"] |= _FOR_A_PERSON
            completed = golden(_COMPLETED[-1], 1, "valid")[example]
            event["time"] = completed["time"]  # it takes the place of that event
        shift = self.start - _FIRST_OF_THE_EXAMPLES
        moved = _moved(event, str(event["subject"]), str(self.instance_id), shift)
        moved["id"] = str(event_id(self.migration_id, self.attempt, kind))
        if cause is not None:
            moved["causationid"] = str(event_id(self.migration_id, self.attempt, cause))
            moved |= {"migrationid": str(self.migration_id), "attempt": self.attempt}
        return orjson.dumps(moved)


def _read(body: bytes) -> CloudEvent[Any]:
    return decode(body, CONTENT_TYPE)


def _moved(value: Any, old: str, new: str, shift: timedelta) -> Any:
    if isinstance(value, dict):
        return {name: _moved(inner, old, new, shift) for name, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, new, shift) for inner in value]
    if not isinstance(value, str):
        return value
    try:
        return (datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%f%z") + shift).isoformat()
    except ValueError:
        return value.replace(old, new).replace(old[:8], new[:8])
