"""What a customer and a neighbour feel while something is done to the customer's instance, and what took the time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import asyncpg

from sandbox.odoo.database import CREATE_PARTNER
from sandbox.odoo.writers import Writers, verify_writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from sandbox.postgres.server import Cluster
    from sandbox.postgres.tenants import Tenant

CLIENTS: Final = 3
PAUSE_SECONDS: Final = 0.01
PAUSE_WHILE_DOWN: Final = 0.05
BEFORE_SECONDS: Final = 2.0
AFTERWARDS: Final = 20
"""Writes that are confirmed after the gap before the measurement ends."""
SERVING_SECONDS: Final = 120.0
REST: Final = "engine and the rest"
PARTS: Final = ("copy", "verification", "start", "stop", REST)
"""Of what the gap consists. A moment in which several of them were under way counts for the first."""


@dataclass(frozen=True)
class Interval:
    """Something that was under way, between two moments of the machine's monotonic clock, in seconds."""

    part: str
    began: float
    ended: float


@dataclass
class Marks:
    """What was under way when."""

    intervals: list[Interval] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.intervals.append(Interval(name, began, time.monotonic()))

    def read(self, reached: Path) -> None:
        """Add what a consumer under `sandbox.demo.chaos` has written down: the calls of its ports."""
        open_calls: defaultdict[str, list[float]] = defaultdict(list)
        for line in reached.read_text().splitlines():
            moment, _, boundary = line.split(maxsplit=2)
            call, _, where = boundary.rpartition(".")
            if where == "before":
                open_calls[call].append(float(moment))
            elif where == "after" and open_calls[call]:
                self.intervals.append(Interval(_part_of(call), open_calls[call].pop(), float(moment)))

    def shares(self, began: float, ended: float) -> dict[str, float]:
        """Seconds of a stretch of time that each part took; they add up to its length."""
        edges = {began, ended}
        for one in self.intervals:
            edges |= {min(max(moment, began), ended) for moment in (one.began, one.ended)}
        moments = sorted(edges)
        found = dict.fromkeys(PARTS, 0.0)
        for start, end in pairwise(moments):
            under_way = {one.part for one in self.intervals if one.began <= start and end <= one.ended}
            part = next((name for name in PARTS if name in under_way), REST)
            found[part] += end - start
        return found


def _part_of(call: str) -> str:
    """Which part a call belongs to; `call` is like `restore.copier.restore`."""
    step, _, port_and_method = call.partition(".")
    if port_and_method.startswith("verifier."):
        return "verification"
    if port_and_method.startswith(("copier.", "replicator.")) or port_and_method == "databases.make_scratch":
        return "copy"
    if port_and_method == "databases.promote" or step not in {"stop", "start"}:
        return REST
    return step


@dataclass(frozen=True)
class Felt:
    """One measurement.

    Attributes:
        gap: seconds without a confirmed write; `parts` are its own.
        rate: confirmed writes a second before it.
        neighbour: milliseconds that each transaction of another tenant took, sorted.
    """

    gap: float
    parts: dict[str, float]
    rate: float
    neighbour: Sequence[float]

    def percentile(self, part: float) -> float:
        """Of the neighbour's transactions, in milliseconds."""
        return self.neighbour[min(int(len(self.neighbour) * part), len(self.neighbour) - 1)]


@dataclass
class Customer:
    """A customer who writes all the time, beside a neighbour on the same pool."""

    url: str
    pool: Cluster
    neighbour: Tenant
    marks: Marks = field(default_factory=Marks)
    felt: Felt | None = None
    _writers: Writers | None = None

    @asynccontextmanager
    async def feels(self) -> AsyncIterator[Marks]:
        """Write for a while, run the block, and go on until writes are confirmed again; then `felt` is there."""
        latencies: list[float] = []
        async with (
            Writers(
                self.url, clients=CLIENTS, pause=PAUSE_SECONDS, pause_after_failure=PAUSE_WHILE_DOWN
            ) as writers,
            self._neighbour_works(latencies),
        ):
            self._writers = writers
            await writers.wait_acknowledged(CLIENTS)
            before = len(writers.acknowledged)
            await asyncio.sleep(BEFORE_SECONDS)
            rate = (len(writers.acknowledged) - before) / BEFORE_SECONDS
            latencies.clear()
            yield self.marks
            await writers.wait_acknowledged(AFTERWARDS, limit=SERVING_SECONDS)
        began, ended = writers.longest_gap
        self.felt = Felt(ended - began, self.marks.shares(began, ended), rate, sorted(latencies))

    async def require_nothing_lost(self, dsn: str) -> None:
        """Raise RuntimeError unless every confirmed write is in the database at `dsn`, once."""
        if self._writers is None:
            raise RuntimeError("nothing was measured")
        check = await verify_writes(dsn, self._writers.acknowledged)
        if not check.ok:
            raise RuntimeError(f"writes were lost or repeated: {check.missing[:3]}, {check.repeated[:3]}")

    @asynccontextmanager
    async def _neighbour_works(self, latencies: list[float]) -> AsyncIterator[None]:
        connection = await asyncpg.connect(self.neighbour.dsn(self.pool), timeout=10)

        async def work() -> None:
            while True:
                began = time.perf_counter()
                await connection.execute(CREATE_PARTNER, "neighbour", "neighbour")
                latencies.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(PAUSE_SECONDS)

        working = asyncio.create_task(work())
        try:
            yield
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            await connection.close(timeout=10)
