"""A private node with the management plugin, and manual changes through its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sandbox.rabbitmq.files import GUEST, BrokerUser
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port, give_back_port

VHOST = "migration"


@dataclass(frozen=True)
class ManagedBroker:
    """The node, and the address of its management API."""

    node: BrokerNode
    api: str

    async def call(self, method: str, *path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the API as guest, an administrator; deleting what does not exist is not an error."""
        url = "/".join([f"{self.api}/api", *(quote(part, safe="") for part in path)])
        async with plain_http(timeout=30) as http:
            answer = await http.request(method, url, json=body, auth=("guest", "guest"))
        assert answer.is_success or (method, answer.status_code) == ("DELETE", 404), answer.text
        return answer.json() if answer.content and answer.is_success else None

    async def exported(self) -> dict[str, Any]:
        """The definitions of the virtual host."""
        found: dict[str, Any] = await self.call("GET", "definitions", VHOST)
        return found


@asynccontextmanager
async def managed_broker(
    directory: Path, *users: BrokerUser, definitions: Path | None = None
) -> AsyncIterator[ManagedBroker]:
    """A running node whose guest is an administrator; without definitions it has no topology."""
    node = await BrokerNode.create(
        directory, name=directory.name, users=(GUEST, *users), definitions=definitions
    )
    port = free_port()
    (node.directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
    with (node.directory / "rabbitmq.conf").open("a") as conf:
        conf.write(f"management.tcp.ip = {LOOPBACK}\nmanagement.tcp.port = {port}\n")
    try:
        await node.start()
        await node.rabbitmqctl("set_user_tags", "guest", "administrator")
        yield ManagedBroker(node, f"http://{LOOPBACK}:{port}")
    finally:
        await node.destroy()
        give_back_port(port)
