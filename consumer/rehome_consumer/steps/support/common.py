"""What several steps look up in the same way."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import orjson

from rehome_consumer.errors import NotFound, Refused, RehomeError
from rehome_consumer.model import Credentials, Secret, fence_of
from rehome_events.envelope import CloudEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehome_consumer.model import Fence, Instance, Server
    from rehome_consumer.ports.steps import Facts, Ports
    from rehome_events.parts import Limits

Event: TypeAlias = CloudEvent[Any]
"""What wakes a step: any event, with the migration and attempt filled in by the engine."""

ODOO_DATABASE = "ODOO_DATABASE_"
"""Prefix of the four variables that name the database in the service's environment."""

TERMINATED = "terminated"
"""The status by which the platform says that the customer has left."""

_NAME_LENGTH = 63  # PostgreSQL cuts longer identifiers silently


def migration_of(event: Event) -> tuple[UUID, int]:
    """Migration and attempt; the engine has made sure that both are there."""
    if event.migrationid is None or event.attempt is None:
        raise RehomeError(f"event {event.id} reached a step without a migration")
    return event.migrationid, event.attempt


def tag_of(event: Event) -> str:
    """A short name for this attempt, fit for file and database names: `3f2b8c4d5e6f-1`."""
    migration, attempt = migration_of(event)
    return f"{migration.hex[:12]}-{attempt}"


def backup_id(event: Event) -> str:
    """Name of this attempt's backup."""
    migration, attempt = migration_of(event)
    return f"{migration}-{attempt}"


def scratch_name(event: Event, database: str) -> str:
    """Name of the database until its data is verified; at most 63 bytes, unique to the attempt."""
    tail = f"__rehome_{tag_of(event)}"
    return database.encode()[: _NAME_LENGTH - len(tail)].decode(errors="ignore") + tail


async def instance_of(event: Event, ports: Ports) -> Instance:
    """The instance's row.

    Raises:
        NotFound: it is gone from the platform's table.
    """
    instance = await ports.platform.instance(event.data.instance_id)
    if instance is None:
        raise NotFound(f"instance {event.data.instance_id} is no longer in the platform's table `instances`")
    return instance


async def wanted_instance(event: Event, ports: Ports) -> Instance:
    """The instance's row, for a step that brings the move forward.

    Raises:
        NotFound: it is gone from the platform's table.
        Refused: the customer has left meanwhile: nothing is stopped, copied or started for nobody.
    """
    instance = await instance_of(event, ports)
    if instance.status == TERMINATED:
        raise Refused(
            f"instance {instance.id} was terminated during the migration: the move is undone, and it is not started"
        )
    return instance


async def server_noted(ports: Ports, note: str) -> Server:
    """The server whose id is kept under `note` (`source` or `target`).

    Raises:
        NotFound: nothing is noted, or the server is gone from the platform's table.
    """
    kept = await ports.facts.recall(note)
    server = await ports.platform.server(UUID(kept)) if kept else None
    if server is None:
        raise NotFound(
            f"the {note} server {kept or '(none was noted)'} is not in the platform's table `db_servers`"
        )
    return server


async def tenant(ports: Ports, instance: Instance) -> Credentials:
    """The role and password the tenant uses today, as its odoo.conf has them; kept by the first look.

    Later steps rewrite odoo.conf, so only the first reading counts.
    """
    password = await ports.facts.recall_secret("tenant_password")
    user = await ports.facts.recall("tenant_user")
    if password is not None and user is not None:
        return Credentials(str(user), password)
    conf = await ports.odoo_conf.read(instance)
    kept = await ports.facts.remember_secret("tenant_password", conf.credentials.password)
    return Credentials(str(await ports.facts.remember("tenant_user", conf.credentials.user)), kept)


async def new_tenant(ports: Ports, instance: Instance) -> Credentials:
    """The role and password on the dedicated server: database-service's if it gave any, else today's."""
    user = await ports.facts.recall("new_user")
    password = await ports.facts.recall_secret("new_password")
    today = await tenant(ports, instance)
    return Credentials(str(user or today.user), password or today.password)


def dump_slot(source: Server) -> str:
    """The resource that migrations take turns at: dumps of one server."""
    return f"dump {source.id}"


def environment(host: str, port: int, credentials: Credentials) -> dict[str, str]:
    """The four variables for the service, in step with odoo.conf."""
    return {
        f"{ODOO_DATABASE}HOST": host,
        f"{ODOO_DATABASE}PORT_NUMBER": str(port),
        f"{ODOO_DATABASE}USER": credentials.user,
        f"{ODOO_DATABASE}PASSWORD": credentials.password.reveal(),
    }


async def remember_fence(facts: Facts, fence: Fence) -> Fence:
    """Keep how things were before the fence; the first look counts."""
    return fence_of(await facts.remember("fence", asdict(fence)))


async def recall_fence(facts: Facts) -> Fence | None:
    """How things were before the fence, if it was ever begun."""
    kept = await facts.recall("fence")
    return fence_of(kept) if kept else None


async def require_fence(ports: Ports, instance: Instance, source: Server) -> None:
    """Go on only while nobody but the administrator reaches the source.

    Raises:
        Refused: somebody lifted the fence; what was copied may be out of date.
    """
    state = await ports.databases.fence_state(source, instance.database, (await tenant(ports, instance)).user)
    if state.can_login or not state.closed or state.inside:
        somebody = f" ({', '.join(state.inside)})" if state.inside else ""
        raise Refused(
            f"the fence of {instance.database} on {source.name} was lifted during the migration{somebody}: "
            "what was copied may be out of date"
        )


async def remember_spec(facts: Facts, spec: Mapping[str, Any]) -> None:
    """Keep the service's definition as it was; encrypted, since its environment holds a password."""
    await facts.remember_secret("spec", Secret(orjson.dumps(spec).decode()))


async def recall_spec(facts: Facts) -> dict[str, Any] | None:
    """The service's definition as it was, if it was ever kept."""
    kept = await facts.recall_secret("spec")
    return orjson.loads(kept.reveal()) if kept else None


def noted_limits(limits: Limits) -> Mapping[str, Any]:
    """Limits as JSON for a note."""
    return limits.model_dump(mode="json")
