"""An instance's odoo.conf, service and directory."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from rehome_consumer.model import Conf, ConfKey, Credentials, Healthy, Instance, LoginPart, Service
    from rehome_events.parts import Limits


class OdooConf(Protocol):
    """The instance's odoo.conf on the shared storage."""

    async def require_root(self, some: Collection[Instance]) -> None:
        """Raise NotReady unless the directory of all instances is there, writable, and has one of these in it.

        An empty directory, in which the shared storage is not mounted, has none. With no instances at all any will do.
        """
        ...

    async def read(self, instance: Instance) -> Conf:
        """Read it as Odoo does. Raises ConfUnusable naming the file and what is wrong."""
        ...

    async def check_writable(self, instance: Instance) -> None:
        """Raise ConfUnusable unless the file can be replaced and has an `[options]` section."""
        ...

    async def back_up(self, instance: Instance, attempt_tag: str) -> Path:
        """Back the file up beside it, once per attempt (`attempt_tag`); return the backup's path."""
        ...

    async def rewrite(
        self,
        instance: Instance,
        host: str,
        port: int,
        credentials: Credentials,
        others: Mapping[ConfKey, LoginPart] = MappingProxyType({}),
    ) -> tuple[str, ...]:
        """Set db_host, db_port, db_user, db_password; every other byte, mode and owner stay. Atomic.

        `others` are further options of the file, each with the one of the four whose new value it takes.
        Returns the keys that changed; one of another section as `section.key`.
        """
        ...

    async def restore_file(self, instance: Instance, attempt_tag: str) -> bool:
        """Replace the file by its backup of this attempt, byte for byte; False when there is none."""
        ...

    async def remove_backup(self, instance: Instance, attempt_tag: str) -> None:
        """Remove the backup of this attempt, and temporary files."""
        ...


class Runtime(Protocol):
    """What runs the instances: Docker Swarm, or plain processes in the sandbox."""

    async def require_ready(self) -> None:
        """Return when it can be asked to stop and start instances now.

        Raises:
            Unreachable: it does not answer.
            Incompatible: what answers cannot do it, such as an engine that is no manager of a swarm.
        """
        ...

    async def find(self, instance: Instance) -> Service:
        """The instance's service as it is now. Raises NotFound naming what was looked for."""
        ...

    async def require_can_run(self, instance: Instance, limits: Limits | None) -> tuple[str, ...]:
        """Check, while it runs, that it could start again with `limits` (None: as they are); changes nothing.

        Looks at exactly what `start` would ask for. An upgrade is not refused for what cannot be known.

        Returns:
            Warnings: what may go wrong and cannot be known from here.

        Raises:
            Incompatible: it could not start, and waiting does not change that; names what is wanted and what is there.
            Transient: it could not start now: its node is down, there is no room, it does not run today.
        """
        ...

    async def begin_stop(self, instance: Instance) -> None:
        """Ask for no replica and return: what runs goes on for as long as it takes to end. `stop` waits for that."""
        ...

    async def stop(self, instance: Instance) -> None:
        """Ask for no replica and return when nothing of the service runs any more, anywhere.

        Raises TimedOut (naming the tasks that still run) after the service's stop grace plus a margin.
        """
        ...

    async def configure(self, instance: Instance, env: Mapping[str, str]) -> None:
        """Set these variables of the service's environment, keep all else; starts nothing that is stopped."""
        ...

    async def start(
        self, instance: Instance, replicas: int, limits: Limits | None, *, beside: bool = False
    ) -> Healthy:
        """Ask for `replicas` with `limits` (None: as they are) and wait until the instance serves.

        Healthy is: HTTP 200 twice in a row from the same task, started by this definition and still running.
        Already serving: says so without a restart. Tasks that were asked to end have ended when it returns, unless
        `beside`: then they may go on. Where two tasks cannot run beside each other, it first waits for their end.

        Raises:
            CrashLoop: the task ends again and again; exit code and last lines are in the message.
            TimedOut: it never got healthy; says what its tasks were doing.
            Incompatible: no such image, no room on any node, limits above the node's.
        """
        ...

    async def resize(self, instance: Instance, limits: Limits) -> tuple[str, ...]:
        """Apply CPU and memory while it runs, storage where the file system can; returns warnings."""
        ...

    async def restore_spec(self, instance: Instance, spec: Mapping[str, Any]) -> None:
        """The service's definition as `spec` (from `Service.spec`) has it, but stopped. Idempotent.

        Waits no more than `begin_stop` for what runs.
        """
        ...


class Filestore(Protocol):
    """The instance's directory on the shared storage."""

    async def archive(self, instance: Instance, backup_id: str) -> Path | None:
        """A tar of the filestore beside the backup; None when that is not asked for, or there is no filestore."""
        ...
