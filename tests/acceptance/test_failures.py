"""A move that fails is rolled back and reported; its dead letter waits for an operator and can be replayed."""

import pytest

from rehome_consumer.commands.who import who
from rehome_consumer.errors import Refused
from sandbox.demo.demo import CHAIN
from sandbox.demo.faults import ERRORS, FAILING
from sandbox.demo.observation import database_dsn, observe
from sandbox.odoo.writers import Writers
from sandbox.platform.billing import Billing
from sandbox.platform.local import LocalPlatform
from sandbox.platform.subscriber import Subscriber
from sandbox.system.net import wait_until
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite, until_states
from tests.support.operators import COLUMNS

QUICK = ("stop", "restore")


@pytest.mark.parametrize(
    "step", [step if step in QUICK else pytest.param(step, marks=pytest.mark.long) for step in FAILING]
)
async def test_a_step_that_is_refused_is_rolled_back_and_nothing_is_lost(
    step: str,
    local: LocalPlatform,
    make_site: MakeSite,
    billing: Billing,
    subscriber: Subscriber,
    rehome: Cli,
) -> None:
    # Given a customer who writes all the time, and a consumer in which the step fails
    site = await make_site(odoo=False)
    spec = (await local.supervisor.show(site.service))["spec"]
    async with local.consumer(module=("sandbox.demo.faults", step)), Writers(site.url) as writers:
        await writers.wait_acknowledged(5)
        before = await observe(local, site)
        # When the customer upgrades
        await billing.upgrade(site.id, PLAN)
        event = await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
        # Then the instance serves from the pool again
        await writers.wait_acknowledged(5)
    after = await observe(local, site)
    assert event.data.failed_step == step
    failed = await subscriber.wait_for("migration.failed", instance_id=site.id, limit=LIMIT)
    assert failed.data.error == ERRORS.get(step, Refused).__name__
    assert (after.record, after.conf) == (before.record, before.conf)
    assert after.counts["postgres-pool-1"] == before.counts["postgres-pool-1"]
    assert after.on_pool > 0
    assert (await local.supervisor.show(site.service))["spec"] | {"force": 0} == spec | {"force": 0}
    # and no acknowledged write is missing
    assert (await writers.verify_writes(await database_dsn(local, site))).ok
    # and nothing is left over
    assert event.data.leftovers == ()
    assert [one.name for one in local.backup_root.iterdir() if str(event.migrationid) in one.name] == []
    assert [file.name for file in site.conf.parent.iterdir()] == ["odoo.conf"]
    # and the dead letter waits for an operator
    assert subscriber.types(site.id)[-2:] == ["migration.failed", "migration.rolled_back"]
    dead_letters = (await rehome("dead", "list", "--instance", site.id, "--json")).json
    assert [(one["handler"], one["reason"]) for one in dead_letters] == [(step, "failed")]
    discarded = await rehome("dead", "discard", dead_letters[0]["id"], "--reason", "the test is over")
    assert discarded.code == 0


@pytest.mark.long
async def test_a_replay_after_a_rollback_opens_a_new_attempt_that_completes(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    async with local.consumer(module=("sandbox.demo.faults", "restore")):
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
        failed = next(event for event in subscriber.events if event.type == "migration.failed")
    assert "res_partner" in failed.data.message
    (dead_letter,) = (await rehome("dead", "list", "--instance", site.id, "--json")).json
    shown = await rehome("dead", "show", dead_letter["id"])
    assert "would open attempt 2" in shown.out
    async with local.consumer():
        replayed = await rehome("dead", "replay", dead_letter["id"])
        assert replayed.code == 0, replayed
        completed = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    assert completed.attempt == 2
    assert (await rehome("dead", "list", "--instance", site.id, "--json")).json == []
    assert (await observe(local, site)).on_dedicated > 0
    # and its report tells both attempts, the replay and what is kept
    report = (await rehome("report", site.id, "--json")).json
    first, second = report["attempts"]
    assert first["downtime_seconds"] > 0
    assert (first["verified"], second["verified"]["digest"]) == (None, completed.data.verification_digest)
    assert second["downtime_seconds"] == completed.data.downtime_seconds
    assert (second["strategy"], second["rehearsal"]["mode"]) == ("cold", "full")
    assert min(second["expected_copy_seconds"], second["copy_seconds"]) > 0
    assert [(act["what"], act["who"]) for act in report["acts"]] == [("dead letter replayed", who())]
    assert "postgres-pool-1: kept until " in report["left_behind"][0]
    password = site.conf.read_text().partition("db_password = ")[2].split()[0]
    page = (await rehome("report", completed.migrationid)).out
    assert max(map(len, page.splitlines())) <= COLUMNS
    assert password not in page + str(report)


async def test_past_the_point_of_no_return_a_dead_letter_waits_and_its_replay_completes(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    async with local.consumer(module=("sandbox.demo.faults", "complete")):
        await billing.upgrade(site.id, PLAN)
        failed = await subscriber.wait_for("migration.failed", instance_id=site.id, limit=LIMIT)
        assert (failed.data.step, failed.data.next) == ("complete", "operator")
        await until_states(rehome, site.id, {"failed"})
    refused = await rehome("roll-back", site.id, "--yes")
    assert refused.code == 1
    assert "past the point of no return" in refused.err
    (dead_letter,) = (
        await rehome("dead", "list", "--handler", "complete", "--instance", site.id, "--json")
    ).json
    async with local.consumer():
        dry = await rehome("dead", "replay", dead_letter["id"], "--dry-run")
        assert "would run complete again" in dry.out
        assert (await rehome("dead", "replay", dead_letter["id"])).code == 0
        await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    assert [one for one in subscriber.types(site.id) if one != "migration.failed"] == list(CHAIN)


async def test_an_operator_rolls_back_a_migration_that_waits(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    local.database_service.switches = local.database_service.switches.model_copy(
        update={"fail_times": 1000, "fail_status": 503}
    )
    async with local.consumer(settings={"REHOME_LONGEST_RETRY": "10s"}):
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.requested", instance_id=site.id, limit=LIMIT)
        await until_states(rehome, site.id, {"requested"})

        async def tried() -> bool:
            (one,) = (await rehome("status", site.id, "--json")).json
            return any(step["step"] == "prepare" and step["tries"] for step in one["steps"])

        await wait_until(tried, what="prepare to have been refused by database-service", limit=LIMIT)
        shown = await rehome("roll-back", site.id)
        assert shown.code == 0, shown
        assert "give it back to database-service" in " ".join(shown.out.split())
        requested = await rehome("roll-back", site.id, "--yes", "--reason", "customer asked")
        assert requested.code == 0, requested
        event = await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    assert event.data.reason == "customer asked"
    again = await rehome("roll-back", site.id, "--yes")
    assert (again.code, "is over: rolled_back" in again.err) == (1, True)
