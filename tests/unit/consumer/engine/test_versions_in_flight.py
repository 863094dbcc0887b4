"""A migration whose events change their version on the way: started by one release, finished by another."""

from __future__ import annotations

import dataclasses
import random
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson
import pytest

from rehome_consumer import saga
from rehome_consumer.engine.outcome import EARLY_LIMIT
from rehome_consumer.errors import Refused
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import queue_of
from rehome_events.envelope import decode, encode
from rehome_events.migration import MigrationPrepared
from tests.support.rig import CrashError, Rig
from tests.support.second_versions import MigrationPreparedLater, announcing_release, next_release

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rehome_events.envelope import CloudEvent

STEPS = [step.name for step in saga.MIGRATION[:-1]]
EMITTED = [step.emits[0].TYPE for step in saga.MIGRATION[:-1]]
STOPPED = "migration.stopped"
RELEASES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "present": nullcontext,
    "announcing": announcing_release,
    "next": next_release,
    "after": lambda: next_release(beside=False),
}


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def carry_on(rig: Rig, release: str, *, until: str | None = None) -> None:
    """Let a release handle everything that is left, or until there is a delivery for that step."""
    with RELEASES[release]():
        await rig.run(until)


def versions(rig: Rig, kind: str) -> list[int]:
    """Versions in which an event was published, in order."""
    with next_release():
        return [event.data.VERSION for event in rig.events(kind)]


def assert_completed(rig: Rig, event: CloudEvent[Any]) -> None:
    """Each step ran once, each event is published, and nothing is left behind."""
    assert rig.row(event).state == "completed"
    assert rig.published() == EMITTED
    assert rig.dead() == []
    assert {row.step: row.runs for row in rig.journal.steps.values()} == dict.fromkeys(STEPS, 1)


async def test_a_handler_that_gets_both_versions_of_an_event_runs_its_step_once(rig: Rig) -> None:
    event = rig.upgraded()
    await carry_on(rig, "next", until="back_up")
    first, second = (stored.message for stored in rig.node.queues[queue_of("back_up")].ready)
    assert first.message_id == second.message_id
    await carry_on(rig, "next")
    assert_completed(rig, event)
    assert versions(rig, STOPPED) == versions(rig, "migration.completed") == [2, 1]


@pytest.mark.parametrize("step", STEPS[1:])
@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        ("present", "next"),
        ("next", "present"),
        ("announcing", "next"),
        ("next", "after"),
        ("after", "announcing"),
    ],
)
async def test_a_migration_started_by_one_release_is_finished_by_another(
    rig: Rig, begins: str, ends: str, step: str
) -> None:
    event = rig.upgraded()
    await carry_on(rig, begins, until=step)
    await carry_on(rig, ends)
    assert_completed(rig, event)


@pytest.mark.parametrize("boundary", ["stop.committed", "publish.migration.stopped.confirmed"])
@pytest.mark.parametrize(("begins", "ends"), [("present", "next"), ("next", "present")])
async def test_what_one_release_left_in_the_outbox_is_sent_by_another(
    rig: Rig, begins: str, ends: str, boundary: str
) -> None:
    event = rig.upgraded()
    await carry_on(rig, begins, until="stop")
    rig.fail(boundary, CrashError())
    with RELEASES[begins]():
        await rig.handle_next("stop")
    await carry_on(rig, ends)
    assert_completed(rig, event)
    assert set(versions(rig, STOPPED)) == ({1} if begins == "present" else {1, 2})


@pytest.mark.parametrize("seed", range(20))
async def test_releases_that_share_the_queues_finish_a_migration_between_them(rig: Rig, seed: int) -> None:
    event = rig.upgraded()
    chance = random.Random(seed)  # noqa: S311 - reproducible is wanted
    for _ in range(100):
        with RELEASES[chance.choice(["present", "next"])]():
            await step_on(rig)
    await carry_on(rig, "present")
    assert_completed(rig, event)


async def step_on(rig: Rig) -> None:
    """One delivery; or the outbox or the delays, when none waits."""
    if any(rig.node.queues[queue_of(name)].ready for name in STEPS):
        await rig.handle_next()
    elif not await rig.relay.sweep():
        rig.node.pass_delays()


async def test_a_version_that_this_release_does_not_know_waits_for_one_that_does(rig: Rig) -> None:
    event = rig.upgraded()
    await carry_on(rig, "after", until="back_up")
    await rig.handle_next("back_up")
    assert rig.dead() == []
    await carry_on(rig, "after")
    assert_completed(rig, event)


async def test_a_version_that_no_release_knows_is_a_dead_letter_in_the_end(rig: Rig) -> None:
    rig.upgraded()
    await carry_on(rig, "after", until="back_up")
    await carry_on(rig, "present")
    assert rig.dead() == [("back_up", "gave_up_waiting")]
    dead_letter = rig.node.queues["migration.dead"].ready[0].message
    assert dead_letter.headers["rehome-error"] == f"unknown version 2 of event type '{STOPPED}'"
    assert dead_letter.headers["rehome-early-returns"] == EARLY_LIMIT
    (recorded,) = rig.journal.dead_letters.values()  # for the reconciler, which may not read the queue
    assert (recorded.id, recorded.handler, recorded.reason) == (
        dead_letter.message_id,
        "back_up",
        "gave_up_waiting",
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"migrationid": "x", "attempt": 1},
        {"migrationid": str(uuid4()), "attempt": "x"},
        {"migrationid": str(uuid4()), "attempt": 2**62},
        {"migrationid": str(uuid4()), "attempt": 1, "replayof": str(uuid4())},
    ],
)
async def test_an_unknown_version_that_does_not_say_whose_it_is_waits_too(
    rig: Rig, attributes: dict[str, object]
) -> None:
    newer = {"specversion": "1.0", "type": STOPPED, "dataschema": f"urn:rehome:events:{STOPPED}:v9"}
    body = orjson.dumps({**newer, **attributes, "data": {}})
    rig.node.publish("migration", STOPPED, Message(body=body), mandatory=True)
    await rig.handle_next("back_up")
    assert rig.dead() == []
    assert rig.node.pass_delays()


async def test_an_upgrade_that_comes_in_two_versions_opens_one_migration(rig: Rig) -> None:
    event = rig.upgraded()
    newer = orjson.loads(encode(event)) | {"dataschema": "urn:rehome:events:plan.upgraded:v2"}
    rig.node.publish("billing", event.type, Message(body=orjson.dumps(newer)), mandatory=True)
    await carry_on(rig, "present")
    assert_completed(rig, event)
    assert len(rig.journal.migrations) == 1


async def test_an_upgrade_in_an_unknown_version_alone_waits(rig: Rig) -> None:
    event = rig.upgraded()
    queue = rig.node.queues[queue_of("accept")]
    newer = orjson.loads(encode(event)) | {"dataschema": "urn:rehome:events:plan.upgraded:v2"}
    queue.ready[0] = dataclasses.replace(queue.ready[0], message=Message(body=orjson.dumps(newer)))
    await rig.handle_next("accept")
    assert rig.dead() == []
    assert rig.journal.migrations == {}


async def test_a_field_that_a_later_release_added_is_ignored(rig: Rig) -> None:
    event = rig.upgraded()
    await carry_on(rig, "next", until="stop")
    (prepared,) = rig.node.queues[queue_of("stop")].ready
    assert orjson.loads(prepared.message.body)["data"]["advice"] == "Nothing to do."
    assert type(decode(prepared.message.body).data) is MigrationPrepared is not MigrationPreparedLater
    await carry_on(rig, "present")
    assert_completed(rig, event)


async def test_a_rollback_after_a_change_of_release_restores_everything(rig: Rig) -> None:
    event = rig.upgraded()
    before = rig.site.snapshot(event.data.instance_id)
    await carry_on(rig, "next", until="restore")
    rig.fail("restore.platform.instance.before", Refused("no"))
    await carry_on(rig, "present")
    assert rig.row(event).state == "rolled_back"
    assert rig.site.snapshot(event.data.instance_id) == before
