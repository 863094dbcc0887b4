"""stack.yaml on an engine, deployed by Docker's command line, with stand-ins of its images that are made here."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import secrets
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sandbox.swarm.api import CONSUMER_IMAGE
from sandbox.swarm.root import libraries_of
from sandbox.system.http import plain_http
from sandbox.system.net import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.swarm.engine import PrivateEngine
    from sandbox.swarm.platform import SwarmPlatform

STACK = Path(__file__).parent.parent.parent / "stack.yaml"
NAME = "rehome"
CONSUMER, CONSOLE, PROXY = "rehome_consumer", "rehome_console", "rehome_docker-proxy"
OPERATORS, CONSOLE_PORT, CONSUMER_PORT = "rehome_operators", 8090, 8080
LIMIT_SECONDS = 120.0

_NGINX = Path("/usr/sbin/nginx")
_PROXY_IMAGE = ("nginx", "1.28")
_COMMANDS = (Path("/usr/bin"), Path("/usr/local/bin"))
"""Where Docker's command line is looked for: Debian's first, which is as old as the engine."""


@dataclass
class Stack:
    """The stack on a platform's engine.

    Attributes:
        platform: everything around it.
        token: of the console, role read.
        image: what is deployed.
        more: further environment of the consumers.
    """

    platform: SwarmPlatform
    directory: Path
    image: str = CONSUMER_IMAGE
    token: str = field(default_factory=lambda: secrets.token_hex(20))
    more: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> PrivateEngine:
        """The engine; only a private one has what is needed."""
        return self.platform.engine  # type: ignore[return-value]

    async def prepare(self) -> None:
        """What an operator does once: images, secrets."""
        self.directory.mkdir()
        repo, tag = _PROXY_IMAGE
        answer = await self.engine.http.post(
            "/images/create",
            params={
                "fromSrc": "-",
                "repo": repo,
                "tag": tag,
                "changes": [f'CMD ["{_NGINX}", "-g", "daemon off;"]'],
            },
            content=await asyncio.to_thread(_nginx_root),
        )
        assert answer.is_success, answer.text
        for name, value in self.secrets().items():
            data = base64.b64encode(value.encode()).decode()
            await self.engine.ask("POST", "secrets/create", {"Name": name, "Data": data})

    def secrets(self) -> dict[str, str]:
        """The secrets of the stack, by name."""
        inside = self.platform.inside_settings()
        return {
            "rehome_amqp_url": inside["REHOME_AMQP_URL"],
            "rehome_platform_dsn": inside["REHOME_PLATFORM_DSN"],
            "rehome_billing_dsn": inside["REHOME_BILLING_DSN"],
            "rehome_key": self.platform.secret_key,
            "rehome_console_amqp_url": inside["REHOME_AMQP_URL"],
            "rehome_console_state_dsn": inside["REHOME_PLATFORM_DSN"],
            "rehome_console_tokens": f"# of the tests\nread:tests:{self.token}\n",
        }

    async def deploy(self) -> None:
        """`docker stack deploy`: again after a change of `image` or `more`, an update."""
        inside = self.platform.inside_settings()
        settings = {name: inside[name] for name in ("REHOME_PG_BIN", "REHOME_LONGEST_RETRY")} | self.more
        here = self.directory / "here.yaml"
        content = {"version": "3.8", "services": {"consumer": {"environment": settings}}}
        here.write_text(yaml.safe_dump(content))
        files = (option for file in (STACK, here) for option in ("--compose-file", str(file)))
        await self.docker(
            *("stack", "deploy", "--resolve-image", "never", *files, NAME),
            REHOME_IMAGE=self.image,
            REHOME_DATABASE_SERVICE_URL=inside["REHOME_DATABASE_SERVICE_URL"],
            REHOME_DATA_ROOT=inside["REHOME_DATA_ROOT"],
            REHOME_BACKUP_ROOT=inside["REHOME_BACKUP_ROOT"],
            REHOME_DOCKER_SOCKET=str(self.engine.socket),
        )

    async def remove(self) -> None:
        """`docker stack rm`."""
        await self.docker("stack", "rm", NAME)

    async def docker(self, *arguments: str, **environment: str) -> str:
        """A command of Docker's, for this engine; its output."""
        program = shutil.which("docker", path=os.pathsep.join(map(str, _COMMANDS)))
        assert program is not None, "Docker's command line is not installed: scripts/setup-swarm"
        child = await asyncio.create_subprocess_exec(
            *(program, *arguments),
            env={"DOCKER_HOST": self.engine.host, "DOCKER_CONFIG": str(self.directory), **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(child.communicate(), LIMIT_SECONDS)
        assert child.returncode == 0, out.decode()
        return out.decode()

    async def tasks(self, service: str) -> list[dict[str, Any]]:
        """All tasks of a service that are listed, oldest first."""
        wanted = {"filters": json.dumps({"service": [service]})}
        found = await self.engine.ask("GET", "tasks", params=wanted)
        return sorted(found, key=lambda task: str(task["CreatedAt"]))

    async def running(self, service: str) -> list[dict[str, Any]]:
        """Those that run, and are to run on; one with a health check: that is healthy."""
        return [
            task
            for task in await self.tasks(service)
            if (task["Status"]["State"], task["DesiredState"]) == ("running", "running")
        ]

    async def until_running(self, wanted: Mapping[str, int], *, limit: float = LIMIT_SECONDS) -> None:
        """Wait for so many running tasks of each service."""

        async def there() -> bool:
            return {name: len(await self.running(name)) for name in wanted} == wanted

        await wait_until(there, what=f"tasks to run: {wanted}", limit=limit, pause=0.5)

    async def update_state(self, service: str) -> str:
        """How its update goes: updating, completed, rollback_completed, ..."""
        found = await self.engine.ask("GET", f"services/{service}")
        return str((found.get("UpdateStatus") or {}).get("State"))

    async def addresses(self, service: str) -> list[dict[str, str]]:
        """The addresses of each of its containers, by network."""
        wanted = {"filters": json.dumps({"label": [f"com.docker.swarm.service.name={service}"]})}
        return [
            {name: one["IPAddress"] for name, one in found["NetworkSettings"]["Networks"].items()}
            for found in await self.engine.ask("GET", "containers/json", params=wanted)
        ]

    async def page(self, address: str, port: int, path: str) -> tuple[int, Any]:
        """What a program in that network reads there: status and JSON."""
        host, at = self.platform.resolve(address, port)
        async with plain_http(timeout=30) as http:
            answer = await http.get(
                f"http://{host}:{at}{path}", headers={"Authorization": f"Bearer {self.token}"}
            )
        return answer.status_code, answer.json()

    async def console(self, path: str) -> Any:
        """What the console's API says."""
        (addresses,) = await self.addresses(CONSOLE)
        status, body = await self.page(addresses[OPERATORS], CONSOLE_PORT, path)
        assert status == 200, body
        return body

    async def log(self, service: str) -> str:
        """The output of a service's tasks, of those that ended too."""
        answer = await self.engine.http.get(
            f"/services/{service}/logs", params={"stdout": "1", "stderr": "1"}
        )
        return answer.text


def _nginx_root() -> bytes:
    """A stand-in for nginx's image: Debian's nginx and its libraries, as a tar file."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name in ("etc/nginx", "run", "tmp", "var/log/nginx", "var/lib/nginx"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, text in {"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        for path in {_NGINX, *libraries_of([_NGINX])}:
            tar.add(path.resolve(), str(path))
    return held.getvalue()
