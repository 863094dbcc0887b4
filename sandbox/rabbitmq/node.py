"""A private RabbitMQ node: a directory, three ports on loopback, its own epmd, no system service.

Measured on RabbitMQ 3.10 and 4.x: the programs in `/usr/lib/rabbitmq/bin` run for any user, the wrappers in
`/usr/sbin` insist on user `rabbitmq`. All of the node's state stays in its directory.
"""

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sandbox.rabbitmq.files import GUEST, VHOST, BrokerTls, BrokerUser, environment, first_errors, lay_out
from sandbox.system.net import LOOPBACK, accepts_connections, free_port, give_back_port, wait_until
from sandbox.system.processes import Child, ChildEndedError, run

_PROGRAMS = Path("/usr/lib/rabbitmq/bin")

_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"


@dataclass
class BrokerNode:
    """One RabbitMQ node. Made by `create`, then started; `stop` and `start` keep its messages.

    Attributes:
        directory: the node's state, configuration and log.
        port: AMQP; ``control_ports`` are for Erlang's distribution and its port mapper.
        users: those it is booted with.
        tls: its certificates; None where it speaks plain TCP.
    """

    directory: Path
    name: str
    port: int
    control_ports: tuple[int, int]
    users: Sequence[BrokerUser]
    tls: BrokerTls | None = None
    _node: Child | None = field(default=None, repr=False)
    _port_mapper: Child | None = field(default=None, repr=False)

    @classmethod
    async def create(
        cls,
        directory: Path,
        *,
        definitions: Path | None = None,
        conf: Path | None = None,
        name: str = "sandbox",
        users: Sequence[BrokerUser] = (GUEST,),
        tls: BrokerTls | None = None,
    ) -> Self:
        """Lay out a new node in ``directory`` (made if missing), which is not started yet.

        Args:
            directory: its place.
            definitions: topology to load at every boot; None is an empty vhost ``migration``.
            conf: a deployed node's ``rabbitmq.conf``; settings of its own addresses and files are left out.
            name: of the node; several nodes on one machine may share it.
            users: those who may log in; the file of definitions itself has none.
            tls: certificates; then its port speaks TLS, and plain TCP is off.

        Raises:
            FileNotFoundError: RabbitMQ is not installed, or a given file is missing.
        """
        if not (_PROGRAMS / "rabbitmq-server").exists():
            raise FileNotFoundError(f"RabbitMQ is not in {_PROGRAMS}: install it (make setup)")
        port = free_port()
        listeners = tls.settings(port) if tls else ()
        lay_out(directory, definitions=definitions, conf=conf, users=users, listeners=listeners)
        return cls(directory, name, port, (free_port(), free_port()), tuple(users), tls)

    @property
    def log(self) -> Path:
        """The node's log file."""
        return self.directory / "node.log"

    @property
    def pid(self) -> int:
        """The pid of the node's Erlang machine.

        Raises:
            RuntimeError: it was not started.
        """
        return self._started().pid

    @property
    def pids(self) -> list[int]:
        """The pids of the node's Erlang machine and its port mapper, as far as they are running."""
        return [child.pid for child in (self._node, self._port_mapper) if child is not None and child.alive]

    @property
    def running(self) -> bool:
        """Whether the node's process is running."""
        return self._node is not None and self._node.alive

    def url(self, user: str = "guest", *, password: str | None = None, vhost: str = VHOST) -> str:
        """An AMQP URL; it contains the password (by default the one ``user`` was made with)."""
        if password is None:
            password = next(known.password for known in self.users if known.name == user)
        parts = [quote(part, safe="") for part in (user, password, vhost)]
        scheme = "amqps" if self.tls else "amqp"
        return f"{scheme}://{parts[0]}:{parts[1]}@{LOOPBACK}:{self.port}/{parts[2]}"

    async def start(self, *, limit: float = 90.0) -> None:
        """Start the node and wait until it speaks AMQP: its definitions are loaded by then.

        Raises:
            ChildEndedError: it ended instead of starting; the error has the first ones of its log.
            TimeoutError: it was not ready within ``limit`` seconds.
        """
        if self.running:
            return
        await self.start_port_mapper()
        logged = len(self._log_text())
        node = await Child.start(
            f"RabbitMQ node {self.name} on port {self.port}",
            [_PROGRAMS / "rabbitmq-server", "-noinput"],
            log=self.log,
            env=self._environment,
            directory=self.directory,
        )
        self._node = node

        async def ready() -> bool:
            if not node.alive:
                errors = first_errors(self._log_text()[logged:])
                raise ChildEndedError(f"{node.name} ended instead of starting; {self.log} says:\n{errors}")
            # With TLS no AMQP header is sent: it listens once its definitions are loaded.
            return await (accepts_connections if self.tls else _speaks_amqp)(self.port)

        await wait_until(ready, what=f"{node.name} to speak AMQP", limit=limit, pause=0.1)

    def share_port_mapper(self, other: Self) -> None:
        """Before its start: use the port mapper of another node, so that the two can find each other."""
        give_back_port(self.control_ports[1])
        self.control_ports = (self.control_ports[0], other.control_ports[1])
        self._port_mapper = other._port_mapper

    async def stop(self) -> None:
        """Shut down the node, and its port mapper."""
        for child in (self._node, self._port_mapper):
            if child is not None:
                await child.stop(signal.SIGTERM, limit=30)
        self._node = self._port_mapper = None

    async def kill(self) -> None:
        """Kill the node (SIGKILL), as a crash of its machine would; `start` recovers its queues."""
        await self._started().kill()

    def freeze(self) -> None:
        """Freeze the node (SIGSTOP): connections stay open, nothing answers."""
        self._started().freeze()

    def thaw(self) -> None:
        """Let a frozen node continue."""
        self._started().thaw()

    async def destroy(self) -> None:
        """Stop the node, remove its directory and give back its ports."""
        await self.stop()
        await asyncio.to_thread(shutil.rmtree, self.directory)
        for port in (self.port, *self.control_ports):
            give_back_port(port)

    async def rabbitmqctl(self, *arguments: str, limit: float = 90.0) -> str:
        """Run ``rabbitmqctl`` against this node and return its standard output.

        Raises:
            CommandFailedError: it exited with an error.
            TimeoutError: it did not answer within ``limit`` seconds.
        """
        return await run(
            [_PROGRAMS / "rabbitmqctl", "--quiet", *arguments], limit=limit, env=self._environment
        )

    @property
    def rabbitmqctl_command(self) -> list[str]:
        """How to call ``rabbitmqctl`` for this node: program and first arguments, without a secret."""
        assignments = (f"{name}={value}" for name, value in self._environment.items())
        return ["env", "-i", *assignments, str(_PROGRAMS / "rabbitmqctl")]

    async def queues(self) -> dict[str, dict[str, Any]]:
        """The queues of vhost ``migration`` by name.

        Each has ``type``, ``messages``, ``messages_ready``, ``messages_unacknowledged`` (a quorum queue's
        counts lag by half a second), ``consumers`` and ``arguments`` (a dict).
        """
        counts = ("messages", "messages_ready", "messages_unacknowledged", "consumers")
        listed = await self.rabbitmqctl(
            "list_queues", "--vhost", VHOST, "--formatter", "json", "name", "type", "arguments", *counts
        )
        queues = {queue.pop("name"): queue for queue in json.loads(listed)}
        for queue in queues.values():
            queue["arguments"] = {name: value for name, _, value in queue["arguments"]}
        return queues

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def _environment(self) -> dict[str, str]:
        distribution, port_mapper = self.control_ports
        return environment(
            self.directory,
            self.name,
            port=None if self.tls else self.port,
            distribution=distribution,
            port_mapper=port_mapper,
        )

    def _started(self) -> Child:
        if self._node is None:
            raise RuntimeError(f"RabbitMQ node in {self.directory} was not started")
        return self._node

    async def start_port_mapper(self) -> None:
        """Start an epmd of its own: the node would start one that outlives it."""
        if self._port_mapper is not None and self._port_mapper.alive:
            return
        epmd = await Child.start(
            f"epmd on port {self.control_ports[1]}",
            ["epmd", "-port", str(self.control_ports[1]), "-address", LOOPBACK],
            log=self.directory / "epmd.log",
            env=self._environment,
            directory=self.directory,
        )
        self._port_mapper = epmd

        async def ready() -> bool:
            epmd.require_alive()
            return await accepts_connections(self.control_ports[1])

        await wait_until(ready, what=f"{epmd.name} to listen", limit=10)


async def _speaks_amqp(port: int) -> bool:
    """Whether a broker answers the AMQP header with its first frame, which begins with 1."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write(_AMQP_HEADER)
            return await asyncio.wait_for(reader.readexactly(1), 2) == b"\x01"
        finally:
            writer.close()
    return False
