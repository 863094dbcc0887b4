"""The ten minutes of docs/other-clients.md, done as they stand."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import aio_pika
import pytest

from rehome_events.testing import Story
from tests.clients.pages import NODE, PAGE, Reader, installed
from tests.install.first_minutes import Terminal, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aio_pika.abc import AbstractChannel

CLIENTS = [("Node", "sub_crm.node"), ("pika", "sub_crm.pika")]


@contextmanager
def following(reader: Reader, client: str, queue: str, **variables: str) -> Iterator[Terminal]:
    """The page's subscriber, until Ctrl-C, which must end it with 0."""
    follow = reader.save(client)[1]
    program = reader.program(follow)
    with terminal(program, reader.directory, reader.environment(**variables)) as running:
        running.wait_for(f"^following on {queue}$")
        yield running


async def gone(channel: AbstractChannel, queue: str) -> None:
    for suffix in ("", ".retry", ".dead"):
        await channel.queue_delete(queue + suffix)
    await channel.exchange_delete(queue)


@pytest.mark.parametrize("client", [client for client, _ in CLIENTS])
def test_the_publisher_conforms_and_notices_that_no_queue_gets_its_event(client: str, reader: Reader) -> None:
    publish = reader.save(client)[0]
    first_line, second_line = reader.shell(publish).splitlines()
    assert first_line == "published"
    assert second_line.startswith("conforms: plan.upgraded ")


@pytest.mark.parametrize("client", [client for client, _ in CLIENTS])
def test_the_publisher_says_why_it_could_not_publish(client: str, reader: Reader) -> None:
    publish = reader.save(client)[0].splitlines()[0].partition(" ")[2]
    for url, says in (
        (reader.variables["EMPTY_AMQP_URL"], "no exchange 'billing'|no queue is bound|unroutable"),
        (reader.variables["CRM_AMQP_URL"], "ACCESS_REFUSED"),
        (re.sub(r":[^:@]+@", ":wrong@", reader.variables["BILLING_AMQP_URL"]), "ACCESS_REFUSED|403"),
    ):
        ended = reader.shell(f"! {publish}", EVENTS_AMQP_URL=url)
        assert re.search(says, ended)
        assert "published" not in ended


@pytest.mark.parametrize(("client", "queue"), CLIENTS)
async def test_the_subscriber_prints_each_end_once_and_what_came_while_it_was_away(
    client: str, queue: str, reader: Reader, operator: AbstractChannel
) -> None:
    with following(reader, client, queue) as running:
        reader.shell(reader.save(client)[2])
        running.wait_for("^[0-9a-f-]{36}: still on the shared pool: ")
        running.wait_for("^[0-9a-f-]{36}: moved, [0-9]+ s of downtime$")
    assert len(running.lines) == 3
    reader.shell("python -m rehome_events mock --force --outcome rolled_back")
    with following(reader, client, queue) as running:
        running.wait_for("^[0-9a-f-]{36}: still on the shared pool: ")
    await gone(operator, queue)


@pytest.mark.parametrize(("client", "queue"), CLIENTS)
async def test_what_cannot_be_handled_is_tried_five_times_and_what_cannot_be_read_not_at_all(
    client: str, queue: str, reader: Reader, operator: AbstractChannel
) -> None:
    migration = await operator.get_exchange("migration", ensure=False)
    event = json.loads(Story("completed").bodies()[-1])
    event["data"]["downtime_seconds"] = None if client == "Node" else "long"
    event["data"]["customer_id"] = None
    wrong = event if client == "pika" else {**event, "data": None}
    with following(reader, client, queue, RETRY_DELAY="200") as running:
        sent = {"content_type": "application/cloudevents+json; charset=utf-8", "message_id": event["id"]}
        await migration.publish(aio_pika.Message(json.dumps(wrong).encode(), **sent), "migration.completed")
        running.wait_for("^failed: ", 5)
        await migration.publish(aio_pika.Message(b"no JSON", **sent), "migration.completed")
        reader.shell("python -m rehome_events mock --force --outcome completed")
        running.wait_for(": moved, ")
    assert len([line for line in running.lines if line.startswith("failed: ")]) == 5
    dead = await operator.get_queue(f"{queue}.dead")
    letters = [await dead.get(fail=True, no_ack=True, timeout=10) for _ in range(2)]
    assert [letter.message_id for letter in letters if letter] == [event["id"], event["id"]]
    assert letters[1] is not None
    assert letters[1].body == b"no JSON"
    assert all(letter and letter.headers["sub-reason"] for letter in letters)
    assert await dead.get(fail=False) is None
    await gone(operator, queue)


def test_what_the_page_installs_is_what_was_tested() -> None:
    listed = json.loads((NODE / "package.json").read_text())
    pinned = {f"{name}@{version}" for name, version in listed["dependencies"].items()}
    assert installed() == {*pinned, "$REHOME/events", "pika"}
    for text in re.findall(r"prints `([^`]+)`", PAGE.read_text()):
        assert text in {"published", "following on sub_crm.node", "following on sub_crm.pika"}
