"""`rehome drain`: a pool of its own that is emptied, stopped in the middle and gone on with, by a real consumer."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from sandbox.demo.observation import observe
from sandbox.platform.local import ROOT, LocalPlatform, Site
from sandbox.platform.subscriber import Subscriber
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite
from tests.support.operators import COLUMNS

POOL = "postgres-pool-1"


@pytest.fixture
async def alone_on_the_pool(local: LocalPlatform) -> AsyncIterator[None]:
    """Customers of other tests are not on the pool meanwhile: their records name no server."""
    async with local.platform.cluster.connect(local.platform.instance_database) as db:
        others = [
            row["id"]
            for row in await db.fetch("SELECT id FROM instances WHERE db_server_id = $1", local.pool_id)
        ]
        hide = "UPDATE instances SET db_server_id = NULL, db_host = NULL WHERE id = ANY ($1)"
        await db.execute(hide, others)
    yield
    async with local.platform.cluster.connect(local.platform.instance_database) as db:
        await db.execute(
            "UPDATE instances SET db_server_id = $2, db_host = $3 WHERE id = ANY ($1)",
            others,
            local.pool_id,
            local.pool.host,
        )


async def started(local: LocalPlatform, *arguments: str) -> asyncio.subprocess.Process:
    """A drain as an operator runs it, in a process that gets signals."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rehome_consumer", "drain", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        env={**os.environ, **local.settings()},
    )  # fmt: skip


async def histories(rehome: Cli, site: Site) -> list[str]:
    (found,) = (await rehome("status", site.id, "--json")).json
    return [f"{line['what']}: {line['detail']}" for line in found["history"]]


@pytest.mark.long
@pytest.mark.usefixtures("alone_on_the_pool")
async def test_a_pool_is_drained_by_a_plan_and_goes_on_after_a_signal(
    local: LocalPlatform, make_site: MakeSite, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a pool of four customers, of whom one has left and one is being created
    sites = [await make_site(odoo=False) for _ in range(3)]
    gone = await make_site(odoo=False)
    coming = await make_site(odoo=False)
    async with local.pool.connect(sites[0].tenant.database) as largest:
        await largest.execute("CREATE TABLE more AS SELECT repeat('x', 900) FROM generate_series(1, 20000)")
        await largest.execute(f'ALTER TABLE more OWNER TO "{sites[0].tenant.role}"')
    async with local.platform.cluster.connect(local.platform.instance_database) as db:
        await db.execute("UPDATE instances SET status = 'terminated' WHERE id = $1", gone.id)
        await db.execute("UPDATE instances SET status = 'creating' WHERE id = $1", coming.id)
    # When the plan is looked at, then it has all of them, the largest last of those that are moved
    plan = await rehome("drain", POOL)
    assert (plan.code, max(map(len, plan.out.splitlines())) <= COLUMNS) == (0, True), plan.err
    document = (await rehome("drain", POOL, "--json")).json
    moves = [UUID(one["instance"]) for one in document["instances"] if one["verdict"] == "moves"]
    assert (set(moves), moves[-1]) == ({one.id for one in sites}, sites[0].id)
    left_out = {one["instance"]: one["why"] for one in document["instances"] if one["verdict"] == "left_out"}
    assert "terminated" in left_out[str(gone.id)]
    assert "being created" in left_out[str(coming.id)]
    assert "3 would be moved" in plan.out
    # and nothing was changed
    assert (await rehome("status", sites[0].id)).code == 1  # there is no migration of it
    order = [POOL, "--publish", "--to-plan", PLAN, "--at-once", "1", "--reason", "it is full"]
    async with local.consumer():
        # When it is drained, and stopped in the middle of the first move
        first = await started(local, *order)
        await subscriber.wait_for("migration.requested", instance_id=moves[0], limit=LIMIT)
        # (a second one, of the same pool at the same time, is refused)
        second = await rehome("drain", *order)
        assert (second.code, f"drain of {POOL}" in second.err) == (1, True)
        first.send_signal(signal.SIGTERM)
        out, err = (text.decode() for text in await asyncio.wait_for(first.communicate(), LIMIT))
        # Then it ends at once, says what goes on and how to go on, and that one completes by itself
        assert (first.returncode, err) == (143, "")
        assert out.count("published: ") == 1
        assert "to the end without this command" in " ".join(out.split())
        assert "the same command goes on" in out
        await subscriber.wait_for("migration.completed", instance_id=moves[0], limit=LIMIT)
        # When the same command is given again, then it moves the rest, one after the other
        rest = await rehome("drain", *order)
        assert rest.code == 0, rest.out + rest.err
        assert re.findall(r"(\S{36})\s+published:", rest.out) == [str(one) for one in moves[1:]]
        assert re.findall(r"(\S{36})\s+completed in", rest.out) == [str(one) for one in moves[1:]]
        assert max(map(len, rest.out.splitlines())) <= COLUMNS
    for site in sites:
        seen = await observe(local, site)
        assert (seen.on_pool, seen.on_dedicated > 0) == (0, True)
        # and each one's history says who has asked for it, which its report shows
        lines = [line for line in await histories(rehome, site) if line.startswith("asked for by a drain")]
        assert len(lines) == 1
        assert lines[0].endswith(f": it is full; drain of {POOL}")
        (act,) = (await rehome("report", site.id, "--json")).json["acts"]
        assert (act["why"], act["detail"]) == ("it is full", f"drain of {POOL}")
    # and nothing is left to be moved
    again = await rehome("drain", *order)
    assert (again.code, "0 still to be moved, 2 left out" in again.out) == (0, True)
    document = (await rehome("drain", POOL, "--json")).json
    assert {one["instance"] for one in document["instances"]} == {str(gone.id), str(coming.id)}


async def test_what_cannot_be_drained_is_refused_with_what_there_is(
    local: LocalPlatform, rehome: Cli
) -> None:
    answer = await rehome("drain", "pool-7")
    assert (answer.code, f"there is no server pool-7 in `db_servers`; pools are: {POOL}" in answer.err) == (
        1,
        True,
    )
    assert (await rehome("drain", POOL, "--publish")).code == 2
    wrong = await rehome("drain", POOL, "--publish", "--to-plan", PLAN, "--memory", "much")
    assert (wrong.code, "--memory: 'much' is not a size such as 8G" in wrong.err) == (2, True)


async def test_a_drain_stopped_while_it_waits_for_the_pool_ends_at_once(
    local: LocalPlatform, make_site: MakeSite, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    assert (await rehome("pause", "--reason", "tested")).code == 0
    try:
        process = await started(local, POOL, "--publish", "--to-plan", PLAN)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), LIMIT)
        assert b"rehome is paused by" in line
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 20)
    finally:
        assert (await rehome("resume")).code == 0
    assert process.returncode == 130
    assert (await rehome("status", site.id)).code == 1  # there is no migration of it
