"""What the platform's tables and database-service say of instances and servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

from rehome_events.parts import Limits, ServerRef

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.model.credentials import Credentials, Secret

LARGEST_CPU: Final = Decimal("99.9")
"""Most cores that the platform's `instances.cpu_limit decimal(3,1)` can hold."""
LONGEST_LIMIT: Final = 10
LONGEST_TIER: Final = 30
"""Characters of `memory_limit` and `storage_limit varchar(10)`, and of `plan_tier varchar(30)`."""

TERMINATED: Final = "terminated"
"""The status by which the platform says that the customer has left."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A row of the platform's table `instances`, as far as a move needs it."""

    id: UUID
    customer_id: UUID
    name: str
    status: str
    database_name: str
    db_name: str | None = None
    db_host: str | None = None
    db_port: int | None = None
    db_user: str | None = None
    db_type: str | None = None
    db_server_id: UUID | None = None
    plan_tier: str | None = None
    limits: Limits = field(default_factory=Limits)
    service_name: str | None = None
    service_id: str | None = None
    internal_url: str | None = None
    external_url: str | None = None
    error_message: str | None = None

    @property
    def database(self) -> str:
        """The real database's name (`db_name`, else `database_name`)."""
        return self.db_name or self.database_name

    @property
    def hex8(self) -> str:
        """First eight hexadecimal digits of the id: the platform's short name for an instance."""
        return self.id.hex[:8]

    @property
    def service(self) -> str:
        """Name of the instance's service (`service_name`, else the platform's naming rule)."""
        return self.service_name or f"odoo-{self.database_name}-{self.hex8}"

    @property
    def directory(self) -> str:
        """Name of the instance's directory below the data root."""
        return f"odoo_data_{self.database_name}_{self.hex8}"


@dataclass(frozen=True, slots=True)
class Server:
    """A row of the platform's table `db_servers`: a PostgreSQL server and its administrator's login."""

    id: UUID
    name: str
    host: str
    port: int
    kind: Literal["platform", "shared", "dedicated"]
    status: str
    admin: Credentials
    health: str = "unknown"
    postgres_version: str | None = None
    dedicated_to_instance_id: UUID | None = None

    @property
    def ref(self) -> ServerRef:
        """What events say of this server (no login)."""
        return ServerRef(
            id=self.id,
            name=self.name,
            host=self.host,
            port=self.port,
            kind="shared" if self.kind == "shared" else "dedicated",
            postgres_version=self.postgres_version,
        )


@dataclass(frozen=True, slots=True)
class Provisioned:
    """database-service's answer; what it left out is None (port: 5432 or the server's row; login: as today)."""

    db_server_id: UUID
    host: str
    port: int | None = None
    user: str | None = None
    password: Secret | None = None
