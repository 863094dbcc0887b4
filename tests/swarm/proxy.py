"""The proxy of docs/swarm.md: nginx with the configuration that is written there."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.system.net import LOOPBACK, accepts_connections, free_port, give_back_port, wait_until
from sandbox.system.processes import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DOCS = Path(__file__).parent.parent.parent / "docs" / "swarm.md"
BLOCK = re.compile(r"^```nginx\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RULE = re.compile(r'^ *"~(\^\S+ \S+\$)" 1;$', re.MULTILINE)
LIMIT = 20


def configuration() -> str:
    """As documented."""
    (block,) = BLOCK.findall(DOCS.read_text())
    return str(block)


def rules() -> list[str]:
    """What is let through: method and path, as patterns."""
    return RULE.findall(configuration())


@contextlib.asynccontextmanager
async def proxy(directory: Path, socket: Path) -> AsyncIterator[str]:
    """Run it before the engine at `socket`; gives its address as DOCKER_HOST is written."""
    port = free_port()
    conf = _lay_out(directory, socket, port)
    alone = f"daemon off; pid {directory}/pid; error_log stderr;"
    command = ["/usr/sbin/nginx", "-p", str(directory), "-e", "stderr", "-c", str(conf), "-g", alone]
    nginx = await Child.start("nginx", command, log=directory / "log")

    async def listens() -> bool:
        nginx.require_alive()
        return await accepts_connections(port)

    try:
        await wait_until(listens, what="nginx to listen", limit=LIMIT)
        yield f"tcp://{LOOPBACK}:{port}"
    finally:
        await nginx.stop()
        give_back_port(port)


def _lay_out(directory: Path, socket: Path, port: int) -> Path:
    """Write the configuration for this place; everything else in it stays as documented."""
    directory.mkdir()
    text = configuration()
    here = {
        "unix:/var/run/docker.sock": f"unix:{socket}",
        "listen 2375;": f"listen {LOOPBACK}:{port};",
        "http {\n": f"http {{\n  access_log off;\n  client_body_temp_path {directory}/body;\n",
    }
    for theirs, ours in here.items():
        assert text.count(theirs) == 1, theirs
        text = text.replace(theirs, ours)
    conf = directory / "nginx.conf"
    conf.write_text(text)
    return conf
