"""Private PostgreSQL servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from sandbox.postgres.databases import create_role
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import nasty_password
from sandbox.system.net import accepts_connections, wait_until
from sandbox.system.processes import ChildEndedError
from tests.support.processes import command_line, have_ended, orphan_of, owner

LIMIT = 20


@pytest.fixture
async def server(scratch: Path) -> AsyncIterator[Cluster]:
    """A server that a test may stop, kill and reconfigure."""
    cluster = await Cluster.create(scratch / "server", password=nasty_password())
    await cluster.start()
    yield cluster
    if cluster.directory.exists():
        await cluster.destroy()


async def test_its_url_works_with_any_characters_in_the_password(pg: Cluster) -> None:
    connection = await asyncpg.connect(pg.dsn())

    assert await connection.fetchval("SELECT current_user") == "postgres"
    await connection.close()


async def test_it_refuses_a_wrong_password(pg: Cluster) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(pg.dsn(password="wrong"))


async def test_it_listens_on_loopback_alone(pg: Cluster) -> None:
    async with pg.connect() as connection:
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("SHOW unix_socket_directories") == ""


async def test_it_never_runs_as_root(pg: Cluster) -> None:
    assert owner(pg.pid) != 0


async def test_its_data_is_closed_to_other_users(pg: Cluster) -> None:
    assert pg.data.stat().st_mode & 0o777 == 0o700


async def test_it_is_ready_for_logical_replication_unless_configured_otherwise(server: Cluster) -> None:
    async with server.connect() as connection:
        assert await connection.fetchval("SHOW wal_level") == "logical"

    await server.stop()
    server.configure(wal_level="replica")
    await server.start()

    async with server.connect() as connection:
        assert await connection.fetchval("SHOW wal_level") == "replica"


async def test_rows_survive_a_stop_and_a_crash(server: Cluster) -> None:
    async with server.connect() as connection:
        await connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
    await server.stop()
    await server.start()
    async with server.connect() as connection:
        await connection.execute("INSERT INTO numbers VALUES (2)")
    await server.kill()
    await server.start()

    async with server.connect() as connection:
        assert await connection.fetchval("SELECT sum(n) FROM numbers") == 3


async def test_starting_a_running_server_changes_nothing(server: Cluster) -> None:
    before = server.pid
    await server.start()

    assert server.pid == before


async def test_the_error_for_a_server_that_cannot_start_names_the_cause(server: Cluster) -> None:
    await server.stop()
    server.configure(max_connections="many")

    with pytest.raises(ChildEndedError, match=r'(?s)ended with exit code 1.*"max_connections": "many"'):
        await server.start()


async def test_a_frozen_server_answers_when_it_is_thawed(server: Cluster) -> None:
    server.freeze()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(server.dsn(), timeout=0.2)
    server.thaw()

    async with server.connect() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_nothing_is_left_of_a_destroyed_server(server: Cluster) -> None:
    pid, directory = server.pid, server.directory
    await server.destroy()

    assert await have_ended(pid)()
    assert not directory.exists()
    assert not await accepts_connections(server.port)


async def test_it_ends_when_the_process_that_started_it_is_killed(scratch: Path) -> None:
    pids = await orphan_of(
        """
        cluster = await Cluster.create(directory, password="secret")
        await cluster.start()
        print(cluster.pid, flush=True)
        """,
        directory=scratch / "orphan",
        imports="from sandbox.postgres.server import Cluster",
    )

    await wait_until(have_ended(*pids), what="the server to end", limit=LIMIT)


async def test_a_directory_with_a_server_is_refused(pg: Cluster) -> None:
    with pytest.raises(FileExistsError, match="holds a PostgreSQL server already"):
        await Cluster.create(pg.directory, password="secret")


async def test_a_packed_server_is_unpacked_with_its_rows(server: Cluster, scratch: Path) -> None:
    async with server.connect() as connection:
        await connection.execute("CREATE TABLE packed AS SELECT 7 AS n")
    await server.stop()
    await server.pack(scratch / "server.tar")

    copy = await Cluster.unpack(scratch / "server.tar", scratch / "copy", password=server.password)
    await copy.start()
    async with copy.connect() as connection:
        assert await connection.fetchval("SELECT n FROM packed") == 7
    await copy.destroy()


async def test_no_password_gets_into_a_log_a_repr_or_a_command_line(server: Cluster) -> None:
    await create_role(server, "someone", "s3cr3t-of-someone")
    async with server.connect() as connection:
        with pytest.raises(asyncpg.DuplicateObjectError):
            await connection.execute("CREATE ROLE someone PASSWORD 's3cr3t-of-someone'")

    log = server.log.read_text()
    assert 'role "someone" already exists' in log
    for secret in ("s3cr3t-of-someone", server.password):
        assert secret not in log
        assert secret not in repr(server)
        assert secret not in command_line(server.pid)
