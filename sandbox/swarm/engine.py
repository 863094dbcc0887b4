"""A private Docker engine, a swarm of one node, in namespaces of its own.

The daemon, its containers and their networks are in a process, a mount and a network namespace: bridges, packet
filter rules and mounts of the machine stay as they are, and when the namespaces' first process ends (or this
one), the kernel ends everything in them. It needs root and Debian's package `docker.io` (`scripts/setup-swarm`),
whose system service stays off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from sandbox.swarm.api import NETWORK, SandboxEngine
from sandbox.swarm.images import import_images
from sandbox.system.net import LOOPBACK, wait_until
from sandbox.system.processes import Child, processes_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PORT = 2377  # of a swarm's managers
START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 30.0

_PROGRAMS = ("dockerd", "containerd", "runc", "iptables", "tini", "unshare", "nsenter", "ip")
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_PREFIX = "rehome-swarm"

# The first process of the namespaces: it reaps orphans, and when it ends, everything in them ends.
_INIT = "mount -t tmpfs tmpfs /run && ip link set lo up && exec tini -- sleep infinity"


class EngineMissingError(Exception):
    """This machine cannot run a private engine; the text says what is missing and what to do."""


class PrivateEngine(SandboxEngine):
    """A daemon in its own namespaces, with a swarm, the platform's network and the sandbox's images.

    Attributes:
        directory: the engine's data, its socket and its log.
    """

    def __init__(self, directory: Path, *, furnished: bool = True) -> None:
        """Nothing is started yet.

        Args:
            directory: for the engine; made by `create`.
            furnished: with network and images, or empty.
        """
        super().__init__(directory / "docker.sock")
        self.directory = directory
        self._furnished = furnished
        self.log = directory / "dockerd.log"
        self._cgroup = f"{_CGROUP_PREFIX}-{os.getpid()}-{secrets.token_hex(4)}"
        self._namespaces: Child | None = None
        self._daemon: Child | None = None

    async def begin(self) -> None:
        """Start namespaces and daemon; there is no swarm yet.

        Raises:
            EngineMissingError: no root, or a program is missing.
            ChildEndedError: the daemon ended; has the end of its log.
            TimeoutError: it did not answer within a minute.
        """
        require_programs()
        remove_orphaned_cgroups()
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        unshare = ["unshare", "--mount", "--propagation=private", "--net", "--pid", "--mount-proc", "--fork"]
        self._namespaces = await Child.start(
            "the engine's namespaces",
            [*unshare, "--kill-child=KILL", "sh", "-c", _INIT],
            log=self.directory / "namespaces.log",
        )
        await wait_until(self._namespaces_ready, what="the engine's namespaces", limit=START_LIMIT_SECONDS)
        await self.start()

    async def create(self) -> None:
        """Start everything: namespaces, daemon, swarm, network, images. Raises what `begin` does."""
        await self.begin()
        await self.make_swarm(LOOPBACK)

    async def make_swarm(self, address: str) -> None:
        """Make a swarm whose manager has this address for other nodes, with network and images."""
        await self.ask("POST", "swarm/init", {"ListenAddr": f"{address}:{PORT}", "AdvertiseAddr": address})
        if self._furnished:
            await self.ask(
                "POST", "networks/create", {"Name": NETWORK, "Driver": "overlay", "Attachable": True}
            )
            await import_images(self, self.directory)

    async def start(self) -> None:
        """Start the daemon, also again after `stop` or `kill`, and wait until it answers."""
        self.directory.joinpath("dockerd.pid").unlink(missing_ok=True)
        inside = ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--"]
        options = [
            f"--host={self.host}",
            f"--data-root={self.directory / 'data'}",
            f"--exec-root={self.directory / 'exec'}",
            f"--pidfile={self.directory / 'dockerd.pid'}",
            "--bridge=none",
            f"--cgroup-parent=/{self._cgroup}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--shutdown-timeout=5",
            "--log-level=warn",
        ]
        daemon = await Child.start("dockerd", [*inside, "dockerd", *options], log=self.log)
        self._daemon = daemon

        async def answers() -> bool:
            daemon.require_alive()
            with contextlib.suppress(httpx.TransportError):
                return (await self.http.get("/_ping")).is_success
            return False

        await wait_until(answers, what="dockerd to answer", limit=START_LIMIT_SECONDS)

    async def stop(self) -> None:
        """Stop the daemon (SIGTERM); it stops its containers first."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """Kill the daemon (SIGKILL); its containers run on until the next daemon removes them."""
        await self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Freeze the daemon (SIGSTOP): connections are accepted, nothing is answered."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen daemon continue."""
        self._send(signal.SIGCONT)

    async def destroy(self) -> None:
        """End everything and remove the engine's data."""
        await self.http.aclose()
        if self._namespaces is not None:
            await self._namespaces.kill()
        if self._daemon is not None:
            await self._daemon.stop(limit=STOP_LIMIT_SECONDS)
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)
        await wait_until(self._cgroups_removed, what="the engine's control groups to empty", limit=10)

    @property
    def root(self) -> Path:
        """The daemon's file system, in its mount namespace."""
        return Path(f"/proc/{self.init}/root")

    @property
    def socket_mount(self) -> Path:
        """The socket's directory: a restarted daemon makes a new socket."""
        return self.socket.parent

    @property
    def init(self) -> int:
        """Pid of the namespaces' first process.

        Raises:
            RuntimeError: there are no namespaces.
        """
        if self._namespaces is None:
            raise RuntimeError("the engine was not created")
        return processes_of(self._namespaces.pid)[0]

    async def _namespaces_ready(self) -> bool:
        """Whether the first process has become `tini`, the end of `_INIT`."""
        if self._namespaces is None:
            return False
        self._namespaces.require_alive()
        inside = processes_of(self._namespaces.pid)
        with contextlib.suppress(FileNotFoundError):
            return bool(inside) and _name_of(inside[0]) == "tini"
        return False

    async def _end(self, number: signal.Signals) -> None:
        self._send(number)
        if self._daemon is not None:
            await asyncio.wait_for(self._daemon.process.wait(), STOP_LIMIT_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the daemon, which is a child of nsenter."""
        daemon = self._daemon
        for pid in processes_of(daemon.pid) if daemon is not None and daemon.alive else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _cgroups_removed(self) -> bool:
        return _remove_cgroups(self._cgroup)


@contextlib.asynccontextmanager
async def private_engine(directory: Path, *, furnished: bool = True) -> AsyncIterator[PrivateEngine]:
    """An engine for the length of the block. Raises what `PrivateEngine.begin` does."""
    engine = PrivateEngine(directory, furnished=furnished)
    try:
        await engine.create()
        yield engine
    finally:
        await engine.destroy()


def require_programs() -> None:
    """Check that a private engine can run here.

    Raises:
        EngineMissingError: it cannot.
    """
    if os.geteuid() != 0:
        raise EngineMissingError("a private Docker engine needs root: run this as root")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        raise EngineMissingError(f"missing programs: {', '.join(missing)}; run scripts/setup-swarm")


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _remove_cgroups(name: str) -> bool:
    """Remove the (empty) control groups of an engine; False while a process is in one."""
    for top in (*_CGROUPS.glob(name), *_CGROUPS.glob(f"*/{name}")):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
    return True


def remove_orphaned_cgroups() -> None:
    """Remove the control groups of engines whose process was killed."""
    tops = {
        path.name for path in (*_CGROUPS.glob(f"{_CGROUP_PREFIX}-*"), *_CGROUPS.glob(f"*/{_CGROUP_PREFIX}-*"))
    }
    for name in tops:
        pid = name.removeprefix(f"{_CGROUP_PREFIX}-").partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            _remove_cgroups(name)
