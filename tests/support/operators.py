"""Shared by acceptance tests of the operators' tools: reads of a migration, and faults."""

import asyncio
import os
import signal
import sys
from typing import Any, Protocol

import aio_pika

from rehome_consumer.adapters.postgres.ownership_tags import TagComment
from rehome_consumer.model import OwnershipTag
from rehome_consumer.rabbitmq.topology import queue_of
from sandbox.demo.chaos import DIRECTORY, Order, Orders
from sandbox.platform.local import ROOT, LocalPlatform, Site
from sandbox.system.net import wait_until

COLUMNS = 100
LIMIT = 120
DYING = """
import os, signal, sys
from rehome_consumer.adapters.rabbitmq.dead_letters import HeldDeadLetter
from rehome_consumer.__main__ import main

async def die(self):
    os.kill(os.getpid(), signal.SIGKILL)

HeldDeadLetter.ack = die
sys.exit(main(sys.argv[1:]))
"""
"""The command line, killed just before it removes a dead letter from the queue."""


class Rehome(Protocol):
    """The command line."""

    async def __call__(self, *arguments: object, **settings: str) -> Any: ...


async def run_and_die(local: LocalPlatform, *arguments: str) -> bool:
    """Run a command that is killed before it acknowledges; False when it ended normally."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DYING, *arguments,
        stdout=asyncio.subprocess.DEVNULL, env={**os.environ, **local.settings()}, cwd=ROOT,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        return await process.wait() == -signal.SIGKILL


async def take_delivery(local: LocalPlatform, step: str, *, acknowledge: bool) -> None:
    """Read one delivery of a step's queue, as a consumer that loses it, or that dies on it."""
    connection = await aio_pika.connect(local.broker.url())
    async with connection:
        queue = await (await connection.channel()).get_queue(queue_of(step), ensure=False)
        found: list[Any] = []

        async def received() -> bool:
            message = await queue.get(no_ack=acknowledge, fail=False)
            found.append(message)
            return message is not None

        await wait_until(received, what=f"a delivery for {step}", limit=LIMIT, pause=0.1)


async def die_at(local: LocalPlatform, boundary: str) -> None:
    """Run a consumer that is killed at this boundary."""
    orders = Orders(local.directory / f"orders-{boundary}")
    orders.directory.mkdir()
    orders.give(Order("kill", boundary))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox.demo.chaos",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, cwd=ROOT,
        env={**os.environ, **local.settings(), DIRECTORY: str(orders.directory)},
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == -signal.SIGKILL


async def dead_letters(rehome: Rehome, site: Site) -> dict[str, dict[str, Any]]:
    """The dead letters of an instance by their handlers."""
    listed = (await rehome("dead", "list", "--instance", site.id, "--json")).json
    return {dead_letter["handler"]: dead_letter for dead_letter in listed}


async def migration(rehome: Rehome, site: Site) -> dict[str, Any]:
    found: dict[str, Any] = (await rehome("status", site.id, "--json")).json[0]
    return found


async def until_state(local: LocalPlatform, site: Site, state: str) -> None:
    """Return when the instance's migration is in this state, and no step of it is running."""
    query = """
        SELECT EXISTS (SELECT FROM rehome.migrations WHERE instance_id = $1 AND state = $2)
           AND NOT EXISTS (SELECT FROM rehome.steps AS s JOIN rehome.migrations AS m ON m.id = s.migration_id
                           WHERE m.instance_id = $1 AND s.state = 'running')
    """

    async def reached() -> bool:
        async with local.platform.cluster.connect(local.platform.instance_database) as db:
            return bool(await db.fetchval(query, site.id, state))

    await wait_until(reached, what=f"the migration to be {state}", limit=LIMIT, pause=0.2)


async def until_at_work(rehome: Rehome, site: Site) -> None:
    """Return when a consumer works on the instance, in step prepare."""

    async def working() -> bool:
        found = (await rehome("status", site.id, "--json")).json
        return bool(found and found[0]["worked_on"] and found[0]["step"] == "prepare")

    await wait_until(working, what="a consumer to work in prepare", limit=LIMIT, pause=0.1)


async def until_waits(rehome: Rehome, site: Site, step: str, why: str) -> None:
    """Return when the instance's migration waits at this step, with this in its reason, and no try was counted."""

    async def waiting() -> bool:
        found = await migration(rehome, site)
        at = (found["step"], found["step_state"], found["tries"])
        return at == (step, "waiting", 0) and why in (found["error"] or "")

    await wait_until(waiting, what=f"the migration to wait at {step}: {why}", limit=LIMIT, pause=0.2)


async def kinds(rehome: Rehome, site: Site, *more: object) -> dict[str, str | None]:
    """The doctor's findings about an instance: kind -> outcome of the repair."""
    answer = await rehome("doctor", site.id, "--json", *more)
    assert answer.code in (0, 1), answer.err
    return {finding["kind"]: finding["outcome"] for finding in answer.json}


async def leave_everything(local: LocalPlatform, site: Site, of: dict[str, Any]) -> str:
    """Leave behind what killed consumers may.

    Returns the name of a database on the pool whose ownership tag proves nothing.
    """
    tag = f"{of['id'].replace('-', '')[:12]}-{of['attempt']}"
    (site.conf.parent / f"odoo.conf.rehome-{tag}").write_text("an old backup")
    (site.conf.parent / ".odoo.conf.rehome-0123456789abcdef.tmp").write_text("half a file")
    partial = local.backup_root / f".{of['id']}-{of['attempt']}.partial"
    partial.mkdir()
    (partial / "source.json").write_text("{}")
    (local.backup_root / "notes-of-an-operator.txt").write_text("not of rehome")
    scratch = f"{site.tenant.database}__rehome_{tag}"
    label = TagComment(OwnershipTag(of["id"], of["attempt"], "scratch")).text()
    async with local.pool.connect() as pool:
        await pool.execute(f'CREATE DATABASE "{scratch}"')
        await pool.execute(f"COMMENT ON DATABASE \"{scratch}\" IS '{label}'")
        await pool.execute(f'CREATE ROLE "rehome_{of["id"].replace("-", "")}_read" NOLOGIN')
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
    """A migration's entries in the backup place."""
    return [entry.name for entry in local.backup_root.iterdir() if of["id"] in entry.name]


async def on_pool(local: LocalPlatform, query: str, *arguments: object) -> Any:
    async with local.pool.connect() as pool:
        return await pool.fetchval(query, *arguments)
