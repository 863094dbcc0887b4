"""A rehearsal finds what cannot be moved while the customer works; by itself, and in every move."""

import asyncio
import os
import re
import sys
from contextlib import aclosing

import asyncpg

from rehome_consumer.adapters.state.command_slots import CommandFacts
from sandbox.demo.observation import dedicated_dsn, observe
from sandbox.odoo.writers import Writers
from sandbox.platform.billing import Billing
from sandbox.platform.local import ROOT, LocalPlatform
from sandbox.platform.subscriber import Subscriber
from sandbox.system.http import plain_http
from sandbox.system.net import wait_until
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite
from tests.support.slots import got

UNMOVABLE = """
CREATE TABLE twice (a integer);
INSERT INTO twice VALUES (4141), (4141);
CREATE INDEX twice_a ON twice (a);
ALTER TABLE twice OWNER TO {role};
UPDATE pg_index SET indisunique = true WHERE indexrelid = 'twice_a'::regclass
"""
"""What a broken index leaves: two rows where a restore admits one."""

ON_THE_SERVER = "SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles ORDER BY 1"
RESTORING = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'rehome\\_%' AND state = 'active'"


async def test_a_database_that_cannot_be_restored_is_refused_and_never_stopped(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a customer who writes all the time, and rows that no restore can index
    site = await make_site(odoo=False)
    async with local.pool.connect(site.tenant.database) as connection:
        await connection.execute(UNMOVABLE.format(role=site.tenant.role))
    # then the cheap checks see nothing, and say so
    checked = await rehome("check", site.id)
    assert (checked.code, "only --rehearse tells" in checked.out) == (0, True)
    async with local.consumer(), Writers(site.url) as writers:
        await writers.wait_acknowledged(5)
        before = await observe(local, site)
        tasks = (await local.supervisor.show(site.service))["tasks"]
        # When the customer upgrades
        await billing.upgrade(site.id, PLAN)
        event = await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
        await writers.wait_acknowledged(5)
    # Then it was refused at the first try, in the server's words, and the instance has run all the time
    failed = next(
        one for one in subscriber.events if one.type == "migration.failed" and one.data.instance_id == site.id
    )
    assert (failed.data.step, failed.data.tries, failed.data.error) == ("prepare", 1, "Incompatible")
    assert 'could not create unique index "twice_a"' in failed.data.message
    assert "4141" not in failed.data.message
    assert event.data.downtime_seconds is None
    assert (await local.supervisor.show(site.service))["tasks"] == tasks
    after = await observe(local, site)
    assert (after.record, after.conf) == (before.record, before.conf)
    # and nothing is left over
    assert event.data.leftovers == ()
    assert [one.name for one in local.backup_root.iterdir() if str(event.migrationid) in one.name] == []
    waiting = (await rehome("dead", "list", "--instance", site.id, "--json")).json
    assert (await rehome("dead", "discard", waiting[0]["id"], "--reason", "the test is over")).code == 0


async def test_an_operator_rehearses_without_an_upgrade_and_nothing_is_left(
    local: LocalPlatform, make_site: MakeSite, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    checked = await rehome("check", site.id, "--rehearse")
    said = " ".join(checked.out.split())  # its lines are folded
    assert (checked.code, "name a server to rehearse on with --on" in said) == (1, True), checked.out
    unknown = await rehome("check", site.id, "--rehearse", "--on", "no-such-server")
    assert (unknown.code, "postgres-pool-1" in unknown.out) == (1, True)
    same = await rehome("check", site.id, "--rehearse", "--on", "postgres-pool-1")
    assert (same.code, "is where the data is" in " ".join(same.out.split())) == (1, True), same.out
    # Given its dedicated server is there
    asked = {"instance_id": str(site.id), "customer_id": str(site.customer), "plan_tier": "premium"}
    async with plain_http(local.settings()["REHOME_DATABASE_SERVICE_URL"], timeout=LIMIT) as http:
        (await http.post("/api/database/provision-dedicated", json=asked)).raise_for_status()
    before, backups = await observe(local, site), set(local.backup_root.iterdir())
    # and that nothing else rehearses from its pool, on whatever machine
    async with aclosing(CommandFacts(lambda: asyncpg.connect(local.platform.instance_dsn))) as other:
        platform = await asyncpg.connect(local.platform.instance_dsn, timeout=10)
        pool = await platform.fetchval("SELECT id FROM db_servers WHERE name = 'postgres-pool-1'")
        await platform.close(timeout=10)
        assert await got(other, f"rehearsal {pool}", 1)
        checked = await rehome("check", site.id, "--rehearse", "--json")
        found = {one["check"]: one["detail"] for one in checked.json["checks"]}
        assert (checked.code, found["rehearsal"].startswith("not done: 1 rehearsal(s) of")) == (1, True), (
            found
        )
    # When it is rehearsed
    checked = await rehome("check", site.id, "--rehearse", "--json")
    # Then it is told how long it takes, and nothing is left there
    assert checked.code == 0, checked
    found = {one["check"]: one["detail"] for one in checked.json["checks"]}
    assert "everything was copied to postgres-dedicated-" in found["rehearsal"]
    dedicated = await asyncpg.connect(await dedicated_dsn(local, site), timeout=10)
    try:
        assert await dedicated.fetch("SELECT datname FROM pg_database WHERE datname LIKE '%rehome%'") == []
        assert await dedicated.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE '%reh%'") == []
    finally:
        await dedicated.close(timeout=10)
    assert set(local.backup_root.iterdir()) == backups
    assert await observe(local, site) == before


async def test_what_a_killed_rehearsal_left_is_removed_by_the_doctor(
    local: LocalPlatform, make_site: MakeSite, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    async with local.pool.connect(site.tenant.database) as connection:
        # which a role of others may read, and whose rows take long to load
        await connection.execute("CREATE ROLE reporting_left; GRANT SELECT ON res_partner TO reporting_left")
    async with local.pool.connect(
        site.tenant.database, user=site.tenant.role, password=site.tenant.password
    ) as connection:
        await connection.execute(
            "CREATE FUNCTION slow() RETURNS boolean LANGUAGE sql AS 'SELECT true FROM pg_sleep(10)'; "
            "CREATE TABLE lines (a integer CHECK (public.slow())); INSERT INTO lines VALUES (1)"
        )
    asked = {"instance_id": str(site.id), "customer_id": str(site.customer), "plan_tier": "premium"}
    async with plain_http(local.settings()["REHOME_DATABASE_SERVICE_URL"], timeout=LIMIT) as http:
        (await http.post("/api/database/provision-dedicated", json=asked)).raise_for_status()
    backups = set(local.backup_root.iterdir())
    dedicated = await asyncpg.connect(await dedicated_dsn(local, site), timeout=10)
    try:
        before = await dedicated.fetch(ON_THE_SERVER)
        # Given a rehearsal that is killed while it restores
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rehome_consumer", "check", str(site.id), "--rehearse",
            stdout=asyncio.subprocess.DEVNULL, env={**os.environ, **local.settings()}, cwd=ROOT,
        )  # fmt: skip

        async def restoring() -> bool:
            assert process.returncode is None, "it ended before it was killed"
            return bool(await dedicated.fetchval(RESTORING))

        await wait_until(restoring, what="the rehearsal to restore", limit=LIMIT, pause=0.01)
        process.kill()
        await process.wait()
        assert set(local.backup_root.iterdir()) != backups
        # Then at first it may be at work, as far as the doctor knows
        assert "leftover_rehearsal" not in (await rehome("doctor", "--json")).out
        # and later it is found, and removed
        mark = await dedicated.fetchval("SELECT rolname FROM pg_roles WHERE rolname LIKE 'rehearsal_mark_%'")
        comment = await dedicated.fetchval(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1", mark
        )
        aged = re.sub(r"\d{4}-\d\d-\d\dT", "2001-01-01T", comment)
        await dedicated.execute(f"COMMENT ON ROLE {mark} IS '{aged}'")
        found = (await rehome("doctor", "--json")).json
        left = [one for one in found if one["kind"] == "leftover_rehearsal"]
        assert len(left) >= 2  # on the dedicated server, and in the backup place
        assert all(one["safe_to_repair"] for one in left)
        await rehome("doctor", "--repair")
        assert await dedicated.fetch(ON_THE_SERVER) == before
    finally:
        await dedicated.close(timeout=10)
    assert set(local.backup_root.iterdir()) == backups
    assert "leftover" not in (await rehome("doctor", "--json")).out
    async with local.pool.connect() as connection:
        assert await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'rehome\\_%'") == []
