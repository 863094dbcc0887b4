"""The platform: its tables, and the service that creates dedicated servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from rehome_consumer.model import Instance, Provisioned, Server
    from rehome_events.parts import Entitlements, Limits


class Platform(Protocol):
    """The platform's tables `instances`, `db_servers` and, read only, `plan_entitlements`."""

    async def some_instances(self, most: int) -> list[Instance]:
        """Instances that should have a directory, newest first; proves that the tables can be read, plans included."""
        ...

    async def instance(self, instance_id: UUID) -> Instance | None:
        """The instance's row, or None."""
        ...

    async def home(self, instance: Instance) -> Server | None:
        """The server where the instance's data really is: by `db_server_id`, else by host and port."""
        ...

    async def server(self, server_id: UUID) -> Server | None:
        """A server's row, or None."""
        ...

    async def dedicated_server(self, instance_id: UUID) -> Server | None:
        """The dedicated server made for this instance, active, or None."""
        ...

    async def others_with_login(self, instance_id: UUID, server: Server, user: str) -> list[Instance]:
        """Other instances on this server whose record names the same db_user; terminated ones are left out."""
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

    async def require_ready(self) -> None:
        """Return when it answers, whatever it says. Raises Unreachable or TimedOut."""
        ...

    async def provision(self, instance_id: UUID, customer_id: UUID, plan_tier: str) -> Provisioned:
        """Ask for a dedicated server; blocks for minutes. NOT idempotent: look in `Platform` before and after.

        Raises:
            Refused: 400 or 422, with what it says.
            Transient: 500, no connection, an unreadable answer, or none in time (which does not mean that it failed).
        """
        ...

    async def give_back(self, server_id: UUID) -> bool:
        """Remove a server. False where the service cannot (404 or 405): then it is a leftover to report."""
        ...
