"""TLS: the broker's certificate is checked against the authorities that were chosen."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from rehome_events.client import Publisher, plan_upgraded
from rehome_events.errors import EventError, Unreachable
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import pass_on
from tests.support.certificates import Authority


@pytest.fixture
async def tls_port(contract_broker: BrokerNode, tmp_path: Path) -> AsyncIterator[int]:
    """A port that speaks TLS, with the broker behind it; its authority is in ``tmp_path / "trusted"``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*Authority(tmp_path / "trusted").issue("broker", "127.0.0.1"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", contract_broker.port)
        await asyncio.gather(pass_on(reader, behind[1]), pass_on(behind[0], writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def url(port: int) -> str:
    return f"amqps://guest:guest@127.0.0.1:{port}/migration"


async def test_an_event_is_published_over_tls(tls_port: int, tmp_path: Path) -> None:
    event = plan_upgraded(
        instance_id=uuid4(),
        customer_id=uuid4(),
        subscription_id=uuid4(),
        from_plan="standard",
        to_plan="premium",
        plan_tier="premium",
    )
    async with Publisher(url(tls_port), ca_file=tmp_path / "trusted" / "ca.pem") as publisher:
        await publisher.publish(event)


async def test_a_certificate_of_another_authority_is_refused(tls_port: int, tmp_path: Path) -> None:
    another = Authority(tmp_path / "another")
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        async with Publisher(url(tls_port), ca_file=another.ca_file, timeout=5):
            pass


async def test_the_systems_authorities_are_the_default(tls_port: int) -> None:
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        async with Publisher(url(tls_port), timeout=5):
            pass


def test_a_missing_file_of_certificates_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"nothing\.pem"):
        Publisher(url(5671), ca_file=tmp_path / "nothing.pem")
