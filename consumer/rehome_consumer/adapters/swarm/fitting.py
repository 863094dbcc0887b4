"""Which nodes are large enough for a definition, and which may run it at all. Nothing here sends a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.adapters.swarm import nodes as matching
from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.errors import Incompatible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rehome_consumer.adapters.swarm.nodes import SwarmNode

# Source: what Docker accepts of a container (6 MB), and the least time that Linux gives per period (1 of 100 ms).
LEAST_MEMORY: Final = 6 * 1024**2
LEAST_CPUS: Final = 10_000_000

_CORE: Final = 1_000_000_000
_SHOWN: Final = 5


def require_least(name: str, wanted: Mapping[str, Any]) -> None:
    """Raise Incompatible when a limit is below what Docker accepts."""
    cpus, memory = edit.amounts_of(wanted, "Limits")
    if 0 < cpus < LEAST_CPUS:
        raise Incompatible(
            f"service {name} cannot run with {cpus / _CORE:g} CPUs: Docker needs {LEAST_CPUS / _CORE:g} at least; "
            "correct the plan"
        )
    if 0 < memory < LEAST_MEMORY:
        raise Incompatible(
            f"service {name} cannot run with {edit.size_text(memory)} of memory: Docker needs "
            f"{edit.size_text(LEAST_MEMORY)} at least; correct the plan"
        )


def able(name: str, wanted: Mapping[str, Any], every: Sequence[SwarmNode]) -> list[SwarmNode]:
    """The nodes that can run it, whether or not they accept tasks now.

    Raises:
        Incompatible: there is none.
    """
    placed = [node for node in every if matching.admits(wanted, node)]
    if not placed:
        demands = " and ".join(matching.constraints(wanted)) or "the platform of its image"
        raise Incompatible(
            f"service {name} could not start again: no node fulfils {demands} "
            f"(nodes: {listed(node.name for node in every)}); correct the service, or label a node"
        )
    cpus, _ = edit.amounts_of(wanted, "Limits")
    largest = max(placed, key=lambda node: node.cpus)
    if cpus > largest.cpus:
        raise Incompatible(
            f"service {name} cannot run with {cpus / _CORE:g} CPUs: on {largest.name}, the largest node that it may "
            f"run on, there are only {largest.cpus / _CORE:g} CPUs available; grant less, or add a larger node"
        )
    reserved = edit.amounts_of(wanted, "Reservations")
    large_enough = [
        node
        for node in placed
        if cpus <= node.cpus and reserved[0] <= node.cpus and reserved[1] <= node.memory
    ]
    if not large_enough:
        sizes = listed(f"{node.name} has {amounts((node.cpus, node.memory))}" for node in placed)
        raise Incompatible(
            f"service {name} could not start again: it reserves {amounts(reserved)}, and {sizes}; "
            "reserve less, or add a larger node"
        )
    return large_enough


def warnings(name: str, wanted: Mapping[str, Any], ready: Sequence[SwarmNode]) -> list[str]:
    """What Swarm does not look at before it places a task."""
    found = []
    _, memory = edit.amounts_of(wanted, "Limits")
    most = max(node.memory for node in ready)
    if memory > most:
        found.append(
            f"service {name} is limited to {edit.size_text(memory)} of memory, and no node that it may run on has more "
            f"than {most / 1024**3:.1f}G"
        )
    one_each = 1 if edit.host_ports(wanted) else edit.max_per_node(wanted)
    if one_each and edit.replicas_of(wanted) > one_each * len(ready):
        found.append(
            f"service {name} asks for {edit.replicas_of(wanted)} replicas, and {one_each} per node fit on "
            f"{len(ready)} node(s)"
        )
    return found


def too_small(name: str, wanted: Mapping[str, Any], every: Sequence[SwarmNode]) -> list[str]:
    """Nodes that Swarm may choose, since it looks at reservations alone, and whose engine then refuses the limit."""
    (cpus, _), (needed, memory) = (edit.amounts_of(wanted, kind) for kind in ("Limits", "Reservations"))
    small = [
        node
        for node in every
        if node.accepts_tasks
        and needed <= node.cpus < cpus
        and memory <= node.memory
        and matching.admits(wanted, node)
    ]
    if not small:
        return []
    where = listed(f"{node.name} has {node.cpus / _CORE:g} CPUs" for node in small)
    why = "if Swarm places its task there, it is refused; reserve CPUs, or add a constraint"
    return [f"{where}, fewer than service {name} is limited to: {why}"]


def amounts(pair: tuple[int, int]) -> str:
    """CPU (in billionths of a core) and memory (bytes), in words."""
    cpus, memory = pair
    return f"{cpus / _CORE:g} CPUs and {memory / 1024**3:.1f}G of memory"


def listed(names: Iterable[str]) -> str:
    """The first few of them, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
