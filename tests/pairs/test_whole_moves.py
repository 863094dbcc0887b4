"""A customer's Odoo database is moved by the real chain, from billing's publish to `migration.completed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.postgres.replicator import APPLIES_AS_OWNER_SINCE
from sandbox.odoo.writers import Writers
from sandbox.postgres.databases import major_version
from tests.attack.attack import COMPLETED
from tests.attack.contents import contents
from tests.attack.place import Place, place
from tests.chaos.arena import PLAN
from tests.pairs.conftest import add_newer_objects
from tests.support.warm_stage import FOLLOWED_BY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.platform.local import Site
    from sandbox.postgres.server import Cluster
    from tests.support.postgres_versions import Pair

LIMIT = 300


@pytest.fixture(scope="module")
async def arena(scratch: Path, versions: Pair) -> AsyncIterator[Place]:
    """The platform: a pool, and a database-service that makes servers, of these versions."""
    directory = scratch / "pairs"
    directory.mkdir(mode=0o711)
    async with place(directory, versions) as made:
        made.rest()
        yield made


@pytest.mark.representative
async def test_odoos_database_arrives_complete_while_its_users_write(arena: Place, versions: Pair) -> None:
    arena.rest()
    site = await arena.make_site(odoo=True)
    await add_newer_objects(arena.local.pool, site.tenant)
    await _arrives(arena, site, versions)


@pytest.mark.representative
async def test_a_copy_follows_where_the_dedicated_server_is_new_enough(arena: Place, versions: Pair) -> None:
    arena.rest()
    site = await arena.make_site(odoo=True)
    arena.settings["REHOME_STRATEGY"] = "auto"
    dedicated = await _arrives(arena, site, versions)
    prepared = next(one for one in arena.subscriber.events if one.type == "migration.prepared"
                    and one.data.instance_id == site.id)  # fmt: skip
    last = arena.subscriber.events[-1]
    warm = int(await major_version(dedicated)) >= APPLIES_AS_OWNER_SINCE
    assert (prepared.data.strategy, last.data.strategy) == (("warm",) * 2 if warm else ("cold",) * 2)
    for cluster in (arena.local.pool, dedicated):
        async with cluster.connect(site.tenant.database) as connection:
            assert await connection.fetch(FOLLOWED_BY) == []


async def _arrives(arena: Place, site: Site, versions: Pair) -> Cluster:
    """Move it while its users write; the server that has it then."""
    await arena.stop_consumers()
    await arena.start_consumer()
    async with Writers(site.url) as writers:
        await writers.wait_acknowledged(10)
        await arena.billing.upgrade(site.id, PLAN)
        last = await arena.subscriber.wait_for(
            COMPLETED, "migration.rolled_back", "migration.rejected", instance_id=site.id, limit=LIMIT
        )
        assert last.type == COMPLETED, [event.data for event in arena.subscriber.events]
        await writers.wait_acknowledged(10)
        row = await arena.dedicated(site)
        assert row is not None
        dedicated = arena.local.database_service.cluster(row["id"])
        verdict = await writers.verify_writes(dedicated.dsn(site.tenant.database))
    assert verdict.ok
    # What the two servers hold, read without rehome; rows that were written after the move are on the new one only.
    before = await contents(arena.local.pool, site.tenant.database)
    after = await contents(dedicated, site.tenant.database)
    assert set(before) == set(after)
    different = {name for name in before if before[name] != after[name]}
    assert len(different) <= MOST_WRITTEN, different
    wanted = [await major_version(cluster) for cluster in (arena.local.pool, dedicated)]
    assert not versions.name or wanted == versions.name.split("-")
    return dedicated


MOST_WRITTEN = 6
"""Tables that the sandbox's instance writes to while it serves."""
