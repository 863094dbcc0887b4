"""Moves whose steps do nothing, through consumers that are processes: how long each step took."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import aio_pika

from benchmarks.engine.consumer import READY
from benchmarks.revisions import python_path
from rehome_consumer import saga
from rehome_consumer.bootstrap import SystemClock
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import CONTENT_TYPE, encode, new_event
from rehome_events.tools.schema import golden
from sandbox.platform.local import ROOT
from sandbox.supervisor import runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from rehome_events.envelope import CloudEvent

LIMIT_SECONDS: Final = 300.0
STEPS: Final = len(saga.MIGRATION) - 1
"""Of one move: every step but the rollback."""
NOWHERE: Final = "http://127.0.0.1:9"
"""Of services that no step asks."""


@dataclass
class Timing:
    """What was measured.

    Attributes:
        seconds: of each step, from the event before it to its own, as a subscriber gets them; of one move at a time.
        each: seconds of all, divided by the number of steps.
    """

    seconds: list[float] = field(default_factory=list)
    each: float = 0.0


@asynccontextmanager
async def consumers(url: str, dsn: str, directory: Path, count: int, source: Path) -> AsyncIterator[None]:
    """Consumer processes with the code in `source`, ready to work."""
    settings = {
        "AMQP_URL": url,
        "PLATFORM_DSN": dsn,
        "DATABASE_SERVICE_URL": NOWHERE,
        "DATA_ROOT": str(directory),
        "BACKUP_ROOT": str(directory),
        "SECRET_KEY": secrets.token_hex(16),
        "RUNTIME": runtime.RUNTIME,
        "LOG_LEVEL": "warning",
    }
    environment = {
        **os.environ,
        runtime.SUPERVISOR_URL: NOWHERE,
        "PYTHONPATH": f"{python_path(source)}:{ROOT}",
        **{f"REHOME_{name}": value for name, value in settings.items()},
    }
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(_consumer(environment))
        yield


@asynccontextmanager
async def _consumer(environment: dict[str, str]) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.engine.consumer", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline() if process.stdout else b""
        if line.decode().strip() != READY:
            raise RuntimeError("the consumer did not start: see its output above")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Moves:
    """Publishes upgrades, and sees what becomes of them."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        """Take a channel with confirms."""
        self._channel = channel
        self._seen: dict[str, list[float]] = defaultdict(list)
        self._ended: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def one_at_a_time(self, moves: int) -> Timing:
        """One move after the other."""
        found = Timing()
        for _ in range(moves):
            (seen,) = await self._play(1)
            found.seconds += [after - before for before, after in pairwise(seen)]
        found.each = sum(found.seconds) / len(found.seconds)
        return found

    async def at_once(self, moves: int) -> Timing:
        """So many moves at the same time."""
        seen = await self._play(moves)
        first, last = min(one[0] for one in seen), max(one[-1] for one in seen)
        return Timing(each=(last - first) / (moves * STEPS))

    async def _play(self, moves: int) -> list[list[float]]:
        upgrades = [upgrade() for _ in range(moves)]
        billing = await self._channel.get_exchange("billing", ensure=False)
        for event in upgrades:
            self._seen[str(event.subject)].append(time.perf_counter())
            message = aio_pika.Message(encode(event), content_type=CONTENT_TYPE, delivery_mode=2)
            await billing.publish(message, event.type)
        async with asyncio.timeout(LIMIT_SECONDS):
            for event in upgrades:
                await self._ended[str(event.subject)].wait()
        return [self._seen.pop(str(event.subject)) for event in upgrades]

    def received(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        """An event; the subject is looked for without decoding it, which would take this process's time."""
        at = message.body.index(b'"subject":"') + len(b'"subject":"')
        subject = message.body[at : at + 36].decode()
        self._seen[subject].append(time.perf_counter())
        if message.type == "migration.completed":
            self._ended[subject].set()


@asynccontextmanager
async def moving(url: str) -> AsyncIterator[Moves]:
    """A publisher and a subscriber."""
    async with await aio_pika.connect(url) as connection:
        moves = Moves(await connection.channel(publisher_confirms=True))
        channel = await connection.channel()
        queue = await channel.declare_queue(f"sub_watcher.{uuid4().hex}", exclusive=True)
        await queue.bind("migration", "migration.#")
        received: Callable[[aio_pika.abc.AbstractIncomingMessage], None] = moves.received
        await queue.consume(received, no_ack=True)  # type: ignore[arg-type] # a plain function does, too
        yield moves


def upgrade() -> CloudEvent[PlanUpgraded]:
    """Of an instance that nothing else knows."""
    instance: UUID = uuid4()
    example = golden("plan.upgraded", 1, "valid")["full"]["data"]
    data = PlanUpgraded.model_validate({**example, "instance_id": instance})
    return new_event(data, subject=instance, id=uuid4(), time=SystemClock().now())
