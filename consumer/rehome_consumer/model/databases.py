"""PostgreSQL servers, databases and roles, the fence, and backups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a PostgreSQL server says of itself.

    Attributes:
        version: as 150018.
        extensions: those it could install.
        tls: whether it offers TLS to clients.
        standby: whether it only follows another server, and takes no writes.
    """

    version: int
    extensions: frozenset[str]
    tls: bool = False
    standby: bool = False

    @property
    def major(self) -> int:
        """Major version, such as 15."""
        return self.version // 10000


@dataclass(frozen=True, slots=True)
class RoleAttributes:
    """What of a tenant's role its new role must have too; logging in, which the fence forbids, excepted.

    Attributes:
        create_databases: CREATEDB.
        inherit: INHERIT, which matters once it becomes a member of another role.
        connection_limit: sessions that it may have; -1: any number.
        valid_until: when its password expires, in UTC as PostgreSQL reads it; None: never.
        comment: on the role.
    """

    create_databases: bool = False
    inherit: bool = True
    connection_limit: int = -1
    valid_until: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What the copy must share, and what decides whether a move is possible.

    Attributes:
        bytes: size by pg_database_size.
        provider: locale provider, 'c' (libc), 'i' (ICU) or 'b' (builtin).
        locale: ICU or builtin locale, None with libc.
        icu_rules: rules added to the ICU locale's (16 and newer).
        extensions: name -> version.
        settings: (role or '' for all, 'name=value') of ALTER DATABASE SET and ALTER ROLE IN DATABASE SET.
        grantees: roles other than the tenant's and PUBLIC that hold a privilege or own an object in it.
        acl: the database's own privileges as (grantee or '' for PUBLIC, privilege, grantable).
        collation_version: of the library that sorts (15 and newer): another one may sort otherwise.
        comment: on the database, without rehome's ownership tag.
        role: of the tenant's role.
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
    icu_rules: str | None = None
    comment: str | None = None
    role: RoleAttributes = RoleAttributes()


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """What a role may do, and how it is tied to anything but the database asked about.

    Attributes:
        attributes: what it may do that reaches beyond its own databases: SUPERUSER, CREATEROLE, REPLICATION, BYPASSRLS.
        member_of: roles whose rights it has.
        members: ordinary roles that have its rights, rehome's short-lived ones excepted.
        elsewhere: other databases that it owns, and what it owns or may do in them, in words.
        connected_to: other databases (the maintenance database excepted) with a session of it.
        owner: who owns the database asked about ('' when there is none), and whether that is an administrator.
    """

    name: str
    superuser: bool
    can_login: bool
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
        ended: connections there are, rehome's own excepted; those that the fence ends.
        owner: the database's; '' where an earlier release did not record it, whose fence left it alone.
        grants: privileges on the database; None: none was ever set, so PUBLIC may connect.
        closed: whether no ordinary role may connect, rehome's short-lived ones excepted.
        inside: of the connections, those of ordinary roles, in words.
    """

    connection_limit: int
    can_login: bool
    ended: int = 0
    owner: str = ""
    grants: tuple[Grant, ...] | None = None
    closed: bool = False
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnershipTag:
    """Which migration made a database on a dedicated server; stored as the last line of the database's comment.

    `state` is `scratch` until the data is verified, then `verified`. A database without rehome's tag is never
    dropped, renamed or restored into.
    """

    migration_id: UUID
    attempt: int
    state: Literal["scratch", "verified"]


def rehearsal_role(rehearsal: UUID) -> str:
    """The login-less role that owns what a rehearsal without a migration makes."""
    return f"rehearsal_{rehearsal.hex[:12]}"


@dataclass(frozen=True, slots=True)
class RehearsalMark:
    """What a rehearsal without a migration makes on a server, written down there before it begins.

    Attributes:
        id: of the rehearsal, in the place of a migration's.
        since: when it began.
        database: its scratch database.
        roles: those that it makes, none of them with login.
    """

    id: UUID
    since: datetime
    database: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Backup:
    """A sealed backup: a directory with the dump, its manifest, and nothing incomplete."""

    id: str
    place: Path
    bytes: int
    files: int
    manifest_sha256: str
    started_at: datetime
    ended_at: datetime
