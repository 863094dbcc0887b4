"""`rehome topology apply | check | show` on a real node."""

import json
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from rehome_consumer.rabbitmq import topology
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import LOOPBACK, free_port, give_back_port
from tests.support.broker_users import as_booted, rehome
from tests.support.command_line import Answer
from tests.support.managed_broker import VHOST, ManagedBroker, managed_broker

DEFINITIONS = Path(__file__).parents[2] / "rabbitmq" / "definitions.json"
WANTED = topology.definitions()
KINDS = ("exchanges", "queues", "bindings")
SAME = (0, "the broker has the topology of the saga\n", "")
RETRY = "migration.retry.1m"


@pytest.fixture(scope="module")
async def managed(scratch: Path) -> AsyncIterator[ManagedBroker]:
    """A node without any topology, with users guest and migrator (4.3 boots no permissions of missing exchanges)."""
    migrator = replace(as_booted("migrator", "migrator"), topics={})
    async with managed_broker(scratch / "topology", migrator) as made:
        yield made


@pytest.fixture
async def applied(managed: ManagedBroker) -> AsyncIterator[ManagedBroker]:
    """The node with the topology; queues and policies are deleted after each test."""
    assert (await apply(managed.node)).code == 0
    yield managed
    for queue in await managed.call("GET", "queues", VHOST):
        await managed.call("DELETE", "queues", VHOST, queue["name"])
    for policy in await managed.call("GET", "policies", VHOST):
        await managed.call("DELETE", "policies", VHOST, policy["name"])


async def apply(node: BrokerNode, user: str = "guest", vhost: str = VHOST) -> Answer:
    return await rehome("topology", "apply", settings={"REHOME_AMQP_URL": node.url(user, vhost=vhost)})


async def check(managed: ManagedBroker, *options: object, stdin: str = "") -> Answer:
    settings = {"REHOME_AMQP_URL": managed.node.url()}
    given = options or ("--management-url", managed.api)
    return await rehome("topology", "check", *given, settings=settings, stdin=stdin)


def comparable(definitions: dict[str, Any], kind: str) -> list[str]:
    """Everything of a kind, without the broker's own, and without what only some versions write.

    4.3 leaves out of an exchange that it is not internal, and repeats a queue's type beside its arguments.
    """
    found = [{key: value for key, value in one.items() if key != "vhost"} for one in definitions[kind]]
    for one in found:
        assert one.pop("internal", False) is False
        if kind == "queues":
            assert one.pop("type", "quorum") == "quorum"
    return sorted(
        json.dumps(one, sort_keys=True) for one in found if not str(one.get("name")).startswith("amq.")
    )


async def test_apply_on_an_empty_node_creates_exactly_the_topology(managed: ManagedBroker) -> None:
    before = await check(managed)
    assert before.code == 1
    assert before.out.splitlines()[0] == "exchange billing is missing"
    assert all(f"queue {queue['name']} is missing\n" in before.out for queue in WANTED["queues"])

    done = await apply(managed.node)
    counts = ", ".join(f"{len(WANTED[kind])} {kind}" for kind in KINDS)
    assert done == (0, f"declared {counts}\n", "")

    exported = await managed.exported()
    for kind in KINDS:
        assert comparable(exported, kind) == comparable(WANTED, kind)


async def test_each_source_of_definitions_gives_the_same_answer(
    applied: ManagedBroker, tmp_path: Path
) -> None:
    file = tmp_path / "exported.json"
    await applied.node.rabbitmqctl("export_definitions", str(file))

    assert await check(applied, "--definitions", file) == SAME
    assert await check(applied, "--definitions", "-", stdin=file.read_text()) == SAME
    assert await check(applied, "--rabbitmqctl", shlex.join(applied.node.rabbitmqctl_command)) == SAME
    assert await check(applied) == SAME


async def test_what_is_missing_is_reported_and_created_again(applied: ManagedBroker) -> None:
    await applied.call("DELETE", "queues", VHOST, "migration.h.stop")
    await applied.call("DELETE", "exchanges", VHOST, RETRY)

    answer = await check(applied)
    assert answer.code == 1
    assert set(answer.out.splitlines()) == {
        f"exchange {RETRY} is missing",
        "queue migration.h.stop is missing",
        f"binding {RETRY} -> queue {RETRY} with key '' is missing",
        "binding migration -> queue migration.h.stop with key 'migration.prepared' is missing",
        "binding migration.handler -> queue migration.h.stop with key 'stop' is missing",
        "the broker differs from the saga",
    }

    assert (await apply(applied.node)).code == 0
    assert await check(applied) == SAME


async def test_a_changed_argument_is_reported_by_check_and_refused_by_apply(applied: ManagedBroker) -> None:
    await applied.call("DELETE", "queues", VHOST, RETRY)
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": 1000,
        "x-dead-letter-exchange": "migration.handler",
    }
    await applied.call(
        "PUT", "queues", VHOST, RETRY, body={"durable": True, "auto_delete": False, "arguments": arguments}
    )

    answer = await check(applied)
    assert answer.code == 1
    assert f"queue {RETRY}: argument x-message-ttl is 1000, wanted 60000\n" in answer.out
    assert f"queue {RETRY}: argument x-overflow is missing, wanted reject-publish\n" in answer.out

    refused = await apply(applied.node)
    assert refused.code == 1
    assert f"rehome: queue {RETRY}: PRECONDITION_FAILED - inequivalent arg" in refused.err


async def test_a_queue_of_another_type_is_reported(applied: ManagedBroker) -> None:
    await applied.call("DELETE", "queues", VHOST, "migration.dead")
    await applied.call("PUT", "queues", VHOST, "migration.dead", body={"durable": True, "auto_delete": False})

    answer = await check(applied)
    assert "queue migration.dead: argument x-queue-type is classic, wanted quorum\n" in answer.out


async def test_bindings_into_the_saga_s_queues_or_exchanges_are_reported(applied: ManagedBroker) -> None:
    await applied.call(
        "POST", "bindings", VHOST, "e", "migration", "q", "migration.h.stop", body={"routing_key": "#"}
    )
    await applied.call(
        "POST", "bindings", VHOST, "e", "migration.dead", "e", "migration.handler", body={"routing_key": ""}
    )

    answer = await check(applied, "--management-url", applied.api, "--json")
    assert answer.code == 1
    assert sorted(json.loads(answer.out)["differences"]) == [
        "binding migration -> queue migration.h.stop with key '#' does not belong to the saga",
        "binding migration.dead -> exchange migration.handler with key '' does not belong to the saga",
    ]
    await applied.call("DELETE", "bindings", VHOST, "e", "migration.dead", "e", "migration.handler", "~")


async def test_a_subscribers_queue_is_ignored(applied: ManagedBroker) -> None:
    await applied.call("PUT", "queues", VHOST, "sub_crm.news", body={"durable": True, "auto_delete": False})
    await applied.call(
        "POST", "bindings", VHOST, "e", "migration", "q", "sub_crm.news", body={"routing_key": "#"}
    )

    assert await check(applied) == SAME


async def test_only_a_policy_that_would_lose_events_is_reported(applied: ManagedBroker) -> None:
    body: dict[str, Any] = {
        "pattern": ".*",
        "apply-to": "queues",
        "definition": {"queue-leader-locator": "balanced"},
    }
    await applied.call("PUT", "policies", VHOST, "placement", body=body)
    assert await check(applied) == SAME

    body = {"pattern": "dead$", "apply-to": "queues", "priority": 1, "definition": {"message-ttl": 60000}}
    await applied.call("PUT", "policies", VHOST, "tidy", body=body)
    answer = await check(applied)
    assert answer.out.splitlines()[0] == (
        "queue migration.dead: policy tidy sets message-ttl: events would be lost"
    )


async def test_apply_keeps_the_messages_in_the_queues(applied: ManagedBroker) -> None:
    async with await aio_pika.connect(applied.node.url(), timeout=10) as connection:
        channel = await connection.channel()
        billing = await channel.get_exchange("billing", ensure=False)
        await billing.publish(aio_pika.Message(b"waits", delivery_mode=2), "plan.upgraded", timeout=10)
        assert (await apply(applied.node)).code == 0
        waiting = await (await channel.get_queue("migration.h.accept")).get(timeout=10)
        assert waiting.body == b"waits"
        await waiting.ack()


async def test_apply_without_configure_permission_is_reported(applied: ManagedBroker) -> None:
    refused = await apply(applied.node, "migrator")
    assert refused.code == 1
    assert "rehome: exchange billing: ACCESS_REFUSED" in refused.err
    assert "refused for user 'migrator'" in refused.err
    assert "Traceback" not in refused.err


async def test_apply_to_another_virtual_host_is_refused(applied: ManagedBroker) -> None:
    refused = await apply(applied.node, vhost="/")
    assert refused.code == 2
    assert refused.err == (
        "rehome: REHOME_AMQP_URL names virtual host '/'; the topology is for 'migration'\n"
    )


async def test_anything_but_definitions_is_reported(applied: ManagedBroker, tmp_path: Path) -> None:
    file = tmp_path / "exported.json"
    file.write_text("[]")
    assert "these are not a broker's definitions" in (await check(applied, "--definitions", file)).out
    file.write_text("{")
    answer = await check(applied, "--definitions", file)
    assert (answer.code, "exported.json: unexpected end of data" in answer.err) == (2, True)
    answer = await check(applied, "--definitions", tmp_path / "nothing")
    assert (answer.code, "No such file" in answer.err) == (2, True)


async def test_a_broker_that_does_not_answer_is_reported(managed: ManagedBroker) -> None:
    port = free_port()
    answer = await check(managed, "--management-url", f"http://{LOOPBACK}:{port}")
    assert (answer.code, f"management API at http://{LOOPBACK}:{port}" in answer.err) == (1, True)

    url = f"amqp://guest:hidden@{LOOPBACK}:{port}/migration"
    answer = await rehome("topology", "apply", settings={"REHOME_AMQP_URL": url})
    give_back_port(port)
    assert (answer.code, f"RabbitMQ at {LOOPBACK}:{port}/migration: " in answer.err) == (1, True)
    assert "hidden" not in answer.err


async def test_show_prints_the_file_that_the_broker_loads_at_boot() -> None:
    shown = await rehome("topology", "show")
    assert json.loads(shown.out) == WANTED == json.loads(DEFINITIONS.read_text())
