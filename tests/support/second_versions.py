"""The next release, in tests only: two types have a second version, and one an optional field more.

`migration.stopped` wakes a step, so both of its versions reach a handler's queue; `migration.completed` is what
subscribers follow. What is patched here is what the author of a second version writes: lines of the catalogue, and
the steps that emit it.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from unittest.mock import patch

import orjson
from pydantic import Field

from rehome_consumer import saga
from rehome_events import catalog
from rehome_events.data import Count, CustomerId, EventData, Sha256, Utc, Word
from rehome_events.envelope import schema_urn
from rehome_events.migration import MigrationCompleted, MigrationPrepared, MigrationStopped
from rehome_events.parts import Part, ServerRef
from rehome_events.tools import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rehome_consumer.move import Move
    from rehome_consumer.saga import Step
    from rehome_events.catalog import EventType


class MigrationPreparedLater(MigrationPrepared):
    """Version 1 with one optional field more, as a later release may have it."""

    advice: Word | None = Field(default=None, description="Advice.", examples=["Nothing to do."])


class Ended(Part):
    """Connections of one user that were ended."""

    user: Word = Field(description="Who was connected.", examples=["acme"])
    connections: Count = Field(description="How many.", examples=[2])


class MigrationStoppedV2(EventData):
    """The instance is down and its source database is fenced. Downtime has started."""

    TYPE: ClassVar[str] = MigrationStopped.TYPE
    VERSION: ClassVar[int] = 2

    replicas: Count = Field(description="Replicas that ran before the stop.", examples=[1])
    stopped_at: Utc = Field(description="When it was down; UTC.", examples=["2025-11-03T02:00:07.412Z"])
    fenced_at: Utc = Field(description="When it was fenced; UTC.", examples=["2025-11-03T02:00:07.655Z"])
    ended: tuple[Ended, ...] = Field(
        description="Whose connections were ended.", examples=[[{"user": "acme", "connections": 2}]]
    )


class Downtime(Part):
    """From when to when the instance was down."""

    start: Utc = Field(description="When it was stopped; UTC.", examples=["2025-11-03T02:00:07.412Z"])
    end: Utc = Field(description="When it answered again; UTC.", examples=["2025-11-03T02:00:49.100Z"])


class MigrationCompletedV2(EventData):
    """The migration is over and succeeded: the summary that other services want."""

    TYPE: ClassVar[str] = MigrationCompleted.TYPE
    VERSION: ClassVar[int] = 2

    customer: CustomerId
    plan_tier: Word = Field(description="Tier of the plan now in force.", examples=["premium"])
    source: ServerRef = Field(description="The server that held the database.")
    target: ServerRef = Field(description="The server that holds it now.")
    downtime: Downtime = Field(description="When the instance was down.")
    database_bytes: Count = Field(description="Size of the database, in bytes.", examples=[964689920])
    backup_bytes: Count = Field(description="Size of the backup, in bytes.", examples=[702545920])
    verification_digest: Sha256 = Field(description="Over all tables.", examples=["9f" * 32])
    source_retained_until: Utc = Field(
        description="Until then the source is kept; UTC.", examples=["2025-11-10T02:00:49.100Z"]
    )


def stopped_in_first(new: MigrationStoppedV2) -> MigrationStopped:
    """The second version's content in the first version."""
    fields = new.model_dump(exclude={"ended"})
    return MigrationStopped(**fields, connections_ended=sum(one.connections for one in new.ended))


def stopped_in_second(old: MigrationStopped) -> MigrationStoppedV2:
    """As the next release's step would emit it."""
    ended = (Ended(user="acme", connections=old.connections_ended),)
    return MigrationStoppedV2(**old.model_dump(exclude={"connections_ended"}), ended=ended)


def completed_in_first(new: MigrationCompletedV2) -> MigrationCompleted:
    """The second version's content in the first version."""
    return MigrationCompleted(
        **new.model_dump(exclude={"customer", "downtime"}),
        customer_id=new.customer,
        downtime_seconds=(new.downtime.end - new.downtime.start).total_seconds(),
        strategy="cold",
        seconds={},
    )


def completed_in_second(old: MigrationCompleted) -> MigrationCompletedV2:
    """As the next release's step would emit it."""
    left_out = {"customer_id", "downtime_seconds", "seconds", "strategy"}
    end = old.source_retained_until
    return MigrationCompletedV2(
        **old.model_dump(exclude=left_out), customer=old.customer_id, downtime=Downtime(start=end, end=end)
    )


def prepared_later(old: MigrationPrepared) -> MigrationPreparedLater:
    """As the next release's step would emit it."""
    return MigrationPreparedLater(**old.model_dump(), advice="Nothing to do.")


class Change(NamedTuple):
    """A second version of a type, and how one is made of the other."""

    first: type[EventData]
    second: type[EventData]
    in_first: Callable[[Any], EventData]
    in_second: Callable[[Any], EventData]


CHANGES: Final = (
    Change(MigrationStopped, MigrationStoppedV2, stopped_in_first, stopped_in_second),
    Change(MigrationCompleted, MigrationCompletedV2, completed_in_first, completed_in_second),
)
STEPS: Final[dict[str, tuple[Callable[[Any], EventData], type[EventData]]]] = {
    "prepare": (prepared_later, MigrationPreparedLater),
    "stop": (stopped_in_second, MigrationStoppedV2),
    "complete": (completed_in_second, MigrationCompletedV2),
}
"""Steps of the next release that emit something else: how, and what."""


def entries(*, beside: bool) -> list[EventType]:
    """The lines of the catalogue. `beside`: the first versions are still published."""
    return [
        dataclasses.replace(
            catalog.lookup(change.second.TYPE, 1),
            model=change.second,
            version=2,
            older=change.in_first if beside else None,
        )
        for change in CHANGES
    ]


@contextmanager
def announcing_release() -> Iterator[None]:
    """Inside, this process is of the release before the next: it reads the second versions and publishes none."""
    with patch.dict(catalog._known, {(one.type, one.version): one for one in entries(beside=False)}):
        yield


@contextmanager
def next_release(*, beside: bool = True) -> Iterator[None]:
    """Inside, this process is of the next release (`beside`), or of the one after, which retires version 1."""
    lines = entries(beside=beside)
    with ExitStack() as stack:
        stack.enter_context(patch.dict(catalog._known, {(one.type, one.version): one for one in lines}))
        stack.enter_context(patch.dict(catalog._current, {one.type: one for one in lines}))
        stack.enter_context(patch.object(saga, "MIGRATION", tuple(map(_next, saga.MIGRATION))))
        yield


@contextmanager
def next_schemas(directory: Path) -> Iterator[Path]:
    """Inside, schemas and golden examples are those of the next release, in a directory that is made."""
    shutil.copytree(str(files("rehome_events") / "schemas"), directory)
    for change in CHANGES:
        folder = directory / change.first.TYPE / "valid"
        for name in ("full", "minimal", "later-fields"):
            event = orjson.loads((folder / f"v1-{name}.json").read_bytes())
            data = change.in_second(change.first.model_validate(event["data"]))
            event |= {
                "data": data.model_dump(mode="json", exclude_none=True),
                "dataschema": schema_urn(data.TYPE, data.VERSION),
            }
            (folder / f"v2-{name}.json").write_bytes(orjson.dumps(event))
    with patch.object(schema, "_SCHEMAS", directory):
        with next_release():
            schema.write()
        schema.load.cache_clear()
        yield directory
    schema.load.cache_clear()


def _next(step: Step) -> Step:
    if step.name not in STEPS:
        return step
    convert, model = STEPS[step.name]

    async def run(move: Move) -> EventData:
        return convert(await step.run(move))

    return dataclasses.replace(step, run=run, emits=(model,))
