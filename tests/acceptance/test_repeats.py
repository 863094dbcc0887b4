"""A duplicate and a replay of every event change nothing."""

import asyncio
from typing import Any
from uuid import uuid4

import aio_pika

from rehome_consumer import saga
from rehome_consumer.rabbitmq.topology import HANDLER
from rehome_events.catalog import lookup
from rehome_events.envelope import CloudEvent, to_message
from sandbox.demo.demo import CHAIN
from sandbox.demo.observation import database_dsn, observe
from sandbox.odoo.writers import Writers
from sandbox.platform.billing import Billing
from sandbox.platform.local import LocalPlatform
from sandbox.platform.subscriber import Subscriber
from sandbox.system.net import wait_until
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite, until_states

HANDLERS = {step.on.TYPE: step.name for step in saga.MIGRATION}


class Repeater:
    """Publishes every event that it receives a second time, and replays it to its handler."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[CloudEvent[Any]] = asyncio.Queue()

    def receive(self, event: CloudEvent[Any]) -> None:
        self.received.put_nowait(event)

    async def repeat(self, url: str, first: CloudEvent[Any]) -> None:
        connection = await aio_pika.connect(url)
        repeated = set()
        async with connection:
            channel = await connection.channel(publisher_confirms=True)
            to_handlers = await channel.get_exchange(HANDLER, ensure=False)
            event = first
            while True:
                if event.id not in repeated:
                    repeated.add(event.id)
                    exchange = lookup(event.type, event.data.VERSION).exchange
                    original = await channel.get_exchange(exchange, ensure=False)
                    await original.publish(to_message(event), event.type)
                    if event.type in HANDLERS:
                        again = event.model_copy(update={"id": uuid4(), "replayof": event.id})
                        await to_handlers.publish(to_message(again), HANDLERS[event.type])
                event = await self.received.get()


async def test_every_event_twice_and_replayed_is_one_migration_with_one_outcome(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    repeater = Repeater()
    async with (
        local.consumer(),
        Subscriber(local.broker.url(), on_event=repeater.receive) as subscriber,
        Writers(site.url) as writers,
    ):
        upgrade = await billing.upgrade(site.id, PLAN)
        repeating = asyncio.create_task(repeater.repeat(local.broker.url(), upgrade))
        await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
        # after the end, everything once more
        for event in list(subscriber.events):
            repeater.receive(event)
        await writers.wait_acknowledged(5)
        await until_queues_empty(local)
        repeating.cancel()
    (found,) = await until_states(rehome, site.id, {"completed"})
    assert subscriber.types(site.id) == list(CHAIN)
    assert found["attempt"] == 1
    assert all(step["tries"] == 0 for step in found["steps"])
    assert (await writers.verify_writes(await database_dsn(local, site))).ok
    assert (await observe(local, site)).on_dedicated > 0
    assert (await rehome("dead", "list", "--instance", site.id, "--json")).json == []


async def until_queues_empty(local: LocalPlatform) -> None:
    """Return when no message waits for a handler any more."""

    async def empty() -> bool:
        queues = await local.broker.queues()
        own = (name for name in queues if name.startswith(("migration.h.", "migration.retry.")))
        return not any(queues[name]["messages"] for name in own)

    await wait_until(empty, what="the handlers' queues to be empty", limit=LIMIT, pause=0.2)
