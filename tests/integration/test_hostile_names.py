"""Names and texts stay names and texts for PostgreSQL and its client programs, whatever they contain."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.errors import Refused
from rehome_consumer.model import Credentials, RoleAttributes, Secret
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.contract.real_servers import server_of
from tests.contract.servers import ProgressRecorder, new_tag
from tests.fuzz.common import PROPERTIES
from tests.support.comparing import compared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from sandbox.postgres.server import Cluster

FENCING = timedelta(seconds=20)
LONGEST = 63  # bytes of a name: NAMEDATALEN - 1
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
HARD = st.text(st.sampled_from("'\"\\%$;-/*.=\n\r\t aé\u202e\U0001f418"), min_size=1, max_size=15)
NAMES = (HARD | TEXTS).filter(lambda name: 0 < len(name.encode()) <= LONGEST)
Session = Any

HOSTILE = [
    'it\'s "quoted" \\ % $1 %s $(id) `id`',
    "../../etc/passwd",
    "host=evil dbname=postgres",
    "postgresql://evil/postgres",
    "-U postgres; DROP DATABASE x; --",
    "new\nline\ttab \u202e \U0001f418 é",
]


def run(cluster: Cluster, work: Callable[[Session], Awaitable[Any]]) -> Any:
    """Do it on a session of its own."""

    async def do() -> Any:
        async with cluster.connect() as session:
            return await work(session)

    return asyncio.run(do())


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_any_text_is_one_literal(pg: Cluster, conforming: str) -> None:
    @PROPERTIES
    @given(HARD | TEXTS)
    def holds(text: str) -> None:
        async def read(session: Session) -> Any:
            await session.execute(
                f"SET standard_conforming_strings = {conforming}; SET escape_string_warning = off"
            )
            return await session.fetchval(f"SELECT {literal(text)}")

        assert run(pg, read) == text

    holds()


def test_any_name_is_one_identifier(pg: Cluster) -> None:
    @PROPERTIES
    @given(NAMES)
    def holds(name: str) -> None:
        async def read(session: Session) -> Any:
            rows = await session.fetch(f"SELECT 1 AS {quoted(name)}, 2 AS other")
            return list(rows[0].keys())

        assert run(pg, read) == [name, "other"]

    holds()


@pytest.fixture
async def tenant(pg: Cluster, hostile: str) -> AsyncIterator[Tenant]:
    """A tenant whose database and role have such names."""
    made = Tenant(hostile)
    await create_tiny_tenant(pg, made)
    yield made
    async with pg.connect() as session:
        await session.execute(f"DROP DATABASE {quoted(made.database)} WITH (FORCE)")
        await session.execute(f"DROP ROLE {quoted(made.role)}")


@pytest.mark.parametrize(
    "hostile",
    [HOSTILE[0], *(pytest.param(name, marks=pytest.mark.long) for name in HOSTILE[1:-1]), HOSTILE[-1]],
)
async def test_a_database_moves_under_any_name(
    hostile: str, tenant: Tenant, pg: Cluster, second_pg: Cluster, quick_files: Path
) -> None:
    pool, dedicated = server_of(pg, "pool-1", "shared"), server_of(second_pg, "dedicated-1", "dedicated")
    databases, copier, verifier = (
        PostgresDatabases(),
        PgCopier(BackupPlace(quick_files), jobs=2),
        PostgresVerifier(jobs=2),
    )
    tag, scratch, backup_id = new_tag(), f"{tenant.database}__r", f"{uuid4()}-1"
    before = await _names(pg), await _names(second_pg)

    facts = await databases.database_facts(pool, tenant.database, tenant.role)
    await databases.fence(pool, tenant.database, tenant.role, FENCING)
    await copier.dump(pool, tenant.database, tenant.role, backup_id, ProgressRecorder())
    backup = await copier.seal(backup_id, {}, {})
    await databases.make_role(
        dedicated, Credentials(tenant.role, Secret(nasty_password())), facts.role, facts.grantees
    )
    await databases.make_scratch(dedicated, scratch, facts, tenant.role, tag)
    await copier.restore(dedicated, scratch, backup, tenant.role, ProgressRecorder())

    source, target = (pool, tenant.database, tenant.role), (dedicated, scratch, tenant.role)
    assert await compared(verifier, source, target) == []
    assert await _names(pg) == before[0]
    assert await _names(second_pg) - before[1] == {scratch, tenant.role}
    assert _names_in(quick_files) == [backup_id]
    async with second_pg.connect() as session:
        await session.execute(f"DROP DATABASE {quoted(scratch)} WITH (FORCE)")
        await session.execute(f"DROP ROLE {quoted(tenant.role)}")


def _names_in(directory: Path) -> list[str]:
    return [place.name for place in directory.iterdir()]


async def _names(cluster: Cluster) -> set[str]:
    """Every database and every role."""
    async with cluster.connect() as session:
        rows = await session.fetch(
            "SELECT datname AS name FROM pg_database UNION SELECT rolname FROM pg_roles"
        )
    return {row["name"] for row in rows}


async def test_a_name_with_nul_reaches_no_server(pg: Cluster) -> None:
    server = server_of(pg, "pool-1", "shared")
    before = await _names(pg)
    for name in ("a\0b", "postgres\0x"):
        with pytest.raises(Refused, match="invalid byte sequence"):
            await PostgresDatabases().make_role(
                server, Credentials(name, Secret(nasty_password())), RoleAttributes(), ()
            )
    assert await _names(pg) == before
