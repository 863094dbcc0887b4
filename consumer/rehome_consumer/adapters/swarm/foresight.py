"""Whether a service could start again, found out while it serves: what would be refused only after its stop.

Three answers. `Incompatible`: its definition cannot run on this swarm, and waiting does not change that. `Transient`:
it could not start now (nodes are down, no room, it does not run today), which may pass. A warning: what may go wrong
and cannot be known from here, since an upgrade is not refused for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.adapters.common.bounded_thread import in_thread
from rehome_consumer.adapters.swarm import fitting, resizing
from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.adapters.swarm.nodes import admits
from rehome_consumer.adapters.swarm.present import require_runs
from rehome_consumer.adapters.swarm.services import Services
from rehome_consumer.errors import Incompatible, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rehome_consumer.adapters.swarm.engine import Engine
    from rehome_consumer.adapters.swarm.nodes import SwarmNode
    from rehome_consumer.adapters.swarm.tasks import SwarmService
    from rehome_consumer.model import Instance
    from rehome_events.parts import Limits

STORAGE_SECONDS: Final = 30.0


class Foresight:
    """Looks at nodes, image and mounts for `SwarmRuntime.require_can_run`."""

    def __init__(self, engine: Engine, data_root: Path) -> None:
        self._engine = engine
        self._services = Services(engine)
        self._data_root = data_root

    async def require_can_run(self, instance: Instance, limits: Limits | None) -> tuple[str, ...]:
        """Check the definition that a start with these limits would send. Raises what `Runtime` names."""
        service = await self._services.find(instance)
        if resizing.is_started(service.spec):
            return (f"service {service.name}: a resize was started and not finished; not checked further",)
        replicas = max(edit.replicas_of(service.spec), 1)
        wanted = edit.with_replicas(edit.with_limits(service.spec, limits), replicas)
        fitting.require_least(service.name, wanted)
        warnings = require_runs(service, await self._engine.tasks(service), wanted)
        warnings += await self._look_at_nodes(service, wanted)
        warnings += await self._look_at_mounts(instance, service)
        return tuple(warnings)

    async def has_room_for_one_more(self, service: SwarmService) -> bool:
        """Whether its maximum of replicas per node lets one more run, as far as that is known."""
        most = edit.max_per_node(service.spec)
        if not most:
            return True
        try:
            every = await self._engine.nodes()
        except Incompatible:
            return True
        ready = [node for node in every if node.accepts_tasks and admits(service.spec, node)]
        return edit.replicas_of(service.spec) < most * len(ready)

    async def _look_at_nodes(self, service: SwarmService, wanted: Mapping[str, Any]) -> list[str]:
        try:
            every = await self._engine.nodes()
            own = await self._engine.own_node()
        except Incompatible as error:  # a proxy of before these requests
            return [f"whether a node can run service {service.name} is not known: {error}"]
        able = fitting.able(service.name, wanted, every)
        ready = [node for node in able if node.accepts_tasks]
        if not ready:
            raise Transient(
                f"service {service.name} could not start now: {fitting.listed(node.describe() for node in able)}; "
                "bring one of these nodes back (docker node update --availability active)"
            )
        free = await self._with_free_ports(service, wanted, ready)
        await self._require_room(service, wanted, free)
        warnings = fitting.warnings(service.name, wanted, free)
        warnings += fitting.too_small(service.name, wanted, every)
        if any(node.id == own for node in free):
            warnings += await self._look_at_image(service, wanted)
        return warnings

    async def _with_free_ports(
        self, service: SwarmService, wanted: Mapping[str, Any], ready: Sequence[SwarmNode]
    ) -> list[SwarmNode]:
        """The nodes on which no other service has, or waits for, one of its ports.

        Raises:
            Incompatible: other services need all of these nodes; one of them would start as soon as this one stops.
        """
        ports = edit.host_ports(wanted)
        if not ports:
            return list(ready)
        free, waiting, others = {node.id: node for node in ready}, 0, []
        for other in await self._engine.services():
            if other.id == service.id or not ports & edit.host_ports(other.spec):
                continue
            others.append(other.name)
            for task in await self._engine.tasks(other):
                if task.wanted and free.pop(task.node, None) is None and not task.node:
                    waiting += 1
        if len(free) <= waiting:
            numbers = ", ".join(str(number) for number, _ in sorted(ports))
            where = fitting.listed(node.name for node in ready)
            raise Incompatible(
                f"service {service.name} could not start again: port {numbers} of every node that it may run on "
                f"({where}) is published in mode host by {', '.join(others)} as well; publish another port"
            )
        return list(free.values())

    async def _require_room(
        self, service: SwarmService, wanted: Mapping[str, Any], ready: Sequence[SwarmNode]
    ) -> None:
        """Raise Transient unless a node has what it reserves, its own present tasks not counted."""
        reserved = edit.amounts_of(wanted, "Reservations")
        if not any(reserved):
            return
        full = []
        for node in ready:
            left = (node.cpus, node.memory)
            for task in await self._engine.tasks_on(node):
                if task.service != service.id:
                    cpus, memory = edit.amounts_of({"TaskTemplate": task.spec}, "Reservations")
                    left = (left[0] - cpus, left[1] - memory)
            if reserved[0] <= left[0] and reserved[1] <= left[1]:
                return
            full.append(f"{node.name} has {fitting.amounts(left)} left")
        raise Transient(
            f"service {service.name} could not start now: it reserves {fitting.amounts(reserved)}, and "
            f"{fitting.listed(full)}; make room, or add a node"
        )

    async def _look_at_image(self, service: SwarmService, wanted: Mapping[str, Any]) -> list[str]:
        image = edit.container_of(wanted).get("Image", "")
        try:
            if await self._engine.has_image(image):
                return []
        except Incompatible as error:
            return [f"whether image {image} is on this node is not known: {error}"]
        why = "a start there succeeds only if its registry still has it (docker image pull)"
        return [f"image {image} of service {service.name} is not on this node: {why}"]

    async def _look_at_mounts(self, instance: Instance, service: SwarmService) -> list[str]:
        """What it mounts is there, and is where odoo.conf is replaced.

        Raises:
            Incompatible: a directory on the shared storage is missing.
        """
        sources = [Path(source) for source in _sources(service.spec)]
        own = self._data_root / instance.directory
        if not any(source.is_relative_to(own) or own.is_relative_to(source) for source in sources):
            mounted = ", ".join(map(str, sources)) or "no directory"
            unless = "unless that is the same directory, the instance does not see it"
            return [f"service {service.name} mounts {mounted}, odoo.conf is replaced below {own}: {unless}"]
        shared = [source for source in sources if source.is_relative_to(self._data_root)]

        def missing(_: object) -> list[str]:
            return [str(source) for source in shared if _is_gone(source)]

        gone = await in_thread(missing, f"looking at the mounts of {service.name}", STORAGE_SECONDS)
        if gone:
            raise Incompatible(
                f"service {service.name} could not start again: bind source path does not exist: {', '.join(gone)}"
            )
        return []


def _is_gone(path: Path) -> bool:
    """Whether it is known not to be there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _sources(spec: Mapping[str, Any]) -> list[str]:
    """Directories of the node that its tasks mount: bind mounts, and volumes that are one."""
    found = []
    for mount in edit.container_of(spec).get("Mounts") or ():
        options = ((mount.get("VolumeOptions") or {}).get("DriverConfig") or {}).get("Options") or {}
        source = mount.get("Source", "") if mount.get("Type", "bind") == "bind" else options.get("device", "")
        found += [source] if source.startswith("/") else []
    return found
