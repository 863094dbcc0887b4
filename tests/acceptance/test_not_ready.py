"""What is wrong with a consumer ends no upgrade: nothing is taken, the cause is named, and the move goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aio_pika
import httpx
import orjson
import pytest

from rehome_consumer.adapters.backup.place import MARK
from rehome_consumer.adapters.postgres import client_programs
from rehome_consumer.rabbitmq.topology import queue_of
from sandbox.demo.observation import observe
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port, give_back_port, wait_until
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sandbox.platform.billing import Billing
    from sandbox.platform.local import LocalPlatform, Site
    from sandbox.platform.subscriber import Subscriber
    from sandbox.system.processes import Child

REAL = client_programs.directory(None)
PROGRAMS = client_programs.PROGRAMS


@dataclass
class Asked:
    """A consumer, and what its pages say."""

    port: int
    child: Child

    async def page(self, name: str) -> tuple[int, Any]:
        """Status, and JSON or text."""
        async with plain_http(timeout=10) as http:
            answer = await http.get(f"http://{LOOPBACK}:{self.port}{name}")
        is_json = answer.headers["content-type"].startswith("application/json")
        return answer.status_code, answer.json() if is_json else answer.text

    async def causes(self) -> dict[str, str]:
        """Missing parts that were looked at; empty when it is ready."""
        try:
            code, body = await self.page("/readyz")
        except httpx.HTTPError:
            return {"page": "no answer"}
        assert (code == 503) is bool(body["causes"]) is not body["ready"]
        return {one["cause"]: one["error"] for one in body["causes"]}

    async def until(self, *parts: str, limit: float = 60) -> dict[str, str]:
        """Wait until exactly these parts are missing, and were looked at."""
        found: dict[str, str] = {}

        async def so() -> bool:
            self.child.require_alive()
            found.clear()
            found.update(await self.causes())
            return set(found) == set(parts) and "it was not looked at yet" not in found.values()

        await wait_until(so, what=f"{parts or 'nothing'} to be missing", limit=limit, pause=0.1)
        return found


@dataclass
class Stand:
    local: LocalPlatform
    programs: Path

    @asynccontextmanager
    async def consumer(self, **settings: str) -> AsyncIterator[Asked]:
        port = free_port()
        given = {"REHOME_PG_BIN": str(self.programs), "REHOME_HTTP_PORT": str(port), **settings}
        async with self.local.consumer(settings=given, page=None) as child:
            yield Asked(port, child)
        give_back_port(port)

    def remove(self, program: str) -> None:
        (self.programs / program).unlink()

    def install(self, *programs: str) -> None:
        for program in programs:
            (self.programs / program).symlink_to(REAL / program)

    def before_a_dump(self, script: str) -> None:
        """Let a shell script run whenever pg_dump is about to dump for the backup; a rehearsal names a snapshot."""
        self.remove("pg_dump")
        wrapper = self.programs / "pg_dump"
        wrapper.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *--snapshot=*) ;; *--format=directory*) {script} ;; esac\n'
            f'exec {REAL}/pg_dump "$@"\n'
        )
        wrapper.chmod(0o755)

    async def waiting(self, step: str) -> int:
        """Messages in a step's queue that nobody has."""
        connection = await aio_pika.connect(self.local.broker.url())
        async with connection, connection.channel() as channel:
            queue = await channel.declare_queue(queue_of(step), passive=True)
            return queue.declaration_result.message_count or 0


@pytest.fixture
def stand(local: LocalPlatform, tmp_path: Path) -> Stand:
    programs = tmp_path / "programs"
    programs.mkdir()
    made = Stand(local, programs)
    made.install(*PROGRAMS)
    return made


@asynccontextmanager
async def relay(port: int, url: str) -> AsyncIterator[None]:
    """Serve what is at `url` at this port, too."""
    there = httpx.URL(url)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_there, to_there = await asyncio.open_connection(there.host, there.port)
        await asyncio.gather(pump(reader, to_there), pump(from_there, writer), return_exceptions=True)

    server = await asyncio.start_server(answer, LOOPBACK, port)
    try:
        yield
    finally:
        server.close()


@dataclass
class Upgrade:
    """A customer who upgrades while the consumer is not ready."""

    stand: Stand
    site: Site
    billing: Billing
    subscriber: Subscriber

    async def waits(self, consumer: Asked, part: str) -> str:
        """It is not taken; returns what the consumer says."""
        cause = (await consumer.until(part))[part]
        await self.billing.upgrade(self.site.id, PLAN)

        async def there() -> bool:
            return await self.stand.waiting("accept") == 1

        await wait_until(there, what="the upgrade to be in its queue", limit=LIMIT)
        await asyncio.sleep(2)
        assert await there()
        assert self.subscriber.types(self.site.id) == []
        assert (await consumer.page("/healthz"))[0] == 200
        return cause

    async def completes(self) -> None:
        """And nothing failed on the way."""
        event = await self.subscriber.wait_for("migration.completed", instance_id=self.site.id, limit=LIMIT)
        assert event.attempt == 1
        assert "migration.failed" not in self.subscriber.types(self.site.id)
        assert (await observe(self.stand.local, self.site)).on_dedicated > 0


@pytest.fixture
async def upgrade(stand: Stand, make_site: MakeSite, billing: Billing, subscriber: Subscriber) -> Upgrade:
    return Upgrade(stand, await make_site(odoo=False), billing, subscriber)


async def test_a_missing_client_program_is_named_and_the_move_runs_when_it_is_there(
    stand: Stand, upgrade: Upgrade, rehome: Cli
) -> None:
    stand.remove("vacuumdb")
    log = stand.local.directory / "consumer.log"  # of all consumers of this platform
    before = len(log.read_text()) if log.exists() else 0
    async with stand.consumer() as consumer:
        cause = await upgrade.waits(consumer, "client_programs")
        assert f"there is no program {stand.programs}/vacuumdb" in cause
        found = await rehome("doctor", REHOME_PG_BIN=str(stand.programs))
        assert found.code == 1
        assert "not_ready" in found.out
        assert "vacuumdb" in found.out
        stand.install("vacuumdb")
        await consumer.until()
        await upgrade.completes()
    lines = consumer.child.log.read_text()[before:].splitlines()
    words = [line for line in lines if '"consumer.' in line]
    assert [orjson.loads(line)["event"] for line in words] == [
        "consumer.started",
        "consumer.not_ready",
        "consumer.restored",
        "consumer.ready",
        "consumer.stopped",
    ]


@pytest.mark.long
async def test_a_program_that_gets_lost_in_mid_move_costs_no_try(
    stand: Stand, upgrade: Upgrade, rehome: Cli
) -> None:
    stand.before_a_dump(f"rm -f {stand.programs}/vacuumdb")

    async def steps() -> dict[str, Any]:
        (one,) = (await rehome("status", upgrade.site.id, "--json")).json
        return {str(step["step"]): step for step in one["steps"]}

    async with stand.consumer() as consumer:
        await consumer.until()
        await upgrade.billing.upgrade(upgrade.site.id, PLAN)
        assert "vacuumdb" in (await consumer.until("client_programs"))["client_programs"]
        await asyncio.sleep(3)
        waits = (await steps())["restore"]
        assert (waits["state"], waits["tries"]) == ("waiting", 0)
        assert "this consumer is not ready: client_programs" in waits["error"]
        stand.install("vacuumdb")
        await upgrade.completes()
        assert {step["tries"] for step in (await steps()).values()} == {0}


@pytest.mark.long
async def test_a_backup_place_that_is_not_mounted_is_named(stand: Stand, upgrade: Upgrade) -> None:
    async with stand.consumer() as consumer:
        await consumer.until()
    mark = stand.local.backup_root / MARK
    hidden = mark.rename(stand.local.directory / "mark")
    async with stand.consumer() as consumer:
        try:
            cause = await upgrade.waits(consumer, "backup_place")
            assert f"has no file {MARK}: is it what should be mounted there?" in cause
        finally:
            hidden.rename(mark)
        await upgrade.completes()


async def test_a_data_root_that_is_not_mounted_is_named(
    stand: Stand, upgrade: Upgrade, tmp_path: Path
) -> None:
    root = tmp_path / "mount"
    root.mkdir()
    async with stand.consumer(REHOME_DATA_ROOT=str(root)) as consumer:
        cause = await upgrade.waits(consumer, "data_root")
        assert "is the shared storage mounted there?" in cause
        root.rmdir()
        root.symlink_to(stand.local.data_root)
        await upgrade.completes()


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """What is in this directory cannot be changed: a mount that its server, or a full journal, made read-only."""
    subprocess.run(["mount", "--bind", directory, directory], check=True, timeout=30)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True, timeout=30)
        yield
    finally:
        subprocess.run(["umount", directory], check=True, timeout=30)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("part", ["backup_place", "data_root"])
async def test_a_read_only_mount_is_named(stand: Stand, upgrade: Upgrade, part: str) -> None:
    local = stand.local
    directory = {"backup_place": local.backup_root, "data_root": local.data_root}[part]
    async with stand.consumer() as consumer:
        await consumer.until()
    with ExitStack() as mounted:
        mounted.enter_context(read_only(directory))
        async with stand.consumer() as consumer:
            cause = await upgrade.waits(consumer, part)
            assert str(directory) in cause
            assert "read-only" in cause.lower()
            mounted.close()
            await upgrade.completes()


@pytest.mark.long
async def test_a_missing_queue_is_named(stand: Stand, upgrade: Upgrade, rehome: Cli) -> None:
    connection = await aio_pika.connect(stand.local.broker.url())
    async with connection, connection.channel() as channel:
        await channel.queue_delete(queue_of("restore"))
    async with stand.consumer() as consumer:
        cause = await upgrade.waits(consumer, "broker")
        assert "the broker has no queue migration.h.restore: rehome topology apply" in cause
        assert (await rehome("topology", "apply")).code == 0
        await upgrade.completes()


@pytest.mark.long
async def test_a_database_service_that_is_down_is_named(stand: Stand, upgrade: Upgrade) -> None:
    port = free_port()
    async with stand.consumer(REHOME_DATABASE_SERVICE_URL=f"http://{LOOPBACK}:{port}") as consumer:
        cause = await upgrade.waits(consumer, "database_service")
        assert f"{LOOPBACK}:{port} does not answer" in cause
        async with relay(port, stand.local.database_service_url):
            await upgrade.completes()


@pytest.mark.long
async def test_a_wrong_key_is_named_and_the_right_consumer_finishes(
    stand: Stand, upgrade: Upgrade, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    stand.before_a_dump(f"[ -e {started} ] || {{ touch {started}; sleep 600; }}")
    async with stand.consumer() as right:
        await right.until()
        await upgrade.billing.upgrade(upgrade.site.id, PLAN)

        async def dumping() -> bool:
            return started.exists()

        await wait_until(dumping, what="the dump to begin", limit=LIMIT)
        await right.child.kill()
    async with stand.consumer(REHOME_SECRET_KEY="not the key of the other consumers") as wrong:
        cause = (await wrong.until("journal"))["journal"]
        assert "is not the key with which the secrets of open migrations" in cause
        async with stand.consumer():
            await upgrade.completes()
        # nothing is open any more that it could not read
        await wrong.until()


@pytest.mark.long
async def test_a_supervisor_that_is_down_is_named(stand: Stand, upgrade: Upgrade) -> None:
    port = free_port()
    async with stand.consumer(SANDBOX_SUPERVISOR_URL=f"http://{LOOPBACK}:{port}") as consumer:
        cause = await upgrade.waits(consumer, "runtime")
        assert f"the supervisor at {LOOPBACK}:{port}" in cause
    async with stand.consumer():
        await upgrade.completes()


@pytest.mark.long
async def test_a_customer_who_is_down_is_rolled_back_when_no_consumer_gets_ready(
    stand: Stand, upgrade: Upgrade, local: LocalPlatform
) -> None:
    stand.before_a_dump(f"rm -f {stand.programs}/pg_restore; exit 1")
    async with stand.consumer(REHOME_NOT_READY_TIMEOUT="4") as consumer:
        await consumer.until()
        await upgrade.billing.upgrade(upgrade.site.id, PLAN)
        event = await upgrade.subscriber.wait_for(
            "migration.rolled_back", instance_id=upgrade.site.id, limit=LIMIT
        )
    assert event.data.failed_step == "back_up"
    failed = next(one for one in upgrade.subscriber.events if one.type == "migration.failed")
    assert failed.data.error == "NotReady"
    assert "this consumer is not ready: client_programs" in failed.data.message
    await local.wait_until_serving(upgrade.site)


async def test_a_state_database_that_comes_late_is_waited_for(stand: Stand, local: LocalPlatform) -> None:
    await local.platform.cluster.stop()
    try:
        async with stand.consumer() as consumer:
            cause = (await consumer.until("journal"))["journal"]
            assert "state database (REHOME_STATE_DSN or REHOME_PLATFORM_DSN)" in cause
            assert [(await consumer.page(path))[0] for path in ("/healthz", "/startupz")] == [200, 503]
            await local.platform.cluster.start()
            await consumer.until()
            assert [(await consumer.page(path))[0] for path in ("/healthz", "/startupz")] == [200, 200]
    finally:
        if not local.platform.cluster.running:
            await local.platform.cluster.start()


async def test_a_consumer_that_waits_for_its_state_database_stops_in_order(
    stand: Stand, tmp_path: Path
) -> None:
    nowhere = f"postgresql://nobody@{LOOPBACK}:{free_port()}/nowhere"
    async with stand.consumer(REHOME_STATE_DSN=nowhere) as consumer:
        await consumer.until("journal")
        assert await consumer.child.stop(limit=20) == 0
