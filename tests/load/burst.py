"""A burst of upgrades: published at once, handled by three consumers of which one is killed every few seconds."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import aio_pika
import httpx

from rehome_consumer import saga
from rehome_consumer.bootstrap import SystemClock
from rehome_consumer.rabbitmq.topology import DEAD, queue_of, retry_exchange
from sandbox.platform.local import RABBITMQ, ROOT
from sandbox.platform.subscriber import Subscriber
from sandbox.platform.tables import create_platform
from sandbox.postgres.server import Cluster
from sandbox.rabbitmq.node import BrokerNode
from sandbox.supervisor import runtime
from sandbox.system.net import LOOPBACK, free_port, give_back_port, wait_until
from sandbox.system.processes import Child
from tests.fakes.site import Site
from tests.load.consumer import DIRECTORY, PLATFORM_DSN
from tests.load.shared_fakes import Places
from tests.support.events import CUSTOMER, body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_events.envelope import CloudEvent
    from sandbox.platform.tables import Platform

OUTCOMES: Final = ("migration.completed", "migration.rolled_back", "migration.rejected", "instance.resized")
READY_SECONDS: Final = 60.0
NOWHERE: Final = "http://127.0.0.1:9"
"""Of services that are fakes inside the consumers: nothing is asked there."""
POOL: Final = """
    INSERT INTO db_servers (name, host, port, server_type, max_instances, current_instances, status, admin_password)
    VALUES ($1, $1, 5432, 'shared', $2, $2, 'active', 'admin-secret') RETURNING id
"""
QUEUES: Final = (
    *(queue_of(step.name) for step in saga.MIGRATION),
    *(retry_exchange(tier) for tier in saga.TIERS),  # a delay's queue has its exchange's name
)
STUCK: Final = """
    SELECT m.state || ', ' || s.step || ' ' || s.state || ', ' || s.runs || ' runs, ' || s.deaths || ' deaths'
    FROM rehome.migrations m JOIN rehome.steps s ON s.migration_id = m.id
    WHERE m.ended_at IS NULL AND s.state <> 'done'
"""
COLUMNS: Final = ("id", "customer_id", "name", "admin_email", "database_name", "db_name", "status", "service_name",
                  "plan_tier", "cpu_limit", "memory_limit", "storage_limit",
                  "db_server_id", "db_host", "db_port", "db_user", "db_type")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """How big a burst is.

    Attributes:
        upgrades: published at once, each for an instance of its own; one more poisons consumers.
        pools: servers that the instances are spread over.
        dumps: instances that may be down for a dump of one server at a time.
        consumers: that run at a time.
        kill_every: seconds between kills.
        limit: seconds until all must have ended.
        seed: chooses the victims.
    """

    upgrades: int = 1000
    pools: int = 4
    dumps: int = 2
    consumers: int = 3
    kill_every: float = 5.0
    limit: float = 1800.0
    seed: int = 1


MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Of the environment that our image gives a consumer (`Dockerfile`): what is free goes back to the machine."""


@dataclass
class Memory:
    """Resident memory (MiB) of one consumer, sampled from its readiness on."""

    name: str
    samples: list[float] = field(default_factory=list)


@dataclass
class Burst:
    """One experiment and everything seen of it.

    Attributes:
        upgrades: those published, the poisonous one last; by migration.
        copies: how often the subscriber got each event.
        outcomes: ids of the outcomes told, by instance.
        killed: when (monotonic seconds) each consumer died by our hand, by pid.
        poisoned: consumers that died of the poison.
        published, ended: monotonic seconds.
    """

    size: Size
    directory: Path
    node: BrokerNode
    platform: Platform
    places: Places
    upgrades: dict[UUID, CloudEvent[Any]] = field(default_factory=dict)
    poison: UUID = field(default_factory=uuid4)
    copies: Counter[UUID] = field(default_factory=Counter)
    outcomes: defaultdict[UUID, dict[UUID, str]] = field(default_factory=lambda: defaultdict(dict))
    failures: list[str] = field(default_factory=list)
    died: dict[int, float] = field(default_factory=dict)
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
        """What all consumers have said."""
        return self.directory / "consumer.log"

    async def play(self) -> None:
        """All of it; returns when every instance has its outcome, or time is up."""
        await self._make_instances()
        spared = Keeper(self, "spared")
        others = [Keeper(self, f"other {number}") for number in range(1, self.size.consumers)]
        async with Subscriber(self.node.url(), on_event=self._seen):
            keeping = [asyncio.create_task(reaper.keep()) for reaper in (spared, *others)]
            try:
                for reaper in (spared, *others):
                    await asyncio.wait_for(reaper.ready.wait(), READY_SECONDS)
                await self._publish()
                killing = asyncio.create_task(self._kill(others))
                keeping.append(killing)
                await self._all_ended(keeping)
                killing.cancel()
                await self._rest()
            finally:
                for task in keeping:
                    task.cancel()
                await asyncio.gather(*keeping, return_exceptions=True)

    async def dead_letters(self) -> list[tuple[str, str]]:
        """Handler and reason of each dead letter."""
        found = []
        async with await aio_pika.connect(self.node.url(), timeout=10) as connection:
            queue = await (await connection.channel()).get_queue(DEAD)
            while (dead_letter := await queue.get(no_ack=True, fail=False, timeout=10)) is not None:
                found.append(
                    (str(dead_letter.headers.get("mig-handler")), str(dead_letter.headers.get("mig-reason")))
                )
        return sorted(found)

    def environment(self, port: int) -> dict[str, str]:
        """A consumer's."""
        given = {
            "AMQP_URL": self.node.url(),
            "PLATFORM_DSN": self.platform.instance_dsn,
            "DATABASE_SERVICE_URL": NOWHERE,
            "DATA_ROOT": str(self.directory),
            "BACKUP_ROOT": str(self.directory),
            "SECRET_KEY": self.platform.password,
            "RUNTIME": runtime.RUNTIME,
            "DUMPS_PER_SERVER": str(self.size.dumps),
            "LOG_LEVEL": "warning",
            "HTTP_PORT": str(port),
            "HTTP_HOST": LOOPBACK,
        }
        own = {
            DIRECTORY: str(self.places.directory),
            PLATFORM_DSN: self.platform.cluster.dsn(self.platform.instance_database),
            runtime.SUPERVISOR_URL: NOWHERE,
        }
        prefixed = {f"REHOME_{name}": value for name, value in given.items()}
        return {**os.environ, **MALLOC, **own, **prefixed}

    async def _make_instances(self) -> None:
        """Rows in the platform's tables, and a site each."""
        rows: list[tuple[object, ...]] = []
        count = self.size.upgrades + 1
        async with self.platform.cluster.connect(self.platform.instance_database) as connection:
            for pool in range(self.size.pools):
                here = len(range(pool, count, self.size.pools))
                server = await connection.fetchval(POOL, f"postgres-pool-{pool + 1}", here)
                rows += [self._instance(pool, server) for _ in range(here)]
            await connection.copy_records_to_table("instances", records=rows, columns=COLUMNS)
        self.poison = list(self.upgrades)[-1]
        self.places.put(self.poison, self.places.get(self.poison), poison=True)

    def _instance(self, pool: int, server: UUID) -> tuple[object, ...]:
        number = len(self.upgrades)
        instance, name = uuid4(), f"t{number:05}"
        site = Site(SystemClock(), pool=f"postgres-pool-{pool + 1}")
        site.platform._made = number  # its only server gets an id that no other site's has
        site.add_tenant(name, id=instance, customer_id=CUSTOMER)
        event = upgrade(instance)
        self.upgrades[migration_of(event)] = event
        self.places.put(migration_of(event), site)
        return (instance, CUSTOMER, name, f"{name}@example.com", name, name, "running", f"odoo-{name}",
                "standard", 2, "4G", "20G", server, site.pool.host, 5432, f"odoo_{name}", "shared")  # fmt: skip

    async def _publish(self) -> None:
        """All at once, the poison among the first, and something that is no event."""
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

    def _seen(self, event: CloudEvent[Any]) -> None:
        self.copies[event.id] += 1
        if event.type in OUTCOMES:
            self.outcomes[event.data.instance_id][event.id] = event.type
            self.ended = time.monotonic()
        elif event.type == "migration.failed":
            self.failures.append(f"{event.data.step}: {event.data.message}")

    async def _kill(self, keepers: list[Keeper]) -> None:
        draw = random.Random(self.size.seed)  # noqa: S311 - a choice of victims, no secret
        while True:
            await asyncio.sleep(self.size.kill_every)
            ready = [reaper for reaper in keepers if reaper.ready.is_set()]
            if ready:
                await draw.choice(ready).kill()
                self.killed += 1

    async def _all_ended(self, keeping: list[asyncio.Task[None]]) -> None:
        async def all_ended() -> bool:
            for task in keeping:
                if task.done():
                    task.result()
            return len(self.outcomes) == len(self.upgrades)

        try:
            await wait_until(all_ended, what="every outcome", limit=self.size.limit, pause=0.2)
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; {len(self.outcomes)} of {len(self.upgrades)} came; {await self._stuck()}"
            ) from None

    async def _stuck(self) -> str:
        """What is under way, in the journal and on the broker."""
        async with self.platform.cluster.connect(self.platform.instance_database) as connection:
            rows = [row[0] for row in await connection.fetch(STUCK)]
        waiting = [f"{count} in {name}" for name, count in (await self._waiting()).items()]
        return f"dead letters {await self.dead_letters()}; {', '.join(waiting)}; {'; '.join(rows[:10])}"

    async def _rest(self) -> None:
        """Until the queues are empty and nothing is unsent or claimed."""

        async def quiet() -> bool:
            return not await self._waiting() and not await self.unsent()

        await wait_until(quiet, what="queues and outbox to be empty", limit=120, pause=1.0)

    async def _waiting(self) -> dict[str, int]:
        """Messages in the handlers' and delays' queues, of those that have any."""
        counts: dict[str, int] = {}
        async with await aio_pika.connect(self.node.url(), timeout=10) as connection:
            channel = await connection.channel()
            for name in QUEUES:
                queue = await channel.declare_queue(name, passive=True)
                counts[name] = queue.declaration_result.message_count or 0
        return {name: count for name, count in counts.items() if count}

    async def unsent(self) -> int:
        """Events in the outbox that nobody sent."""
        async with self.platform.cluster.connect(self.platform.instance_database) as connection:
            count: int = await connection.fetchval("SELECT count(*) FROM rehome.outbox WHERE sent_at IS NULL")
            return count


class Keeper:
    """Keeps one consumer running: whenever it has died, another is started."""

    def __init__(self, burst: Burst, name: str) -> None:
        self._burst = burst
        self._name = name
        self._started = 0
        self._child: Child | None = None
        self.ready = asyncio.Event()

    async def keep(self) -> None:
        """Until cancelled; then it is stopped in order."""
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
        self._burst.died[child.pid] = time.monotonic()

    async def _one(self, port: int) -> None:
        """Start it, and sample its memory until it is dead."""
        self._started += 1
        child = await Child.start(
            f"{self._name}, {self._started}",
            [sys.executable, "-m", "tests.load.consumer"],
            log=self._burst.log,
            env=self._burst.environment(port),
            directory=ROOT,
        )
        self._child = child
        memory = Memory(child.name)
        self._burst.memory.append(memory)
        while child.alive:
            await asyncio.sleep(1.0)
            if not self.ready.is_set() and self._child is child and await _answers(port):
                self.ready.set()
            if self.ready.is_set() and (resident := _resident(child.pid)) is not None:
                memory.samples.append(resident)
        if self._child is child:  # nobody of us killed it
            self.ready.clear()
            self._burst.poisoned += 1
            self._burst.died[child.pid] = time.monotonic()
            if self._burst.poisoned > 10:
                raise RuntimeError(f"consumers die by themselves; look at {self._burst.log}")


async def _answers(port: int) -> bool:
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            return (await http.get(f"http://{LOOPBACK}:{port}/health")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _resident(pid: int) -> float | None:
    """MiB of memory of a process (`VmRSS`, proc(5)); None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


@asynccontextmanager
async def burst(directory: Path, size: Size) -> AsyncIterator[Burst]:
    """The servers for one; it is not played yet.

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
        places = Places(directory / "places")
        places.directory.mkdir()
        yield Burst(size, directory, node, platform, places)
