"""An instance as it runs: its odoo.conf, its service, its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehome_events.parts import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from rehome_consumer.model.credentials import Credentials


@dataclass(frozen=True, slots=True)
class Conf:
    """What odoo.conf says about the database, read as Odoo reads it."""

    path: Path
    host: str
    port: int
    credentials: Credentials
    database: str | None


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


@dataclass(frozen=True, slots=True)
class Healthy:
    """Proof that an instance serves: the same task answered twice in a row and still runs."""

    task: str
    url: str
    at: datetime
    service_id: str
    internal_url: str | None = None
    external_url: str | None = None
