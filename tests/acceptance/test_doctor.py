"""The reconciler on a real platform: it finds what is wrong, repairs what is safe, and old databases are retired."""

import json

import pytest

from sandbox.demo.observation import observe
from sandbox.platform.billing import Billing
from sandbox.platform.database_service import Switches
from sandbox.platform.local import STOP_SECONDS, LocalPlatform, Site
from sandbox.platform.subscriber import Subscriber
from sandbox.system.net import wait_until
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite
from tests.support.operators import (
    dead_letters,
    die_at,
    kinds,
    leave_everything,
    migration,
    on_pool,
    stored,
    take_delivery,
    until_at_work,
)


async def test_what_killed_consumers_left_is_found_and_repaired(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a migration that was rolled back, and everything that killed consumers may leave
    site = await make_site(odoo=False)
    async with local.consumer(module=("sandbox.demo.faults", "stop")):
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    over = await migration(rehome, site)
    scratch = await leave_everything(local, site, over)
    # When the doctor runs, then it finds all of it, and repairs what is safe
    expected = {
        "leftover_conf_backup",
        "leftover_temp_file",
        "partial_backup",
        "leftover_role",
        "source_still_fenced",
        "unsent_events",
    }
    assert expected <= set(await kinds(rehome, site))
    repaired = await kinds(rehome, site, "--repair")
    assert {kind: repaired[kind] for kind in expected} == dict.fromkeys(expected, "repaired")
    assert not expected & set(await kinds(rehome, site))
    assert [file.name for file in site.conf.parent.iterdir()] == ["odoo.conf"]
    assert stored(local, over) == []
    (local.backup_root / "notes-of-an-operator.txt").unlink()  # it is not rehome's, so it is still there
    # On a pool a comment proves nothing: its database's owner may have written it.
    assert await on_pool(local, "SELECT count(*) FROM pg_database WHERE datname = $1", scratch)
    assert not await on_pool(local, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'rehome\\_%'")
    assert await on_pool(local, "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", site.tenant.role)
    (dead_letter,) = (await dead_letters(rehome, site)).values()
    assert (await rehome("dead", "discard", dead_letter["id"], "--reason", "tested")).code == 0


@pytest.mark.long
async def test_a_migration_whose_delivery_is_lost_or_crashes_its_consumers_is_found_and_completes(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a migration that waits, and no consumer
    site = await make_site(odoo=False)
    local.database_service.switches = Switches(delay_seconds=3600)
    async with local.consumer(settings={"REHOME_GRACE": "1"}) as consumer:
        await billing.upgrade(site.id, PLAN)
        await until_at_work(rehome, site)
        await consumer.stop(limit=STOP_SECONDS)
    local.database_service.switches = Switches()
    # When its delivery is lost
    await take_delivery(local, "prepare", acknowledge=True)
    # Then the doctor finds that it is stuck, and sends the event again
    assert "stuck" in await kinds(rehome, site, "--stuck-after", "0")
    assert (await kinds(rehome, site, "--stuck-after", "0", "--repair"))["stuck"] == "repaired"
    # When consumers die on it until the broker dead-letters it
    for _ in range(5):
        await take_delivery(local, "prepare", acknowledge=False)
    await die_at(local, "prepare.claimed")
    # Then it is a dead letter with reason crashed, and the doctor finds it
    (dead_letter,) = (
        await rehome("dead", "list", "--instance", site.id, "--reason", "crashed", "--json")
    ).json
    assert dead_letter["handler"] == "prepare"
    assert "dead_lettered" in await kinds(rehome, site)
    # and a consumer reports the same by itself, though it may not read dead letters, and changes nothing
    watchful = {"REHOME_DOCTOR_EVERY": "0.5", "REHOME_STUCK_AFTER": "0.5"}
    async with local.consumer("watchful", settings=watchful):
        log = local.directory / "watchful.log"

        async def reported() -> bool:
            lines = [json.loads(line) for line in log.read_text().splitlines() if "doctor.finding" in line]
            return any(
                line["kind"] == "dead_lettered" and dead_letter["migration"] in line["where"]
                for line in lines
            )

        await wait_until(reported, what="the consumer to report the dead letter", limit=LIMIT)
        assert (await migration(rehome, site))["state"] == "requested"
        # When it is replayed, the migration completes
        assert (await rehome("dead", "replay", dead_letter["id"][:8])).code == 0
        await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    assert await dead_letters(rehome, site) == {}
    await check_retirement(local, site, rehome)


async def check_retirement(local: LocalPlatform, site: Site, rehome: Cli) -> None:
    """The old database is dropped when every condition holds, and nothing else is."""
    others = set(await on_pool(local, "SELECT array_agg(datname::text) FROM pg_database")) - {
        site.tenant.database
    }
    moved = await migration(rehome, site)
    assert stored(local, moved) == [f"{moved['id']}-1"]
    early = await rehome("retire", site.id, "--yes", "--json")
    assert (early.code, "it is kept until" in early.json[0]["refused"][0]) == (1, True)
    async with local.pool.connect() as pool:
        await pool.execute(f'ALTER DATABASE "{site.tenant.database}" CONNECTION LIMIT 5')
        await pool.execute(f'GRANT CONNECT ON DATABASE "{site.tenant.database}" TO PUBLIC')
    lifted = await rehome("retire", site.id, "--yes", "--now", "--json")
    assert (lifted.code, "is not fenced" in lifted.json[0]["refused"][0]) == (1, True)
    async with local.pool.connect() as pool:
        await pool.execute(f'REVOKE CONNECT ON DATABASE "{site.tenant.database}" FROM PUBLIC')
    done = await rehome("retire", site.id, "--yes", "--now", "--json")
    assert (done.code, done.json[0]["refused"]) == (0, []), done
    assert set(await on_pool(local, "SELECT array_agg(datname::text) FROM pg_database")) == others
    assert not await on_pool(local, "SELECT count(*) FROM pg_roles WHERE rolname = $1", site.tenant.role)
    assert stored(local, moved) == []
    assert (await observe(local, site)).on_dedicated > 0
    assert (await rehome("retire", site.id)).code == 1
