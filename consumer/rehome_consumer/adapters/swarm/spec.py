"""Edits of service definitions: every function takes a complete Swarm `ServiceSpec` and returns a new one.

An update of Swarm replaces the complete definition: what is left out is erased without an error, and without
`Mode` a stopped service starts. So these functions copy everything, known or not, and change single values.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from rehome_consumer.errors import Incompatible
from rehome_events.parts import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

Spec: TypeAlias = dict[str, Any]
"""A `ServiceSpec` of the engine's API, as JSON."""

SKIP_BOOTSTRAP = "ODOO_SKIP_BOOTSTRAP"
DEFAULT_GRACE_SECONDS = 10.0

_NANO = 1_000_000_000
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMGT]?)I?B?", re.IGNORECASE)
_LAST_PORT = 65535
_PORT = re.compile(r"[0-9]{1,5}")
_PORT_LABEL = re.compile(r"traefik\.http\.services\.[^.]+\.loadbalancer\.server\.port")
_RULE_LABEL = re.compile(r"traefik\.http\.routers\.([^.]+)\.rule")
_HOST_RULE = re.compile(r"\bHost\(\s*[`\"']([^`\"']+)")


def replicas_of(spec: Mapping[str, Any]) -> int:
    """How many tasks the definition asks for.

    Raises:
        Incompatible: it is not a replicated service, which an instance must be.
    """
    replicated = spec.get("Mode", {}).get("Replicated")
    if replicated is None:
        raise Incompatible(
            f"service {spec.get('Name')} is not in replicated mode: an instance cannot be stopped by its replicas"
        )
    return int(replicated.get("Replicas", 1))


def with_replicas(spec: Mapping[str, Any], replicas: int) -> Spec:
    """Ask for so many tasks.

    Raises:
        Incompatible: it is not a replicated service.
    """
    replicas_of(spec)
    changed = copied(spec)
    changed["Mode"]["Replicated"]["Replicas"] = replicas
    return changed


def env_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The environment; of a name that occurs twice the last value counts, as in a container."""
    return dict(entry.partition("=")[::2] for entry in container_of(spec).get("Env") or ())


def with_env(spec: Mapping[str, Any], env: Mapping[str, str]) -> Spec:
    """Set these variables, and `ODOO_SKIP_BOOTSTRAP=yes`; all others keep their value and position.

    Without that variable the image would treat a restart as a first boot and initialise a database.
    """
    wanted = {**env, SKIP_BOOTSTRAP: "yes"}
    missing = dict(wanted)
    entries = []
    for entry in container_of(spec).get("Env") or ():
        name = entry.partition("=")[0]
        if name not in wanted:
            entries.append(entry)
        elif name in missing:
            entries.append(f"{name}={missing.pop(name)}")
    changed = copied(spec)
    container_of(changed)["Env"] = entries + [f"{name}={value}" for name, value in missing.items()]
    return changed


def limits_of(spec: Mapping[str, Any]) -> Limits:
    """CPU and memory limits of a task; None where there is no limit."""
    limits = template_of(spec).get("Resources", {}).get("Limits") or {}
    cpu, memory = limits.get("NanoCPUs"), limits.get("MemoryBytes")
    return Limits(cpu_limit=cpu / _NANO if cpu else None, memory_limit=size_text(memory) if memory else None)


def with_limits(spec: Mapping[str, Any], limits: Limits | None) -> Spec:
    """Set CPU and memory limits; what is None stays; so do other limits (processes).

    A reservation above its new limit is lowered to it: otherwise no node would start the container.
    """
    changed = copied(spec)
    wanted: dict[str, int] = {}
    if limits is not None and limits.cpu_limit is not None:
        wanted["NanoCPUs"] = round(limits.cpu_limit * _NANO)
    if limits is not None and limits.memory_limit is not None:
        wanted["MemoryBytes"] = size_bytes(limits.memory_limit)
    if not wanted:
        return changed
    resources = template_of(changed).setdefault("Resources", {})
    resources["Limits"] = {**(resources.get("Limits") or {}), **wanted}
    reserved = resources.get("Reservations") or {}
    for name, limit in wanted.items():
        if reserved.get(name, 0) > limit:
            reserved[name] = limit
    return changed


def forced(spec: Mapping[str, Any]) -> Spec:
    """Have Swarm replace every task although nothing else has changed."""
    changed = copied(spec)
    template = template_of(changed)
    template["ForceUpdate"] = int(template.get("ForceUpdate", 0)) + 1
    return changed


def restored(spec: Mapping[str, Any], original: Mapping[str, Any]) -> Spec:
    """The original definition, stopped, under the name that the service has now (Swarm cannot rename a service)."""
    return {**with_replicas(original, 0), "Name": spec["Name"]}


def host_ports(spec: Mapping[str, Any]) -> frozenset[tuple[int, str]]:
    """Ports (number, protocol) of its node that a task occupies, so that no second one can run there."""
    ports = (spec.get("EndpointSpec") or {}).get("Ports") or ()
    return frozenset(
        (port.get("PublishedPort", 0), port.get("Protocol", "tcp"))
        for port in ports
        if port.get("PublishMode") == "host"
    )


def max_per_node(spec: Mapping[str, Any]) -> int:
    """How many of its tasks may run on one node; 0: any number."""
    return int((template_of(spec).get("Placement") or {}).get("MaxReplicas", 0))


def amounts_of(spec: Mapping[str, Any], kind: str) -> tuple[int, int]:
    """CPU (in billionths of a core) and memory (bytes) of `Limits` or `Reservations`; 0: none."""
    amounts = (template_of(spec).get("Resources") or {}).get(kind) or {}
    return int(amounts.get("NanoCPUs", 0)), int(amounts.get("MemoryBytes", 0))


def has_health_check(spec: Mapping[str, Any]) -> bool:
    """Whether the definition has a health check: then a task counts as running once it serves."""
    test: list[str] = (container_of(spec).get("Healthcheck") or {}).get("Test") or []
    return bool(test) and test[0] != "NONE"


def stop_grace_seconds(spec: Mapping[str, Any]) -> float:
    """Seconds from SIGTERM to SIGKILL."""
    grace = container_of(spec).get("StopGracePeriod")
    return DEFAULT_GRACE_SECONDS if grace is None else grace / _NANO


def http_port(spec: Mapping[str, Any], default: int) -> int:
    """The port in Traefik's label, else `default`."""
    for name, value in (spec.get("Labels") or {}).items():
        if _PORT_LABEL.fullmatch(name) and _PORT.fullmatch(value) and 0 < int(value) <= _LAST_PORT:
            return int(value)
    return default


def external_url(spec: Mapping[str, Any]) -> str | None:
    """The address that Traefik routes to the service, or None when no label names a host."""
    labels = spec.get("Labels") or {}
    for name in sorted(labels):
        router = _RULE_LABEL.fullmatch(name)
        host = _HOST_RULE.search(labels[name]) if router else None
        if router and host:
            own = f"traefik.http.routers.{router[1]}"
            secure = labels.get(f"{own}.tls") == "true" or any(
                key.startswith(f"{own}.tls.") for key in labels
            )
            secure = secure or "websecure" in labels.get(f"{own}.entrypoints", "")
            return f"{'https' if secure else 'http'}://{host[1]}"
    return None


def size_bytes(text: str) -> int:
    """Bytes of an amount as the platform writes it, such as `2G` (units are powers of 1024).

    Raises:
        Incompatible: it is not such an amount.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Incompatible(f"{text!r} is not an amount of memory or storage such as 2G or 512M")
    return round(float(match["number"]) * _UNITS[match["unit"].upper()])


def size_text(size: int) -> str:
    """Bytes as the platform writes them, in the largest unit without a fraction."""
    unit = next(unit for unit in reversed(_UNITS) if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}"


def copied(spec: Mapping[str, Any]) -> Spec:
    """A deep copy, to be changed."""
    return copy.deepcopy(dict(spec))


def template_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a task is made from."""
    template: dict[str, Any] = spec["TaskTemplate"]
    return template


def container_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The container's part of the definition.

    Raises:
        Incompatible: the service runs no containers (a plugin).
    """
    container: dict[str, Any] | None = template_of(spec).get("ContainerSpec")
    if container is None:
        raise Incompatible(f"service {spec.get('Name')} runs no containers")
    return container
