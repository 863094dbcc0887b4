"""The platform's tables as dicts of rows."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

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

    from rehome_consumer.model import Instance, Server
    from rehome_events.parts import Entitlements, Limits

RECORD = (
    *("status", "error_message", "db_host", "db_port", "db_user", "db_type", "db_server_id", "plan_tier"),
    *("cpu_limit", "memory_limit", "storage_limit", "service_id", "internal_url", "external_url"),
)

_INSTANCE: Mapping[str, Any] = dict.fromkeys((*RECORD, "db_name", "service_name", "subscription_id")) | {
    "status": "running",
    "db_port": 5432,
    "plan_tier": "standard",
}

_SERVER: Mapping[str, Any] = {
    "port": 5432,
    "server_type": "shared",
    "max_instances": 50,
    "current_instances": 0,
    "status": "active",
    "health_status": "healthy",
    "postgres_version": "15",
    "admin_user": "postgres",
    "admin_password": "admin-secret",
    "dedicated_to_customer_id": None,
    "dedicated_to_instance_id": None,
}


@lru_cache(4096)
def _instance(columns: tuple[tuple[str, Any], ...]) -> Instance:
    """`as_instance`, remembered: a row is the same each time, and checking its limits takes long."""
    return as_instance(dict(columns))


class FakePlatform:
    """Port `Platform`.

    Attributes:
        instances: rows of `instances` by id, by column.
        servers: rows of `db_servers` by id, by column, in the order they were added.
        plans: rows of `plan_entitlements`; None when there is no billing database.
        now: what the billing database takes for the present.
        writes: changes so far; a changed row's `updated_at` is their number.
    """

    def __init__(self) -> None:
        self.instances: dict[UUID, dict[str, Any]] = {}
        self.servers: dict[UUID, dict[str, Any]] = {}
        self.plans: list[dict[str, Any]] | None = []
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.writes = 0
        self._made = 0

    async def some_instances(self, most: int) -> list[Instance]:
        rows = [
            row for row in self.instances.values() if row["status"] not in {"terminated", "creating", "error"}
        ]
        return [as_instance(row) for row in reversed(rows)][:most]

    def add_instance(self, **columns: Any) -> UUID:
        """A new row; ids count up unless given. Needs `database_name`."""
        identity = columns.get("id") or UUID(int=len(self.instances) + 1, version=4)
        row = {"id": identity, "name": columns["database_name"], "customer_id": UUID(int=7, version=4)}
        self.instances[identity] = {**_INSTANCE, **row, **columns, "updated_at": 0}
        return UUID(str(identity))

    def add_server(self, **columns: Any) -> UUID:
        """A new row, active and healthy by default. Needs `name`; `host` is the name."""
        self._made += 1  # an id is never used twice, whatever was removed meanwhile
        identity = columns.get("id") or UUID(int=self._made + 0x1000, version=4)
        row = {"id": identity, "host": columns["name"]}
        self.servers[identity] = {**_SERVER, **row, **columns, "updated_at": 0}
        return UUID(str(identity))

    async def instance(self, instance_id: UUID) -> Instance | None:
        row = self.instances.get(instance_id)
        return _instance(tuple(row.items())) if row else None

    async def home(self, instance: Instance) -> Server | None:
        rows = self._homes(instance.db_server_id, instance.db_host, instance.db_port)
        if len(rows) > 1:
            raise Incompatible(f"several servers at {instance.db_host}: {[row['name'] for row in rows]}")
        return as_server(rows[0]) if rows else None

    async def server(self, server_id: UUID) -> Server | None:
        row = self.servers.get(server_id)
        return as_server(row) if row else None

    async def dedicated_server(self, instance_id: UUID) -> Server | None:
        for row in self.servers.values():
            made_for_it = row["dedicated_to_instance_id"] == instance_id
            if made_for_it and row["server_type"] == "dedicated" and row["status"] == "active":
                return as_server(row)
        return None

    async def others_with_login(self, instance_id: UUID, server: Server, user: str) -> list[Instance]:
        found = [
            row
            for row in self.instances.values()
            if row["id"] != instance_id
            and row.get("db_user") == user
            and row["status"] != "terminated"
            and (
                row["db_server_id"] == server.id
                or (
                    row["db_server_id"] is None
                    and (row["db_host"], row["db_port"] or 5432) == (server.host, server.port)
                )
            )
        ]
        return [as_instance(row) for row in sorted(found, key=lambda row: str(row["name"]))][:20]

    async def tenant_servers(self) -> list[Server]:
        rows = [
            row
            for row in self.servers.values()
            if row["server_type"] in ("shared", "dedicated") and row["status"] != "deprovisioning"
        ]
        return [as_server(row) for row in sorted(rows, key=lambda row: str(row["name"]))]

    async def residents(self, server: Server) -> list[Resident]:
        found = []
        for row in self.instances.values():
            homes = self._homes(row["db_server_id"], row["db_host"], row["db_port"])
            if self.servers[server.id] in homes:
                found.append(Resident(as_instance(row), row["subscription_id"], len(homes) > 1))
        return sorted(found, key=lambda one: (one.instance.name, one.instance.id))

    async def entitlements(self, plan: str) -> Entitlements | None:
        now = self.now.replace(tzinfo=None)
        rows = [row for row in self.plans or () if row["plan_name"] == plan and row["effective_date"] <= now]
        return as_entitlements(max(rows, key=lambda row: row["effective_date"]), plan) if rows else None

    async def record(self, instance_id: UUID) -> dict[str, Any]:
        row = self._row(instance_id)
        record = {name: row[name] for name in RECORD}
        server, cores = row["db_server_id"], row["cpu_limit"]
        return record | {
            "db_server_id": str(server) if server else None,
            "cpu_limit": None if cores is None else float(cores),
        }

    async def point_record_to(
        self, instance_id: UUID, target: Server, *, db_user: str, plan_tier: str, limits: Limits
    ) -> None:
        changes = {
            "db_host": target.host,
            "db_port": target.port,
            "db_user": db_user,
            "db_type": "dedicated",
            "db_server_id": str(target.id),
            "plan_tier": plan_tier,
        }
        await self._change(instance_id, changes | limit_columns(limits), room_on=target)

    async def restore_record(self, instance_id: UUID, record: Mapping[str, Any]) -> None:
        await self._change(instance_id, record)

    async def set_limits(self, instance_id: UUID, limits: Limits, *, plan_tier: str) -> None:
        await self._change(instance_id, {"plan_tier": plan_tier, **limit_columns(limits)})

    async def set_status(self, instance_id: UUID, status: str, error_message: str | None = None) -> None:
        await self._change(instance_id, {"status": known_status(status), "error_message": error_message})

    async def set_service(
        self, instance_id: UUID, *, service_id: str, internal_url: str | None, external_url: str | None
    ) -> None:
        urls = {"internal_url": internal_url, "external_url": external_url}
        given = {name: url for name, url in urls.items() if url is not None}
        await self._change(instance_id, {"service_id": service_id, **given})

    async def _change(
        self, instance_id: UUID, changes: Mapping[str, Any], *, room_on: Server | None = None
    ) -> None:
        before = await self.record(instance_id)
        after = before | {name: value for name, value in changes.items() if name in before}
        if after == before:
            return
        old, new = self._only_home(before), self._only_home(after)
        if old is not new:
            if room_on is not None:
                self._check_room(instance_id, room_on)
            if old and old["current_instances"] > 0:
                self._write(old, {"current_instances": old["current_instances"] - 1})
            if new and new["current_instances"] < new["max_instances"]:
                self._write(new, {"current_instances": new["current_instances"] + 1})
        server = after["db_server_id"]
        self._write(self._row(instance_id), after | {"db_server_id": UUID(server) if server else None})

    def _check_room(self, instance_id: UUID, server: Server) -> None:
        row = self.servers.get(server.id)
        if row is None:
            raise NotFound(f"server {server.name} is not in db_servers")
        counted = row["dedicated_to_instance_id"] == instance_id
        if row["current_instances"] >= row["max_instances"] and not counted:
            raise Incompatible(f"server {row['name']} is full")

    def _write(self, row: dict[str, Any], values: Mapping[str, Any]) -> None:
        self.writes += 1
        row.update(values, updated_at=self.writes)

    def _row(self, instance_id: UUID) -> dict[str, Any]:
        try:
            return self.instances[instance_id]
        except KeyError:
            raise NotFound(f"there is no instance {instance_id}") from None

    def _only_home(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        named = record["db_server_id"]
        rows = self._homes(UUID(named) if named else None, record["db_host"], record["db_port"])
        return rows[0] if len(rows) == 1 else None

    def _homes(self, server_id: UUID | None, host: str | None, port: int | None) -> list[dict[str, Any]]:
        if server_id in self.servers:
            return [self.servers[server_id]]
        return [
            row
            for row in self.servers.values()
            if host is not None and row["host"] == host and port in (None, row["port"])
        ]
