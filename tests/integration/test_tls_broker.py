"""TLS to the broker: its certificate is checked, and errors say what to fix."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import uuid4

import aio_pika
import pytest

from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.connection import connected
from rehome_consumer.errors import Unreachable
from rehome_consumer.network.tls import broker_context
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import queue_of
from rehome_events import errors as kit
from rehome_events.client.publisher import Publisher
from rehome_events.client.subscriber import Subscriber
from sandbox.rabbitmq.files import BrokerTls
from sandbox.rabbitmq.node import BrokerNode
from tests.support.broker_users import rehome
from tests.support.certificates import Authority
from tests.support.command_line import ROOT
from tests.support.events import upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FILES = ROOT / "rabbitmq"


@pytest.fixture(scope="module")
def authority(scratch: Path) -> Authority:
    return Authority(scratch / "trusted")


@pytest.fixture(scope="module")
def stranger(scratch: Path) -> Authority:
    return Authority(scratch / "untrusted")


@pytest.fixture(scope="module")
async def node(scratch: Path, authority: Authority) -> AsyncIterator[BrokerNode]:
    """A node that speaks only TLS; its certificate is for 127.0.0.1 and not for localhost."""
    tls = BrokerTls(authority.ca_file, *authority.issue("broker", "127.0.0.1"))
    made = await BrokerNode.create(
        scratch / "tls",
        definitions=FILES / "definitions.json",
        conf=FILES / "rabbitmq.conf",
        name="tls",
        tls=tls,
    )
    await made.start()
    yield made
    await made.destroy()


@pytest.fixture(scope="module")
async def strict_node(scratch: Path, authority: Authority) -> AsyncIterator[BrokerNode]:
    """A node that accepts only clients with a certificate."""
    tls = BrokerTls(authority.ca_file, *authority.issue("strict", "127.0.0.1"), demand_certificate=True)
    made = await BrokerNode.create(scratch / "strict", name="strict", tls=tls)
    await made.start()
    yield made
    await made.destroy()


async def open_and_close(url: str, **files: Path) -> None:
    async with connected(url, name="test", tls=broker_context(url, **files)):
        pass


async def test_a_delivery_goes_out_and_in_over_tls(node: BrokerNode, authority: Authority) -> None:
    tls = broker_context(node.url(), ca_file=authority.ca_file)
    async with connected(node.url(), name="test", tls=tls) as connection:
        broker = AmqpBroker(connection)
        await broker.publish(
            "migration", "migration.prepared", Message(b"sealed", message_id="1"), mandatory=True
        )
        async with aclosing(broker.consume(queue_of("stop"))) as deliveries:
            delivery = await anext(deliveries)
            assert delivery.message.body == b"sealed"
            await delivery.ack()


async def test_publisher_and_subscriber_of_the_kit_speak_tls(node: BrokerNode, authority: Authority) -> None:
    async def ignore(_: object) -> None:
        """Ignore it."""

    async with Publisher(node.url(), ca_file=authority.ca_file) as publisher:
        await publisher.publish(upgrade(uuid4()))
    async with Subscriber(
        node.url(), ignore, team="crm", name="tls", ca_file=authority.ca_file
    ) as subscriber:
        assert subscriber.queue in await node.queues()


async def test_the_command_line_speaks_tls(node: BrokerNode, authority: Authority) -> None:
    settings = {"REHOME_AMQP_URL": node.url(), "REHOME_AMQP_CA_FILE": str(authority.ca_file)}
    applied = await rehome("topology", "apply", settings=settings)
    assert (applied.code, applied.err) == (0, "")


async def test_an_untrusted_authority_is_reported(node: BrokerNode, stranger: Authority) -> None:
    with pytest.raises(Unreachable, match=r"certificate is not signed by a trusted authority \(self-signed"):
        await open_and_close(node.url(), ca_file=stranger.ca_file)
    with pytest.raises(kit.Unreachable, match="certificate verify failed: self-signed"):
        async with Publisher(node.url(), ca_file=stranger.ca_file):
            pass


async def test_the_systems_authorities_are_the_default(node: BrokerNode) -> None:
    with pytest.raises(Unreachable, match="certificate is not signed by a trusted authority"):
        await open_and_close(node.url())


async def test_a_certificate_that_a_strict_check_refuses_is_reported_as_such(scratch: Path) -> None:
    """Python checks strictly from 3.13 on: here, with every Python."""
    authority = Authority(scratch / "not_strict", strict=False)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(*authority.issue("broker", "127.0.0.1"))
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=serving) as server:
        url = f"amqps://127.0.0.1:{server.sockets[0].getsockname()[1]}/migration"
        context = broker_context(url, ca_file=authority.ca_file)
        assert context is not None
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with pytest.raises(
            Unreachable, match=r"is not as RFC 5280 demands: [\w ]+; issue it again with that$"
        ):
            async with connected(url, name="test", tls=context):
                pass


async def test_a_certificate_for_another_host_is_reported(node: BrokerNode, authority: Authority) -> None:
    elsewhere = node.url().replace("127.0.0.1", "localhost")
    with pytest.raises(Unreachable, match=r"certificate is for another host: .*not valid for 'localhost'$"):
        await open_and_close(elsewhere, ca_file=authority.ca_file)
    with pytest.raises(kit.Unreachable, match="not valid for 'localhost'"):
        async with Publisher(elsewhere, ca_file=authority.ca_file):
            pass


async def test_an_expired_certificate_is_reported_and_its_renewal_is_used(
    node: BrokerNode, authority: Authority
) -> None:
    """The node reads its files again: no process needs a restart."""
    authority.issue("broker", "127.0.0.1", expired=True)
    await node.rabbitmqctl("eval", "ssl:clear_pem_cache().")
    try:
        with pytest.raises(Unreachable, match=r"certificate has expired: renew it there$"):
            await open_and_close(node.url(), ca_file=authority.ca_file)
        with pytest.raises(kit.Unreachable, match="certificate has expired"):
            async with Publisher(node.url(), ca_file=authority.ca_file):
                pass
    finally:
        authority.issue("broker", "127.0.0.1")
        await node.rabbitmqctl("eval", "ssl:clear_pem_cache().")
    await open_and_close(node.url(), ca_file=authority.ca_file)


async def test_plain_text_is_refused_where_tls_is_required(node: BrokerNode) -> None:
    plain = node.url().replace("amqps://", "amqp://")
    with pytest.raises(Unreachable, match=r"does it need amqps://\?$"):
        await open_and_close(plain)
    with pytest.raises(kit.Unreachable):
        async with Publisher(plain, tries=1):
            pass


async def test_a_tls_alert_in_answer_to_plain_text_is_understood() -> None:
    """As brokers on Erlang 27 answer, where older ones hang up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len("AMQP") + 4)
        writer.write(bytes([21, 3, 3, 0, 2, 2, 10]))  # fatal: unexpected message
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match=r"it answers in TLS: does it need amqps://\?$"):
            await open_and_close(f"amqp://127.0.0.1:{port}/migration")


async def test_tls_does_not_fall_back_to_plain_text(broker: BrokerNode, authority: Authority) -> None:
    sealed = broker.url().replace("amqp://", "amqps://")
    with pytest.raises(Unreachable, match="it does not speak TLS on this port"):
        await open_and_close(sealed, ca_file=authority.ca_file)


async def test_a_client_certificate_is_sent_to_a_broker_that_requires_one(
    strict_node: BrokerNode, authority: Authority
) -> None:
    client = authority.issue("consumer")
    await open_and_close(
        strict_node.url(), ca_file=authority.ca_file, cert_file=client.cert_file, key_file=client.key_file
    )
    both = client.cert_file.with_suffix(".both")
    both.write_bytes(client.cert_file.read_bytes() + client.key_file.read_bytes())
    await open_and_close(strict_node.url(), ca_file=authority.ca_file, cert_file=both)

    context = ssl.create_default_context(cafile=authority.ca_file)
    context.load_cert_chain(*client)
    async with Publisher(strict_node.url(), ssl_context=context):
        pass


async def test_a_missing_or_untrusted_client_certificate_is_reported(
    strict_node: BrokerNode, authority: Authority, stranger: Authority
) -> None:
    with pytest.raises(Unreachable, match=r"it requires a client certificate|the client certificate refused"):
        await open_and_close(strict_node.url(), ca_file=authority.ca_file)
    untrusted = stranger.issue("consumer")
    with pytest.raises(Unreachable, match=r"refused the client certificate|the client certificate refused"):
        await open_and_close(
            strict_node.url(),
            ca_file=authority.ca_file,
            cert_file=untrusted.cert_file,
            key_file=untrusted.key_file,
        )


async def test_a_robust_connection_comes_back_over_tls(node: BrokerNode, authority: Authority) -> None:
    tls = broker_context(node.url(), ca_file=authority.ca_file)
    async with connected(node.url(), name="to be cut", tls=tls) as connection:
        broker = AmqpBroker(connection)
        async with aclosing(broker.consume(queue_of("start"))) as deliveries:
            message = Message(b"after", message_id=str(uuid4()))
            first = Message(b"before", message_id=str(uuid4()))
            await broker.publish("migration", "migration.restored", first, mandatory=True)
            await (await anext(deliveries)).ack()

            await node.rabbitmqctl("close_all_connections", "test")

            async with await aio_pika.connect(node.url(), ssl_context=tls, timeout=10) as other:
                channel = await other.channel()
                exchange = await channel.get_exchange("migration", ensure=False)
                await exchange.publish(aio_pika.Message(message.body), "migration.restored", timeout=10)
            delivery = await anext(deliveries)
            assert delivery.message.body == b"after"
            await delivery.ack()


async def test_no_error_contains_the_password(node: BrokerNode, stranger: Authority) -> None:
    url = node.url("guest", password="hidden-in-the-url")
    settings = {"REHOME_AMQP_URL": url, "REHOME_AMQP_CA_FILE": str(stranger.ca_file)}
    answer = await rehome("topology", "apply", settings=settings)
    assert answer.code == 1
    assert "its certificate is not signed by a trusted authority" in answer.err
    assert "hidden" not in answer.err + answer.out
