"""Private RabbitMQ nodes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError

from rehome_events.client.connection import ClosedIfUnopened
from sandbox.postgres.tenants import nasty_password
from sandbox.rabbitmq.files import GUEST, BrokerUser
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import accepts_connections, wait_until
from sandbox.system.processes import ChildEndedError
from tests.support.processes import command_line, have_ended, orphan_of

LIMIT = 20

DEFINITIONS = {
    "vhosts": [{"name": "migration"}],
    "exchanges": [
        {"name": "news", "vhost": "migration", "type": "topic", "durable": True, "arguments": {}},
    ],
    "queues": [
        {
            "name": "readers",
            "vhost": "migration",
            "durable": True,
            "auto_delete": False,
            "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 5},
        }
    ],
    "bindings": [
        {
            "source": "news",
            "vhost": "migration",
            "destination": "readers",
            "destination_type": "queue",
            "routing_key": "#",
            "arguments": {},
        }
    ],
}
DEPLOYED_CONF = """
listeners.tcp.default = 5672
load_definitions = /etc/rabbitmq/definitions.json
management.tcp.port = 15672
consumer_timeout = 604800000
"""


@pytest.fixture(scope="module")
async def node(scratch: Path) -> AsyncIterator[BrokerNode]:
    """A running node with a topology of its own, and a user who may publish few things."""
    files = scratch / "broker_files"
    files.mkdir()
    (files / "definitions.json").write_text(json.dumps(DEFINITIONS))
    (files / "rabbitmq.conf").write_text(DEPLOYED_CONF)
    reporter = BrokerUser(
        "reporter",
        nasty_password(),
        configure="^$",
        write="^news$",
        read="^$",
        topics={"news": ("^sport$", "^$")},
    )
    node = await BrokerNode.create(
        scratch / "node",
        definitions=files / "definitions.json",
        conf=files / "rabbitmq.conf",
        users=[GUEST, reporter],
    )
    await node.start()
    yield node
    await node.destroy()


async def test_its_topology_is_loaded_with_its_arguments(node: BrokerNode) -> None:
    readers = (await node.queues())["readers"]

    assert readers["type"] == "quorum"
    assert readers["arguments"] == {"x-queue-type": "quorum", "x-delivery-limit": 5}


async def test_a_deployed_nodes_settings_apply_but_not_its_addresses(node: BrokerNode) -> None:
    assert "604800000" in await node.rabbitmqctl("eval", "application:get_env(rabbit, consumer_timeout).")
    listeners = await node.rabbitmqctl("eval", "application:get_env(rabbit, tcp_listeners).")
    assert str(node.port) in listeners
    assert "5672}" not in listeners


async def test_messages_survive_a_stop_and_a_crash(node: BrokerNode) -> None:
    await _publish(node, "weather")
    await node.stop()
    await node.start()
    await _publish(node, "sport")
    await node.kill()
    await node.start()

    assert await _take_two(node) == {"weather", "sport"}


async def test_a_user_may_do_what_its_permissions_say_and_no_more(node: BrokerNode) -> None:
    await _publish(node, "sport", user="reporter")

    with pytest.raises(AMQPError, match=r"access to topic 'weather' in exchange 'news'.* refused"):
        await _publish(node, "weather", user="reporter")


async def test_a_frozen_node_answers_when_it_is_thawed(node: BrokerNode) -> None:
    node.freeze()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(aio_pika.connect(node.url(), connection_class=ClosedIfUnopened), 0.3)
    node.thaw()

    connection = await aio_pika.connect(node.url(), timeout=LIMIT, connection_class=ClosedIfUnopened)
    await connection.close()


async def test_the_error_for_a_wrong_command_names_it(node: BrokerNode) -> None:
    with pytest.raises(Exception, match="rabbitmqctl exited with"):
        await node.rabbitmqctl("no_such_command")


async def test_no_password_gets_into_a_log_a_repr_or_a_command_line(node: BrokerNode) -> None:
    secret = next(user.password for user in node.users if user.name == "reporter")

    for text in (node.log.read_text(), repr(node), command_line(node.pid)):
        assert secret not in text


async def test_nothing_is_left_of_a_node_that_could_not_start(scratch: Path, tmp_path: Path) -> None:
    conf = tmp_path / "rabbitmq.conf"
    conf.write_text("no_such_setting = 1\n")
    node = await BrokerNode.create(scratch / "broken", conf=conf)

    with pytest.raises(ChildEndedError, match=r"(?s)says:\nYou've tried to set no_such_setting"):
        await node.start()
    await node.destroy()

    assert not node.directory.exists()
    for port in (node.port, *node.control_ports):
        assert not await accepts_connections(port)


async def test_a_node_and_its_port_mapper_end_when_their_starter_is_killed(scratch: Path) -> None:
    pids = await orphan_of(
        """
        node = await BrokerNode.create(directory)
        await node.start()
        print(*node.pids, flush=True)
        """,
        directory=scratch / "orphan_node",
        imports="from sandbox.rabbitmq.node import BrokerNode",
    )

    await wait_until(have_ended(*pids), what="the node to end", limit=LIMIT)


async def _publish(node: BrokerNode, key: str, user: str = "guest") -> None:
    connection = await aio_pika.connect(node.url(user), timeout=LIMIT, connection_class=ClosedIfUnopened)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        news = await channel.get_exchange("news", ensure=False)
        message = aio_pika.Message(b"", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await news.publish(message, key, timeout=LIMIT)


async def _take_two(node: BrokerNode) -> set[str]:
    connection = await aio_pika.connect(node.url(), timeout=LIMIT, connection_class=ClosedIfUnopened)
    async with connection:
        channel = await connection.channel()
        readers = await channel.get_queue("readers", ensure=False)
        taken = [await readers.get(timeout=LIMIT) for _ in range(2)]
        for message in taken:
            await message.ack()
    return {str(message.routing_key) for message in taken}
