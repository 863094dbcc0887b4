"""A broker as other teams use it: rehome's topology, and users with their permissions."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from sandbox.rabbitmq.files import GUEST, BrokerUser
from sandbox.rabbitmq.node import BrokerNode

_RABBITMQ = Path(__file__).parents[3] / "rabbitmq"
BILLING = BrokerUser("billing", "b%1ll:ng/", "^$", "^billing$", "^$", {"billing": (r"^plan\.[a-z_]+$", "^$")})
CRM = BrokerUser(
    "crm",
    "crm-password",
    r"^sub_crm\.",
    r"^sub_crm\.",
    r"^(sub_crm\..*|migration)$",
    {"migration": ("^$", r"^(instance|migration)\.[a-z_]+$")},
)


@pytest.fixture(scope="session")
async def contract_broker(scratch: Path) -> AsyncIterator[BrokerNode]:
    """A running node with users guest (everything), billing and crm; tests may kill and freeze it."""
    node = await BrokerNode.create(
        scratch / "contract_broker",
        definitions=_RABBITMQ / "definitions.json",
        conf=_RABBITMQ / "rabbitmq.conf",
        name="contract",
        users=(GUEST, BILLING, CRM),
    )
    await node.start()
    yield node
    await node.destroy()


@pytest.fixture
async def empty_vhost(contract_broker: BrokerNode) -> AsyncIterator[str]:
    """URL of a vhost without rehome's topology."""
    name = f"v{uuid4().hex}"
    await contract_broker.rabbitmqctl("add_vhost", name)
    await contract_broker.rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    yield contract_broker.url(vhost=name)
    await contract_broker.rabbitmqctl("delete_vhost", name)


@pytest.fixture
async def operator(contract_broker: BrokerNode) -> AsyncIterator[AbstractChannel]:
    """A channel that may do everything, for checks and for faults."""
    connection = await aio_pika.connect(contract_broker.url(), timeout=10)
    async with connection:
        yield await connection.channel()
