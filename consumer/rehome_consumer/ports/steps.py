"""What the steps need of the world: one Protocol per neighbour, and `Ports`, which holds them all.

Every method may be called again after it was cut off anywhere, by another process even, and ends in the
same place. Every wait inside has a limit; its error says what it waited for. Errors are those of
`rehome_consumer.errors`. Each port has a real adapter and a fake; one contract suite holds both to this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path
    from uuid import UUID

    from rehome_consumer.model import (
        Backup,
        Conf,
        Credentials,
        DatabaseFacts,
        Fence,
        Fingerprint,
        Healthy,
        Instance,
        Named,
        OwnershipTag,
        Policy,
        Provisioned,
        RoleFacts,
        Secret,
        Server,
        ServerFacts,
        Service,
        Spared,
    )
    from rehome_events.parts import Entitlements, Limits


class Clock(Protocol):
    """The time, so that a simulation can own it."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...


class Facts(Protocol):
    """What this attempt of this migration must not forget; bound to it by the engine, kept in the journal."""

    async def remember(self, name: str, value: Any) -> Any:
        """Keep `value` (JSON) under `name` unless something is kept already; return what is kept.

        So the first look counts: a step that remembers the replicas, stops the service and dies is
        told the same replicas when it runs again.
        """
        ...

    async def recall(self, name: str) -> Any:
        """What is kept under `name`, or None."""
        ...

    async def remember_secret(self, name: str, value: Secret) -> Secret:
        """As `remember`, encrypted at rest."""
        ...

    async def recall_secret(self, name: str) -> Secret | None:
        """As `recall`, for what `remember_secret` kept."""
        ...

    async def acquire_slot(self, resource: str, places: int) -> bool:
        """One of `places` turns at a resource, such as the dumps of one server, for this migration.

        Counted over all consumers; having it already is True. It ends with `release_slot`, or with the migration;
        while the migration waits for an operator, others do not wait for it.
        """
        ...

    async def release_slot(self, resource: str) -> None:
        """Let the next one have the turn; nothing if this migration has none."""
        ...

    async def progress(self, done: int, total: int) -> None:
        """Tell how far a long step is, in bytes (or whatever unit both share). Never fails the step."""
        ...

    async def started(self) -> frozenset[str]:
        """Names of the steps of this attempt that were begun, finished or not."""
        ...

    async def seconds_per_step(self) -> Mapping[str, float]:
        """Seconds each finished step of this attempt took, by step name."""
        ...


class Platform(Protocol):
    """The platform's tables `instances`, `db_servers` and, read only, `plan_entitlements`."""

    async def instance(self, instance_id: UUID) -> Instance | None:
        """The instance's row, or None."""
        ...

    async def home(self, instance: Instance) -> Server | None:
        """The server where the instance's data really lives: by `db_server_id`, else by host and port."""
        ...

    async def server(self, server_id: UUID) -> Server | None:
        """A server's row, or None."""
        ...

    async def dedicated_server(self, instance_id: UUID) -> Server | None:
        """The dedicated server made for this instance, active, or None."""
        ...

    async def entitlements(self, plan: str) -> Entitlements | None:
        """The plan in force now (newest `effective_date <= now()`), or None when unknown or no billing database."""
        ...

    async def record(self, instance_id: UUID) -> dict[str, Any]:
        """The columns that a migration changes, as JSON, for `restore_record`."""
        ...

    async def point_record_to(
        self, instance_id: UUID, target: Server, *, db_user: str, plan_tier: str, limits: Limits
    ) -> None:
        """Point the record to `target` (db_type dedicated), keep `current_instances` of both servers right.

        One transaction; a second call changes nothing.
        """
        ...

    async def restore_record(self, instance_id: UUID, record: Mapping[str, Any]) -> None:
        """Undo `point_record_to`: the columns as `record` has them, both servers' counts as before. Idempotent."""
        ...

    async def set_limits(self, instance_id: UUID, limits: Limits, *, plan_tier: str) -> None:
        """Write CPU, memory and storage limits and the plan's tier. What is None in `limits` stays."""
        ...

    async def set_status(self, instance_id: UUID, status: str, error_message: str | None = None) -> None:
        """Write `status` and `error_message` (None clears it)."""
        ...

    async def set_service(
        self, instance_id: UUID, *, service_id: str, internal_url: str | None, external_url: str | None
    ) -> None:
        """Write where the started service is; None leaves a URL as it is."""
        ...


class DatabaseService(Protocol):
    """The service that creates dedicated PostgreSQL servers."""

    async def provision(self, instance_id: UUID, customer_id: UUID, plan_tier: str) -> Provisioned:
        """Ask for a dedicated server; blocks for minutes. NOT idempotent: look in `Platform` before and after.

        Raises:
            Refused: 400 or 422, with its words.
            Transient: 500, no connection, garbage, or no answer in time (which does not mean that it failed).
        """
        ...

    async def give_back(self, server_id: UUID) -> bool:
        """Remove a server. False where the service cannot (404 or 405): then it is a leftover to report."""
        ...


class Databases(Protocol):
    """Roles, databases and fences on one PostgreSQL server, as its administrator."""

    async def server_facts(self, server: Server) -> ServerFacts:
        """Ask the server for its version, what it could install and how it is set."""
        ...

    async def database_size(self, server: Server, database: str) -> int:
        """Bytes. Raises NotFound."""
        ...

    async def database_facts(self, server: Server, database: str, tenant: str) -> DatabaseFacts:
        """Everything about a database that its copy must share; `tenant` is the tenant's role there.

        Raises:
            NotFound: there is no such database.
            Incompatible: it holds what that role cannot take along; names it, and says what to do.
        """
        ...

    async def role_facts(self, server: Server, role: str, database: str) -> RoleFacts:
        """What the role may do, and how it is tied to anything but `database`. Raises NotFound."""
        ...

    async def require_admitted(self, server: Server, database: str, role: str) -> None:
        """Log in once as a short-lived role with the rights of the tenant's, as later steps do.

        Raises:
            Incompatible: the server does not let it in; says what to do.
        """
        ...

    async def require_genuine_extensions(
        self, source: Server, database: str, tenant: str, target: Server
    ) -> None:
        """Make the source's extensions in a short-lived, empty database on the target, and compare.

        Raises:
            Incompatible: one holds what it does not bring (no dump would take that along), or cannot be had.
        """
        ...

    async def connections(self, server: Server, database: str, role: str) -> int:
        """Sessions on the database (ours excepted) plus sessions of the role on any database, each once."""
        ...

    async def fence(self, server: Server, database: str, role: str, limit: timedelta) -> None:
        """Let nobody but the administrator in: no login for the role, no connection to the database, which is his now.

        Ends the connections there are, and returns only when `pg_stat_activity` shows none.
        Raises TimedOut naming who is still connected.
        """
        ...

    async def fence_state(self, server: Server, database: str, role: str) -> Fence:
        """How both are now (`ended` counts the connections there are): to be remembered before `fence`."""
        ...

    async def unfence(self, server: Server, database: str, role: str, before: Fence) -> None:
        """Put back what `fence` changed, as it was before."""
        ...

    async def make_role(self, server: Server, credentials: Credentials, others: tuple[str, ...]) -> None:
        """Make (or correct) the tenant's ordinary role, not allowed to log in yet, and `others` without login.

        Raises:
            Incompatible: it is there, and more than an ordinary login.
            NotOurs: it is there, and somebody else's.
        """
        ...

    async def make_scratch(
        self, server: Server, name: str, like: DatabaseFacts, owner: str, tag: OwnershipTag
    ) -> None:
        """An empty database under a scratch name, with `mark`, encoding, collation, settings and grants of `like`.

        One of the same name with the same migration's mark is dropped first, sessions and all.
        Raises NotOurs if the name is taken by anything else, Incompatible if the locale is not there.
        """
        ...

    async def ownership_tag(self, server: Server, database: str) -> OwnershipTag | None:
        """The database's mark; None when there is no such database. Raises NotOurs when it carries none."""
        ...

    async def promote(self, server: Server, scratch: str, final: str, role: str, tag: OwnershipTag) -> None:
        """Rename the verified scratch database to its final name, mark it verified, let the role in.

        Ends other sessions on it first. Done already (final carries the mark): only lets the role in.
        """
        ...

    async def drop(self, server: Server, database: str, migration_id: UUID) -> bool:
        """Drop a database that carries this migration's mark. False when it is not there; NotOurs otherwise."""
        ...

    async def close_role(self, server: Server, role: str) -> None:
        """No login for the role and no session of it, if it exists."""
        ...

    async def end_sessions(self, server: Server, migration_id: UUID) -> int:
        """End what an earlier, dead or lost run for this migration left: its sessions and its short-lived roles.

        Returns how many sessions there were.
        """
        ...


class Copier(Protocol):
    """Backups: dump, seal, check, restore. Data flows through child processes, never through our memory."""

    async def client_version(self) -> int:
        """Major version of the PostgreSQL client programs in use. Raises Incompatible when there are none."""
        ...

    async def free_bytes(self) -> int:
        """Room at the backup place. Raises Incompatible when it cannot be written to."""
        ...

    async def dump(self, server: Server, database: str, tenant: str, backup_id: str, facts: Facts) -> None:
        """Dump in directory format, parallel, under a temporary name; a half one of before is thrown away.

        Done with the rights of the tenant's role, by a short-lived login.
        """
        ...

    async def seal(self, backup_id: str, rows: Mapping[str, int], versions: Mapping[str, str]) -> Backup:
        """Hash every file, write the manifest (sizes, SHA-256, versions, row counts, times), fsync, rename."""
        ...

    async def backup(self, backup_id: str) -> Backup | None:
        """The sealed backup, its files checked against the manifest; None when there is none.

        Raises Refused naming the file when one is missing or altered.
        """
        ...

    async def restore(self, server: Server, database: str, backup: Backup, role: str, facts: Facts) -> None:
        """Restore into `database` (empty, ours); everything is owned by `role`; ANALYZE at the end."""
        ...

    async def discard(self, backup_id: str) -> None:
        """Remove the backup and whatever is half of it."""
        ...


class Verifier(Protocol):
    """Looks at a whole database, with the rights of the tenant's role. Only reads."""

    async def row_counts(self, server: Server, database: str, role: str) -> dict[str, int]:
        """Exact rows of every table, 'schema.table' -> count."""
        ...

    async def fingerprint(
        self, server: Server, database: str, role: str, spared: Spared | None = None
    ) -> Fingerprint:
        """Content and shape, without what is `spared`.

        The tenant's role is written as `<tenant>`, so that two roles can be compared.
        """
        ...

    async def some(
        self,
        server: Server,
        database: str,
        role: str,
        kind: str,
        parts: Sequence[int],
        spared: Spared | None = None,
    ) -> Mapping[int, Sequence[Named]]:
        """The second look: of each of these parts of a kind the first `fingerprint.LISTED`, in the order of keys.

        The kind is one of a fingerprint's objects, or `fingerprint.TABLES` or `SEQUENCES`.
        """
        ...


class OdooConf(Protocol):
    """The instance's odoo.conf on the shared storage."""

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
        self, instance: Instance, host: str, port: int, credentials: Credentials
    ) -> tuple[str, ...]:
        """Set db_host, db_port, db_user, db_password; every other byte, mode and owner stay. Atomic.

        Returns the keys that changed.
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

    async def find(self, instance: Instance) -> Service:
        """The instance's service as it is now. Raises NotFound naming what was looked for."""
        ...

    async def stop(self, instance: Instance) -> None:
        """Ask for no replica and return when nothing of the service runs any more, anywhere.

        Raises TimedOut (naming the tasks that still run) after the service's stop grace plus a margin.
        """
        ...

    async def configure(self, instance: Instance, env: Mapping[str, str]) -> None:
        """Set these variables of the service's environment, keep all else; starts nothing that is stopped."""
        ...

    async def start(self, instance: Instance, replicas: int, limits: Limits | None) -> Healthy:
        """Ask for `replicas` with `limits` (None: as they are) and wait until the instance serves.

        Healthy is: HTTP 200 twice in a row from the same task, started by this definition and still running.
        Already serving: says so without a restart.

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
        """The service's definition as `spec` (from `Service.spec`) has it, but stopped. Idempotent."""
        ...


class Filestore(Protocol):
    """The instance's directory on the shared storage."""

    async def archive(self, instance: Instance, backup_id: str) -> Path | None:
        """A tar of the filestore beside the backup; None when that is not asked for, or there is no filestore."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a step may touch."""

    policy: Policy
    clock: Clock
    facts: Facts
    platform: Platform
    database_service: DatabaseService
    databases: Databases
    copier: Copier
    verifier: Verifier
    odoo_conf: OdooConf
    runtime: Runtime
    filestore: Filestore
