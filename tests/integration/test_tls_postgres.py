"""TLS to PostgreSQL: sessions, client programs and DSNs check the server, as libpq's sslmode says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.journal import PostgresJournal
from rehome_consumer.errors import ChildFailed, RehomeError, Unreachable
from rehome_consumer.model import Credentials, RoleAttributes, Secret
from rehome_consumer.network.tls import PostgresTls, SslMode
from rehome_consumer.sql import AdministratorSql
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from sandbox.system.accounts import database_account, give
from tests.contract.real_servers import server_of
from tests.contract.servers import ProgressRecorder, new_tag
from tests.support.broker_users import rehome
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rehome_consumer.model import Server

ENCRYPTED = AdministratorSql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


@pytest.fixture(scope="module")
def authority(scratch: Path) -> Authority:
    return Authority(scratch / "postgres_authority")


@pytest.fixture(scope="module")
def other_authority(scratch: Path) -> Authority:
    return Authority(scratch / "postgres_other_authority")


@pytest.fixture(scope="module")
async def cluster(scratch: Path, authority: Authority) -> AsyncIterator[Cluster]:
    """A server that admits no one without TLS; its certificate is for 127.0.0.1 and not for localhost."""
    certificate = authority.issue("postgres", "127.0.0.1")
    give(certificate.key_file, database_account())
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(certificate.cert_file),
        "ssl_key_file": str(certificate.key_file),
    }
    made = await Cluster.create(scratch / "tls_pg", password=nasty_password(), settings=settings)
    (made.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    await made.start()
    yield made
    await made.destroy()


@pytest.fixture
def server(cluster: Cluster) -> Server:
    return server_of(cluster, "dedicated-1", "dedicated")


def sessions(mode: SslMode, trusted: Authority | None = None) -> Sessions:
    return Sessions(tls=PostgresTls(mode, trusted.ca_file if trusted else None))


async def is_encrypted(through: Sessions, server: Server) -> bool:
    async with through.administrator(server, what="looking") as session:
        return bool(await session.fetchval(ENCRYPTED))


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_a_session_is_encrypted(mode: SslMode, server: Server, authority: Authority) -> None:
    assert await is_encrypted(sessions(mode, authority if mode.startswith("verify") else None), server)


async def test_a_server_that_offers_tls_says_so(server: Server) -> None:
    """Odoo's db_sslmode is compared with it."""
    assert (await PostgresDatabases(sessions("require")).server_facts(server)).tls


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_a_server_with_a_certificate_of_another_authority_is_refused(
    mode: SslMode, server: Server, other_authority: Authority
) -> None:
    message = r"looking, server dedicated-1 at .*: its certificate is not signed by a trusted authority"
    with pytest.raises(Unreachable, match=message):
        await is_encrypted(sessions(mode, other_authority), server)


async def test_a_certificate_for_another_host_is_reported_where_the_host_is_checked(
    server: Server, authority: Authority
) -> None:
    elsewhere = replace(server, host="localhost")
    with pytest.raises(Unreachable, match=r"its certificate is for another host: .*'localhost'"):
        await is_encrypted(sessions("verify-full", authority), elsewhere)
    assert await is_encrypted(sessions("verify-ca", authority), elsewhere)


async def test_plain_text_is_refused_by_a_server_that_requires_tls(server: Server) -> None:
    with pytest.raises(RehomeError, match="no encryption"):
        await is_encrypted(sessions("disable"), server)


async def test_a_server_without_tls_is_refused_where_tls_is_required(pg: Cluster) -> None:
    plain = server_of(pg, "pool-1", "shared")
    with pytest.raises(
        Unreachable, match=r"looking, server pool-1 at .*: PostgreSQL server at .* rejected SSL"
    ):
        await is_encrypted(sessions("require"), plain)
    assert not await is_encrypted(sessions("prefer"), plain)


async def test_a_database_is_dumped_and_restored_over_tls(
    cluster: Cluster, server: Server, authority: Authority, tmp_path: Path
) -> None:
    through = sessions("verify-full", authority)
    databases, tag = PostgresDatabases(sessions=through), new_tag()
    copier = PgCopier(BackupPlace(tmp_path), sessions=through, jobs=2)
    tenant, role, copy, backup_id = Tenant("kept"), "acme", "kept__copy", f"{uuid4()}-1"
    await create_tiny_tenant(cluster, tenant)
    await copier.dump(server, tenant.database, tenant.role, backup_id, ProgressRecorder())
    backup = await copier.seal(backup_id, {}, {})
    await databases.make_role(server, Credentials(role, Secret(nasty_password())), RoleAttributes(), ())
    facts = await databases.database_facts(server, tenant.database, tenant.role)
    await databases.make_scratch(server, copy, replace(facts, owner=tenant.role), role, tag)
    await copier.restore(server, copy, backup, role, ProgressRecorder())
    verifier = PostgresVerifier(sessions=through, jobs=2)
    before = await verifier.fingerprint(server, tenant.database, tenant.role)
    after = await verifier.fingerprint(server, copy, role)
    assert (after.tables, after.rows, after.large_objects) == (
        before.tables,
        before.rows,
        before.large_objects,
    )


async def test_client_programs_refuse_a_certificate_of_another_authority(
    server: Server, other_authority: Authority, tmp_path: Path
) -> None:
    copier = PgCopier(BackupPlace(tmp_path), sessions=sessions("verify-full", other_authority), jobs=1)
    with pytest.raises((ChildFailed, Unreachable), match="certificate"):
        await copier.dump(server, "postgres", "nobody", f"{uuid4()}-1", ProgressRecorder())


async def test_a_dsn_has_its_own_mode_and_authority(
    cluster: Cluster, authority: Authority, other_authority: Authority
) -> None:
    def dsn(trusted: Authority) -> str:
        return f"{cluster.dsn()}?sslmode=verify-full&sslrootcert={quote(str(trusted.ca_file))}"

    async with asyncpg.create_pool(dsn(authority), min_size=1, max_size=1) as pool:
        await PostgresJournal(pool, SecretCipher(None)).make_schema()
    others = {"REHOME_STATE_DSN": dsn(authority), "REHOME_PLATFORM_DSN": dsn(authority)}
    done = await rehome("status", settings=others)
    assert done.code == 0, done
    done = await rehome("status", settings={**others, "REHOME_STATE_DSN": dsn(other_authority)})
    assert done.code == 1
    assert "certificate is not signed by a trusted authority" in done.err
    assert cluster.password not in done.err


async def test_a_dsn_without_tls_is_refused_with_a_message(cluster: Cluster) -> None:
    dsn = f"{cluster.dsn()}?sslmode=disable"
    done = await rehome("status", settings={"REHOME_STATE_DSN": dsn, "REHOME_PLATFORM_DSN": dsn})
    assert done.code == 1
    assert "no encryption" in done.err
