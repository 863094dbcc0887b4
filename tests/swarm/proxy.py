"""The proxy of stack.yaml and docs/swarm.md: nginx with stack/docker-proxy.conf."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.system.net import LOOPBACK, accepts_connections, free_port, give_back_port, wait_until
from sandbox.system.processes import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONFIGURATION = Path(__file__).parent.parent.parent / "stack" / "docker-proxy.conf"
RULE = re.compile(r'^ *"~(\^\S+ \S+\$)" 1;$', re.MULTILINE)
LIMIT = 20


def configuration() -> str:
    """As it is deployed."""
    return CONFIGURATION.read_text()


def rules() -> list[str]:
    """The requests that are allowed: method and path, as patterns."""
    return RULE.findall(configuration())


@contextlib.asynccontextmanager
async def proxy(directory: Path, socket: Path) -> AsyncIterator[str]:
    """Run it in front of the engine at `socket`; gives its address in the form of DOCKER_HOST."""
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
    """Write the configuration with these paths and this port; the rest stays as documented."""
    directory.mkdir()
    text = configuration()
    replaced = {
        "unix:/var/run/docker.sock": f"unix:{socket}",
        "listen 2375;": f"listen {LOOPBACK}:{port};",
        "http {\n": f"http {{\n  access_log off;\n  client_body_temp_path {directory}/body;\n",
    }
    for documented, actual in replaced.items():
        assert text.count(documented) == 1, documented
        text = text.replace(documented, actual)
    conf = directory / "nginx.conf"
    conf.write_text(text)
    return conf
