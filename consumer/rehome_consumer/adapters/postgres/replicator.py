"""Letting a copy follow its source, by logical replication between the two servers.

Whose rights: the login that reads the slot has no rights in any database. The subscription belongs to an ordinary role
that is a member of the tenant's; from version 16 on, the server applies each change as the owner of its table, the
tenant's role, which cannot become the subscription's owner. So what the tenant made (indexes, checks, domains, columns
that are computed) runs with the tenant's rights, as anywhere else. Older servers apply as the subscription's owner, who
could change where it connects: they are refused.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

from rehome_consumer.adapters.common.postgres_errors import FOREIGN
from rehome_consumer.adapters.postgres import identities, settling, witness
from rehome_consumer.adapters.postgres import replication_parts as parts
from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.scram import verifier
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.context import reached
from rehome_consumer.errors import ClaimLost, FellBehind, RehomeError
from rehome_consumer.network.tls import VERIFYING
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import asyncpg

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.model import Followed, Server, Written
    from rehome_consumer.sql import AdministratorSql

T = TypeVar("T")

APPLIES_AS_OWNER_SINCE: Final = 16
"""Major version from which changes are applied with the rights of each table's owner."""

_SQL: Final = administrator("replication")
_DATABASES: Final = administrator("databases")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.2
_LOOK_SECONDS: Final = 1.0  # between two looks at the slot
_CONNECT_SECONDS: Final = 10
_SLOTS: Final = 2  # one that is read, and its witness
_LOST: Final = frozenset({"lost", "unreserved"})


class PostgresReplicator:
    """Port `Replicator`. Holds nothing between calls: everything is on the two servers."""

    def __init__(self, sessions: Sessions | None = None) -> None:
        """Use these sessions."""
        self._sessions = sessions or Sessions()

    async def obstacles(
        self, source: Server, database: str, tenant: str, target: Server | None
    ) -> tuple[str, ...]:
        """Why the database cannot be followed. Raises NotFound."""
        what = f"looking whether {database} can be followed"
        async with self._sessions.administrator(source, database, what=what) as session:
            there = await session.fetchrow(_SQL["server"])
            keyless = await identities.keyless(session)
            found = await session.fetch(_SQL["obstacles"], tenant)
        named = [f"table {row['quoted']} {row['why']} ({row['remedy']})" for row in keyless if row["why"]]
        lent = sum(row["why"] is None for row in keyless)
        if lent > identities.TABLES_AT_MOST:
            named.append(
                f"{lent} tables have no primary key, more than {identities.TABLES_AT_MOST} "
                "(ALTER TABLE ... ADD PRIMARY KEY)"
            )
        named += [f"{row['what']} ({row['remedy']})" for row in found]
        if found and (more := found[0]["total"] - len(found)):
            named.append(f"and {more} more")
        on_servers = [] if there is None else [*_on_source(there, source)]
        if self._sessions.tls.mode in VERIFYING:
            on_servers.append(
                f"REHOME_PG_SSLMODE is {self._sessions.tls.mode}: the dedicated server, which would connect to "
                f"{source.name}, has no file to check its certificate with"
            )
        if target is not None:
            async with self._sessions.administrator(target, what=what) as session:
                if session.major < APPLIES_AS_OWNER_SINCE:
                    on_servers.append(
                        f"{target.name} runs PostgreSQL {session.major}: only {APPLIES_AS_OWNER_SINCE} and newer apply "
                        "changes with the tenant's rights"
                    )
                elif (here := await session.fetchrow(_SQL["server"])) is not None:
                    on_servers += _on_target(here, target)
        return (*on_servers, *named)[:20]

    async def keyless(self, source: Server, database: str) -> tuple[str, ...]:
        """Tables that would have a temporary replica identity. Raises NotFound."""
        what = f"looking for tables of {database} without a key"
        async with self._sessions.administrator(source, database, what=what) as session:
            found = await identities.keyless(session)
        return tuple(sorted(row["quoted"] for row in found if row["why"] is None))

    async def reclaim(self, source: Server, database: str, migration_id: UUID) -> None:
        """See `Replicator.reclaim`."""
        what = f"looking for replica identities that earlier migrations have lent tables of {database}"
        async with self._sessions.administrator(source, what=what) as session:
            rows = await session.fetch(_SQL["lenders"], database, parts.sync_role(migration_id))
        for row in rows:
            await parts.remove(self._sessions, source, UUID(row["migration"]))

    async def with_slot(self, followed: Followed, limit: timedelta, work: Callable[[str], Awaitable[T]]) -> T:
        """Make role, publication and slot; hold the slot's snapshot while `work` runs. Raises FellBehind."""
        source, database, name = followed.source, followed.database, parts.name_of(followed.migration_id)
        what = f"making slot {name} on {source.name}"
        working = False
        try:
            await self._publish(followed, limit)
            await reached("published")
            async with self._sessions.replication(
                source, database, what=what, limit=limit.total_seconds()
            ) as walsender:
                # Before the snapshot, so that it tells of everything that is not in it.
                witnessing = quoted(parts.witness_of(followed.migration_id))
                await walsender.execute(ddl("create_witness", name=witnessing))
                await reached("witness_made")
                async with walsender.transaction(isolation="repeatable_read", readonly=True):
                    await walsender.execute(ddl("create_slot", name=quoted(name)))
                    snapshot = await walsender.copied(ddl("exported_snapshot"))
                    await reached("slot_made")
                    working = True
                    return await work(snapshot)
        except ClaimLost:
            raise
        except RehomeError as error:
            if working:
                raise
            raise FellBehind(str(error)) from None

    async def restore_identities(self, followed: Followed, snapshot: str) -> None:
        """The copy's, as the source's were before. Raises FellBehind."""
        reader = parts.sync_role(followed.migration_id)
        try:
            await identities.without(self._sessions, followed, snapshot, reader)
        except ClaimLost:
            raise
        except RehomeError as error:
            raise FellBehind(str(error)) from None

    async def lent(self, followed: Followed) -> tuple[str, ...]:
        """By the role's comment and the catalogs."""
        source, what = followed.source, f"looking for lent replica identities of {followed.database}"
        async with self._sessions.administrator(source, followed.database, what=what) as inside:
            return await identities.lent(inside, parts.sync_role(followed.migration_id))

    async def follow(self, followed: Followed, limit: timedelta) -> None:
        """Make role and subscription on the target, and enable it. Raises FellBehind."""
        target, name = followed.target, parts.name_of(followed.migration_id)
        what = (
            f"letting {followed.copy} on {target.name} follow {followed.database} on {followed.source.name}"
        )
        owner = parts.apply_role(followed.migration_id)
        try:
            password = await self._open_reader(followed, limit)
            async with self._sessions.administrator(target, what=what) as session:
                await session.execute(ddl("create_apply_role", role=quoted(owner)))
                await session.execute(ddl("grant_role", role=quoted(followed.role), member=quoted(owner)))
                await reached("apply_role_made")
                async with self._sessions.administrator(
                    target, followed.copy, what=what, beside=session
                ) as inside:
                    await self._subscribe(inside, followed, name, password)
                    await reached("subscribed")
                    await inside.execute(ddl("set_subscription_owner", name=quoted(name), role=quoted(owner)))
                    await inside.execute(ddl("enable_subscription", name=quoted(name)))
        except ClaimLost:
            raise
        except RehomeError as error:
            raise FellBehind(str(error)) from None

    async def reach(self, followed: Followed, limit: timedelta, keep: int) -> timedelta:
        """Wait for what was committed until now. Raises FellBehind."""
        name = parts.name_of(followed.migration_id)
        what = f"waiting for {followed.copy} on {followed.target.name} to follow {followed.source.name}"
        now = asyncio.get_running_loop().time
        began, pause, looked = now(), _FIRST_PAUSE, 0.0
        async with (
            self._sessions.administrator(followed.source, what=what) as source,
            self._sessions.administrator(followed.target, what=what) as target,
        ):
            position = await source.fetchval(_SQL["position"])
            await source.fetchval(_SQL["mark"])
            while True:
                if now() - looked > _LOOK_SECONDS:
                    looked = now()
                    await _require_slot(source, name, what, keep)
                    await witness.bound(source, followed.migration_id, what, keep)
                row = await target.fetchrow(_SQL["subscription"], name, position)
                if row is None:
                    raise FellBehind(f"{what}: there is no subscription {name}")
                if not row["enabled"]:
                    raise FellBehind(
                        f"{what}: a change could not be applied, see the log of {followed.target.name} for why"
                    )
                if row["reached"]:
                    return timedelta(seconds=now() - began)
                if now() - began > limit.total_seconds():
                    at_work = "" if row["at_work"] else ", and nothing applies changes there"
                    raise FellBehind(f"{what}: not there after {limit.total_seconds():g} s{at_work}")
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def written(self, followed: Followed) -> Written:
        """From the witness. Raises FellBehind."""
        return await witness.written(self._sessions, followed)

    async def strays(self, followed: Followed, written: Written) -> tuple[str, ...]:
        """From the target's statistics. Raises TimedOut."""
        return await witness.strays(self._sessions, followed, written)

    async def detach(self, followed: Followed) -> None:
        """Remove what the target has."""
        await parts.remove(self._sessions, followed.target, followed.migration_id)

    async def settle(self, followed: Followed) -> None:
        """Sequences and materialized views, with the tenant's rights."""
        await settling.settle(self._sessions, followed)

    async def remove(self, server: Server, migration_id: UUID) -> bool:
        """Remove every part on that server. Raises TimedOut."""
        return await parts.remove(self._sessions, server, migration_id)

    async def _publish(self, followed: Followed, limit: timedelta) -> None:
        """The reader, which may not log in with any password yet, temporary replica identities, and the publication."""
        source, database = followed.source, followed.database
        name, reader = parts.name_of(followed.migration_id), parts.sync_role(followed.migration_id)
        what = f"publishing {database} on {source.name}"
        async with self._sessions.administrator(source, what=what) as session:
            until = await session.fetchval(_DATABASES["seconds_from_now"], limit.total_seconds())
            async with self._sessions.administrator(source, database, what=what, beside=session) as inside:
                temporary = await identities.wanted(inside, what)
                async with session.transaction():
                    await session.execute(ddl("create_sync_role", role=quoted(reader), until=literal(until)))
                    # Not as a member of PUBLIC, from which the fence takes it.
                    await session.execute(_connect(database, reader))
                    if temporary is not None:
                        await identities.remember(session, reader, temporary)
                await reached("identities_remembered")
                if temporary is not None:
                    await identities.lend(inside, temporary, what)
                    await reached("identities_lent")
                tables = [row["quoted"] for row in await inside.fetch(_SQL["tables"])]
                statement = (
                    ddl(
                        "create_publication",
                        name=quoted(name),
                        tables=", ".join(f"ONLY {one}" for one in tables),
                    )
                    if tables
                    else ddl("create_empty_publication", name=quoted(name))
                )
                async with inside.transaction():
                    await inside.execute(statement)
                    await identities.require_all(inside, what)

    async def _open_reader(self, followed: Followed, limit: timedelta) -> str:
        """A new password for the login on the source, known to nobody else."""
        source, reader = followed.source, parts.sync_role(followed.migration_id)
        password = secrets.token_urlsafe(24)
        async with self._sessions.administrator(source, what=f"opening {reader} on {source.name}") as session:
            until = await session.fetchval(_DATABASES["seconds_from_now"], limit.total_seconds())
            async with session.transaction():
                await session.fetchrow(_DATABASES["keep_out_of_log"])
                await session.execute(
                    ddl(
                        "set_sync_password",
                        role=quoted(reader),
                        until=literal(until),
                        verifier=literal(verifier(password)),
                    )
                )
        return password

    async def _subscribe(self, inside: Administrator, followed: Followed, name: str, password: str) -> None:
        """The subscription, by whichever address the target's server reaches the source."""
        source = followed.source
        addresses = list(dict.fromkeys([(source.host, source.port), self._sessions.address(source)]))
        for last, (host, port) in enumerate(addresses, 1 - len(addresses)):
            connection = _connection(
                {
                    "host": host,
                    "port": str(port),
                    "user": parts.sync_role(followed.migration_id),
                    "password": password,
                    "dbname": followed.database,
                    "sslmode": self._sessions.tls.mode,
                    "require_auth": "scram-sha-256",
                    "connect_timeout": str(_CONNECT_SECONDS),
                    "keepalives_idle": "30",
                    "keepalives_interval": "10",
                    "keepalives_count": "6",
                }
            )
            try:
                async with inside.transaction():
                    await inside.fetchrow(_DATABASES["keep_out_of_log"])
                    await inside.execute(
                        ddl(
                            "create_subscription",
                            name=quoted(name),
                            slot=literal(name),
                            connection=literal(connection),
                        )
                    )
            except FOREIGN:
                if last == 0:
                    raise
            else:
                return


def _connect(database: str, role: str) -> AdministratorSql:
    return ddl(
        "grant_on_database", privilege="CONNECT", database=quoted(database), grantee=quoted(role), option=""
    )


def _connection(options: dict[str, str]) -> str:
    """A connection string of libpq's."""
    escaped = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in options.items()}
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())


async def _require_slot(source: Administrator, name: str, what: str, keep: int) -> None:
    """The slot is there, and its server keeps no more for it than it may. Raises FellBehind."""
    row = await source.fetchrow(_SQL["slot"], name)
    if row is None:
        raise FellBehind(f"{what}: there is no slot {name}")
    if row["status"] in _LOST or row["kept"] is None:
        raise FellBehind(
            f"{what}: slot {name} is {row['status'] or 'lost'}: it kept more than max_slot_wal_keep_size"
        )
    if row["kept"] > keep:
        raise FellBehind(
            f"{what}: slot {name} keeps {row['kept']} bytes of WAL, more than REHOME_SYNC_KEEP_BYTES ({keep})"
        )


def _on_source(found: asyncpg.Record, source: Server) -> Iterator[str]:
    if found["wal_level"] != "logical":
        yield (
            f"wal_level of {source.name} is {found['wal_level']}: set it to logical, which needs a restart "
            "(docs/pools.md)"
        )
    if found["keep_megabytes"] < 0:
        yield (
            f"max_slot_wal_keep_size of {source.name} is not set: a slot could fill its disk. Set it, and reload "
            "(docs/pools.md)"
        )
    if found["free_slots"] < _SLOTS:
        yield (
            f"{source.name} has {max(found['free_slots'], 0)} free slot(s), and a copy that follows takes {_SLOTS}: "
            "raise max_replication_slots, or drop what nobody reads"
        )
    if found["free_senders"] < 1:
        yield f"all WAL senders of {source.name} are in use: raise max_wal_senders"


def _on_target(found: asyncpg.Record, target: Server) -> Iterator[str]:
    if found["free_origins"] < 1:
        yield (
            f"{target.name} can follow no more: raise max_active_replication_origins (max_replication_slots before "
            "version 18)"
        )
    if found["free_workers"] < 1:
        yield f"{target.name} has no worker that could apply: raise max_logical_replication_workers"
