"""Extensions whose scripts go back to the search_path that their session began with, as `postgis_topology` does."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from typing import TYPE_CHECKING

import pytest

from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.contract.real_servers import RealStage
from tests.support.rehearsing import Rehearsing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.postgres_versions import Pair

PLACES = {
    "places.control": "default_version = '1.0'\nrelocatable = true\n",
    "places--1.0.sql": """
        CREATE TYPE place AS (x integer, y integer);
        CREATE FUNCTION shifted(place) RETURNS place LANGUAGE sql IMMUTABLE
            AS 'SELECT ROW(($1).x + 1, ($1).y)::@extschema@.place';
    """,
    "place_network.control": "default_version = '1.0'\nrelocatable = false\nschema = network\nrequires = places\n",
    "place_network--1.0.sql": """
        CREATE FUNCTION add_to_search_path(wanted text) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            path text := (SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path');
        BEGIN
            IF path NOT LIKE '%' || wanted || '%' THEN
                path := path || ', ' || wanted;
                EXECUTE format('ALTER DATABASE %I SET search_path = %s', current_database(), path);
            END IF;
            EXECUTE 'SET search_path = ' || path;
        END $$;
        SELECT network.add_to_search_path('network');
        CREATE TABLE network.node (id integer PRIMARY KEY, at place);
        CREATE FUNCTION network.neighbour(at place) RETURNS place LANGUAGE sql AS 'SELECT shifted($1)';
    """,
}


def with_extensions(programs: Path, root: Path) -> Path:
    """Server programs that find these extensions: they look for their files beside themselves."""
    installed = programs.parents[3]
    inside = programs.relative_to(installed)  # such as lib/postgresql/15/bin
    made = root / inside
    shutil.copytree(programs, made)
    (made.parent / "lib").symlink_to(programs.parent / "lib")
    share = root / "share" / "postgresql" / programs.parent.name
    shutil.copytree(installed / "share" / "postgresql" / programs.parent.name, share)
    for name, text in PLACES.items():
        (share / "extension" / name).write_text(text)
    return made


@pytest.fixture(scope="module")
async def stage(
    scratch: Path, versions: Pair, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RealStage]:
    """Two servers that offer the extensions."""
    clusters = []
    for name, programs in (("pool", versions.pool), ("dedicated", versions.dedicated)):
        if programs.parents[3].name != "usr":
            pytest.skip(f"the programs in {programs} do not have the places of Debian's packages")
        made = await asyncio.to_thread(with_extensions, programs, scratch / f"extensions-{name}")
        directory = scratch / f"with-extensions-{name}"
        clusters.append(await Cluster.create(directory, password=nasty_password(), programs=made))
        await clusters[-1].start()
    pool, dedicated = clusters
    yield RealStage(pool, dedicated, tmp_path_factory.mktemp("places") / "backups")
    for cluster in clusters:
        await cluster.destroy()


async def test_such_an_extension_is_rehearsed_and_its_search_path_kept(stage: RealStage) -> None:
    tenant = Tenant(f"placed_{secrets.token_hex(4)}")
    await create_tiny_tenant(stage.pool_cluster, tenant)
    rehearsing = Rehearsing(stage, tenant)
    await rehearsing.begin()
    try:
        await rehearsing.as_superuser("CREATE EXTENSION places; CREATE EXTENSION place_network")
        await rehearsing.as_superuser(
            "CREATE TABLE shop (id integer, at place); INSERT INTO shop VALUES (1, (2, 3))"
        )
        await rehearsing.as_superuser(f"ALTER TABLE shop OWNER TO {tenant.role}")
        await stage.databases.require_genuine_extensions(
            stage.pool, tenant.database, tenant.role, stage.dedicated
        )
        assert await rehearsing.run()  # settings of the database are compared, too
        assert await rehearsing.left_over() == []
    finally:
        await rehearsing.remove()
