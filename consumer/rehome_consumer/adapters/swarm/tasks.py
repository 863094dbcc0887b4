"""Services and tasks as the engine reports them, and what their states mean. Nothing here sends a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rehome_consumer.adapters.swarm import json_types
from rehome_consumer.model import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

# Source: the engine's API (TaskState); a task only moves forward through its states.
_OVER = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
_UNASKED = frozenset({"complete", "failed", "rejected"})
_WANTED = frozenset({"ready", "running"})

# The parts of a task: when one of these differs, the task was made from another definition.
_MADE_OF = ("ContainerSpec", "Resources", "ForceUpdate")


@dataclass(frozen=True, slots=True)
class SwarmService:
    """A service as it was inspected.

    Attributes:
        version: what an update must name.
        update: state of its last rolling update (`completed`, `paused`), and what Swarm says of it.
    """

    id: str
    version: int
    spec: Mapping[str, Any]
    update: str = ""
    update_message: str = ""

    @classmethod
    def read(cls, answer: Any) -> Self:
        """From the engine's JSON. Raises Transient when it is no service."""
        json_types.checked(json_types.SERVICE, answer)
        update = answer.get("UpdateStatus") or {}
        return cls(
            answer["ID"],
            answer["Version"]["Index"],
            answer["Spec"],
            update.get("State", ""),
            update.get("Message", ""),
        )

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.spec["Name"])


@dataclass(frozen=True, slots=True)
class SwarmTask:
    """A task of a service, on any node.

    Attributes:
        state: how far it has come; `desired`: how far it is to come.
        error: why it could not run, or why it is not placed yet.
        exit_code: of its container; it means something only once the task is over.
        service: id of its service.
        addresses: in the overlay networks, without the one for published ports.
    """

    id: str
    state: str
    desired: str
    error: str
    exit_code: int | None
    node: str
    container: str
    created: str
    spec: Mapping[str, Any]
    addresses: tuple[str, ...]
    service: str = ""

    @classmethod
    def read(cls, answer: Any) -> Self:
        """From the engine's JSON. Raises Transient when it is no task."""
        json_types.checked(json_types.TASK, answer)
        status = answer.get("Status", {})
        container = status.get("ContainerStatus") or {}
        return cls(
            id=answer["ID"],
            state=status.get("State", "new"),
            desired=answer.get("DesiredState", ""),
            error=status.get("Err", ""),
            exit_code=container.get("ExitCode"),
            node=answer.get("NodeID", ""),
            container=container.get("ContainerID", ""),
            created=answer.get("CreatedAt", ""),
            spec=answer.get("Spec", {}),
            service=answer.get("ServiceID", ""),
            addresses=tuple(
                address.partition("/")[0]
                for attachment in answer.get("NetworksAttachments") or ()
                if not attachment.get("Network", {}).get("Spec", {}).get("Ingress")
                for address in attachment.get("Addresses") or ()
            ),
        )

    @property
    def over(self) -> bool:
        """Whether it runs no more and never will; a stopped container's task is over a moment later."""
        return self.state in _OVER

    @property
    def wanted(self) -> bool:
        """Whether Swarm means to keep it."""
        return self.desired in _WANTED and not self.over

    @property
    def serving(self) -> bool:
        """Whether its container was started and is to go on."""
        return self.state == "running" and self.desired == "running"

    @property
    def ended_unasked(self) -> bool:
        """Whether it ended, or could not start, although nobody stopped it."""
        return self.state in _UNASKED

    def made_from(self, spec: Mapping[str, Any]) -> bool:
        """Whether it was made from this definition of the service."""
        template = spec["TaskTemplate"]
        return all(self.spec.get(part) == template.get(part) for part in _MADE_OF)

    def as_task(self) -> Task:
        """The task as steps see it."""
        return Task(self.id, running=not self.over, exit_code=self.exit_code if self.over else None)

    def describe(self) -> str:
        """What it is doing, for errors."""
        where = f" on node {self.node}" if self.node else ""
        return f"{self.id} ({self.state}{where}{f', {self.error}' if self.error else ''})"
