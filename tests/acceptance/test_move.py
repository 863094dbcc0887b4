"""A complete move, from billing's publish to migration.completed, observed from outside the consumer."""

from collections.abc import AsyncIterator

import pytest

from sandbox.demo.demo import CHAIN
from sandbox.demo.observation import conf_diff, database_dsn, observe
from sandbox.odoo.writers import Writers
from sandbox.platform.billing import Billing
from sandbox.platform.database_service import Switches
from sandbox.platform.local import LocalPlatform
from sandbox.platform.subscriber import Subscriber
from sandbox.system.processes import Child, memory
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite, until_states

MEMORY_BYTES = 150 * 1024 * 1024

pytestmark = pytest.mark.usefixtures("consumer")


@pytest.fixture(scope="module")
async def consumer(local: LocalPlatform) -> AsyncIterator[Child]:
    """The consumer of all these moves."""
    async with local.consumer() as consumer:
        yield consumer


async def test_an_upgrade_moves_the_database_and_loses_no_acknowledged_write(
    consumer: Child,
    local: LocalPlatform,
    make_site: MakeSite,
    billing: Billing,
    subscriber: Subscriber,
) -> None:
    # Given two customers who write all the time
    site, other = await make_site(), await make_site()
    async with Writers(site.url) as mine, Writers(other.url) as theirs:
        await mine.wait_acknowledged(10)
        before = await observe(local, site)
        # When one of them upgrades
        await billing.upgrade(site.id, PLAN)
        last = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
        await mine.wait_acknowledged(10)
        await theirs.wait_acknowledged(10)
        peak = memory(consumer.pid, "VmHWM")
    after = await observe(local, site)
    # Then the events come in their order, each once
    assert subscriber.types(site.id) == list(CHAIN)
    assert len(subscriber.deliveries) == len(CHAIN)
    # and all data is on the dedicated server
    assert (after.on_pool, after.on_dedicated > 0) == (0, True)
    assert (after.uuid, after.users) == (before.uuid, before.users)
    assert (await mine.verify_writes(await database_dsn(local, site))).ok
    # and the source stays, complete and fenced
    async with local.pool.connect(site.tenant.database) as source:
        fenced = await source.fetchrow(
            "SELECT rolcanlogin, datconnlimit, datdba::regrole::text AS owner FROM pg_roles, pg_database "
            "WHERE rolname = $1 AND datname = $2",
            site.tenant.role,
            site.tenant.database,
        )
        partners = await source.fetchval("SELECT count(*) FROM res_partner")
    assert fenced is not None
    assert (fenced["rolcanlogin"], fenced["datconnlimit"], fenced["owner"]) == (False, 0, "postgres")
    assert partners > 0
    # and record and odoo.conf say so, and nothing else of them changed
    record = after.record
    assert (record["db_type"], record["plan_tier"], record["status"]) == ("dedicated", "premium", "running")
    assert (float(record["cpu_limit"]), record["memory_limit"], record["storage_limit"]) == (4, "8G", "50G")
    assert record["db_server_id"] == last.data.target.id
    assert {line[2:9] for line in conf_diff(before.conf, after.conf)} == {"db_port"}
    assert after.counts["postgres-pool-1"] == before.counts["postgres-pool-1"] - 1
    assert after.counts[last.data.target.name] == 1
    # and the summary is complete
    assert last.data.downtime_seconds > 0
    assert set(last.data.seconds) == {
        "accept", "prepare", "stop", "back_up", "provision", "rewrite_conf", "restore", "start",
    }  # fmt: skip
    assert last.data.verification_digest
    # and the other customer noticed nothing
    assert (theirs.failed, len(theirs.boots)) == (0, 1)
    assert (await theirs.verify_writes(await database_dsn(local, other))).ok
    # and the consumer stayed small
    assert peak is not None
    assert peak < MEMORY_BYTES


async def test_an_upgrade_that_keeps_the_kind_of_database_applies_limits_and_moves_nothing(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber
) -> None:
    site = await make_site(odoo=False, plan_tier="basic", cpu_limit=1, memory_limit="2G", storage_limit="10G")
    await billing.upgrade(site.id, "standard-monthly")
    event = await subscriber.wait_for("instance.resized", instance_id=site.id, limit=LIMIT)
    after = await observe(local, site)
    service = await local.supervisor.show(site.service)
    assert (event.data.limits.cpu_limit, event.data.limits.memory_limit) == (2, "4G")
    assert (float(after.record["cpu_limit"]), after.record["storage_limit"]) == (2, "20G")
    assert (service["spec"]["limits"]["cpu"], service["spec"]["limits"]["memory"]) == (2, "4G")
    assert after.on_pool > 0
    assert subscriber.types(site.id) == ["instance.resized"]


async def test_where_the_data_is_decides_even_if_billing_wrote_the_record_first(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber
) -> None:
    site = await make_site(odoo=False)
    await billing.upgrade(site.id, PLAN, write_ahead=True, with_entitlements=False)
    await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    assert (await observe(local, site)).on_dedicated > 0


async def test_two_upgrades_at_once_are_one_migration(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    await billing.upgrade(site.id, PLAN)
    second = await billing.upgrade(site.id, PLAN)
    await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    found = await until_states(rehome, site.id, {"completed", "nothing_to_do"})
    assert subscriber.types(site.id) == list(CHAIN)
    assert len(found) == 2
    assert second.id


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"status": "terminated"}, "terminated"),
        ({"status": "creating"}, "never_provisioned"),
        ({"db_server_id": None, "db_host": None}, "never_provisioned"),
    ],
)
async def test_what_cannot_be_moved_is_rejected_with_the_reason(
    columns: dict[str, object],
    reason: str,
    local: LocalPlatform,
    billing: Billing,
    subscriber: Subscriber,
) -> None:
    instance = await local.platform.add_instance(
        f"r{reason}", **{"db_server_id": local.pool_id, "db_host": local.pool.host, **columns}
    )
    await billing.upgrade(instance, PLAN)
    event = await subscriber.wait_for("migration.rejected", instance_id=instance, limit=LIMIT)
    assert event.data.reason == reason


async def test_an_instance_that_was_stopped_is_moved_and_stays_stopped(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber
) -> None:
    site = await make_site(odoo=False, status="stopped")
    await local.supervisor.change(site.service, replicas=0)
    await billing.upgrade(site.id, PLAN)
    last = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    after = await observe(local, site)
    assert (after.record["status"], after.record["db_server_id"]) == ("stopped", last.data.target.id)
    assert (after.on_pool, after.on_dedicated) == (0, 0)
    assert (await local.supervisor.show(site.service))["spec"]["replicas"] == 0


async def test_a_step_that_fails_once_is_tried_again_and_the_move_completes(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    local.database_service.switches = Switches(fail_times=1, fail_status=503)
    await billing.upgrade(site.id, PLAN)
    await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    found = (await rehome("status", site.id, "--json")).json[0]
    waits = [line for line in found["history"] if line["what"] == "prepare waits"]
    assert len(waits) == 1
    assert "503" in waits[0]["detail"]
