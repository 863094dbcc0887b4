"""PostgreSQL servers and a backup place in memory: no I/O, no time, no chance.

The fakes of `Databases`, `Copier` and `Verifier` act on one `World` in small steps. Before each step they call
`World.pause`, where a test or a simulation may look, change the world, raise, or give way to another task; a
session that was ended meanwhile ends the fake that used it, as a connection lost would.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rehome_consumer.adapters.postgres.sessions import APPLICATION_PREFIX, MAINTENANCE, application_name
from rehome_consumer.adapters.postgres.short_lived_roles import prefix
from rehome_consumer.context import claim_check, current_migration
from rehome_consumer.errors import Conflict, NotFound, RehomeError, Unreachable
from rehome_consumer.model import Credentials, RoleAttributes, Secret, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Literal

    from rehome_consumer.adapters.postgres.ownership_tags import TagComment
    from rehome_consumer.model import Backup, RehearsalMark

ADMIN = "postgres"
SHORT_LIVED = re.compile(r"rehome_[0-9a-f]{32}_[a-z]+")
TOUCH_LIMIT = 3  # looks at sessions that do not end, before a fake gives up

Row = tuple[Any, ...]


class LoginRefusedError(Exception):
    """A client may not enter: no such role or database, no login, no room."""


class SessionEndedError(Exception):
    """A client's session was ended by the administrator."""


@dataclass(eq=False)
class FakeSession:
    """A session. A `stubborn` one does not end when asked to; one `at_work` has an open transaction.

    A statement of one that is `running` runs at this moment.
    """

    pid: int
    user: str
    database: FakeDatabase
    application: str = ""
    stubborn: bool = False
    at_work: bool = False
    running: bool = False


@dataclass
class FakeRole:
    """A role."""

    name: str
    password: str | None = None
    can_login: bool = True
    superuser: bool = False
    attributes: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    like: RoleAttributes = field(default_factory=RoleAttributes)
    lent: dict[tuple[str, str], str] = field(default_factory=dict)
    mark: RehearsalMark | None = None


@dataclass
class FakeSlot:
    """A replication slot: of which database, what it keeps, and how long its reader takes to get there.

    `since`: of a witness, the database as it was when the slot was made.
    """

    database: str
    kept: int = 0
    behind: timedelta = timedelta(milliseconds=100)
    since: FakeDatabase | None = None


@dataclass
class FakeSubscription:
    """What a copy follows; `broken`: a change could not be applied."""

    name: str
    source: tuple[str, int]
    database: str
    broken: bool = False


@dataclass(eq=False)
class FakeDatabase:
    """A database and everything in it.

    Attributes:
        tables: name -> rows.
        objects: kind -> name -> definition, as in a fingerprint; owners by role name.
        locale: encoding, collation, ctype, provider, locale.
        prepared: transactions that wait for COMMIT PREPARED.
        immovable: things that no copy can take along.
        closed: only superusers and rehome's short-lived roles may connect.
        strays: what its extensions hold and do not bring.
        unrestorable: definitions that work here, and that a restore refuses.
        attached: what other programs hang on it.
        comment: the tenant's own.
        publications: of rehome's.
        follows: the source that it follows.
        meddled: tables in which somebody else than who fills or follows has changed rows.
        unfollowable: why no copy can follow it.
        identities: of tables without a key: d, n (nothing that tells rows apart) or f (all of a row does).
        in_use: tables whose lock is not had.
    """

    name: str
    owner: str
    tables: dict[str, list[Row]] = field(default_factory=dict)
    sequences: dict[str, str] = field(default_factory=dict)
    objects: dict[str, dict[str, str]] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=lambda: {"plpgsql": "1.0"})
    locale: tuple[str, str, str, str, str | None] = ("UTF8", "C", "C", "c", None)
    connection_limit: int = -1
    settings: tuple[tuple[str, str], ...] = ()
    grantees: tuple[str, ...] = ()
    acl: tuple[tuple[str, str, bool], ...] = ()
    label: TagComment | None = None
    prepared: list[str] = field(default_factory=list)
    immovable: list[str] = field(default_factory=list)
    closed: bool = False
    strays: list[str] = field(default_factory=list)
    unrestorable: list[str] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)
    comment: str | None = None
    publications: set[str] = field(default_factory=set)
    follows: FakeSubscription | None = None
    unfollowable: list[str] = field(default_factory=list)
    meddled: set[str] = field(default_factory=set)
    identities: dict[str, str] = field(default_factory=dict)
    in_use: set[str] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        """Whether it is as CREATE DATABASE made it."""
        return not (self.tables or self.sequences or set(self.extensions) - {"plpgsql"})

    @property
    def bytes(self) -> int:
        """Its size."""
        return 1000 + 100 * sum(map(len, self.tables.values()))


@dataclass(eq=False)
class FakeServer:
    """A PostgreSQL server.

    Attributes:
        offers: extension -> version that can be installed.
        collations: those its operating system knows.
        reachable: whether it answers.
        keeps_out: whether it refuses rehome's short-lived roles.
        standby: whether it only follows another server.
        tls: whether it offers TLS.
        slots: of replication, by name.
        cannot_stream: why nothing can follow a database of it.
        cannot_reach: hosts to which it has no way.
    """

    version: int = 150018
    roles: dict[str, FakeRole] = field(default_factory=dict)
    databases: dict[str, FakeDatabase] = field(default_factory=dict)
    sessions: list[FakeSession] = field(default_factory=list)
    offers: dict[str, str] = field(
        default_factory=lambda: {"plpgsql": "1.0", "pg_trgm": "1.6", "unaccent": "1.1"}
    )
    collations: frozenset[str] = frozenset({"C", "C.UTF-8"})
    reachable: bool = True
    keeps_out: bool = False
    standby: bool = False
    tls: bool = False
    slots: dict[str, FakeSlot] = field(default_factory=dict)
    cannot_stream: list[str] = field(default_factory=list)
    cannot_reach: set[str] = field(default_factory=set)

    def end(self, sessions: list[FakeSession]) -> None:
        """Ask sessions to end."""
        for session in sessions:
            if not session.stubborn and session in self.sessions:
                self.sessions.remove(session)

    def tenants(self, database: str, role: str) -> list[FakeSession]:
        """Sessions on the database, rehome's excepted, and of the role anywhere."""
        return [
            session
            for session in self.sessions
            if (session.database.name == database or session.user == role)
            and not (session.user == ADMIN and session.application.startswith(APPLICATION_PREFIX))
            and not SHORT_LIVED.fullmatch(session.user)
        ]


@dataclass
class FakeBackup:
    """A dump: a copy of the database as it was. `sealed` when it counts as a backup."""

    content: FakeDatabase
    version: int
    sealed: Backup | None = None
    damaged: str | None = None


async def _no_pause(_at: str) -> None:
    await asyncio.sleep(0)


@dataclass(eq=False)
class World:
    """Everything the three fakes act on.

    Attributes:
        servers: by address.
        backups: by id, sealed or not.
        free: bytes at the backup place; None when it cannot be written to.
        client: major version of the client programs; None when there are none.
        mark: of the backup place.
        pause: called before each step with its name, such as `databases.fence.closed`.
        snapshots: exported ones that are held now.
    """

    servers: dict[tuple[str, int], FakeServer] = field(default_factory=dict)
    backups: dict[str, FakeBackup] = field(default_factory=dict)
    free: int | None = 10**12
    client: int | None = 15
    mark: UUID | None = None
    pause: Callable[[str], Awaitable[None]] = _no_pause
    snapshots: dict[str, FakeDatabase] = field(default_factory=dict)
    _pids: int = 1000

    def add_server(self, name: str, kind: Literal["shared", "dedicated"], **attributes: Any) -> Server:
        """A new server with its administrator and maintenance database, and what `db_servers` has of it."""
        server = Server(
            id=UUID(int=0x5000 + len(self.servers), version=4),
            name=name,
            host=name,
            port=5432,
            kind=kind,
            status="active",
            admin=Credentials(ADMIN, Secret("admin-secret")),
        )
        made = FakeServer(**attributes)
        made.roles[ADMIN] = FakeRole(ADMIN, server.admin.password.reveal(), superuser=True)
        made.databases[MAINTENANCE] = FakeDatabase(MAINTENANCE, ADMIN)
        self.servers[server.host, server.port] = made
        return server

    def at(self, server: Server) -> FakeServer:
        """The server itself. Raises Unreachable when it does not answer."""
        found = self.servers.get((server.host, server.port))
        if found is None or not found.reachable:
            raise Unreachable(f"{server.name} at {server.host}:{server.port} does not answer")
        return found

    def database(self, server: Server, name: str) -> FakeDatabase:
        """A database. Raises NotFound."""
        found = self.at(server).databases.get(name)
        if found is None:
            raise NotFound(f"there is no database {name} on {server.name}")
        return found

    def log_in(self, server: Server, user: str, password: str, database: str) -> FakeSession:
        """A client logs in, unless it may not."""
        there = self.at(server)
        role, target = there.roles.get(user), there.databases.get(database)
        if role is None or target is None or not role.can_login or role.password != password:
            raise LoginRefusedError(user)
        inside = sum(session.database is target for session in there.sessions)
        if not role.superuser and target.closed:
            raise LoginRefusedError(f"permission denied for database {database}")
        if not role.superuser and 0 <= target.connection_limit <= inside:
            raise LoginRefusedError(f"too many connections for database {database}")
        return self.enter(there, user, target)

    def enter(
        self, there: FakeServer, user: str, database: FakeDatabase, application: str = ""
    ) -> FakeSession:
        """A session, without asking whether it may be."""
        self._pids += 1
        session = FakeSession(self._pids, user, database, application)
        there.sessions.append(session)
        return session

    def write(self, server: Server, session: FakeSession, table: str, row: Row) -> None:
        """A client adds a row."""
        if session not in self.at(server).sessions:
            raise SessionEndedError
        session.database.tables.setdefault(table, []).append(row)

    def seen(self, visit: Visit, snapshot: str | None) -> FakeDatabase:
        """What a session sees: its database as it is now, or as it was. Raises Conflict: nobody holds that."""
        if snapshot is None:
            return visit.session.database
        if snapshot not in self.snapshots:
            raise Conflict(f"{visit.what}: snapshot {snapshot} is gone")
        return self.snapshots[snapshot]

    def short_lived_role(
        self, server: Server, what: str, tenant: str, purpose: str
    ) -> AbstractAsyncContextManager[str]:
        """The name of a short-lived role for the length of the block; what a crash leaves stays."""
        return self._short_lived_role(server, what, tenant, purpose)

    @asynccontextmanager
    async def _short_lived_role(
        self, server: Server, what: str, tenant: str, purpose: str
    ) -> AsyncIterator[str]:
        name = f"{prefix(current_migration.get() or UUID(int=0))}{purpose}"
        async with self.visit(server, f"{what}.make_role") as visit:
            if tenant not in visit.there.roles:
                raise NotFound(f"there is no role {tenant} on {server.name}")
            _remove_role(visit.there, name)
            visit.there.roles[name] = FakeRole(name, "known to one run", member_of=(tenant,))
        try:
            yield name
        except BaseException:
            with contextlib.suppress(RehomeError):
                await self._drop_role(server, what, name)
            raise
        await self._drop_role(server, what, name)

    async def _drop_role(self, server: Server, what: str, name: str) -> None:
        async with self.visit(server, f"{what}.drop_role") as visit:
            _remove_role(visit.there, name)

    def visit(self, server: Server, what: str, database: str = MAINTENANCE, user: str = ADMIN) -> _Visiting:
        """A session of rehome's for the length of the block, as a `Visit`."""
        return _Visiting(self, server, what, database, user)


class _Visiting:
    """Opens a session, and closes it; a class, since a generator takes longer."""

    def __init__(self, world: World, server: Server, what: str, database: str, user: str) -> None:
        self._world = world
        self._server = server
        self._what = what
        self._database = database
        self._user = user
        self._visit: Visit | None = None

    async def __aenter__(self) -> Visit:
        world = self._world
        await world.pause(self._what)
        there = world.at(self._server)
        target = world.database(self._server, self._database)
        name = application_name(current_migration.get())
        self._visit = visit = Visit(world, there, world.enter(there, self._user, target, name), self._what)
        if (check := claim_check.get()) is not None:
            try:
                await check()
                visit.require_session()
            except BaseException:
                await self.__aexit__()
                raise
        return visit

    async def __aexit__(self, *_error: object) -> None:
        visit = self._visit
        if visit is not None and visit.session in visit.there.sessions:
            visit.there.sessions.remove(visit.session)


@dataclass(frozen=True)
class Visit:
    """One call of a fake, on a session of its own."""

    world: World
    there: FakeServer
    session: FakeSession
    what: str

    async def step(self, name: str) -> None:
        """Another small step: another task may act before it. Raises Unreachable if the session was ended."""
        await self.world.pause(f"{self.what}.{name}")
        self.require_session()

    def require_session(self) -> None:
        """Raises Unreachable if it was ended, or the server is not there."""
        if self.session not in self.there.sessions or not self.there.reachable:
            raise Unreachable(f"{self.what}: the connection was closed")


def _remove_role(there: FakeServer, name: str) -> None:
    there.end([one for one in there.sessions if one.user == name])
    there.roles.pop(name, None)


def copied(database: FakeDatabase) -> FakeDatabase:
    """The database's content, on its own."""
    return replace(
        database,
        tables={name: list(rows) for name, rows in database.tables.items()},
        sequences=dict(database.sequences),
        objects={kind: dict(found) for kind, found in database.objects.items()},
        extensions=dict(database.extensions),
        prepared=list(database.prepared),
        immovable=list(database.immovable),
        strays=list(database.strays),
        unrestorable=list(database.unrestorable),
        attached=list(database.attached),
        publications=set(database.publications),
        identities=dict(database.identities),
        in_use=set(),
        follows=None,
        unfollowable=list(database.unfollowable),
    )
