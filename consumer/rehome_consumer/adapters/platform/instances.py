"""The platform's tables over asyncpg. Every change is one transaction that locks the rows it depends on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rehome_consumer.adapters.common.postgres_session import session
from rehome_consumer.adapters.platform.homes import SQL, count, homes
from rehome_consumer.adapters.platform.rows import (
    as_entitlements,
    as_instance,
    as_server,
    known_status,
    limit_columns,
)
from rehome_consumer.errors import Incompatible, NotFound
from rehome_consumer.ports.operators import Resident

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from rehome_consumer.adapters.common.postgres_session import Connection, Pool
    from rehome_consumer.model import Instance, Server
    from rehome_events.parts import Entitlements, Limits


class PostgresPlatform:
    """Port `Platform` on the databases `instance` and, for plans, `billing`.

    Rows are locked in one order, the instance before its servers and servers by id, so that two of these
    transactions cannot deadlock; a deadlock with another program's is a `Conflict` and passes.

    Errors of every method, besides those it names: Unreachable, TimedOut and Conflict (a row lock that was
    not granted in time), Refused (a constraint of the platform, by name), Incompatible (a table or right is missing).
    """

    def __init__(
        self,
        instances: Pool,
        billing: Pool | None = None,
        *,
        limit: float = 15.0,
        lock_limit: float = 5.0,
    ) -> None:
        """Use these pools; opening and closing them is the caller's.

        Args:
            instances: of the database with `instances` and `db_servers`.
            billing: of the database with `plan_entitlements`, if there is one to ask.
            limit: seconds that one call may wait for a connection, and again for its answers.
            lock_limit: seconds to wait for a row that another transaction is changing.
        """
        self._instances = instances
        self._billing = billing
        self._limit = limit
        self._lock_limit = lock_limit

    async def some_instances(self, most: int) -> list[Instance]:
        """Instances that should have a directory, newest first."""
        async with self._session(self._instances, "reading instances") as connection:
            rows = await connection.fetch(SQL["some_instances"], most)
            await connection.fetch(SQL["servers"])
        if self._billing is not None:
            await self.entitlements("")
        return [as_instance(row) for row in rows]

    async def instance(self, instance_id: UUID) -> Instance | None:
        """The instance's row, or None."""
        async with self._session(self._instances, f"reading instance {instance_id}") as connection:
            row = await connection.fetchrow(SQL["instance"], instance_id)
        return as_instance(row) if row else None

    async def owner(self, instance_id: UUID) -> tuple[UUID, UUID | None] | None:
        """Customer and subscription of an instance (for publishing by hand), or None."""
        async with self._session(self._instances, f"reading instance {instance_id}") as connection:
            row = await connection.fetchrow(SQL["owner"], instance_id)
        return (row["customer_id"], row["subscription_id"]) if row else None

    async def home(self, instance: Instance) -> Server | None:
        """The server where the instance's data really lives: by `db_server_id`, else by host and port.

        Never by `db_type`: billing may have written `dedicated` already while the data sits on a pool.

        Raises:
            Incompatible: several servers are registered at that address.
        """
        async with self._session(self._instances, f"looking for the home of {instance.id}") as connection:
            rows = await homes(connection, instance.db_server_id, instance.db_host, instance.db_port)
        if len(rows) > 1:
            names = ", ".join(row["name"] for row in rows)
            raise Incompatible(
                f"instance {instance.id} has no db_server_id, and at its db_host {instance.db_host} "
                f"(db_port {instance.db_port}) are several servers: {names}. "
                "Write the right one into instances.db_server_id"
            )
        return as_server(rows[0]) if rows else None

    async def server(self, server_id: UUID) -> Server | None:
        """A server's row, or None."""
        async with self._session(self._instances, f"reading server {server_id}") as connection:
            row = await connection.fetchrow(SQL["server"], server_id)
        return as_server(row) if row else None

    async def dedicated_server(self, instance_id: UUID) -> Server | None:
        """The dedicated server made for this instance, active, or None."""
        what = f"looking for the dedicated server of instance {instance_id}"
        async with self._session(self._instances, what) as connection:
            row = await connection.fetchrow(SQL["dedicated_server"], instance_id)
        return as_server(row) if row else None

    async def others_with_login(self, instance_id: UUID, server: Server, user: str) -> list[Instance]:
        """Other instances on this server whose record names the same db_user; at most twenty."""
        what = f"looking for others with the login {user}"
        async with self._session(self._instances, what) as connection:
            rows = await connection.fetch(
                SQL["others_with_login"], instance_id, server.id, server.host, server.port, user
            )
        return [as_instance(row) for row in rows]

    async def tenant_servers(self) -> list[Server]:
        """Every shared and every dedicated server that is not being taken away (for operators' tools)."""
        async with self._session(self._instances, "reading db_servers") as connection:
            return [as_server(row) for row in await connection.fetch(SQL["servers"])]

    async def residents(self, server: Server) -> list[Resident]:
        """Every instance whose record says that its database is on this server (for operators' tools)."""
        async with self._session(self._instances, f"reading the instances on {server.name}") as connection:
            rows = await connection.fetch(SQL["residents"], server.id, server.host, server.port)
        return [Resident(as_instance(row), row["subscription_id"], row["ambiguous"]) for row in rows]

    async def entitlements(self, plan: str) -> Entitlements | None:
        """The plan in force now, or None when it is unknown or there is no billing database to ask.

        Raises:
            Incompatible: the row grants something that is no limit.
        """
        if self._billing is None:
            return None
        async with self._session(self._billing, f"reading what plan {plan!r} grants") as connection:
            row = await connection.fetchrow(SQL["entitlements"], plan)
        return as_entitlements(row, plan) if row else None

    async def record(self, instance_id: UUID) -> dict[str, Any]:
        """The columns that a migration changes, as JSON, for `restore_record`.

        Raises:
            NotFound: no such instance.
        """
        async with self._session(self._instances, f"reading the record of {instance_id}") as connection:
            return await _record(connection, instance_id)

    async def point_record_to(
        self, instance_id: UUID, target: Server, *, db_user: str, plan_tier: str, limits: Limits
    ) -> None:
        """Point the record to `target`, and count the instance there instead of on its old server.

        Raises:
            NotFound: no such instance or server.
            Incompatible: `target` is full, or the columns cannot hold the limits.
        """
        changes = {
            "db_host": target.host,
            "db_port": target.port,
            "db_user": db_user,
            "db_type": "dedicated",
            "db_server_id": str(target.id),
            "plan_tier": plan_tier,
        }
        what = f"pointing instance {instance_id} to {target.name}"
        await self._change(instance_id, changes | limit_columns(limits), what, room_on=target)

    async def restore_record(self, instance_id: UUID, record: Mapping[str, Any]) -> None:
        """Write the columns as `record` has them, and count the instance on its old server again.

        A rollback must not fail because of a count: if the pool has taken another tenant meanwhile, its count
        stays at `max_instances`.

        Raises:
            NotFound: no such instance.
        """
        await self._change(instance_id, record, f"restoring the record of instance {instance_id}")

    async def set_limits(self, instance_id: UUID, limits: Limits, *, plan_tier: str) -> None:
        """Write the limits that are set, and the plan's tier.

        Raises:
            NotFound: no such instance.
            Incompatible: the columns cannot hold the limits.
        """
        changes = {"plan_tier": plan_tier, **limit_columns(limits)}
        await self._change(instance_id, changes, f"writing the limits of instance {instance_id}")

    async def set_status(self, instance_id: UUID, status: str, error_message: str | None = None) -> None:
        """Write `status` and `error_message` (None clears it).

        Raises:
            NotFound: no such instance.
            Refused: it is no status that the platform knows.
        """
        changes = {"status": known_status(status), "error_message": error_message}
        await self._change(instance_id, changes, f"writing the status of instance {instance_id}")

    async def set_service(
        self, instance_id: UUID, *, service_id: str, internal_url: str | None, external_url: str | None
    ) -> None:
        """Write where the started service is; None leaves a URL as it is.

        Raises:
            NotFound: no such instance.
        """
        urls = {"internal_url": internal_url, "external_url": external_url}
        changes = {"service_id": service_id} | {name: url for name, url in urls.items() if url is not None}
        await self._change(instance_id, changes, f"writing the service of instance {instance_id}")

    async def _change(
        self, instance_id: UUID, changes: Mapping[str, Any], what: str, *, room_on: Server | None = None
    ) -> None:
        """Write these columns where they differ, and count the instance on the server that they name."""
        async with self._session(self._instances, what) as connection, connection.transaction():
            await connection.execute(SQL["bound_locks"], str(int(self._lock_limit * 1000)))
            await connection.execute(SQL["lock_instance"], instance_id)
            before = await _record(connection, instance_id)
            after = before | {name: value for name, value in changes.items() if name in before}
            if after == before:
                return
            await count(connection, instance_id, before, after, room_on)
            await connection.execute(SQL["write_record"], instance_id, json.dumps(after))

    def _session(self, pool: Pool, what: str) -> AbstractAsyncContextManager[Connection]:
        return session(pool, what, self._limit)


async def _record(connection: Connection, instance_id: UUID) -> dict[str, Any]:
    text = await connection.fetchval(SQL["record"], instance_id)
    if text is None:
        raise NotFound(f"there is no instance {instance_id} in the platform's table instances")
    record: dict[str, Any] = json.loads(text)
    return record
