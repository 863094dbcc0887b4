"""A complete warm move: the copy follows its source until the stop, and nothing by which it followed stays."""

import asyncio

import asyncpg
import pytest

from rehome_consumer.adapters.postgres.replicator import APPLIES_AS_OWNER_SINCE
from rehome_consumer.steps.support.warm import WARM
from sandbox.demo.demo import CHAIN
from sandbox.demo.observation import database_dsn, observe
from sandbox.odoo.writers import Writers
from sandbox.platform.billing import Billing
from sandbox.platform.local import LocalPlatform
from sandbox.platform.subscriber import Subscriber
from sandbox.postgres.files import programs_since
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite
from tests.support.warm_stage import FOLLOWED_BY


async def test_a_warm_move_loses_no_acknowledged_write_and_leaves_nothing_it_followed_by(
    local: LocalPlatform,
    make_site: MakeSite,
    billing: Billing,
    subscriber: Subscriber,
    rehome: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new_enough = programs_since(APPLIES_AS_OWNER_SINCE)
    if new_enough is None:
        pytest.skip("warm moves need PostgreSQL 16 or newer: scripts/setup-postgresql 17")
    monkeypatch.setattr(local.database_service, "programs", new_enough)
    settings = {"REHOME_STRATEGY": "auto", "REHOME_PG_BIN": str(new_enough)}
    # Given a customer who writes all the time, and whose move would be warm
    site = await make_site()
    checked = await rehome("check", site.id, "--json", **settings)
    assert next(one["detail"] for one in checked.json["checks"] if one["check"] == "strategy").startswith(
        "warm"
    )
    async with local.consumer(settings=settings), Writers(site.url) as writers:
        await writers.wait_acknowledged(10)
        before = await observe(local, site)
        # When the customer upgrades
        await billing.upgrade(site.id, PLAN)
        last = await subscriber.wait_for(
            "migration.completed", "migration.rolled_back", instance_id=site.id, limit=LIMIT
        )
        await writers.wait_acknowledged(10)
    after = await observe(local, site)
    # Then the copy followed until the stop, and was not given up
    events = {one.type: one.data for one in subscriber.events}
    assert last.type == "migration.completed", last.data
    assert subscriber.types(site.id) == list(CHAIN)
    prepared = events["migration.prepared"]
    assert prepared.strategy_reason == WARM
    assert prepared.strategy == "warm"
    assert last.data.strategy == "warm"
    # and nothing that was acknowledged is lost, before, while or after it was stopped
    assert (await writers.verify_writes(await database_dsn(local, site))).ok
    assert (after.on_pool, after.on_dedicated > 0) == (0, True)
    assert (after.uuid, after.users) == (before.uuid, before.users)
    # and the backup of the fenced source is there
    assert events["migration.backed_up"].content == "before_stop"
    backups = {one.name for one in local.backup_root.iterdir() if str(last.migrationid) in one.name}
    assert f"{last.migrationid}-1" in backups
    assert not any("rehearsal" in name for name in backups)
    # and nothing by which the copy followed is left on either server
    servers = (local.pool.dsn(site.tenant.database), await database_dsn(local, site))
    assert await asyncio.gather(*(_followed_by(dsn) for dsn in servers)) == [[], []]


async def _followed_by(dsn: str) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return [tuple(row) for row in await connection.fetch(FOLLOWED_BY)]
    finally:
        await connection.close(timeout=10)
