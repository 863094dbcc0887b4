"""What stands in `db_servers` and is no server to move from or to; a server whose lock table is too small; German."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from rehome_consumer.engine.outcome import describe_error, gravest
from rehome_consumer.errors import Incompatible, Refused, Transient
from rehome_consumer.steps import prepare
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from sandbox.system.net import LOOPBACK
from sandbox.system.processes import run
from tests.contract.real_servers import RealStage, server_of
from tests.support.rehearsing import Rehearsing

if TYPE_CHECKING:
    from pathlib import Path

TABLES = 600


async def test_a_standby_is_refused_on_either_side_before_anything_is_stopped(
    scratch: Path, rehearsing: Rehearsing
) -> None:
    stage, ports, instance = rehearsing.stage, rehearsing.move.ports, await rehearsing.move.instance()
    cluster = await Cluster.create(scratch / "follower", password=nasty_password())
    try:
        (cluster.data / "standby.signal").touch()
        await cluster.start()
        follower = server_of(cluster, "follower", "shared")
        with pytest.raises(Incompatible, match=r"follower .* is a standby"):
            await prepare.check_source(ports, instance, follower)
        facts = await stage.databases.database_facts(
            stage.pool, rehearsing.tenant.database, rehearsing.tenant.role
        )
        with pytest.raises(Incompatible, match=r"follower .* is a standby"):
            await prepare.check_pair(ports, stage.pool, follower, facts)
    finally:
        await cluster.destroy()


async def answer_as_a_pooler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As pgbouncer answers a setting that it does not track."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            length = int.from_bytes(await reader.readexactly(4))
            startup = await reader.readexactly(length - 4)
            if startup[:4] != (80877103).to_bytes(4):  # a request for TLS
                break
            writer.write(b"N")
        fields = b"SFATAL\0C08P01\0Munsupported startup parameter: search_path\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()
    writer.close()


async def test_a_pooler_is_named_as_one_before_anything_is_stopped(rehearsing: Rehearsing) -> None:
    stage, ports, instance = rehearsing.stage, rehearsing.move.ports, await rehearsing.move.instance()
    async with await asyncio.start_server(answer_as_a_pooler, LOOPBACK) as listening:
        pooler = replace(stage.pool, name="bouncer", port=listening.sockets[0].getsockname()[1])
        with pytest.raises(Incompatible, match=r"bouncer.*connection pooler.*`db_servers`"):
            await prepare.check_source(ports, instance, pooler)


def without_settings(startup: bytes) -> bytes:
    """A startup message with only what pgbouncer tracks."""
    words = startup[4:].rstrip(b"\0").split(b"\0")
    kept = [
        word
        for name, value in zip(words[::2], words[1::2], strict=True)
        if name in {b"user", b"database", b"application_name", b"client_encoding"}
        for word in (name, value)
    ]
    return startup[:4] + b"\0".join(kept) + b"\0\0"


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_pooler_that_ignores_settings_is_named_as_one(rehearsing: Rehearsing) -> None:
    """As with `ignore_startup_parameters`: names in an administrator's session would mean whatever a tenant chose."""
    stage, ports, instance = rehearsing.stage, rehearsing.move.ports, await rehearsing.move.instance()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            startup = await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
            if startup[:4] != (80877103).to_bytes(4):  # a request for TLS
                break
            writer.write(b"N")
        from_server, to_server = await asyncio.open_connection(stage.pool.host, stage.pool.port)
        kept = without_settings(startup)
        to_server.write((len(kept) + 4).to_bytes(4) + kept)
        await asyncio.gather(pass_on(reader, to_server), pass_on(from_server, writer))

    async with await asyncio.start_server(answer, LOOPBACK) as listening:
        pooler = replace(stage.pool, name="bouncer", port=listening.sockets[0].getsockname()[1])
        with pytest.raises(
            Incompatible, match=r"bouncer.* ignores the settings .*connection pooler.*`db_servers`"
        ):
            await prepare.check_source(ports, instance, pooler)


async def test_a_lock_table_that_another_dump_has_filled_is_named_with_what_to_raise(
    scratch: Path, stage: RealStage, tmp_path: Path
) -> None:
    small = {"max_connections": "15", "max_locks_per_transaction": "10"}
    cluster = await Cluster.create(scratch / "few-locks", password=nasty_password(), settings=small)
    await cluster.start()
    try:
        tenant = Tenant(f"large_{secrets.token_hex(4)}")
        await create_tiny_tenant(cluster, tenant)
        tight = Rehearsing(RealStage(cluster, stage.dedicated_cluster, tmp_path / "backups"), tenant)
        await tight.begin()
        for first in range(0, TABLES, 50):
            await tight.as_tenant(
                "; ".join(f"CREATE TABLE many_{number} ()" for number in range(first, first + 50))
            )
        async with cluster.connect(tenant.database) as dumping, dumping.transaction():
            names = await dumping.fetch("SELECT relname FROM pg_class WHERE relname LIKE 'many%' ORDER BY 1")
            for row in names[: TABLES // 2]:
                await dumping.execute(f"LOCK TABLE {row['relname']} IN ACCESS SHARE MODE")
            with pytest.raises((Transient, ExceptionGroup)) as raised:
                await tight.run()
        error = gravest(raised.value)
        assert isinstance(error, Transient)  # it passes when the other dump has ended
        assert "out of shared memory" in describe_error(error)
        assert "max_locks_per_transaction" in describe_error(error)
        assert await tight.left_over() == []
    finally:
        await cluster.destroy()


TWICE = """
CREATE TABLE twice (a integer); INSERT INTO twice VALUES (4141), (4141); CREATE INDEX twice_a ON twice (a);
ALTER TABLE twice OWNER TO {role}; UPDATE pg_index SET indisunique = true WHERE indexrelid = 'twice_a'::regclass
"""


async def test_what_a_server_says_in_german_is_final_too_and_shows_no_data(
    scratch: Path, stage: RealStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which words are final, and what in them is data, is told by English ones."""
    locales = scratch / "locales"
    locales.mkdir()
    with contextlib.suppress(Exception):  # warnings of localedef are errors here; it is looked for below
        await run(["localedef", "-i", "de_DE", "-f", "UTF-8", locales / "de_DE.UTF-8"], limit=60)
    if not (locales / "de_DE.UTF-8").exists():
        pytest.skip("there is no German locale here: install Debian's package locales")
    monkeypatch.setenv("LOCPATH", str(locales))
    cluster = await Cluster.create(
        scratch / "german",
        password=nasty_password(),
        settings={"lc_messages": "de_DE.UTF-8"},
        programs=stage.dedicated_cluster.programs,
    )
    await cluster.start()
    monkeypatch.delenv("LOCPATH")
    try:
        async with cluster.connect() as connection:
            with pytest.raises(asyncpg.PostgresError) as said:
                await connection.execute("SELECT 1 / 0")
        if "durch Null" not in str(said.value):
            pytest.skip("this PostgreSQL was built without its translations")
        tenant = await stage.add_tenant()
        german = Rehearsing(RealStage(stage.pool_cluster, cluster, tmp_path / "backups"), tenant)
        await german.begin()
        await german.as_superuser(TWICE.format(role=tenant.role))
        with pytest.raises((Refused, ExceptionGroup)) as raised:
            await german.run()
        error = gravest(raised.value)
        assert isinstance(error, Refused)
        assert 'could not create unique index "twice_a"' in describe_error(error)
        assert "Key (a)=(...) is duplicated" in describe_error(error)
        assert await german.left_over() == []
        await german.remove()
    finally:
        await cluster.destroy()
