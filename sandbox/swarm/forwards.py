"""Forwarding into an engine's overlay network: ports on this machine's loopback that lead to its containers.

The containers are in other network namespaces, to which there is no route. But a socket belongs to the
namespace in which it was made, whoever uses it later: each forwarded connection gets a socket made in the
container's namespace. This replaces the proxy, or the published port, of a real platform.
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

from sandbox.swarm.gateway import Forwarder
from sandbox.system.net import LOOPBACK, free_port, give_back_port

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.swarm.api import SandboxEngine

_CLONE_NEWNET = 0x40000000  # source: linux/sched.h
_SERVICE_NAME = "com.docker.swarm.service.name"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class _Forward:
    port: int
    server: asyncio.Task[asyncio.Server]


class Forwards:
    """Opens a port for each address asked for; `resolve` has the type that the consumer's adapters take."""

    def __init__(self, engine: SandboxEngine) -> None:
        self._engine = engine
        self._forwards: dict[tuple[str, int], _Forward] = {}
        self._forwarders: list[Forwarder] = []

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """An address on loopback that leads to this service or container."""
        if (host, port) not in self._forwards:
            self._forwards[host, port] = self._open(host, port)
        return LOOPBACK, self._forwards[host, port].port

    def resolve_addresses(self, host: str, port: int) -> tuple[str, int]:
        """As `resolve`, but only for addresses of containers; names stay as they are."""
        try:
            ip_address(host)
        except ValueError:
            return host, port
        return self.resolve(host, port)

    async def close(self) -> None:
        """Close all ports and connections."""
        for forward in self._forwards.values():
            (await forward.server).close()
            give_back_port(forward.port)
        for forwarder in self._forwarders:
            await forwarder.close()

    def _open(self, host: str, port: int) -> _Forward:
        local = free_port()
        listening = socket.create_server((LOOPBACK, local))
        forwarder = Forwarder(lambda: self._connect(host, port))
        self._forwarders.append(forwarder)
        return _Forward(local, asyncio.ensure_future(asyncio.start_server(forwarder.serve, sock=listening)))

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
        for container in sorted(found, key=lambda one: one["Created"], reverse=True):
            addresses = _addresses(container)
            if addresses and (asked or host in addresses):
                details = await self._engine.ask("GET", f"containers/{container['Id']}/json")
                namespace = self._engine.root / details["NetworkSettings"]["SandboxKey"].lstrip("/")
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
    """A TCP socket of another network namespace; the thread is back in its own when this returns."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        other = os.open(namespace, os.O_RDONLY)
        try:
            _enter(other)
            try:
                made = socket.socket()
            finally:
                _enter(own)
        finally:
            os.close(other)
    finally:
        os.close(own)
    made.setblocking(False)
    return made


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
