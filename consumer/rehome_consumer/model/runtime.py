"""An instance as it runs: its odoo.conf, its service, its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from rehome_events.parts import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from rehome_consumer.model.credentials import Credentials


ConfKey: TypeAlias = tuple[str, str]
"""An option of odoo.conf: its section, and its key in lower case."""

LoginPart: TypeAlias = Literal["db_host", "db_port", "db_user", "db_password"]
"""One of the four values by which an instance reaches its database, named as odoo.conf's `[options]` names it."""

CONF_UNSET: Final = frozenset({"", "False", "false", "None"})
"""Texts that Odoo reads as no value (it writes `db_host = False` itself)."""


@dataclass(frozen=True, slots=True)
class Conf:
    """What odoo.conf says about the database, read as Odoo reads it.

    Attributes:
        sections: all of it: section -> lower-case key -> value; what `[DEFAULT]` gives is in every section.
            Never shown: it holds passwords.
    """

    path: Path
    host: str
    port: int
    credentials: Credentials
    database: str | None
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ConfChange:
    """An option of odoo.conf that a move has changed, without its secrets. `before` is None where it was not there."""

    section: str
    key: str
    before: str | None
    after: str

    @property
    def name(self) -> str:
        """How people and events are told of the option: `db_host`, `queue_job.jobrunner_db_host`."""
        return self.key if self.section == "options" else f"{self.section}.{self.key}"


@dataclass(frozen=True, slots=True)
class Task:
    """One container or process of a service. `exit_code` is None while it runs."""

    id: str
    running: bool
    exit_code: int | None = None
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """An instance's service as its runtime sees it now.

    Attributes:
        id: the runtime's id (Swarm's service id), stable over updates.
        replicas: how many the runtime is asked to run.
        running: tasks that still run, on any node.
        limits: CPU and memory it is held to now (storage is not the service's).
        spec: the complete definition, JSON; enough for `Runtime.restore_spec`.
    """

    name: str
    id: str
    replicas: int
    running: tuple[Task, ...]
    env: Mapping[str, str]
    spec: Mapping[str, Any]
    limits: Limits = field(default_factory=Limits)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words of its command line that the definition replaces or adds; where it keeps the image's, none."""
        return tuple(str(word) for name in ("Command", "Args") for word in self._container.get(name) or ())

    @property
    def own_files(self) -> tuple[str, ...]:
        """Paths in the container of the files that the definition itself brings (Swarm's configs and secrets)."""
        files = [
            (entry.get("File") or {}).get("Name")
            for name in ("Configs", "Secrets")
            for entry in self._container.get(name) or ()
        ]
        return tuple(str(name) for name in files if name)

    @property
    def _container(self) -> Mapping[str, Any]:
        """The container's part, as the engine's API has it; empty where the runtime makes no containers."""
        container: Mapping[str, Any] = (self.spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}
        return container


@dataclass(frozen=True, slots=True)
class Healthy:
    """Proof that an instance serves: the same task answered twice in a row and still runs."""

    task: str
    url: str
    at: datetime
    service_id: str
    internal_url: str | None = None
    external_url: str | None = None
