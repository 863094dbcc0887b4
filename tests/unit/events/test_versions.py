"""A type in two versions: what is published, what a reader gets, what is refused."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from rehome_events.catalog import CATALOG, all_in_use, in_use, lookup, requested
from rehome_events.client import Subscriber
from rehome_events.data import EventData
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, decode, encode
from rehome_events.errors import EventError, UnknownVersion
from rehome_events.migration import MigrationCompleted, MigrationFailed
from rehome_events.testing import Story, assert_valid_event, unmet
from rehome_events.versions import in_every_version
from tests.support.second_versions import (
    MigrationCompletedV2,
    announcing_release,
    completed_in_second,
    next_release,
    next_schemas,
)

KIND = MigrationCompleted.TYPE
BOTH = (MigrationCompleted, MigrationCompletedV2)


@pytest.fixture(scope="module")
def _examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Golden examples of the second versions, which stories are made of."""
    with next_schemas(tmp_path_factory.mktemp("next") / "schemas"):
        yield


def completed() -> CloudEvent[Any]:
    """An event of the first version, the only one of the present release."""
    return Story().events[-1]


def completed_next() -> CloudEvent[Any]:
    """The same, in the second version."""
    event = completed()
    data = completed_in_second(event.data)
    return event.model_copy(update={"data": data, "dataschema": f"urn:rehome:events:{KIND}:v2"})


async def nothing(_: object) -> None:
    """Handle nothing."""


def subscribe(*types: str | type[EventData]) -> Subscriber:
    return Subscriber("amqp://127.0.0.1:1/", nothing, team="crm", name="upgrades", types=types or None)


def test_an_event_is_published_newest_first_in_every_version_with_one_id() -> None:
    event = completed_next()
    with next_release():
        versions = in_every_version(event)
    assert [version.dataschema for version in versions] == [
        f"urn:rehome:events:{KIND}:v2",
        f"urn:rehome:events:{KIND}:v1",
    ]
    assert {version.id for version in versions} == {event.id}


def test_each_version_of_an_event_is_valid_and_read_as_what_it_is() -> None:
    with next_release():
        for version in in_every_version(completed_next()):
            assert decode(encode(version), CONTENT_TYPE) == version


def test_an_event_of_one_version_is_published_as_it_is() -> None:
    event = completed()
    assert in_every_version(event) == (event,)


def test_an_announced_version_is_read_and_not_yet_published() -> None:
    event = completed()
    with next_release():
        body = encode(newer := completed_next())
    with announcing_release():
        assert decode(body, CONTENT_TYPE) == newer
        assert in_every_version(event) == (event,)
        assert [entry.version for entry in in_use(KIND)] == [1]


def test_a_retired_version_is_no_longer_published_and_still_read() -> None:
    event, newer = completed(), completed_next()
    with next_release(beside=False):
        assert [entry.version for entry in in_use(KIND)] == [2]
        assert in_every_version(newer) == (newer,)
        assert decode(encode(event), CONTENT_TYPE) == event


def test_an_unknown_version_is_named() -> None:
    with next_release():
        body = encode(completed_next())
    with pytest.raises(UnknownVersion, match=r"unknown version 2 .*migration\.completed"):
        decode(body, CONTENT_TYPE)


def test_a_name_means_the_first_version_whatever_the_release_knows() -> None:
    before = requested(KIND)
    with next_release():
        assert requested(KIND) is before
        assert (lookup(KIND).version, requested(MigrationCompletedV2).version) == (2, 2)


@pytest.mark.parametrize("types", [(KIND,), (MigrationCompleted,), ()])
def test_a_subscriber_of_a_retired_version_is_refused(types: tuple[Any, ...]) -> None:
    with (
        next_release(beside=False),
        pytest.raises(EventError, match=r"v1 is not published any more: name one of the models .*V2"),
    ):
        subscribe(*types)


def test_a_subscriber_may_name_a_model_instead_of_a_type() -> None:
    assert subscribe(MigrationFailed).types == {MigrationFailed.TYPE}


def test_a_model_of_another_release_is_refused() -> None:
    with pytest.raises(EventError, match=r"migration\.completed v2 is not published"):
        subscribe(MigrationCompletedV2)


@pytest.mark.usefixtures("_examples")
def test_a_story_has_the_oldest_versions_unless_others_are_chosen() -> None:
    with next_release():
        assert {event.data.VERSION for event in Story().events} == {1}
        assert isinstance(Story(models=(MigrationCompletedV2,)).events[-1].data, MigrationCompletedV2)


@pytest.mark.usefixtures("_examples")
def test_several_versions_of_a_storys_event_have_one_id() -> None:
    with next_release():
        newer, older = Story(models=BOTH).events[-2:]
    assert (newer.data.VERSION, older.data.VERSION) == (2, 1)
    assert newer.id == older.id


@pytest.mark.usefixtures("_examples")
def test_a_field_is_unknown_by_the_schema_of_its_own_version() -> None:
    with next_release():
        event = orjson.loads(encode(completed_next()))
        assert_valid_event(event)
        event["data"]["downtime_seconds"] = 41.7
        with pytest.raises(AssertionError, match=r"data\.downtime_seconds"):
            assert_valid_event(event)


def test_what_relies_on_a_retired_version_is_not_met() -> None:
    need = {"subscriber": "crm", "needs": [{"type": KIND, "version": 1, "fields": {}}]}
    assert unmet(need) == []
    with next_release(beside=False):
        assert unmet(need) == [f"crm: {KIND} v1 is not published any more"]


def test_every_version_in_use_is_listed_newest_first() -> None:
    assert [entry.type for entry in all_in_use()] == list(CATALOG)
    with next_release():
        assert [entry.version for entry in all_in_use() if entry.type == KIND] == [2, 1]
