"""Doors into an engine's overlay network: ports on our loopback that lead to its containers.

The containers are in network namespaces of their own, where no route leads. But a socket belongs to the
namespace in which it was made, whoever uses it later: a door makes its socket inside the container's
namespace and hands the bytes through. That stands where a proxy or a published port stands in production.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from sandbox.swarm.hatch import Through
from sandbox.system.net import LOOPBACK, free_port, give_back_port

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.swarm.api import SandboxEngine

_CLONE_NEWNET = 0x40000000  # source: linux/sched.h
_SERVICE_NAME = "com.docker.swarm.service.name"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class _Door:
    port: int
    server: asyncio.Task[asyncio.Server]


class Doors:
    """Opens a door for whatever is asked for; `resolve` has the form that the consumer's adapters take."""

    def __init__(self, engine: SandboxEngine) -> None:
        self._engine = engine
        self._doors: dict[tuple[str, int], _Door] = {}
        self._through: list[Through] = []

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """An address on our loopback that leads to this service or container."""
        if (host, port) not in self._doors:
            self._doors[host, port] = self._open(host, port)
        return LOOPBACK, self._doors[host, port].port

    def resolve_addresses(self, host: str, port: int) -> tuple[str, int]:
        """As `resolve`, but names stay as they are: who asks for containers' addresses sees each by itself."""
        try:
            ip_address(host)
        except ValueError:
            return host, port
        return self.resolve(host, port)

    async def close(self) -> None:
        """Close all doors and whatever goes through them."""
        for door in self._doors.values():
            (await door.server).close()
            give_back_port(door.port)
        for through in self._through:
            await through.close()

    def _open(self, host: str, port: int) -> _Door:
        ours = free_port()
        listening = socket.create_server((LOOPBACK, ours))

        through = Through(lambda: self._connect(host, port))
        self._through.append(through)
        return _Door(ours, asyncio.ensure_future(asyncio.start_server(through.visit, sock=listening)))

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address, namespace = await self._container(host)
        inside = _socket_in(namespace)
        try:
            await asyncio.get_running_loop().sock_connect(inside, (address, port))
            return await asyncio.open_connection(sock=inside)
        except BaseException:
            inside.close()
            raise

    async def _container(self, host: str) -> tuple[str, Path]:
        """Address and network namespace of a running container, by the service's name or by its address.

        Raises:
            LookupError: none runs.
        """
        by_name = json.dumps({"label": [f"{_SERVICE_NAME}={host}"]})
        asked = {} if host[0].isdigit() else {"filters": by_name}
        found = await self._engine.ask("GET", "containers/json", params=asked)
        for container in sorted(found, key=lambda told: told["Created"], reverse=True):
            addresses = _addresses(container)
            if addresses and (asked or host in addresses):
                told = await self._engine.ask("GET", f"containers/{container['Id']}/json")
                namespace = self._engine.root / told["NetworkSettings"]["SandboxKey"].lstrip("/")
                return (addresses[0] if asked else host), namespace
        raise LookupError(f"no container of {host} runs")


def _addresses(container: dict[str, Any]) -> list[str]:
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return [
        network["IPAddress"]
        for name, network in sorted(networks.items())
        if network.get("IPAddress") and name != "ingress"
    ]


def _socket_in(namespace: Path) -> socket.socket:
    """A TCP socket of another network namespace; the thread is back in ours when this returns."""
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        theirs = os.open(namespace, os.O_RDONLY)
        try:
            _enter(theirs)
            try:
                made = socket.socket()
            finally:
                _enter(ours)
        finally:
            os.close(theirs)
    finally:
        os.close(ours)
    made.setblocking(False)
    return made


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
