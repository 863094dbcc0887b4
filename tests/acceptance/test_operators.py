"""What operators have in hand: dead letters, rollbacks by hand, the doctor, and the retirement of old databases."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import aio_pika

from consumer.adapters.postgres.marks import Label
from consumer.model import Mark
from consumer.topology import queue_of
from sandbox.billing import Billing
from sandbox.database_service import Switches
from sandbox.local import ROOT, LocalPlatform, Site
from sandbox.net import wait_until
from sandbox.observation import observe
from sandbox.subscriber import Subscriber
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite

COLUMNS = 100
DYING = """
import os, signal, sys
from consumer.adapters.dead_letters import HeldLetter
from consumer.__main__ import main

async def die(self):
    os.kill(os.getpid(), signal.SIGKILL)

HeldLetter.ack = die
sys.exit(main(sys.argv[1:]))
"""
"""The command line, killed in the instant between the confirm of a publish and the acknowledgement."""


async def replay_and_die(local: LocalPlatform, letter: str) -> int | None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DYING, "dead", "replay", letter,
        stdout=asyncio.subprocess.DEVNULL, env={**os.environ, **local.settings()}, cwd=ROOT,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        return await process.wait()


async def taken(local: LocalPlatform, step: str, *, acknowledge: bool) -> None:
    """One delivery of a step's queue, read by a consumer that loses it, or dies on it."""
    connection = await aio_pika.connect(local.broker.url())
    async with connection:
        queue = await (await connection.channel()).get_queue(queue_of(step), ensure=False)
        found: list[Any] = []

        async def came() -> bool:
            message = await queue.get(no_ack=acknowledge, fail=False)
            found.append(message)
            return message is not None

        await wait_until(came, what=f"a delivery for {step}", limit=LIMIT, pause=0.1)


async def letters(rehome: Cli, site: Site) -> dict[str, dict[str, Any]]:
    """The dead letters of an instance by their handlers."""
    listed = (await rehome("dead", "list", "--instance", site.id, "--json")).json
    return {letter["handler"]: letter for letter in listed}


async def migration(rehome: Cli, site: Site) -> dict[str, Any]:
    found: dict[str, Any] = (await rehome("status", site.id, "--json")).json[0]
    return found


async def until_state(local: LocalPlatform, site: Site, state: str) -> None:
    """Return when the instance's migration is in this state, and its last step waits or is over."""
    query = """
        SELECT EXISTS (SELECT FROM rehome.migrations WHERE instance_id = $1 AND state = $2)
           AND NOT EXISTS (SELECT FROM rehome.steps AS s JOIN rehome.migrations AS m ON m.id = s.migration_id
                           WHERE m.instance_id = $1 AND s.state = 'running')
    """

    async def reached() -> bool:
        async with local.platform.cluster.connect(local.platform.instance_database) as db:
            return bool(await db.fetchval(query, site.id, state))

    await wait_until(reached, what=f"the migration to be {state}", limit=LIMIT, pause=0.2)


async def kinds(rehome: Cli, site: Site, *more: object) -> dict[str, str | None]:
    """What the doctor finds about an instance: kind -> what became of it."""
    answer = await rehome("doctor", site.id, "--json", *more)
    assert answer.code in (0, 1), answer.err
    return {finding["kind"]: finding["outcome"] for finding in answer.json}


async def mess_up(local: LocalPlatform, site: Site, of: dict[str, Any]) -> str:
    """Leave behind what killed consumers may; returns the name of a scratch database."""
    tag = f"{of['id'].replace('-', '')[:12]}-{of['attempt']}"
    (site.conf.parent / f"odoo.conf.rehome-{tag}").write_text("an old copy")
    (site.conf.parent / ".odoo.conf.rehome-0123456789abcdef.tmp").write_text("half a file")
    half = local.backup_root / f".{of['id']}-{of['attempt']}.partial"
    half.mkdir()
    (half / "source.json").write_text("{}")
    (local.backup_root / "notes-of-an-operator.txt").write_text("not ours")
    scratch = f"{site.tenant.database}__rehome_{tag}"
    label = Label(Mark(of["id"], of["attempt"], "scratch")).text()
    async with local.pool.connect() as pool:
        await pool.execute(f'CREATE DATABASE "{scratch}"')
        await pool.execute(f"COMMENT ON DATABASE \"{scratch}\" IS '{label}'")
        await pool.execute(f'ALTER ROLE "{site.tenant.role}" NOLOGIN')
        await pool.execute(f'ALTER DATABASE "{site.tenant.database}" CONNECTION LIMIT 0')
    async with local.platform.cluster.connect(local.platform.instance_database) as state:
        await state.execute(
            "UPDATE rehome.outbox SET sent_at = NULL, created_at = now() - interval '1 hour' "
            "WHERE migration_id = $1 AND routing_key = 'migration.rolled_back'",
            of["id"],
        )
    return scratch


def stored(local: LocalPlatform, of: dict[str, Any]) -> list[str]:
    """What the backup place holds of a migration."""
    return [entry.name for entry in local.backup_root.iterdir() if of["id"] in entry.name]


async def on_pool(local: LocalPlatform, query: str, *arguments: object) -> Any:
    async with local.pool.connect() as pool:
        return await pool.fetchval(query, *arguments)


async def test_a_failed_rollback_is_begun_again_by_hand(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a migration whose restore failed, and whose rollback failed half-way too
    site = await make_site()
    async with local.consumer(module=("tests.support.failing_rollback",)):
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.failed", instance_id=site.id, limit=LIMIT)
        await until_state(local, site, "failed")
    assert "it failed" in (await migration(rehome, site))["attention"]
    for command in ("status", "doctor"):
        answer = await rehome(command)
        assert (answer.code, str(site.id) in answer.out) == (1, True)
        assert max(len(line) for line in answer.out.splitlines()) <= COLUMNS
    # When its letters are looked at, then that of the restore may not be replayed any more
    parked = await letters(rehome, site)
    assert set(parked) == {"restore", "roll_back"}
    refused = await rehome("dead", "replay", parked["restore"]["id"], "--json")
    assert (refused.code, "its rollback was begun" in refused.json[0]["what"]) == (1, True)
    undo = (await rehome("dead", "show", parked["roll_back"]["id"], "--json")).json["replay_in_detail"]
    assert f"{site.tenant.database}__rehome_" in " ".join(undo)
    assert f"into {site.tenant.database} on postgres-pool-1 again" in " ".join(undo)
    # and an operator's rollback starts it again
    plan = await rehome("roll-back", site.id)
    assert (plan.code, f"postgres-dedicated-{site.id.hex[:8]}" in plan.out) == (0, True)
    async with local.consumer():
        assert (await rehome("roll-back", site.id, "--yes", "--reason", "the disk is whole")).code == 0
        await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    assert (await observe(local, site)).on_pool > 0
    # and the rollback's letter can only be put away, with a reason that is kept
    settled = parked["roll_back"]["id"]
    assert "rolled back since" in (await rehome("dead", "replay", settled)).out
    assert (
        await rehome("dead", "discard", *(one["id"] for one in parked.values()), "--reason", "no")
    ).code == 0
    discarded = (await rehome("dead", "list", "--discarded", "--json")).json
    assert settled in [one["id"] for one in discarded if one["why"] == "no"]


async def test_what_killed_consumers_left_is_found_and_repaired_and_two_replays_open_one_attempt(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a migration that was rolled back, and a mess
    site = await make_site()
    async with local.consumer(module=("sandbox.faults", "restore")):
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    over = await migration(rehome, site)
    scratch = await mess_up(local, site, over)
    # When the doctor is called, then it finds it, and repairs what is safe
    expected = {"kept_conf", "temporary_file", "half_backup", "scratch_left", "still_fenced", "unsent"}
    assert expected <= set(await kinds(rehome, site))
    repaired = await kinds(rehome, site, "--repair")
    assert {kind: repaired[kind] for kind in expected} == dict.fromkeys(expected, "repaired")
    assert not expected & set(await kinds(rehome, site))
    assert [file.name for file in site.conf.parent.iterdir()] == ["odoo.conf"]
    assert stored(local, over) == []
    (local.backup_root / "notes-of-an-operator.txt").unlink()  # it is none of ours, so it is still there
    assert not await on_pool(local, "SELECT count(*) FROM pg_database WHERE datname = $1", scratch)
    assert await on_pool(local, "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", site.tenant.role)

    # When the letter is replayed by a tool that is killed before it acknowledges
    letter = (await letters(rehome, site))["restore"]
    assert await replay_and_die(local, letter["id"]) == -signal.SIGKILL
    # Then it is still there, for two who look at once, and is replayed once more
    both = await asyncio.gather(letters(rehome, site), letters(rehome, site))
    assert [set(found) for found in both] == [{"restore"}] * 2
    assert (await rehome("dead", "replay", "--all", "--instance", site.id)).code == 0
    # and that opens one new attempt, which completes
    async with local.consumer():
        completed = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    assert completed.attempt == 2
    assert (await migration(rehome, site))["attempt"] == 2
    assert await letters(rehome, site) == {}


async def test_a_migration_whose_delivery_is_lost_or_crashes_its_consumers_is_noticed_and_goes_on(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a migration that waits, and no consumer
    site = await make_site()
    local.database_service.switches = Switches(fail_times=1000, fail_status=503)
    async with local.consumer():
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.requested", instance_id=site.id, limit=LIMIT)
        await until_state(local, site, "requested")
    local.database_service.switches = Switches()
    # When its delivery is lost
    await taken(local, "prepare", acknowledge=True)
    # Then the doctor sees that nothing comes, and wakes it
    assert "stuck" in await kinds(rehome, site, "--stuck-after", "0")
    assert (await kinds(rehome, site, "--stuck-after", "0", "--repair"))["stuck"] == "repaired"
    # When consumers die on it until the broker takes it away
    for _ in range(6):
        await taken(local, "prepare", acknowledge=False)
    # Then it is a dead letter of its own kind, and the doctor names it
    (letter,) = (await rehome("dead", "list", "--instance", site.id, "--reason", "crashed", "--json")).json
    assert letter["handler"] == "prepare"
    assert "parked" in await kinds(rehome, site)
    # and a consumer tells by itself that the migration is stuck, and touches nothing
    watchful = {"REHOME_DOCTOR_EVERY": "0.5", "REHOME_STUCK_AFTER": "0.5"}
    async with local.consumer("watchful", settings=watchful):
        log = local.directory / "watchful.log"

        async def told() -> bool:
            lines = [json.loads(line) for line in log.read_text().splitlines() if "doctor.finding" in line]
            return any(line["kind"] == "stuck" and letter["migration"] in line["where"] for line in lines)

        await wait_until(told, what="the consumer to tell that a migration is stuck", limit=LIMIT)
        assert (await migration(rehome, site))["state"] == "requested"
        # When it is replayed, it goes on to its end
        assert (await rehome("dead", "replay", letter["id"][:8])).code == 0
        await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    assert await letters(rehome, site) == {}
    await check_retirement(local, site, rehome)


async def check_retirement(local: LocalPlatform, site: Site, rehome: Cli) -> None:
    """The old database goes when everything says so, and nothing else does."""
    others = set(await on_pool(local, "SELECT array_agg(datname::text) FROM pg_database")) - {
        site.tenant.database
    }
    moved = await migration(rehome, site)
    assert stored(local, moved) == [f"{moved['id']}-1"]
    early = await rehome("retire", site.id, "--yes", "--json")
    assert (early.code, "it is kept until" in early.json[0]["refused"][0]) == (1, True)
    async with local.pool.connect() as pool:
        await pool.execute(f'ALTER DATABASE "{site.tenant.database}" CONNECTION LIMIT 5')
    lifted = await rehome("retire", site.id, "--yes", "--now", "--json")
    assert (lifted.code, "is not fenced" in lifted.json[0]["refused"][0]) == (1, True)
    async with local.pool.connect() as pool:
        await pool.execute(f'ALTER DATABASE "{site.tenant.database}" CONNECTION LIMIT 0')
    done = await rehome("retire", site.id, "--yes", "--now", "--json")
    assert (done.code, done.json[0]["refused"]) == (0, []), done
    assert set(await on_pool(local, "SELECT array_agg(datname::text) FROM pg_database")) == others
    assert not await on_pool(local, "SELECT count(*) FROM pg_roles WHERE rolname = $1", site.tenant.role)
    assert stored(local, moved) == []
    assert (await observe(local, site)).on_dedicated > 0
    assert (await rehome("retire", site.id)).code == 1


async def test_a_running_step_is_stopped_for_a_rollback(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a step that will take an hour
    site = await make_site()
    local.database_service.switches = Switches(delay_seconds=3600)
    async with local.consumer():
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.requested", instance_id=site.id, limit=LIMIT)

        async def asked() -> bool:
            return bool((await migration(rehome, site))["worked_on"])

        await wait_until(asked, what="prepare to be at work", limit=LIMIT)
        watching = asyncio.create_task(rehome("watch", site.id))
        plan = await rehome("roll-back", site.id)
        assert "step prepare is running" in plan.out
        # When an operator rolls back
        assert (await rehome("roll-back", site.id, "--yes")).code == 0
        event = await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
        followed = await watching
    # Then it is undone at once, and whoever watched was told
    assert event.data.reason == "asked for by an operator"
    assert (followed.code, "is over: rolled_back" in followed.out) == (1, True)
    assert max(len(line) for line in (followed.out + plan.out).splitlines()) <= COLUMNS
    assert (await rehome("dead", "list", "--instance", site.id)).out == "no dead letters\n"
