"""The values that steps, ports and adapters share. Frozen, without behaviour that touches the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from rehome_events.parts import Limits, ServerRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from uuid import UUID


LARGEST_CPU: Final = Decimal("99.9")
"""Most cores that the platform's `instances.cpu_limit decimal(3,1)` can hold."""
LONGEST_LIMIT: Final = 10
LONGEST_TIER: Final = 30
"""Characters of `memory_limit` and `storage_limit varchar(10)`, and of `plan_tier varchar(30)`."""


class Secret:
    """A password. Shows itself only when asked with `reveal()`; its repr and str are stars."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The password itself, for the one place that sends it to a server or writes it into odoo.conf."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A PostgreSQL role's name and password."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Instance:
    """A row of the platform's table `instances`, as far as we need it."""

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


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a PostgreSQL server says of itself.

    Attributes:
        version: as 150018.
        extensions: those it could install.
    """

    version: int
    extensions: frozenset[str]

    @property
    def major(self) -> int:
        """Major version, such as 15."""
        return self.version // 10000


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What must be the same on the other side, and what decides whether a move is possible.

    Attributes:
        bytes: size by pg_database_size.
        provider: locale provider, 'c' (libc), 'i' (ICU) or 'b' (builtin).
        locale: ICU or builtin locale, None with libc.
        extensions: name -> version.
        settings: (role or '' for all, 'name=value') of ALTER DATABASE SET and ALTER ROLE IN DATABASE SET.
        grantees: roles other than the tenant's and PUBLIC that hold a privilege or own an object in it.
        acl: the database's own privileges as (grantee or '' for PUBLIC, privilege, grantable).
        collation_version: of the library that sorts (15 and newer): another one may sort otherwise.
    """

    name: str
    owner: str
    encoding: str
    collation: str
    ctype: str
    provider: str
    locale: str | None
    bytes: int
    connection_limit: int
    extensions: Mapping[str, str]
    settings: tuple[tuple[str, str], ...] = ()
    grantees: tuple[str, ...] = ()
    acl: tuple[tuple[str, str, bool], ...] = ()
    collation_version: str | None = None


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """What a role may do, and how it is tied to anything but the database asked about.

    Attributes:
        other_databases: those that it owns.
        attributes: what it may do besides logging in: SUPERUSER, CREATEROLE, CREATEDB, REPLICATION, BYPASSRLS.
        member_of: roles whose rights it has.
        members: ordinary roles that have its rights, our short-lived ones excepted.
        elsewhere: what it owns or may do in other databases, in words.
        connected_to: other databases (the maintenance database excepted) with a session of it.
        owner: who owns the database asked about ('' when there is none), and whether that is an administrator.
    """

    name: str
    superuser: bool
    can_login: bool
    other_databases: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    connected_to: tuple[str, ...] = ()
    owner: str = ""
    owner_is_superuser: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One privilege on a database: grantee ('' for PUBLIC), privilege, whether it may be passed on, who granted it."""

    grantee: str
    privilege: str
    grantable: bool
    grantor: str


@dataclass(frozen=True, slots=True)
class Fence:
    """How a database and its role are, or were before the fence.

    Attributes:
        connection_limit: the database's `datconnlimit` (-1: unlimited).
        can_login: whether the role can log in.
        ended: connections there are, our own excepted; those that the fence ends.
        owner: the database's; '' where an earlier release did not note it, whose fence left it alone.
        grants: privileges on the database; None: nothing was ever said, so PUBLIC may connect.
        closed: whether no ordinary role may connect, our short-lived ones excepted.
        inside: of the connections, those of ordinary roles, in words.
    """

    connection_limit: int
    can_login: bool
    ended: int = 0
    owner: str = ""
    grants: tuple[Grant, ...] | None = None
    closed: bool = False
    inside: tuple[str, ...] = ()


def fence_of(kept: Mapping[str, Any]) -> Fence:
    """A fence from its JSON; what an earlier release did not note is left out."""
    grants = kept.get("grants")
    return Fence(
        **{
            **kept,
            "grants": None if grants is None else tuple(Grant(**one) for one in grants),
            "inside": tuple(kept.get("inside", ())),
        }
    )


@dataclass(frozen=True, slots=True)
class OwnershipTag:
    """Whose a database on a dedicated server is; kept as the database's comment.

    `state` is `scratch` until the data is verified, then `verified`. A database without our mark is
    never dropped, renamed or restored into.
    """

    migration_id: UUID
    attempt: int
    state: Literal["scratch", "verified"]


@dataclass(frozen=True, slots=True)
class Backup:
    """A sealed backup: a directory with the dump, its manifest, and nothing half written."""

    id: str
    place: Path
    bytes: int
    files: int
    manifest_sha256: str
    started_at: datetime
    ended_at: datetime


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
        spec: the whole definition, JSON; enough for `Runtime.restore_spec`.
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


Spared: TypeAlias = "Callable[[str, str], bool]"
"""Whether something is left out of a fingerprint; asked with `fingerprint.TABLES` or `SEQUENCES`, and its name."""


class Part(NamedTuple):
    """Things of one kind whose names fall together: how many, and a digest that does not depend on their order.

    The digest is over names and values.
    """

    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A database's content and shape, in a form two servers can be compared by.

    Its size does not depend on the database's: names are sorted into a fixed number of parts by a hash, and what
    differs within a part is named by a second look (`Verifier.some`).

    Attributes:
        tables: of the tables' rows and checksums, part -> how many and digest.
        rows: of all tables.
        large_objects: how many, and their checksum; None when there are none.
        sequences: of last_value, is_called, increment, ...
        objects: kind ('index', 'constraint', 'function', 'trigger', 'view', 'owner', 'column', ...) -> parts.
        extensions: name -> version.
        database: 'encoding', 'collation', 'ctype', 'provider', 'locale' -> value.
    """

    tables: Mapping[int, Part]
    rows: int
    large_objects: tuple[int, str] | None
    sequences: Mapping[int, Part]
    objects: Mapping[str, Mapping[int, Part]]
    extensions: Mapping[str, str]
    database: Mapping[str, str]


class Named(NamedTuple):
    """One thing of a part, as the second look shows it.

    Attributes:
        key: decides the order within a part, the same on every server.
        name: cut to what people are shown, as `value` is.
        digest: of the whole value; equal for equal ones.
    """

    key: bytes
    name: str
    value: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """The few settings that steps decide by.

    Attributes:
        fence_limit: how long ending the tenant's connections may take.
        room_factor: free bytes wanted at the backup place, as a multiple of the database's size.
        dumps_per_server: migrations whose instance may be down for a dump of the same server at a time.
        retention: how long the fenced source stays after a completed move.
    """

    fence_limit: timedelta = timedelta(seconds=60)
    room_factor: float = 1.2
    dumps_per_server: int = 2
    retention: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """A step's answer when the world is already as the event wants it; the reason goes to journal and log."""

    reason: str
