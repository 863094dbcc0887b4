"""Short-lived logins: what reads and writes a tenant's things does it as one, with the tenant's rights and no other.

A tenant's code runs wherever its things are read or written: a planner folds the predicate of an index, a restore
checks a constraint. In such a session it finds a role that may do what the tenant's own may, and that exists for the
length of one piece of work:

- its password is random and known to this run alone; the server gets a SCRAM verifier of it;
- it ends by itself (VALID UNTIL), may log in only until its sessions are open (`Login.close`) or its work is done, and
  is dropped whatever happens. What a crash leaves, the next run and the doctor find by its name;
- code that runs in its session can change that password, as any role can its own. That is looked for at the end: the
  work counts as failed then. Nothing else about the role can be changed by itself;
- what such code made or was given in its name goes to the tenant's role, or away, before the role is dropped.

While the database is fenced nobody may connect to it, so these roles are given that right for as long as they are
there, and the database's connection limit, 0 as a second door, is lifted meanwhile.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID, uuid4

import asyncpg

from rehome_consumer.adapters.postgres.activity import end_sessions
from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.scram import verifier
from rehome_consumer.context import current_migration, reached
from rehome_consumer.errors import ClaimLost, Incompatible, NotFound, RehomeError, Unreachable
from rehome_consumer.model import Credentials, Secret
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

    Purpose = Literal["read", "dump", "restore"]

log = logging.getLogger(__name__)

_SQL: Final = administrator("databases")
_END_SECONDS: Final = 20.0
_BEYOND_SECONDS: Final = 600.0  # what a role outlives its work by, at most: clocks differ
_SPARE_SESSIONS: Final = 2
# Nobody guesses 192 bits of chance, however cheap a guess is, and each session logs in.
_ITERATIONS: Final = 16


def prefix(migration_id: UUID) -> str:
    """How the names of a migration's short-lived roles begin."""
    return f"rehome_{migration_id.hex}_"


@dataclass(frozen=True, slots=True)
class Login:
    """A short-lived role that may log in to one database.

    Attributes:
        sessions, server, database: where.
        credentials: its name and password.
        tenant: the role whose rights it has, by its name now.
        verifier: of the password, as the server got it.
        door: holds the administrator's session that made it, until it is closed or gone.
    """

    sessions: Sessions
    server: Server
    database: str
    credentials: Credentials
    tenant: str
    verifier: str
    door: AsyncExitStack = field(default_factory=AsyncExitStack, repr=False)

    @property
    def name(self) -> str:
        """The role's name."""
        return self.credentials.user

    async def close(self) -> None:
        """No session of it is opened from now on, whoever knows its password."""
        await self.door.aclose()


@asynccontextmanager
async def lent(
    sessions: Sessions,
    server: Server,
    database: str,
    tenant: str,
    purpose: Purpose,
    *,
    jobs: int,
    limit: float,
) -> AsyncIterator[Login]:
    """A short-lived login for the length of the block.

    Args:
        sessions: how the server is reached.
        server: where.
        database: the tenant's database.
        tenant: the role whose rights it gets.
        purpose: what for; a migration has one of each at a time.
        jobs: sessions that will be open at a time.
        limit: seconds after which the role ends by itself.

    Raises:
        NotFound: there is no such database or role.
        Incompatible: code in the database tried to keep the role.
    """
    migration = current_migration.get() or uuid4()
    name = f"{prefix(migration)}{purpose}"
    what = f"making role {name} for {database} on {server.name}"
    password = Secret(secrets.token_urlsafe(24))
    made = verifier(password.reveal(), iterations=_ITERATIONS)
    login = Login(sessions, server, database, Credentials(name, password), tenant, made)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(sessions.administrator(server, what=what))
        lender = await session.fetchrow(_SQL["role"], tenant)
        if lender is None:
            raise NotFound(f"there is no role {tenant} on {server.name}")
        if lender["superuser"]:
            raise Incompatible(
                f"role {tenant} on {server.name} is a superuser: its rights are lent to nobody"
            )
        if not await _remove(sessions, server, session, name):
            raise Incompatible(
                f"role {name} on {server.name} is there from before, and code of the tenant's made something depend on "
                "it: see the server's log, drop that by hand and replay the dead letter"
            )
        bypass = False
        if purpose != "restore":
            async with sessions.administrator(server, database, what=what, beside=session) as inside:
                bypass = await _prepare_reading(inside, database, tenant)
        await _make(session, login, bypass=bypass, jobs=jobs, limit=limit)
        if purpose == "read":  # all its sessions are opened at once, and then no more
            stack.push_async_callback(session.execute, ddl("refuse_login", role=quoted(name)))
            await login.door.enter_async_context(stack.pop_all())
    try:
        async with login.door:
            await reached("role_made")
            yield login
    except BaseException as error:
        if await _given_up(login) and isinstance(error, RehomeError):
            raise _kept(login) from None  # which is why the work failed
        raise
    await _end(login)
    await reached("role_dropped")


async def require_admitted(sessions: Sessions, server: Server, database: str, tenant: str) -> None:
    """Make sure that the server lets such a role in, before anything depends on it.

    Raises:
        NotFound: there is no such database or role.
        Incompatible: the server's pg_hba.conf keeps it out.
    """
    what = f"logging in to {database} with the rights of {tenant}"
    async with lent(sessions, server, database, tenant, "read", jobs=1, limit=_END_SECONDS) as login:
        with suppress(Unreachable):  # no session is free: there will be, once the tenant is stopped
            async with sessions.tenant(server, database, login.credentials, what=what):
                pass


async def drop_all(sessions: Sessions, server: Server, session: Administrator, migration_id: UUID) -> int:
    """Drop every short-lived role of a migration that there is; how many."""
    found = await session.fetch(_SQL["short_lived_names"], prefix(migration_id).removesuffix("_"))
    for row in found:
        await _remove(sessions, server, session, row["name"])
    return len(found)


async def _prepare_reading(inside: Administrator, database: str, tenant: str) -> bool:
    """Let the tenant's role use the schemas that it may use as the database's owner alone; whether to bypass policies.

    That right is not taken away again: the owner has it anyway. `pg_read_all_data` would be no cure, since it opens
    `pg_authid`, and with it everybody's password verifiers, to code of the tenant's.
    """
    async with inside.transaction():
        await inside.fetchval(_SQL["lock_role"], database)
        needs = await inside.fetchrow(_SQL["reading_needs"], tenant)
        for schema in needs["schemas"] if needs else ():
            await inside.execute(ddl("let_use_schema", schema=quoted(schema), role=quoted(tenant)))
    return bool(needs and needs["bypass"])


async def _make(session: Administrator, login: Login, *, bypass: bool, jobs: int, limit: float) -> None:
    name, database = quoted(login.name), quoted(login.database)
    until = await session.fetchval(_SQL["instant"], limit + _BEYOND_SECONDS)
    async with session.transaction():
        await session.fetchrow(_SQL["quiet"])
        await session.execute(
            ddl(
                "make_short_lived",
                role=name,
                row_security="BYPASSRLS" if bypass else "NOBYPASSRLS",
                sessions=str(jobs + _SPARE_SESSIONS),
                until=literal(until),
                verifier=literal(login.verifier),
            )
        )
        await session.execute(ddl("lend", role=quoted(login.tenant), member=name))
        await session.fetchval(_SQL["lock_role"], login.database)
        state = await session.fetchrow(_SQL["fence_state"], login.database, login.tenant)
        if state is not None and state["closed"]:
            await session.execute(
                ddl("grant_on_database", privilege="CONNECT", database=database, grantee=name, option="")
            )
            await session.execute(ddl("limit_database", database=database, sessions="-1"))


async def _given_up(login: Login) -> bool:
    """Drop the role of work that failed; what stands in the way is said in the log, not instead of the error.

    Returns:
        Whether somebody changed the role.
    """
    try:
        async with login.sessions.administrator(login.server, what=f"dropping role {login.name}") as session:
            return await _was_changed(session, login)
    except ClaimLost:
        return False  # whoever took over drops it, or uses one of the same name by now
    except RehomeError as error:
        log.warning("role.left role=%s server=%s error=%s", login.name, login.server.name, error)
        return False


async def _end(login: Login) -> None:
    """Drop the role.

    Raises:
        Incompatible: somebody changed it: code in the database, since nobody else could.
    """
    async with login.sessions.administrator(login.server, what=f"dropping role {login.name}") as session:
        if not await _was_changed(session, login):
            return
        await end_sessions(
            session,
            "tenants_sessions",
            *(login.database, login.tenant),
            limit=_END_SECONDS,
            what=f"ending whoever came into {login.database} on {login.server.name}",
        )
    raise _kept(login)


async def _was_changed(session: Administrator, login: Login) -> bool:
    """Drop the role; whether it was not as it was made, or cannot be dropped."""
    found = await session.fetchrow(_SQL["short_lived"], login.name)
    gone = await _remove(login.sessions, login.server, session, login.name)
    return not gone or (found is not None and (found["verifier"] != login.verifier or found["has_settings"]))


def _kept(login: Login) -> Incompatible:
    return Incompatible(
        f"code in database {login.database} on {login.server.name} changed the password or the settings of "
        f"{login.name}, the role that our programs log in as, or made something depend on it: it tried to keep a way "
        f"in, which is closed. Look at what role {login.tenant} has in its indexes, checks and functions before this "
        "is tried again"
    )


async def _remove(sessions: Sessions, server: Server, session: Administrator, name: str) -> bool:
    """End the role's sessions, take away what it has, and drop it; nothing where it is not there.

    Returns:
        Whether it is gone. Code that runs in its name can grant it something by itself, which nobody can take away
        but with the database: then it stays, closed, until that is dropped.
    """
    if await session.fetchrow(_SQL["short_lived"], name) is None:
        return True
    try:
        await _take_down(sessions, server, session, name)
    except ClaimLost:
        raise
    except asyncpg.DependentObjectsStillExistError as error:
        log.warning("role.stays role=%s server=%s why=%s", name, server.name, error.detail or error)
        return False
    except (asyncpg.UndefinedObjectError, RehomeError):
        if await session.fetchrow(_SQL["short_lived"], name) is not None:
            raise  # otherwise another run, the one that it belonged to, has dropped it meanwhile
    return True


async def _take_down(sessions: Sessions, server: Server, session: Administrator, name: str) -> None:
    role = quoted(name)
    await session.execute(ddl("refuse_login", role=role))
    await end_sessions(
        session, "sessions_of_role", name, limit=_END_SECONDS, what=f"dropping role {name} on {server.name}"
    )
    await _disinherit(sessions, server, session, name)
    async with session.transaction():
        for row in await session.fetch(_SQL["connectable_to"], name):
            database = row["database"]
            await session.fetchval(_SQL["lock_role"], database)
            await session.execute(ddl("close_database", database=quoted(database), grantee=role))
            state = await session.fetchrow(_SQL["fence_state"], database, name)
            fenced = state is not None and state["closed"]  # one that was unfenced meanwhile stays open
            if fenced and not await session.fetch(_SQL["connectable_by"], database):
                await session.execute(ddl("limit_database", database=quoted(database), sessions="0"))
        # Other privileges on databases, given by code in them.
        await session.execute(ddl("drop_owned", role=role))
        await session.execute(ddl("drop_role", role=role))


async def _disinherit(sessions: Sessions, server: Server, session: Administrator, name: str) -> None:
    """What code made or was granted in the role's name: to the tenant's role, or away."""
    heir = await session.fetchval(_SQL["lender_of"], name)
    for row in await session.fetch(_SQL["databases_with_things_of"], name):
        what = f"taking away what role {name} has in {row['name']}"
        async with sessions.administrator(server, row["name"], what=what) as inside, inside.transaction():
            if heir is not None:
                await inside.execute(ddl("reassign_owned", role=quoted(name), heir=quoted(heir)))
            await inside.execute(ddl("drop_owned", role=quoted(name)))
