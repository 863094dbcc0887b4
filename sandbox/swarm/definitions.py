"""Definitions of the platform's services, like those of the real platform: Swarm `ServiceSpec`s, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sandbox.swarm.api import IMAGE
from sandbox.swarm.root import PYTHON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SECOND = 1_000_000_000
ODOO_PORT = 8069

_ALIVE = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8069/web/health', timeout=3)"
HEALTH_CHECK = {
    "Test": ["CMD", PYTHON, "-S", "-c", _ALIVE],
    "Interval": 2 * SECOND,
    "Timeout": 15 * SECOND,
    "Retries": 10,
    "StartPeriod": 60 * SECOND,
}


def bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    """A directory of this machine inside a container."""
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def definition(
    name: str,
    network: str,
    *,
    command: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    mounts: Sequence[Mapping[str, Any]] = (),
    labels: Mapping[str, str] | None = None,
    replicas: int = 1,
    image: str = IMAGE,
) -> dict[str, Any]:
    """A service of one of the sandbox's images.

    Args:
        name: of the service, and in the network's DNS.
        network: id of the overlay network.
        command: what runs; by default the image's own, the Odoo-like instance.
        env: its environment.
        mounts: see `bind`.
        labels: of the service.
        replicas: how many tasks.
        image: what it runs.
    """
    container: dict[str, Any] = {
        "Image": image,
        "Init": True,
        "Env": [f"{key}={value}" for key, value in (env or {}).items()],
        "Mounts": [dict(mount) for mount in mounts],
    }
    if command:
        container["Command"] = list(command)
    return {
        "Name": name,
        "Labels": dict(labels or {}),
        "TaskTemplate": {
            "ContainerSpec": container,
            "Networks": [{"Target": network}],
            "RestartPolicy": {"Condition": "any", "Delay": SECOND // 2},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Mode": "dnsrr"},  # virtual addresses need IP_VS, which not every kernel has
    }


def odoo(
    name: str,
    network: str,
    *,
    directory: Path,
    env: Mapping[str, str],
    instance_id: UUID | None = None,
    host: str = "shop.example.com",
) -> dict[str, Any]:
    """An instance's service, with all that the platform puts into one and an update must not lose."""
    router = name.replace("_", "-")
    made = definition(
        name,
        network,
        env={"ODOO_SKIP_BOOTSTRAP": "yes", **env},
        mounts=[bind(directory, "/bitnami/odoo")],
        labels={
            "saasodoo.instance.id": str(instance_id or uuid4()),
            "saasodoo.customer.id": str(uuid4()),
            "traefik.enable": "true",
            f"traefik.http.routers.{router}.rule": f"Host(`{host}`)",
            f"traefik.http.services.{router}.loadbalancer.server.port": str(ODOO_PORT),
        },
    )
    template = made["TaskTemplate"]
    template["ContainerSpec"]["Labels"] = {"saasodoo.container": "odoo"}
    template["Resources"] = {
        "Limits": {"NanoCPUs": SECOND // 2, "MemoryBytes": 512 * 1024**2, "Pids": 500},
        "Reservations": {"MemoryBytes": 64 * 1024**2},
    }
    template["Placement"] = {"Constraints": ["node.role==manager"]}
    made["UpdateConfig"] = {
        "Parallelism": 1,
        "Order": "stop-first",
        "FailureAction": "pause",
        "Monitor": SECOND,
    }
    return made


def postgres(name: str, network: str, *, directory: Path) -> dict[str, Any]:
    """A PostgreSQL server; its data and the superuser's password are in `directory` (see `postgres_server`)."""
    command = [PYTHON, "-m", "sandbox.swarm.postgres_server", "/var/lib/server"]
    made = definition(name, network, command=command, mounts=[bind(directory, "/var/lib/server")])
    made["TaskTemplate"]["ContainerSpec"]["StopSignal"] = (
        "SIGINT"  # the fast shutdown, as in the official image
    )
    return made
