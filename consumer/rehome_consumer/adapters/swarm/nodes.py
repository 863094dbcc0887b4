"""The swarm's nodes, and which of them fulfil what a definition says about them. Nothing here sends a request."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from rehome_consumer.adapters.swarm import json_types
from rehome_consumer.adapters.swarm.spec import template_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names of the same processors (source: Swarm's platform filter).
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

_NODE_LABEL: Final = "node.labels."
_ENGINE_LABEL: Final = "engine.labels."


@dataclass(frozen=True, slots=True)
class SwarmNode:
    """A node.

    Attributes:
        name: its host name.
        cpus: in billionths of a core.
        memory: in bytes.
    """

    id: str
    name: str
    role: str
    availability: str
    state: str
    address: str
    labels: Mapping[str, str]
    engine_labels: Mapping[str, str]
    os: str
    architecture: str
    cpus: int
    memory: int

    @classmethod
    def read(cls, answer: Any) -> Self:
        """From the engine's JSON. Raises Transient when it is no node."""
        json_types.checked(json_types.NODE, answer)
        spec, status, about = (answer.get(part) or {} for part in ("Spec", "Status", "Description"))
        platform, resources = about.get("Platform", {}), about.get("Resources", {})
        return cls(
            id=answer["ID"],
            name=about.get("Hostname") or answer["ID"],
            role=spec.get("Role", ""),
            availability=spec.get("Availability", ""),
            state=status.get("State", ""),
            address=status.get("Addr", ""),
            labels=spec.get("Labels") or {},
            engine_labels=about.get("Engine", {}).get("Labels") or {},
            os=platform.get("OS", ""),
            architecture=platform.get("Architecture", ""),
            cpus=resources.get("NanoCPUs", 0),
            memory=resources.get("MemoryBytes", 0),
        )

    @property
    def accepts_tasks(self) -> bool:
        """Whether Swarm places tasks there now."""
        return self.state == "ready" and self.availability == "active"

    def describe(self) -> str:
        """Its name, and why it accepts no tasks."""
        return f"{self.name} is {self.state if self.state != 'ready' else f'set to {self.availability}'}"


def constraints(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """What the definition demands of a node, as Docker's own tools write it."""
    placement = template_of(spec).get("Placement") or {}
    return tuple(placement.get("Constraints") or ())


def admits(spec: Mapping[str, Any], node: SwarmNode) -> bool:
    """Whether a task of this definition may run on the node, as far as its kind and labels go.

    A constraint of a form that is not known here is taken as fulfilled.
    """
    platforms = (template_of(spec).get("Placement") or {}).get("Platforms") or ()
    if platforms and not any(_is_of(node, platform) for platform in platforms):
        return False
    return all(_fulfils(node, constraint) for constraint in constraints(spec))


def _is_of(node: SwarmNode, platform: Mapping[str, str]) -> bool:
    os, architecture = platform.get("OS", ""), platform.get("Architecture", "")
    return os in {"", node.os} and (not architecture or _common(architecture) == _common(node.architecture))


def _common(architecture: str) -> str:
    return _ARCHITECTURES.get(architecture.lower(), architecture.lower())


def _fulfils(node: SwarmNode, constraint: str) -> bool:
    """Whether the node fulfils `key==value` or `key!=value` (source: Swarm's package `constraint`)."""
    for operator in ("==", "!="):
        key, found, value = (part.strip() for part in constraint.partition(operator))
        if found:
            same = _has(node, key, value)
            return same is None or same is (operator == "==")
    return True


def _has(node: SwarmNode, key: str, value: str) -> bool | None:
    """Whether the node has that value there, upper and lower case being the same; None: not known."""
    known = {
        "node.id": node.id,
        "node.hostname": node.name,
        "node.role": node.role,
        "node.platform.os": node.os,
        "node.platform.arch": node.architecture,
    }
    name = key.lower()
    if name == "node.ip":
        return _is_in(node.address, value)
    for prefix, labels in ((_NODE_LABEL, node.labels), (_ENGINE_LABEL, node.engine_labels)):
        if name.startswith(prefix):
            return labels.get(key[len(prefix) :], "").lower() == value.lower()
    return known[name].lower() == value.lower() if name in known else None


def _is_in(address: str, network: str) -> bool | None:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return None
