"""What operators do with the console: on a real broker and journal, through the functions of the command line."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika

from rehome_consumer import saga
from rehome_consumer.operators import rollback_request
from rehome_consumer.rabbitmq.topology import DEAD, queue_of
from rehome_events.envelope import decode
from tests.contract.journals import postgres_journal, state_database
from tests.support.console import ACT, READ, TOKENS, bearer, console_on, given_up, opened
from tests.support.events import migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    import pytest

    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_events.envelope import CloudEvent
    from sandbox.postgres.server import Cluster
    from sandbox.rabbitmq.node import BrokerNode


@asynccontextmanager
async def console_and_journal(pg: Cluster, broker: BrokerNode) -> AsyncIterator[tuple[Any, PostgresJournal]]:
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn) as journal,
        console_on(dsn, console_tokens=TOKENS, amqp_url=broker.url()) as client,
    ):
        client.headers.update(bearer(ACT))
        yield client, journal


async def in_queue(broker: BrokerNode, name: str) -> list[str | None]:
    """Take everything from a queue."""
    async with await aio_pika.connect(broker.url(), timeout=30) as connection:
        queue = await (await connection.channel()).get_queue(name)
        found = []
        while message := await queue.get(fail=False):
            await message.ack()
            found.append(message.type)
        return found


async def history(client: httpx.AsyncClient, event: CloudEvent[Any]) -> list[str]:
    answer = await client.get(f"/api/v1/migrations/{migration_of(event)}")
    return [f"{line['what']}: {line['detail']}" for line in answer.json()["history"]]


async def test_a_dead_letter_is_looked_at_and_replayed(pg: Cluster, broker: BrokerNode) -> None:
    async with console_and_journal(pg, broker) as (client, journal):
        event = await opened(journal)
        id_ = await given_up(broker, event)
        (queued,) = (await client.get("/api/v1/dead-letters/queue")).json()["dead_letters"]
        assert (queued["id"], queued["error"], queued["migration_id"]) == (
            id_,
            "<b>no</b>",
            str(migration_of(event)),
        )
        assert f"/dead-letters/{id_}" in (await client.get("/dead-letters/queue")).text
        letter = (await client.get(f"/api/v1/dead-letters/{id_}")).json()
        assert (letter["handler"], letter["error"], letter["event"]["type"]) == (
            "accept",
            "<b>no</b>",
            "plan.upgraded",
        )
        page = (await client.get(f"/dead-letters/{id_}")).text
        assert "&lt;b&gt;no&lt;/b&gt;" in page
        assert "REHOME_PLATFORM_DSN" in page  # why servers were not looked at
        only = await client.post(
            f"/api/v1/dead-letters/{id_}/replay", json={"why": "to see", "dry_run": True}
        )
        assert (only.json()["done"], only.json()["what"]) == (False, letter["replay"]["what"])
        assert not any("replayed" in line for line in await history(client, event))
        done = await client.post(f"/api/v1/dead-letters/{id_}/replay", json={"why": "there is room now"})
        assert done.json()["done"] is True, done.text
        assert await in_queue(broker, queue_of("accept")) == ["plan.upgraded"]
        assert any(
            line.startswith("dead letter replayed: by anna: there is room now; ")
            for line in await history(client, event)
        )
        again = await client.post(f"/api/v1/dead-letters/{id_}/replay", json={"why": "once more"})
        assert (again.status_code, "no dead letter" in again.json()["detail"]) == (404, True)


async def test_a_dead_letter_is_discarded_on_the_page(pg: Cluster, broker: BrokerNode) -> None:
    async with console_and_journal(pg, broker) as (client, journal):
        event = await opened(journal)
        id_ = await given_up(broker, event)
        del client.headers["Authorization"]
        assert (await client.post("/sign-in", data={"token": ACT})).status_code == 303
        form = re.search(r'name="csrf" value="([^"]+)"', (await client.get(f"/dead-letters/{id_}")).text)
        assert form
        answer = await client.post(
            f"/dead-letters/{id_}/discard", data={"csrf": form[1], "why": "the customer left"}
        )
        assert (answer.status_code, "is still open" in answer.text) == (200, True)
        assert await in_queue(broker, DEAD) == []
        line = "dead letter discarded: by anna: the customer left; plan.upgraded of accept"
        assert line in await history(client, event)


async def test_a_migration_is_rolled_back_once_its_effect_was_shown(
    pg: Cluster, broker: BrokerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback_request, "TAKEN_UP_WITHIN", 0.0)
    async with console_and_journal(pg, broker) as (client, journal):
        event = await opened(journal)
        path = f"/migrations/{migration_of(event)}/roll-back"
        assert "it would be rejected" in (await client.get(path)).text
        assert (await client.post(f"/api/v1{path}", json={"why": "no"})).status_code == 422
        first = await client.post(f"/api/v1{path}", json={"why": "the customer asked", "dry_run": True})
        assert (first.json()["cancel"], first.json()["requested"]) == (True, False)
        done = await client.post(f"/api/v1{path}", json={"why": "the customer asked"})
        assert (done.json()["requested"], done.json()["taken_up"]) == (True, False)
        row = await journal.migration(migration_of(event))
        assert row is not None
        assert row.state == "rejected"
        assert "rollback asked for: by anna: the customer asked" in await history(client, event)
        again = await client.post(f"/api/v1{path}", json={"why": "the customer asked"})
        assert (again.status_code, "is over: rejected" in again.json()["detail"]) == (409, True)


async def test_moves_are_paused_and_resumed_by_the_api_and_on_the_page(
    pg: Cluster, broker: BrokerNode
) -> None:
    async with console_and_journal(pg, broker) as (client, _):
        assert (await client.get("/api/v1/overview")).json()["paused"] is None
        assert 'href="/pause">Pause all moves' in (await client.get("/")).text
        assert (await client.post("/api/v1/pause", json={"why": "no"})).status_code == 422
        first = (await client.post("/api/v1/pause", json={"why": "the <b>storage</b> is slow"})).json()
        assert (first["changed"], first["paused"]["by"]) == (True, "anna")
        again = (await client.post("/api/v1/pause", json={"why": "once more"})).json()
        assert (again["changed"], again["paused"]) == (False, first["paused"])
        await asyncio.sleep(1.1)  # an overview is made once a second, for all
        page = (await client.get("/")).text
        assert "the &lt;b&gt;storage&lt;/b&gt; is slow" in page
        assert 'href="/pause">Resume all moves' in page
        assert "rehome_paused 1.0" in (await client.get("/metrics")).text
        del client.headers["Authorization"]
        assert (await client.post("/api/v1/resume", json={"why": "nobody"})).status_code == 401
        assert (await client.post("/sign-in", data={"token": ACT})).status_code == 303
        form = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/pause")).text)
        assert form
        assert (await client.post("/resume", data={"why": "another site"})).status_code == 403
        answer = await client.post("/resume", data={"csrf": form[1], "why": "it is quick again"})
        assert (answer.status_code, "goes on within a minute" in answer.text) == (200, True)
        await asyncio.sleep(1.1)
        assert (await client.get("/api/v1/overview")).json()["paused"] is None
        client.headers.update(bearer(READ))
        client.cookies.clear()
        assert (await client.post("/api/v1/pause", json={"why": "a reader"})).status_code == 403
        assert "/pause" not in (await client.get("/")).text


async def test_an_upgrade_is_published_for_whoever_may_and_its_history_says_who(
    pg: Cluster, broker: BrokerNode
) -> None:
    event = upgrade(uuid4())
    given: dict[str, Any] = {"upgrade": event.data.model_dump(mode="json"), "why": "the customer called"}
    async with console_and_journal(pg, broker) as (client, _):
        answer = await client.post("/api/v1/upgrades", json=given)
        assert (answer.status_code, "REHOME_CONSOLE_PUBLISH_URL is not set" in answer.text) == (409, True)
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn) as journal,
        console_on(dsn, console_tokens=TOKENS, console_publish_url=broker.url()) as client,
    ):
        client.headers.update(bearer(READ))
        assert (await client.post("/api/v1/upgrades", json=given)).status_code == 403
        client.headers.update(bearer(ACT))
        wrong = {**given, "upgrade": {**given["upgrade"], "instance_id": "acme"}}
        assert (await client.post("/api/v1/upgrades", json=wrong)).status_code == 422
        assert await in_queue(broker, queue_of("accept")) == []

        async def take() -> None:
            async with await aio_pika.connect(broker.url(), timeout=30) as connection:
                queue = await (await connection.channel()).get_queue(queue_of("accept"))
                async with queue.iterator(timeout=20) as messages:
                    message = await anext(messages)
                    await message.ack()
                got = decode(message.body)
                await journal.open(migration_of(got), got.data.instance_id, got, message.body)

        async with asyncio.timeout(30), asyncio.TaskGroup() as together:
            together.create_task(take())
            answer = await client.post("/api/v1/upgrades", json=given)
        done = answer.json()
        assert (answer.status_code, done["taken"]) == (200, True), done
        assert done["instance_id"] == str(event.data.instance_id)
        shown = (await client.get(f"/api/v1/migrations/{done['migration_id']}")).json()
        assert shown["migration"]["to_plan"] == event.data.to_plan
        (line,) = [one for one in shown["history"] if one["what"] == "asked for at the console"]
        assert line["detail"] == "by anna: the customer called"


async def test_queues_are_shown_with_what_waits_and_who_reads(pg: Cluster, broker: BrokerNode) -> None:
    async with console_and_journal(pg, broker) as (client, _):
        async with await aio_pika.connect(broker.url(), timeout=30) as connection:
            channel = await connection.channel()
            await channel.default_exchange.publish(aio_pika.Message(b"{}"), queue_of("stop"))
            found: dict[str, Any] = {}
            async with asyncio.timeout(20):
                while not found.get(queue_of("stop"), {}).get("ready"):
                    await asyncio.sleep(0.2)
                    answer = (await client.get("/api/v1/queues")).json()
                    found = {one["name"]: one for one in answer["queues"]}
            assert answer["trouble"] is None
            assert {DEAD, *(queue_of(step.name) for step in saga.MIGRATION)} <= found.keys()
            page = (await client.get("/queues")).text
            assert (
                f'<code>{queue_of("stop")}</code></td><td>1</td><td>0 <span class="state bad">nobody reads it'
                in page
            )
        assert await in_queue(broker, queue_of("stop")) == [None]


async def test_without_a_broker_the_page_of_queues_says_why(pg: Cluster) -> None:
    async with state_database(pg) as dsn, postgres_journal(dsn), console_on(dsn) as client:
        assert "REHOME_AMQP_URL is not set" in (await client.get("/queues")).text
        assert (await client.get("/api/v1/queues")).json()["queues"] == []


async def test_a_migration_gets_another_priority(pg: Cluster, broker: BrokerNode) -> None:
    async with console_and_journal(pg, broker) as (client, journal):
        event = await opened(journal)
        path = f"/migrations/{migration_of(event)}/prioritize"
        assert f'href="{path}"' in (await client.get(f"/migrations/{migration_of(event)}")).text
        del client.headers["Authorization"]
        assert (await client.post("/sign-in", data={"token": ACT})).status_code == 303
        form = re.search(r'name="csrf" value="([^"]+)"', (await client.get(path)).text)
        assert form
        wrong = await client.post(path, data={"csrf": form[1], "why": "the customer asked", "priority": "10"})
        assert (wrong.status_code, "from 0 to 9" in wrong.text) == (409, True)
        given = {"csrf": form[1], "why": "the customer asked", "priority": "9"}
        answer = await client.post(path, data=given)
        assert (answer.status_code, "It had priority 4. Now: priority 9." in answer.text) == (200, True)
        client.headers.update(bearer(ACT))
        assert "priority changed: by anna: the customer asked; from 4 to 9" in await history(client, event)
        migration = await journal.migration(migration_of(event))
        assert migration is not None
        facts = journal.facts(await journal.begin(migration, "prepare", replay=None))
        assert await facts.acquire_slots({"rehearsal pool": 0}) is not None
        done = (await client.post(f"/api/v1{path}", json={"why": "once more", "priority": 0})).json()
        assert done == {
            "migration_id": str(migration_of(event)),
            "instance_id": str(event.data.instance_id),
            "before": 9,
            "priority": 0,
            "place_in_line": 1,
            "length_of_line": 1,
        }
        shown = (await client.get(f"/api/v1/migrations/{migration_of(event)}")).json()["migration"]
        assert (shown["priority"], shown["place_in_line"], shown["length_of_line"]) == (0, 1, 1)
        assert "1st of 1 in line, priority 0" in (await client.get("/")).text
        assert "<p>Now: 1st of 1 in line, priority 0.</p>" in (await client.get(path)).text
        wrong = await client.post(f"/api/v1{path}", json={"why": "once more", "priority": 10})
        assert wrong.status_code == 422
        absent = await client.post(
            f"/api/v1/migrations/{uuid4()}/prioritize", json={"why": "no such one", "priority": 1}
        )
        assert (absent.status_code, "is open" in absent.json()["detail"]) == (404, True)


async def test_a_migration_is_let_go_outside_of_the_window(pg: Cluster, broker: BrokerNode) -> None:
    async with console_and_journal(pg, broker) as (client, journal):
        event = await opened(journal)
        path = f"/migrations/{migration_of(event)}/move-now"
        assert f'href="{path}"' in (await client.get(f"/migrations/{migration_of(event)}")).text
        del client.headers["Authorization"]
        assert (await client.post("/sign-in", data={"token": ACT})).status_code == 303
        form = re.search(r'name="csrf" value="([^"]+)"', (await client.get(path)).text)
        assert form
        answer = await client.post(path, data={"csrf": form[1], "why": "the customer asked"})
        assert (answer.status_code, "within a minute" in answer.text) == (200, True)
        client.headers.update(bearer(ACT))
        assert "let go outside of the window: by anna: the customer asked" in await history(client, event)
        await client.post("/api/v1/pause", json={"why": "the storage is slow"})
        done = (await client.post(f"/api/v1{path}", json={"why": "once more"})).json()
        assert (done["migration_id"], done["paused"]["by"]) == (str(migration_of(event)), "anna")
        absent = await client.post(f"/api/v1/migrations/{uuid4()}/move-now", json={"why": "no such one"})
        assert (absent.status_code, "is open" in absent.json()["detail"]) == (404, True)
