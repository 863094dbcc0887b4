"""What the supervisor stores of a service: its definition and its version, in a file."""

from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

# The part of a definition that a task is made from: a change of it replaces the task.
_TEMPLATE = {"command", "env", "instance_dir", "limits", "force"}


class TaskLimits(BaseModel):
    """What a task may use: CPU in cores, memory as the platform writes it (`2G`)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    cpu: float | None = Field(default=None, gt=0)
    memory: str | None = None


class Spec(BaseModel):
    """A service's complete definition. Fields that the supervisor does not know stay as they are.

    As with Swarm, what an update leaves out falls back to its default: `replicas` to 1, which starts a
    stopped service.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    command: list[str] = Field(min_length=1)
    labels: dict[str, str] = {}
    env: dict[str, str] = {}
    instance_dir: Path | None = Field(default=None, description="given to the task as INSTANCE_DIR")
    limits: TaskLimits = TaskLimits()
    replicas: int = Field(default=1, ge=0, le=1)
    stop_grace_seconds: float = Field(default=10.0, ge=0, description="from SIGTERM to SIGKILL")
    restart_delay_seconds: float = Field(default=5.0, ge=0, description="from a task's end to the next one")
    force: int = Field(default=0, description="a changed number replaces the task, all else equal")

    def replaces(self, other: Self) -> bool:
        """Whether a task made from `other` must be replaced."""
        return self.model_dump(include=_TEMPLATE) != other.model_dump(include=_TEMPLATE)


class StaleVersionError(Exception):
    """An update named a version that is not the service's current one."""


class Record(BaseModel):
    """A service on disk.

    Attributes:
        version: grows with every update, and once more when a task was replaced.
        template_version: the version that last changed what a task is made from.
    """

    id: str
    spec: Spec
    version: int = 1
    template_version: int = 1

    @classmethod
    def new(cls, spec: Spec) -> Self:
        """A new service."""
        return cls(id=uuid4().hex, spec=spec)

    def update(self, spec: Spec, version: int) -> None:
        """Apply a new definition.

        Raises:
            StaleVersionError: `version` is not the current one; nothing was changed.
        """
        if version != self.version:
            raise StaleVersionError("update out of sequence")
        self.version += 1
        if spec.replaces(self.spec):
            self.template_version = self.version
        self.spec = spec

    def has_labels(self, labels: dict[str, str]) -> bool:
        """Whether the service carries all of these labels."""
        return labels.items() <= self.spec.labels.items()

    def view(self) -> dict[str, Any]:
        """The record as it goes over HTTP."""
        return self.model_dump(mode="json")


class ServiceFiles:
    """The directory with one file per service, readable by its owner alone: an environment has passwords."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def load(self) -> list[Record]:
        """Every stored service."""
        return [Record.model_validate_json(path.read_bytes()) for path in self._directory.glob("*.json")]

    def save(self, record: Record) -> None:
        """Write the service's file, completely or not at all."""
        unfinished = self._directory / f"{record.id}.new"
        unfinished.touch(mode=0o600)
        unfinished.write_text(record.model_dump_json())
        unfinished.replace(self._path(record))

    def remove(self, record: Record) -> None:
        """Remove the service's file."""
        self._path(record).unlink(missing_ok=True)

    def _path(self, record: Record) -> Path:
        return self._directory / f"{record.id}.json"
