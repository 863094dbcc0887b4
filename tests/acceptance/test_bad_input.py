"""Bad input: a clear error, the event in the dead letters with its reason, the next event handled."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aio_pika
import orjson
import pytest

from sandbox.platform.billing import Billing
from sandbox.platform.local import LocalPlatform
from sandbox.platform.subscriber import Subscriber
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite

HOSTILE = "x'; DROP TABLE instances; --\"../../etc/passwd %s $(reboot)\n"


def upgrade(**changes: Any) -> dict[str, Any]:
    """A good plan.upgraded, some of its fields changed."""
    instance = str(uuid4())
    data = {
        "instance_id": instance,
        "customer_id": str(uuid4()),
        "subscription_id": str(uuid4()),
        "from_plan": "standard-monthly",
        "to_plan": PLAN,
        "plan_tier": "premium",
    }
    attributes = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/billing",
        "type": "plan.upgraded",
        "subject": instance,
        "time": datetime.now(UTC).isoformat(),
    }
    in_data = {name: value for name, value in changes.items() if name in data}
    return {**attributes, **{k: v for k, v in changes.items() if k not in data}, "data": {**data, **in_data}}


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "not JSON": (lambda: b'{"specversion": "1.0", ', "not JSON"),
    "not UTF-8": (lambda: b'{"specversion": "\xff"}', "not JSON"),
    "a list": (lambda: b"[1, 2, 3]", "not a JSON object"),
    "too large": (lambda: b'"' + b"x" * 2_000_000 + b'"', "more than"),
    "an instance that is not a UUID": (
        lambda: orjson.dumps(upgrade(instance_id="../../acme")),
        "instance_id",
    ),
    "a plan that is a number": (lambda: orjson.dumps(upgrade(to_plan=7)), "to_plan"),
    "no customer": (lambda: orjson.dumps(upgrade(customer_id=None)), "customer_id"),
    "another type": (lambda: orjson.dumps(upgrade(type="plan.exploded")), "plan.exploded"),
    "NUL in a name": (lambda: orjson.dumps(upgrade(to_plan="a\x00b")), "NUL"),
}


@asynccontextmanager
async def exchange(local: LocalPlatform, name: str) -> AsyncIterator[aio_pika.abc.AbstractExchange]:
    connection = await aio_pika.connect(local.broker.url())
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        yield await channel.get_exchange(name, ensure=False)


async def test_an_unreadable_event_is_a_dead_letter_with_its_reason_and_the_next_event_is_handled(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    site = await make_site(odoo=False, plan_tier="basic")
    ids = {name: str(uuid4()) for name in BAD}
    async with local.consumer(), exchange(local, "billing") as to:
        for name, (body, _) in BAD.items():
            message = aio_pika.Message(
                body(), message_id=ids[name], content_type="application/cloudevents+json"
            )
            await to.publish(message, routing_key="plan.upgraded")
        await billing.upgrade(site.id, "standard-monthly")
        await subscriber.wait_for("instance.resized", instance_id=site.id, limit=LIMIT)
    dead_letters = {one["id"]: one for one in (await rehome("dead", "list", "--json")).json}
    for name, (_, words) in BAD.items():
        dead_letter = dead_letters[ids[name]]
        assert (dead_letter["handler"], dead_letter["reason"]) == ("accept", "undecodable"), name
        assert words in dead_letter["error"], name
        assert (await rehome("dead", "discard", ids[name], "--reason", "tested")).code == 0


@pytest.mark.parametrize("field", ["from_plan", "to_plan", "plan_tier"])
async def test_a_hostile_name_is_only_data(field: str, local: LocalPlatform, subscriber: Subscriber) -> None:
    event = upgrade(**{field: HOSTILE})
    async with local.consumer(), exchange(local, "billing") as to:
        message = aio_pika.Message(orjson.dumps(event), content_type="application/cloudevents+json")
        await to.publish(message, routing_key="plan.upgraded")
        rejected = await subscriber.wait_for("migration.rejected", instance_id=event["subject"], limit=LIMIT)
    assert rejected.data.reason == "unknown_instance"


async def test_a_database_name_that_leaves_the_data_root_is_refused(
    local: LocalPlatform, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    instance = await local.platform.add_instance(
        "../../tmp/x", db_server_id=local.pool_id, db_host=local.pool.host, db_name="postgres"
    )
    async with local.consumer():
        await billing.upgrade(instance, PLAN)
        event = await subscriber.wait_for("migration.rolled_back", instance_id=instance, limit=LIMIT)
    assert event.data.failed_step == "prepare"
    (dead_letter,) = (await rehome("dead", "list", "--instance", instance, "--json")).json
    await rehome("dead", "discard", dead_letter["id"], "--reason", "tested")
