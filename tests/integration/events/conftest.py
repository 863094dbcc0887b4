"""A broker as other teams use it: rehome's topology, and users with their permissions."""

import json
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


@pytest.fixture(scope="session")
def vhosts() -> list[str]:
    """Names of vhosts that nobody has used yet."""
    return []


@pytest.fixture
async def empty_vhost(contract_broker: BrokerNode, vhosts: list[str], tmp_path: Path) -> str:
    """URL of a vhost without rehome's topology; several are made at once, since each command takes a second."""
    if not vhosts:
        vhosts += [f"v{uuid4().hex}" for _ in range(10)]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        made = {
            "vhosts": [{"name": name} for name in vhosts],
            "permissions": [{"user": "guest", "vhost": name, **everything} for name in vhosts],
        }
        file = tmp_path / "vhosts.json"
        file.write_text(json.dumps(made))
        await contract_broker.rabbitmqctl("import_definitions", str(file))
    return contract_broker.url(vhost=vhosts.pop())


@pytest.fixture
async def operator(contract_broker: BrokerNode) -> AsyncIterator[AbstractChannel]:
    """A channel that may do everything, for checks and for faults."""
    connection = await aio_pika.connect(contract_broker.url(), timeout=10)
    async with connection:
        yield await connection.channel()
