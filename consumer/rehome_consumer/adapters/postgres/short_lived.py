"""Short-lived logins: whatever reads or writes a tenant's objects does it with the tenant's rights and no others.

A tenant's code runs wherever its objects are read or written: the planner evaluates the predicate of an index, a
restore checks a constraint. In such a session it finds a role that may do what the tenant's own role may, and that
exists for one piece of work only:

- its password is random and known to this run alone; the server gets a SCRAM verifier of it;
- it expires (VALID UNTIL), may log in only until its sessions are open (`Login.close`) or its work is done, and is
  dropped in any case. What a crash leaves, the next run and the doctor find by its name;
- code that runs in its session can change that password, as any role can change its own. This is checked at the end:
  the work then counts as failed. Such code can change nothing else about the role;
- what such code created or was granted as this role goes to the tenant's role, or is revoked, before the role is
  dropped.

While the database is fenced nobody may connect to it. So these roles are granted CONNECT for as long as they exist,
and the database's connection limit, which is 0 as a second barrier, is lifted meanwhile.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from rehome_consumer.adapters.postgres import short_lived_roles
from rehome_consumer.adapters.postgres.activity import end_sessions
from rehome_consumer.adapters.postgres.names import quoted
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

    Purpose = Literal["read", "hold", "dump", "restore"]

log = logging.getLogger(__name__)

_SQL: Final = administrator("databases")
_END_SECONDS: Final = 20.0
_EXTRA_SECONDS: Final = 600.0  # a role outlives its work by at most this: clocks differ
_SPARE_SESSIONS: Final = 2
# Nobody guesses 192 random bits, however cheap a guess is, and each session logs in.
_ITERATIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Login:
    """A short-lived role that may log in to one database.

    Attributes:
        sessions, server, database: where.
        credentials: its name and password.
        tenant: the role whose rights it has, by its name now.
        verifier: of the password, as the server got it.
        closing: what forbids its login again; empty where the role keeps it until it is dropped.
    """

    sessions: Sessions
    server: Server
    database: str
    credentials: Credentials
    tenant: str
    verifier: str
    closing: AsyncExitStack = field(default_factory=AsyncExitStack, repr=False)

    @property
    def name(self) -> str:
        """The role's name."""
        return self.credentials.user

    async def close(self) -> None:
        """No session of it can be opened from now on, whoever knows its password."""
        await self.closing.aclose()


@asynccontextmanager
async def short_lived_login(
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
        limit: seconds after which the role expires.

    Raises:
        NotFound: there is no such database or role.
        Incompatible: code in the database tried to keep the role.
    """
    migration = current_migration.get() or uuid4()
    name = f"{short_lived_roles.prefix(migration)}{purpose}"
    what = f"making role {name} for {database} on {server.name}"
    password = Secret(secrets.token_urlsafe(24))
    sent = verifier(password.reveal(), iterations=_ITERATIONS)
    login = Login(sessions, server, database, Credentials(name, password), tenant, sent)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(sessions.administrator(server, what=what))
        await _require_ordinary(session, server, tenant)
        if not await short_lived_roles.drop(sessions, server, session, name):
            raise Incompatible(
                f"role {name} on {server.name} is there from before, and code of the tenant's made something depend on "
                "it: see the server's log, drop that by hand and replay the dead letter"
            )
        bypass = False
        if purpose != "restore":
            async with sessions.administrator(server, database, what=what, beside=session) as inside:
                bypass = await short_lived_roles.prepare_reading(inside, database, tenant)
        await short_lived_roles.create(
            session,
            name,
            sent,
            tenant=tenant,
            database=database,
            bypass_row_security=bypass,
            max_sessions=jobs + _SPARE_SESSIONS,
            seconds=limit + _EXTRA_SECONDS,
        )
        if purpose in ("read", "hold"):  # all its sessions are opened at once, and then no more
            stack.push_async_callback(session.execute, ddl("forbid_login", role=quoted(name)))
            await login.closing.enter_async_context(stack.pop_all())
    try:
        async with login.closing:
            await reached("role_made")
            yield login
    except BaseException as error:
        if await _drop_after_failure(login) and isinstance(error, RehomeError):
            raise _was_kept(login) from None  # which is why the work failed
        raise
    await _drop_after_success(login)
    await reached("role_dropped")


async def require_admitted(sessions: Sessions, server: Server, database: str, tenant: str) -> None:
    """Make sure that the server accepts such a role, before anything depends on it.

    Raises:
        NotFound: there is no such database or role.
        Incompatible: the server's pg_hba.conf rejects it.
    """
    what = f"logging in to {database} with the rights of {tenant}"
    async with short_lived_login(
        sessions, server, database, tenant, "read", jobs=1, limit=_END_SECONDS
    ) as login:
        with suppress(Unreachable):  # no session is free: there will be, once the tenant is stopped
            async with sessions.tenant(server, database, login.credentials, what=what):
                pass


async def _require_ordinary(session: Administrator, server: Server, tenant: str) -> None:
    role = await session.fetchrow(_SQL["role"], tenant)
    if role is None:
        raise NotFound(f"there is no role {tenant} on {server.name}")
    if role["superuser"]:
        raise Incompatible(f"role {tenant} on {server.name} is a superuser: no other role gets its rights")


async def _drop_after_failure(login: Login) -> bool:
    """Drop the role of work that failed; what prevents that is logged, and does not hide the error.

    Returns:
        Whether the tenant's code changed the role.
    """
    try:
        async with login.sessions.administrator(login.server, what=f"dropping role {login.name}") as session:
            return not await _drop_unchanged(session, login)
    except ClaimLost:
        return False  # whoever took over drops it, or uses one of the same name by now
    except RehomeError as error:
        log.warning("role.left role=%s server=%s error=%s", login.name, login.server.name, error)
        return False


async def _drop_after_success(login: Login) -> None:
    """Drop the role.

    Raises:
        Incompatible: it was changed: by code in the database, since nobody else could.
    """
    async with login.sessions.administrator(login.server, what=f"dropping role {login.name}") as session:
        if await _drop_unchanged(session, login):
            return
        await end_sessions(
            session,
            "tenants_sessions",
            *(login.database, login.tenant),
            limit=_END_SECONDS,
            what=f"ending whoever came into {login.database} on {login.server.name}",
        )
    raise _was_kept(login)


async def _drop_unchanged(session: Administrator, login: Login) -> bool:
    """Drop the role; whether it was as it was created, and could be dropped."""
    unchanged = await short_lived_roles.is_unchanged(session, login.name, login.verifier)
    dropped = await short_lived_roles.drop(login.sessions, login.server, session, login.name)
    return dropped and unchanged


def _was_kept(login: Login) -> Incompatible:
    return Incompatible(
        f"code in database {login.database} on {login.server.name} changed the password or the settings of "
        f"{login.name}, the role that rehome's programs log in as, or made something depend on it: it tried to keep a "
        f"way in, which is closed. Look at what role {login.tenant} has in its indexes, checks and functions before "
        "this is tried again"
    )
