"""Service definitions, edited: every function takes a whole Swarm `ServiceSpec` and returns a new whole one.

An update of Swarm replaces the whole definition: what is left out is erased without a word, and without
`Mode` a stopped service starts. So these functions copy everything, known or not, and change single values.
"""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import ValidationError

from rehome_consumer.adapters.swarm.shape import BeforeResize
from rehome_consumer.errors import Incompatible
from rehome_events.parts import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

Spec: TypeAlias = dict[str, Any]
"""A `ServiceSpec` of the engine's API, as JSON."""

SKIP_BOOTSTRAP = "ODOO_SKIP_BOOTSTRAP"
RESIZING = "rehome.before-resize"
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
    changed = _copied(spec)
    changed["Mode"]["Replicated"]["Replicas"] = replicas
    return changed


def env_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The environment; of a name that stands there twice the last one holds, as in a container."""
    return dict(entry.partition("=")[::2] for entry in _container(spec).get("Env") or ())


def with_env(spec: Mapping[str, Any], env: Mapping[str, str]) -> Spec:
    """Set these variables, and `ODOO_SKIP_BOOTSTRAP=yes`; all others keep their value and place.

    Without that variable the image would take a restart for a first boot and initialise a database.
    """
    wanted = {**env, SKIP_BOOTSTRAP: "yes"}
    missing = dict(wanted)
    entries = []
    for entry in _container(spec).get("Env") or ():
        name = entry.partition("=")[0]
        if name not in wanted:
            entries.append(entry)
        elif name in missing:
            entries.append(f"{name}={missing.pop(name)}")
    changed = _copied(spec)
    _container(changed)["Env"] = entries + [f"{name}={value}" for name, value in missing.items()]
    return changed


def limits_of(spec: Mapping[str, Any]) -> Limits:
    """CPU and memory that a task is held to; None where there is no limit."""
    held = _template(spec).get("Resources", {}).get("Limits") or {}
    cpu, memory = held.get("NanoCPUs"), held.get("MemoryBytes")
    return Limits(cpu_limit=cpu / _NANO if cpu else None, memory_limit=size_text(memory) if memory else None)


def with_limits(spec: Mapping[str, Any], limits: Limits | None) -> Spec:
    """Set CPU and memory limits; what is None stays, other limits (processes) stay.

    A reservation above its new limit is lowered to it: no node would start such a container.
    """
    changed = _copied(spec)
    wanted: dict[str, int] = {}
    if limits is not None and limits.cpu_limit is not None:
        wanted["NanoCPUs"] = round(limits.cpu_limit * _NANO)
    if limits is not None and limits.memory_limit is not None:
        wanted["MemoryBytes"] = size_bytes(limits.memory_limit)
    if not wanted:
        return changed
    resources = _template(changed).setdefault("Resources", {})
    resources["Limits"] = {**(resources.get("Limits") or {}), **wanted}
    reserved = resources.get("Reservations") or {}
    for name, limit in wanted.items():
        if reserved.get(name, 0) > limit:
            reserved[name] = limit
    return changed


def forced(spec: Mapping[str, Any]) -> Spec:
    """Have every task replaced although nothing else has changed."""
    changed = _copied(spec)
    template = _template(changed)
    template["ForceUpdate"] = int(template.get("ForceUpdate", 0)) + 1
    return changed


def restored(spec: Mapping[str, Any], original: Mapping[str, Any]) -> Spec:
    """The original definition, stopped, under the name that the service has now (Swarm renames none)."""
    return {**with_replicas(original, 0), "Name": spec["Name"]}


def resizing(spec: Mapping[str, Any], limits: Limits) -> Spec:
    """New limits in one rolling update that starts the new task before it stops the old one.

    The order belongs to this update, not to the service: what was there before is kept in a label, so that
    whoever comes after a crash in the middle can `settle` the definition or take the limits back
    (`unresized`). A label of the service restarts nothing.
    """
    changed = with_limits(spec, limits)
    if changed == spec:
        return changed
    config = changed.get("UpdateConfig")
    if RESIZING not in (changed.get("Labels") or {}):
        before = {"UpdateConfig": config, "Resources": _template(spec).get("Resources")}
        changed["Labels"] = {**(changed.get("Labels") or {}), RESIZING: json.dumps(before)}
    # Two tasks cannot hold one port of a node. A failure is judged by us: Swarm's own rollback would hide it.
    order = "stop-first" if has_host_port(changed) else "start-first"
    changed["UpdateConfig"] = {"Parallelism": 1, **(config or {}), "Order": order, "FailureAction": "pause"}
    return changed


def settled(spec: Mapping[str, Any]) -> Spec:
    """After a resize: the new limits stay, the update order is the service's own again."""
    return _after_resize(spec, "UpdateConfig")


def unresized(spec: Mapping[str, Any]) -> Spec:
    """After a failed resize: limits and update order as they were."""
    return _after_resize(spec, "UpdateConfig", "Resources")


def is_resizing(spec: Mapping[str, Any]) -> bool:
    """Whether a resize was begun and not settled."""
    return RESIZING in (spec.get("Labels") or {})


def has_host_port(spec: Mapping[str, Any]) -> bool:
    """Whether a task holds a port of its node, so that a second one finds no room beside it."""
    ports = (spec.get("EndpointSpec") or {}).get("Ports") or ()
    return any(port.get("PublishMode") == "host" for port in ports)


def has_health_check(spec: Mapping[str, Any]) -> bool:
    """Whether the definition has a health check of its own: then a task counts as running once it serves."""
    test: list[str] = (_container(spec).get("Healthcheck") or {}).get("Test") or []
    return bool(test) and test[0] != "NONE"


def stop_grace_seconds(spec: Mapping[str, Any]) -> float:
    """Seconds from SIGTERM to SIGKILL."""
    grace = _container(spec).get("StopGracePeriod")
    return DEFAULT_GRACE_SECONDS if grace is None else grace / _NANO


def http_port(spec: Mapping[str, Any], default: int) -> int:
    """The port that Traefik is told, else `default`."""
    for name, value in (spec.get("Labels") or {}).items():
        if _PORT_LABEL.fullmatch(name) and _PORT.fullmatch(value) and 0 < int(value) <= _LAST_PORT:
            return int(value)
    return default


def external_url(spec: Mapping[str, Any]) -> str | None:
    """The address that Traefik routes to the service, or None when no label tells a host."""
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
    """Bytes as the platform writes them, in the largest unit that keeps them whole."""
    unit = next(unit for unit in reversed(_UNITS) if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}"


def _after_resize(spec: Mapping[str, Any], *restored: str) -> Spec:
    changed = _copied(spec)
    if not is_resizing(spec):
        return changed
    before = _before_resize(changed["Labels"].pop(RESIZING))
    places = {"UpdateConfig": changed, "Resources": _template(changed)}
    for name in restored:
        if before[name] is None:
            places[name].pop(name, None)
        else:
            places[name][name] = before[name]
    return changed


def _before_resize(label: str) -> dict[str, Any]:
    """What `resizing` kept.

    Raises:
        Incompatible: somebody else wrote that label.
    """
    try:
        return BeforeResize.model_validate_json(label).model_dump()
    except ValidationError:
        raise Incompatible(
            f"the service's label {RESIZING} is not what a resize keeps there: remove it by hand"
        ) from None


def _copied(spec: Mapping[str, Any]) -> Spec:
    return copy.deepcopy(dict(spec))


def _template(spec: Mapping[str, Any]) -> dict[str, Any]:
    template: dict[str, Any] = spec["TaskTemplate"]
    return template


def _container(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The container's part.

    Raises:
        Incompatible: the service runs no containers (a plugin).
    """
    container: dict[str, Any] | None = _template(spec).get("ContainerSpec")
    if container is None:
        raise Incompatible(f"service {spec.get('Name')} runs no containers")
    return container
