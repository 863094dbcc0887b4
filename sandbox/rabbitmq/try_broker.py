"""`make broker`: RabbitMQ with rehome's topology, for developers of publishers and subscribers."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rehome_consumer.rabbitmq.permissions import READABLE, rights
from sandbox.rabbitmq.files import GUEST, BrokerUser
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.scratch import remove_scratch_directory, scratch_directory

if TYPE_CHECKING:
    from rehome_consumer.rabbitmq.permissions import Role

EMPTY: Final = "empty"
"""A vhost without rehome's topology, where no queue gets what is published."""
_ROOT: Final = Path(__file__).parents[2]
_RABBITMQ: Final = _ROOT / "rabbitmq"


async def serve() -> None:
    """Run a node until SIGINT or SIGTERM, and print how to reach it."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    directory = scratch_directory("rehome-broker")
    node = await BrokerNode.create(
        directory / "node",
        definitions=_RABBITMQ / "definitions.json",
        conf=_RABBITMQ / "rabbitmq.conf",
        users=(GUEST, _user("billing", "billing"), _user("crm", "subscriber")),
    )
    try:
        await node.start()
        await node.rabbitmqctl("add_vhost", EMPTY)
        await node.rabbitmqctl("set_permissions", "-p", EMPTY, GUEST.name, ".*", ".*", ".*")
        _print_variables(node)
        await ended.wait()
    finally:
        await node.destroy()
        remove_scratch_directory(directory)


def _print_variables(node: BrokerNode) -> None:
    variables = {
        "REHOME": _ROOT,
        "BILLING_AMQP_URL": node.url("billing"),
        "CRM_AMQP_URL": node.url("crm"),
        "EVENTS_AMQP_URL": node.url(),
        "EMPTY_AMQP_URL": node.url(vhost=EMPTY),
    }
    print("# RabbitMQ with rehome's topology, until Ctrl-C. Paste this into another terminal:")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(str(value))}", flush=True)


def _user(name: str, role: Role) -> BrokerUser:
    """With a user's rights on the platform, and a password of its own."""
    granted = rights(role, name, READABLE if role == "subscriber" else ())
    return BrokerUser(name, secrets.token_urlsafe(12), *granted.triple, granted.topics)


if __name__ == "__main__":
    asyncio.run(serve())
