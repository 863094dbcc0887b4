"""An instance's service in the swarm: how it is found and updated, and what of it runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.errors import Conflict, Incompatible, NotFound
from rehome_consumer.model import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rehome_consumer.adapters.swarm.engine import Engine
    from rehome_consumer.adapters.swarm.spec import Spec
    from rehome_consumer.adapters.swarm.tasks import SwarmService
    from rehome_consumer.model import Instance

INSTANCE_LABEL: Final = "saasodoo.instance.id"
UPDATE_TRIES: Final = 10
PAUSE_SECONDS: Final = 0.05


class Services:
    """Finds and updates services; the runtime waits for what an update does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def find(self, instance: Instance) -> SwarmService:
        """The service as it is now.

        Raises:
            NotFound: there is none, or the one of that name has another instance's label.
        """
        rule = f"odoo-{instance.database_name}-{instance.hex8}"
        names = dict.fromkeys([instance.service, rule])
        for name in names:
            service = await self._engine.service(name)
            if service is None:
                continue
            owner = (service.spec.get("Labels") or {}).get(INSTANCE_LABEL, str(instance.id))
            if owner != str(instance.id):
                raise NotFound(
                    f"service {name} carries the label {INSTANCE_LABEL}={owner}: it does not belong to "
                    f"instance {instance.id}"
                )
            return service
        labelled = await self._engine.services(label=[f"{INSTANCE_LABEL}={instance.id}"])
        if len(labelled) > 1:
            several = ", ".join(service.name for service in labelled)
            raise Incompatible(f"several services carry the label {INSTANCE_LABEL}={instance.id}: {several}")
        if not labelled:
            raise NotFound(
                f"no service is named {' or '.join(names)}, "
                f"and none has the label {INSTANCE_LABEL}={instance.id}"
            )
        return labelled[0]

    async def update(self, instance: Instance, change: Callable[[Mapping[str, Any]], Spec]) -> bool:
        """Change the present definition; an update by someone else in between is read and stays.

        Returns:
            Whether there was anything to change.
        """
        for number in range(UPDATE_TRIES):
            service = await self.find(instance)
            changed = change(service.spec)
            if changed == service.spec:
                return number > 0
            if await self._engine.update(service, changed):
                return True
            await asyncio.sleep(PAUSE_SECONDS * number)
        raise Conflict(f"service {service.name} was changed by others during {UPDATE_TRIES} updates in a row")

    async def running(self, service: SwarmService) -> tuple[Task, ...]:
        """Tasks that are not over, on any node, and containers on this node that belong to no task."""
        tasks = [task for task in await self._engine.tasks(service) if not task.over]
        known = {task.container for task in tasks}
        stray = [name for name in await self._engine.containers(service) if name not in known]
        return (
            *(task.as_task() for task in tasks),
            *(Task(f"container {name[:12]}", running=True) for name in stray),
        )
