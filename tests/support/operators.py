"""What acceptance tests of the operators' tools share: looks at a migration, and ways to hurt it."""

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
from rehome_consumer.adapters.rabbitmq.dead_letters import HeldLetter
from rehome_consumer.__main__ import main

async def die(self):
    os.kill(os.getpid(), signal.SIGKILL)

HeldLetter.ack = die
sys.exit(main(sys.argv[1:]))
"""
"""The command line, killed in the instant before it takes a letter out of the queue."""


class Rehome(Protocol):
    """The command line."""

    async def __call__(self, *arguments: object, **settings: str) -> Any: ...


async def run_and_die(local: LocalPlatform, *arguments: str) -> bool:
    """Run a command that is killed before it acknowledges; False when it came to its end all the same."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DYING, *arguments,
        stdout=asyncio.subprocess.DEVNULL, env={**os.environ, **local.settings()}, cwd=ROOT,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        return await process.wait() == -signal.SIGKILL


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


async def dies_at(local: LocalPlatform, boundary: str) -> None:
    """A consumer that is killed where it passes this boundary."""
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


async def until_at_work(rehome: Rehome, site: Site) -> None:
    """Return when a consumer is at work on the instance, in step prepare."""

    async def working() -> bool:
        found = (await rehome("status", site.id, "--json")).json
        return bool(found and found[0]["worked_on"] and found[0]["step"] == "prepare")

    await wait_until(working, what="a consumer to be at work in prepare", limit=LIMIT, pause=0.1)


async def kinds(rehome: Rehome, site: Site, *more: object) -> dict[str, str | None]:
    """What the doctor finds about an instance: kind -> what became of it."""
    answer = await rehome("doctor", site.id, "--json", *more)
    assert answer.code in (0, 1), answer.err
    return {finding["kind"]: finding["outcome"] for finding in answer.json}


async def mess_up(local: LocalPlatform, site: Site, of: dict[str, Any]) -> str:
    """Leave behind what killed consumers may; returns the name of a database on the pool that only says it is ours."""
    tag = f"{of['id'].replace('-', '')[:12]}-{of['attempt']}"
    (site.conf.parent / f"odoo.conf.rehome-{tag}").write_text("an old copy")
    (site.conf.parent / ".odoo.conf.rehome-0123456789abcdef.tmp").write_text("half a file")
    half = local.backup_root / f".{of['id']}-{of['attempt']}.partial"
    half.mkdir()
    (half / "source.json").write_text("{}")
    (local.backup_root / "notes-of-an-operator.txt").write_text("not ours")
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
    """What the backup place holds of a migration."""
    return [entry.name for entry in local.backup_root.iterdir() if of["id"] in entry.name]


async def on_pool(local: LocalPlatform, query: str, *arguments: object) -> Any:
    async with local.pool.connect() as pool:
        return await pool.fetchval(query, *arguments)
