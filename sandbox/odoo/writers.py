"""Clients that write to an instance while it is moved, and record every confirmed write."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg
import httpx

from sandbox.system.http import plain_http

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

REQUEST_LIMIT_SECONDS = 10.0
CONNECT_LIMIT_SECONDS = 10.0


@dataclass(frozen=True)
class WriteCheck:
    """Which acknowledged writes are in the database.

    Attributes:
        acknowledged: how many writes the instance had confirmed.
        missing: tokens of confirmed writes that are not in the database.
        repeated: tokens of confirmed writes that are there more than once.
    """

    acknowledged: int
    missing: tuple[str, ...]
    repeated: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every confirmed write is there exactly once."""
        return not self.missing and not self.repeated


@dataclass
class Writers:
    """Clients that create partners, one after the other, until stopped; used as ``async with``.

    Downtime only costs them time: after a write that fails, the next one is made with a new token. A write
    that was not acknowledged may or may not be in the database, as in real life.

    Attributes:
        url: the instance's base URL.
        clients: how many write at the same time.
        pause: seconds between two writes of one client.
        pause_after_failure: the same after a write that failed; None: as long.
        prefix: start of the partners' names, so that they can be counted.
        acknowledged: tokens of confirmed writes, in the order of their confirmation.
        failed: how many writes were not confirmed.
        boots: ids of the instance's processes that confirmed writes, in order of appearance.
    """

    url: str
    clients: int = 1
    pause: float = 0.02
    pause_after_failure: float | None = None
    prefix: str = "writer"
    acknowledged: list[str] = field(default_factory=list)
    failed: int = 0
    boots: list[str] = field(default_factory=list)
    _times: list[float] = field(default_factory=list, repr=False)
    _running: list[asyncio.Task[None]] = field(default_factory=list, repr=False)
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition, repr=False)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Start to write, in the background."""
        self._running = [asyncio.create_task(self._write_on(number)) for number in range(self.clients)]

    async def stop(self) -> None:
        """Stop writing; a write under way counts as not acknowledged."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = []

    async def wait_acknowledged(self, more: int = 1, *, limit: float = 30.0) -> None:
        """Return once `more` writes were confirmed from now on.

        Raises:
            TimeoutError: they were not within `limit` seconds.
        """
        goal = len(self.acknowledged) + more
        try:
            async with asyncio.timeout(limit), self._progress:
                await self._progress.wait_for(lambda: len(self.acknowledged) >= goal)
        except TimeoutError as error:
            missing = goal - len(self.acknowledged)
            raise TimeoutError(f"{self.url} did not confirm {missing} writes in {limit} s") from error

    @property
    def longest_gap_seconds(self) -> float:
        """The longest time between two confirmed writes: the downtime that customers saw."""
        began, ended = self.longest_gap
        return ended - began

    @property
    def longest_gap(self) -> tuple[float, float]:
        """The moments of `time.monotonic` between which no write was confirmed for longest."""
        pairs = zip(self._times, self._times[1:], strict=False)
        return max(pairs, key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))

    async def verify_writes(self, dsn: str) -> WriteCheck:
        """Look up every confirmed write in the database at `dsn`."""
        return await verify_writes(dsn, self.acknowledged)

    async def _write_on(self, number: int) -> None:
        async with plain_http(self.url, timeout=REQUEST_LIMIT_SECONDS) as http:
            while True:
                token = uuid.uuid4().hex
                boot = await self._write(http, f"{self.prefix} {number} {token[:8]}", token)
                if boot is not None:
                    await self._acknowledge(token, boot)
                    await asyncio.sleep(self.pause)
                    continue
                self.failed += 1
                await asyncio.sleep(
                    self.pause if self.pause_after_failure is None else self.pause_after_failure
                )

    async def _write(self, http: httpx.AsyncClient, name: str, token: str) -> str | None:
        """Write once; the id of the process that confirmed it, None when none did."""
        try:
            answer = await http.post("/partners", json={"name": name, "token": token})
            confirmed = answer.status_code == httpx.codes.CREATED and answer.json()["token"] == token
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None
        return answer.headers.get("X-Boot-Id", "") if confirmed else None

    async def _acknowledge(self, token: str, boot: str) -> None:
        self._times.append(time.monotonic())
        self.acknowledged.append(token)
        if boot not in self.boots:
            self.boots.append(boot)
        async with self._progress:
            self._progress.notify_all()


async def verify_writes(dsn: str, tokens: Iterable[str]) -> WriteCheck:
    """Check that each token is in the database at `dsn` exactly once.

    Args:
        dsn: of the instance's database, with a login that may read `res_partner`.
        tokens: of the acknowledged writes.
    """
    wanted = list(tokens)
    connection = await asyncpg.connect(dsn, timeout=CONNECT_LIMIT_SECONDS)
    try:
        rows = await connection.fetch(
            "SELECT ref, count(*) AS times FROM res_partner WHERE ref = ANY($1) GROUP BY ref", wanted
        )
    finally:
        await connection.close(timeout=CONNECT_LIMIT_SECONDS)
    times = {row["ref"]: row["times"] for row in rows}
    return WriteCheck(
        acknowledged=len(wanted),
        missing=tuple(token for token in wanted if token not in times),
        repeated=tuple(token for token in wanted if times.get(token, 0) > 1),
    )
