"""A burst of upgrades: published at once, handled by three consumers, one of which is killed every few seconds."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sys
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import aio_pika
import httpx

from benchmarks.revisions import python_path
from rehome_consumer.bootstrap import SystemClock
from sandbox.platform.local import RABBITMQ, ROOT
from sandbox.platform.subscriber import Subscriber
from sandbox.platform.tables import create_platform
from sandbox.postgres.server import Cluster
from sandbox.rabbitmq.node import BrokerNode
from sandbox.supervisor import runtime
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port, give_back_port, wait_until
from sandbox.system.processes import Child, memory
from tests.fakes.site import Site
from tests.load.consumer import DIRECTORY, PLATFORM_DSN
from tests.load.shared_fakes import SharedSites
from tests.support.at_rest import OUTCOMES, take_dead_letters, under_way, waiting_messages
from tests.support.events import CUSTOMER, body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rehome_events.envelope import CloudEvent
    from sandbox.platform.tables import Platform

READY_SECONDS: Final = 60.0
MEBIBYTE: Final = 1024 * 1024
MOST_POISONED: Final = 10
"""Consumers that may end by themselves; the poison kills about four."""
NOWHERE: Final = "http://127.0.0.1:9"
"""Of services that are fakes inside the consumers: nothing is asked there."""
POOL: Final = """
    INSERT INTO db_servers (name, host, port, server_type, max_instances, current_instances, status, admin_password)
    VALUES ($1, $1, 5432, 'shared', $2, $2, 'active', 'admin-secret') RETURNING id
"""
OPEN_STEPS: Final = """
    SELECT m.state || ', ' || s.step || ' ' || s.state || ', ' || s.runs || ' runs, ' || s.deaths || ' deaths'
    FROM rehome.migrations m JOIN rehome.steps s ON s.migration_id = m.id
    WHERE m.ended_at IS NULL AND s.state <> 'done'
"""
COLUMNS: Final = ("id", "customer_id", "name", "admin_email", "database_name", "db_name", "status", "service_name",
                  "plan_tier", "cpu_limit", "memory_limit", "storage_limit",
                  "db_server_id", "db_host", "db_port", "db_user", "db_type")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a burst.

    Attributes:
        upgrades: published at once, each for an instance of its own; one more is the poison, which kills consumers.
        pools: servers that the instances are distributed over.
        dumps: instances that may be down for a dump of one server at a time.
        rehearsals: that read one server at a time.
        consumers: that run at a time.
        kill_every: seconds between kills.
        limit: seconds until all must have ended.
        seed: chooses which consumers are killed.
    """

    upgrades: int = 1000
    pools: int = 4
    dumps: int = 2
    rehearsals: int = 2
    consumers: int = 3
    kill_every: float = 5.0
    limit: float = 3600.0
    seed: int = 1


MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Variables that the image sets for a consumer (`Dockerfile`): free memory is returned to the system."""


@dataclass
class Memory:
    """Resident memory (MiB) of one consumer, sampled once it is ready."""

    name: str
    samples: list[float] = field(default_factory=list)


@dataclass
class Burst:
    """One experiment and everything observed in it.

    Attributes:
        upgrades: those published, the poison last; by migration.
        copies: how often the subscriber got each event.
        outcomes: published outcomes (id and type), by instance.
        killed: consumers that were killed here.
        poisoned: consumers that the poison killed.
        published, ended: monotonic seconds.
    """

    size: Size
    directory: Path
    node: BrokerNode
    platform: Platform
    sites: SharedSites
    upgrades: dict[UUID, CloudEvent[Any]] = field(default_factory=dict)
    poison: UUID = field(default_factory=uuid4)
    copies: Counter[UUID] = field(default_factory=Counter)
    outcomes: defaultdict[UUID, dict[UUID, str]] = field(default_factory=lambda: defaultdict(dict))
    failures: list[str] = field(default_factory=list)
    killed: int = 0
    poisoned: int = 0
    memory: list[Memory] = field(default_factory=list)
    published: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """From the first publish to the last outcome."""
        return self.ended - self.published

    @property
    def log(self) -> Path:
        """The log of all consumers."""
        return self.directory / "consumer.log"

    async def play(self) -> None:
        """All of it; returns when every instance has its outcome and nothing is under way."""
        await self._make_instances()
        spared = Respawner(self, "spared")
        others = [Respawner(self, f"other {number}") for number in range(1, self.size.consumers)]
        async with Subscriber(self.node.url(), on_event=self._received):
            tasks = [asyncio.create_task(respawner.run()) for respawner in (spared, *others)]
            try:
                for respawner in (spared, *others):
                    await self._until_ready(respawner)
                await self._publish()
                killing = asyncio.create_task(self._kill(others))
                tasks.append(killing)
                await self._all_ended(tasks)
                killing.cancel()
                await self._rest()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_ready(self, respawner: Respawner) -> None:
        try:
            await asyncio.wait_for(respawner.ready.wait(), READY_SECONDS)
        except TimeoutError:
            said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:] if self.log.exists() else ""
            raise RuntimeError(
                f"consumer {respawner.name} was not ready in {READY_SECONDS:g} s; the consumers said last: {said}"
            ) from None

    async def dead_letters(self) -> list[tuple[str, str]]:
        """Handler and reason of each dead letter."""
        headers = [dead_letter.headers for dead_letter in await take_dead_letters(self.node.url())]
        return sorted((str(one.get("rehome-handler")), str(one.get("rehome-reason"))) for one in headers)

    def environment(self, port: int) -> dict[str, str]:
        """A consumer's environment variables."""
        settings = {
            "AMQP_URL": self.node.url(),
            "PLATFORM_DSN": self.platform.instance_dsn,
            "DATABASE_SERVICE_URL": NOWHERE,
            "DATA_ROOT": str(self.directory),
            "BACKUP_ROOT": str(self.directory),
            "SECRET_KEY": self.platform.password,
            "RUNTIME": runtime.RUNTIME,
            "DUMPS_PER_SERVER": str(self.size.dumps),
            "REHEARSALS_PER_SERVER": str(self.size.rehearsals),
            "LOG_LEVEL": "warning",
            "HTTP_PORT": str(port),
            "HTTP_HOST": LOOPBACK,
        }
        own = {
            DIRECTORY: str(self.sites.directory),
            PLATFORM_DSN: self.platform.cluster.dsn(self.platform.instance_database),
            runtime.SUPERVISOR_URL: NOWHERE,
            "PYTHONPATH": python_path(ROOT),
        }
        prefixed = {f"REHOME_{name}": value for name, value in settings.items()}
        return {**os.environ, **MALLOC, **own, **prefixed}

    async def _make_instances(self) -> None:
        """Rows in the platform's tables, and a fake site each."""
        rows: list[tuple[object, ...]] = []
        count = self.size.upgrades + 1
        async with self.platform.cluster.connect(self.platform.instance_database) as connection:
            for pool in range(self.size.pools):
                on_pool = len(range(pool, count, self.size.pools))
                server = await connection.fetchval(POOL, f"postgres-pool-{pool + 1}", on_pool)
                rows += [self._instance(pool, server) for _ in range(on_pool)]
            await connection.copy_records_to_table("instances", records=rows, columns=COLUMNS)
        self.poison = list(self.upgrades)[-1]
        self.sites.put(self.poison, self.sites.get(self.poison), poison=True)

    def _instance(self, pool: int, server: UUID) -> tuple[object, ...]:
        number = len(self.upgrades)
        instance, name = uuid4(), f"t{number:05}"
        site = Site(SystemClock(), pool=f"postgres-pool-{pool + 1}")
        site.platform._made = number  # its only server gets an id that no other site's has
        site.add_tenant(name, id=instance, customer_id=CUSTOMER)
        event = upgrade(instance)
        self.upgrades[migration_of(event)] = event
        self.sites.put(migration_of(event), site)
        return (instance, CUSTOMER, name, f"{name}@example.com", name, name, "running", f"odoo-{name}",
                "standard", 2, "4G", "20G", server, site.pool.host, 5432, f"odoo_{name}", "shared")  # fmt: skip

    async def _publish(self) -> None:
        """All at once, the poison among the first, and a message that is not an event."""
        self.published = time.monotonic()
        order = list(self.upgrades.values())
        order.insert(min(10, len(order)), order.pop())
        bodies = [body_of(event) for event in order]
        bodies.insert(len(bodies) // 2, b"{")
        async with await aio_pika.connect(self.node.url(), timeout=10) as connection:
            exchange = await (await connection.channel()).get_exchange("billing")
            await asyncio.gather(
                *(
                    exchange.publish(
                        aio_pika.Message(body, content_type="application/cloudevents+json", delivery_mode=2),
                        "plan.upgraded",
                        timeout=READY_SECONDS,
                    )
                    for body in bodies
                )
            )

    def _received(self, event: CloudEvent[Any]) -> None:
        self.copies[event.id] += 1
        if event.type in OUTCOMES:
            self.outcomes[event.data.instance_id][event.id] = event.type
            self.ended = time.monotonic()
        elif event.type == "migration.failed":
            self.failures.append(f"{event.data.step}: {event.data.message}")

    async def _kill(self, respawners: list[Respawner]) -> None:
        draw = random.Random(self.size.seed)  # noqa: S311 - a choice of consumers, no secret
        while True:
            await asyncio.sleep(self.size.kill_every)
            ready = [respawner for respawner in respawners if respawner.ready.is_set()]
            if ready:
                await draw.choice(ready).kill()
                self.killed += 1

    async def _all_ended(self, tasks: list[asyncio.Task[None]]) -> None:
        async def all_ended() -> bool:
            for task in tasks:
                if task.done():
                    task.result()
            return len(self.outcomes) == len(self.upgrades)

        try:
            await wait_until(all_ended, what="every outcome", limit=self.size.limit, pause=0.2)
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; {len(self.outcomes)} of {len(self.upgrades)} came; {await self._open()}"
            ) from None

    async def _open(self) -> str:
        """What is under way, in the journal and on the broker."""
        async with self.platform.cluster.connect(self.platform.instance_database) as connection:
            rows = [row[0] for row in await connection.fetch(OPEN_STEPS)]
        waiting = [f"{count} in {name}" for name, count in (await waiting_messages(self.node.url())).items()]
        return f"dead letters {await self.dead_letters()}; {', '.join(waiting)}; {'; '.join(rows[:10])}"

    async def _rest(self) -> None:
        """Until the queues are empty, no step is open and no event is unsent."""

        async def quiet() -> bool:
            async with self.platform.cluster.connect(self.platform.instance_database) as journal:
                return not await waiting_messages(self.node.url()) and not await under_way(journal)

        await wait_until(quiet, what="queues and outbox to be empty", limit=120, pause=1.0)


class Respawner:
    """Keeps one consumer running: when it dies, another is started."""

    def __init__(self, burst: Burst, name: str) -> None:
        self._burst = burst
        self.name = name
        self._started = 0
        self._child: Child | None = None
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; then the consumer is stopped with SIGTERM."""
        port = free_port()
        try:
            while True:
                await self._one(port)
        finally:
            if self._child is not None:
                await self._child.stop(limit=60)
            give_back_port(port)

    async def kill(self) -> None:
        """SIGKILL."""
        child, self._child = self._child, None
        self.ready.clear()
        assert child is not None
        await child.kill()

    async def _one(self, port: int) -> None:
        """Start a consumer, and sample its memory until it ends."""
        self._started += 1
        child = await Child.start(
            f"{self.name}, {self._started}",
            [sys.executable, "-m", "tests.load.consumer"],
            log=self._burst.log,
            env=self._burst.environment(port),
            directory=ROOT,
        )
        self._child = child
        series = Memory(child.name)
        self._burst.memory.append(series)
        while child.alive:
            await asyncio.sleep(1.0)
            if not self.ready.is_set() and self._child is child and await _answers(port):
                self.ready.set()
            if self.ready.is_set() and (resident := memory(child.pid, "VmRSS")) is not None:
                series.samples.append(resident / MEBIBYTE)
        if self._child is child:  # it was not killed here
            self.ready.clear()
            self._burst.poisoned += 1
            if self._burst.poisoned > MOST_POISONED:
                raise RuntimeError(f"consumers end by themselves; see {self._burst.log}")


async def _answers(port: int) -> bool:
    try:
        async with plain_http() as http:
            return (await http.get(f"http://{LOOPBACK}:{port}/readyz")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@asynccontextmanager
async def burst(directory: Path, size: Size) -> AsyncIterator[Burst]:
    """The servers for a burst, which is not played yet.

    Args:
        directory: an existing directory that user postgres may pass through.
        size: of the burst.
    """
    async with AsyncExitStack() as stack:
        node = await BrokerNode.create(
            directory / "broker", definitions=RABBITMQ / "definitions.json", conf=RABBITMQ / "rabbitmq.conf"
        )
        stack.push_async_callback(node.destroy)
        cluster = await Cluster.create(directory / "state", password=secrets.token_urlsafe(24))
        stack.push_async_callback(cluster.destroy)
        await asyncio.gather(node.start(), cluster.start())
        platform = await create_platform(cluster, password=secrets.token_urlsafe(24))
        sites = SharedSites(directory / "sites")
        sites.directory.mkdir()
        yield Burst(size, directory, node, platform, sites)
