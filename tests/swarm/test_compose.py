"""compose.yaml brought up by Docker Compose on a real engine, with stand-ins of its images that are made here."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from sandbox.platform.local import RABBITMQ
from sandbox.postgres.server import programs
from sandbox.rabbitmq.node import BrokerNode
from sandbox.swarm.api import IMAGE
from sandbox.swarm.gateway import gateway
from sandbox.swarm.root import PYTHON
from tests.swarm import compose_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.swarm.engine import PrivateEngine

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
UP_SECONDS, DOWN_SECONDS = 300, 120
TOKEN = SERVICES["console"]["environment"]["REHOME_CONSOLE_TOKENS"].split(":")[2]

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


@dataclass
class Project:
    """The services of compose.yaml."""

    engine: PrivateEngine
    directory: Path

    async def compose(self, *arguments: str, limit: float = UP_SECONDS) -> str:
        """A command of Docker Compose; its output."""
        program = shutil.which("docker-compose")
        assert program is not None, "Docker Compose is not installed: scripts/setup-swarm docker-compose"
        files = ("--file", str(COMPOSE), "--file", str(self.directory / "here.yaml"))
        child = await asyncio.create_subprocess_exec(
            *(program, "--project-name", "rehome", *files, *arguments),
            env={
                "PATH": os.environ["PATH"],
                "DOCKER_HOST": self.engine.host,
                "DOCKER_CONFIG": str(self.directory),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(child.communicate(), limit)
        assert child.returncode == 0, out.decode()
        return out.decode()

    async def states(self) -> dict[str, tuple[str, str | None]]:
        """Each service's container: running or exited, and healthy or not."""
        found = {}
        ours = json.dumps(
            {"label": ["com.docker.compose.service"]}
        )  # other tests may have left theirs on the engine
        for one in await self.engine.ask("GET", "containers/json", params={"all": "1", "filters": ours}):
            details = await self.engine.ask("GET", f"containers/{one['Id']}/json")
            health = details["State"].get("Health")
            name = one["Labels"]["com.docker.compose.service"]
            found[name] = (details["State"]["Status"], health["Status"] if health else None)
        return found

    async def until_healthy(self) -> None:
        """Wait until every service that is to run runs, and those with a health check are healthy."""
        deadline = asyncio.get_running_loop().time() + UP_SECONDS
        while (states := await self.states()) != EXPECTED:
            assert asyncio.get_running_loop().time() < deadline, (
                states,
                await self.compose("logs", "--tail=40"),
            )
            await asyncio.sleep(1)

    async def asked(self, url: str, **headers: str) -> tuple[int, Any]:
        """What somebody on the machine of the engine gets there: status, and JSON."""
        script = (
            "import json, sys, urllib.error, urllib.request\n"
            "request = urllib.request.Request(sys.argv[1], headers=json.loads(sys.argv[2]))\n"
            "try:\n    answer = urllib.request.urlopen(request, timeout=30)\n"
            "except urllib.error.HTTPError as error:\n    answer = error\n"
            "print(answer.status, answer.read().decode())\n"
        )
        child = await asyncio.create_subprocess_exec(
            *("nsenter", f"--target={self.engine.init}", "--net", "--", sys.executable, "-c", script),
            *(url, json.dumps(headers)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(child.communicate(), 60)
        status, _, body = out.decode().partition(" ")
        return int(status), json.loads(body)


EXPECTED: dict[str, tuple[str, str | None]] = {
    name: ("running", "healthy" if "healthcheck" in service else None) for name, service in SERVICES.items()
} | {"rabbitmq-users": ("exited", None)}


def stand_ins(directory: Path) -> dict[str, Any]:
    """What takes the place of images that only a registry has: commands stay those of compose.yaml where it has one."""
    postgres = {
        "image": IMAGE,
        "entrypoint": [PYTHON, "/stand_in/compose_postgres.py"],
        "volumes": [f"{Path(compose_postgres.__file__).parent}:/stand_in:ro"],
        "environment": {"PATH": f"{programs()}:/usr/local/bin:/usr/bin:/usr/sbin"},
    }
    ours = {
        "image": IMAGE,
        "environment": {"PATH": f"{programs()}:/usr/local/bin:/usr/bin:/usr/sbin"},
    }
    forwarding = [PYTHON, "-m", "sandbox.swarm.gateway", "5672", "/gateway/amqp.sock"]
    services: dict[str, Any] = {
        "rabbitmq": {
            "image": IMAGE,
            "command": forwarding,
            "volumes": [f"{directory}/gateway:/gateway"],
            "healthcheck": {
                "test": [
                    "CMD",
                    PYTHON,
                    "-S",
                    "-c",
                    "import socket; socket.create_connection(('127.0.0.1', 5672), 5)",
                ]
            },
        },
        "rabbitmq-users": {"image": IMAGE, "command": [PYTHON, "-c", "pass"]},
    }
    for name, service in SERVICES.items():
        if name not in services:
            services[name] = ours if "build" in service else postgres
    return {"services": services}


async def make_users(broker: BrokerNode, directory: Path) -> None:
    """Run the script of service `rabbitmq-users`, on the node of this machine."""
    service = SERVICES["rabbitmq-users"]
    shell, option, script = service["command"]
    programs_here = directory / "bin"
    programs_here.mkdir()
    own = " ".join(f"'{word}'" for word in broker.rabbitmqctl_command)
    (programs_here / "rabbitmqctl").write_text(f'#!/bin/sh\nexec {own} "$@"\n')
    (programs_here / "rabbitmqctl").chmod(0o755)
    environment = {**os.environ, "PASSWORD": service["environment"]["PASSWORD"]}
    environment["PATH"] = f"{programs_here}:{environment['PATH']}"
    await asyncio.to_thread(
        subprocess.run, [shell, option, script.replace("$$", "$")], env=environment, check=True, timeout=120
    )


@pytest.fixture(scope="module")
async def project(engine: PrivateEngine, scratch: Path) -> AsyncIterator[Project]:
    """All services, up; down again at the end, with their volumes."""
    directory = scratch / "compose"
    (directory / "gateway").mkdir(parents=True)
    (directory / "here.yaml").write_text(yaml.safe_dump(stand_ins(directory)))
    broker = await BrokerNode.create(
        directory / "broker", definitions=RABBITMQ / "definitions.json", conf=RABBITMQ / "rabbitmq.conf"
    )
    made = Project(engine, directory)
    try:
        await broker.start()
        await make_users(broker, directory)
        async with gateway(directory / "gateway" / "amqp.sock", broker.port):
            await made.compose("up", "--detach", "--no-build")
            await made.until_healthy()
            yield made
            await made.compose("down", "--volumes", limit=DOWN_SECONDS)
    finally:
        await broker.destroy()


async def test_every_service_comes_up_and_is_healthy(project: Project) -> None:
    assert await project.states() == EXPECTED


async def test_the_consumer_reads_all_its_queues(project: Project) -> None:
    url = "http://127.0.0.1:8080/readyz"
    script = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=30).read().decode())"
    answer = json.loads(await project.compose("exec", "-T", "consumer", "python", "-c", script))
    assert answer == {"ready": True, "causes": []}


async def test_the_console_answers_on_the_machines_loopback_to_who_has_the_token(project: Project) -> None:
    url = "http://127.0.0.1:8090"
    status, ready = await project.asked(f"{url}/readyz")
    assert (status, [part["error"] for part in ready["parts"]]) == (200, [None, None])
    assert (await project.asked(f"{url}/api/v1/overview"))[0] == 401
    status, overview = await project.asked(f"{url}/api/v1/overview", Authorization=f"Bearer {TOKEN}")
    assert (status, overview["running"]) == (200, [])
