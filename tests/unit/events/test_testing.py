"""The helpers for other teams' tests."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import orjson
import pytest

from rehome_events.catalog import CATALOG
from rehome_events.client import Reject
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, decode, encode
from rehome_events.testing import DISORDERS, OUTCOMES, Disorder, Outcome, Story, assert_valid_event, play_into
from rehome_events.tools.schema import golden


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("disorder", DISORDERS)
def test_every_story_is_made_of_valid_events_of_one_migration(outcome: Outcome, disorder: Disorder) -> None:
    story = Story(outcome)
    for body in story.bodies(disorder):
        event = decode(body, CONTENT_TYPE)
        assert (event.data.instance_id, event.migrationid, event.attempt) == (
            story.instance_id,
            story.migration_id,
            1,
        )
        assert encode(event)


def test_the_story_of_a_success_is_the_contracts_order() -> None:
    types = [event.type for event in Story("completed").events]
    assert types == [kind for kind in CATALOG if kind.startswith("migration.")][: len(types)]
    assert types[-1] == "migration.completed"


def test_each_event_of_a_story_names_the_one_that_caused_it() -> None:
    story = Story("rolled_back")
    causes = [story.upgrade, *story.events]
    assert [event.causationid for event in story.events] == [event.id for event in causes[:-1]]


def test_a_failure_past_the_point_of_no_return_needs_an_operator() -> None:
    story = Story("failed")
    assert [event.type for event in story.events[-2:]] == ["migration.started", "migration.failed"]
    assert story.events[-1].data.next == "operator"
    assert Story("rolled_back").events[-2].data.next == "roll_back"


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_times_of_a_story_rise_from_its_start(outcome: Outcome) -> None:
    story = Story(outcome)
    times = [story.upgrade.time, *(event.time for event in story.events)]
    assert times[0] == story.start
    assert times == sorted(times)


def test_a_reordered_story_is_another_for_another_seed_and_the_same_for_the_same() -> None:
    story = Story("completed")
    assert story.bodies("reordered", seed=1) == story.bodies("reordered", seed=1)
    assert story.bodies("reordered", seed=1) != story.bodies("reordered", seed=2)


def test_repeated_events_have_the_same_id() -> None:
    ids = [event.id for event in Story("completed").disturbed("every event twice")]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == len(ids) // 2


def test_unknown_fields_are_in_the_bytes() -> None:
    for body in Story("completed").bodies("unknown fields"):
        assert "added_later" in orjson.loads(body)["data"]


def test_a_valid_event_is_returned_in_whatever_form_it_came() -> None:
    event = Story("completed").events[0]
    assert assert_valid_event(event) == assert_valid_event(encode(event)) == event
    assert assert_valid_event(orjson.loads(encode(event))) == event


def test_an_invalid_event_fails_with_what_is_wrong() -> None:
    event = golden("plan.upgraded", 1, "valid")["full"]
    del event["data"]["to_plan"]
    with pytest.raises(AssertionError, match=r"data\.to_plan"):
        assert_valid_event(event)


def test_a_misspelt_optional_field_fails_the_assertion() -> None:
    event = golden("plan.upgraded", 1, "valid")["full"]
    event["data"]["entitlments"] = event["data"].pop("entitlements")
    with pytest.raises(AssertionError, match=r"data\.entitlments"):
        assert_valid_event(event)


async def test_a_handler_gets_each_chosen_event_once_however_often_it_comes() -> None:
    got: list[str] = []

    async def handler(event: CloudEvent[Any]) -> None:
        got.append(event.type)

    chosen = ["migration.completed", "migration.stopped"]
    played = await play_into(handler, Story("completed").disturbed("every event twice"), types=chosen)
    assert got == ["migration.stopped", "migration.completed"]
    assert [event.type for event in played.handled] == got
    assert (played.calls, played.dead_letters) == (2, [])


async def test_an_event_that_failed_comes_again_after_the_others() -> None:
    got: list[str] = []

    async def handler(event: CloudEvent[Any]) -> None:
        got.append(event.type)
        if len(got) == 1:
            raise ConnectionError("not yet")

    played = await play_into(handler, Story("completed").events[:2])
    assert got == ["migration.requested", "migration.prepared", "migration.requested"]
    assert len(played.handled) == 2


async def test_an_event_that_always_fails_becomes_a_dead_letter() -> None:
    async def handler(event: CloudEvent[Any]) -> None:
        raise Reject("never") if event.type == "migration.requested" else ValueError("again")

    played = await play_into(handler, Story("completed").events[:2], tries=3)
    assert [(event.type, str(error)) for event, error in played.dead_letters] == [
        ("migration.requested", "never"),
        ("migration.prepared", "again"),
    ]
    assert played.calls == 1 + 3


PROJECT_TESTS = Path(__file__).parents[2] / "install" / "programs" / "project_tests.txt"


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=150, check=False
    )


def test_a_subscribers_test_runs_for_every_outcome_and_disorder(tmp_path: Path) -> None:
    (tmp_path / "test_subscriber.py").write_text(PROJECT_TESTS.read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    loaded = ("-p", "rehome_events.testing.plugin") if "rehome_events" not in installed_plugins() else ()
    ran = run_python("-m", "pytest", *loaded, "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert f"{len(OUTCOMES) * len(DISORDERS) * 2 + 1} passed" in ran.stdout, ran.stdout + ran.stderr


def installed_plugins() -> set[str]:
    return {plugin.name for plugin in entry_points(group="pytest11")}


def test_the_contract_is_imported_without_pytest_and_without_the_consumer(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import rehome_events.testing, rehome_events.__main__, rehome_events.client, rehome_events.tools.mock\n"
        "wrong = ('rehome_consumer', 'sandbox', 'jsonschema', 'yaml')\n"
        "print([name for name in sys.modules if name.split('.')[0] in wrong])"
    )
    ran = run_python("-c", code, cwd=tmp_path)
    assert ran.stdout.strip() == "[]", ran.stderr
