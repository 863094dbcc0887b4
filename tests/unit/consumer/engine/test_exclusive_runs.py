"""A run that may have killed its consumer runs alone, so that no other is suspected after the next death."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from rehome_consumer.engine.exclusive_runs import ALONE_SECONDS, WAIT_SECONDS, RunGate, is_suspect
from rehome_consumer.ports.engine import StepRow
from tests.support.virtual_time import on_virtual_time

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class Run:
    """A run that lasts until `ends`; `started` says whether it was allowed to start, None: not yet."""

    def __init__(self, place: AbstractAsyncContextManager[bool]) -> None:
        self.started: bool | None = None
        self._end = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(place))

    async def _run(self, place: AbstractAsyncContextManager[bool]) -> None:
        async with place as self.started:
            await self._end.wait()

    async def ends(self) -> None:
        self._end.set()
        await self._task


async def settle(seconds: float = 1.0) -> None:
    await asyncio.sleep(seconds)


def row(deaths: int, state: str = "waiting") -> StepRow:
    return StepRow(
        migration_id=UUID(int=1), attempt=1, step="stop", state=state, runs=deaths + 1, tries=0, deaths=deaths,
        token=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "suspect"),
    [
        (None, False),
        (row(1), False),
        (row(2), True),
        (row(0, "running"), False),
        (row(1, "running"), True),
    ],
)
def test_a_step_that_was_running_at_two_deaths_is_a_suspect(found: StepRow | None, suspect: bool) -> None:
    assert is_suspect(found) is suspect


@on_virtual_time
async def test_runs_go_on_beside_each_other() -> None:
    runs = RunGate()
    first, second = Run(runs.beside()), Run(runs.beside())
    await settle()
    assert (first.started, second.started) == (True, True)
    await first.ends()
    await second.ends()


@on_virtual_time
async def test_a_suspect_starts_when_the_others_have_ended_and_none_starts_meanwhile() -> None:
    runs = RunGate()
    other = Run(runs.beside())
    await settle()
    suspect = Run(runs.alone())
    await settle()
    late = Run(runs.beside())
    await settle()
    assert (suspect.started, late.started) == (None, None)
    await other.ends()
    await settle()
    assert (suspect.started, late.started) == (True, None)
    await suspect.ends()
    await settle()
    assert late.started
    await late.ends()


@on_virtual_time
async def test_a_suspect_does_not_wait_for_ever_and_lets_others_start_again() -> None:
    runs = RunGate()
    long = Run(runs.beside())
    await settle()
    suspect = Run(runs.alone())
    await settle(WAIT_SECONDS + 1)
    assert suspect.started is False
    await suspect.ends()
    late = Run(runs.beside())
    await settle()
    assert late.started
    await late.ends()
    await long.ends()


@on_virtual_time
async def test_of_two_suspects_one_comes_back_later() -> None:
    runs = RunGate()
    first, second = Run(runs.alone()), Run(runs.alone())
    await settle()
    assert (first.started, second.started) == (True, False)
    await second.ends()
    await first.ends()
    again = Run(runs.alone())
    await settle()
    assert again.started
    await again.ends()


@on_virtual_time
async def test_a_suspect_that_runs_for_long_blocks_no_other() -> None:
    runs = RunGate()
    suspect = Run(runs.alone())
    await settle()
    other = Run(runs.beside())
    await settle(ALONE_SECONDS - 2)
    assert (suspect.started, other.started) == (True, None)
    await settle(2)
    assert (suspect.started, other.started) == (True, True)
    await suspect.ends()
    await other.ends()


@on_virtual_time
async def test_a_cancelled_wait_lets_others_start() -> None:
    runs = RunGate()
    other = Run(runs.beside())
    await settle()
    suspect = Run(runs.alone())
    await settle()
    suspect._task.cancel()
    await settle()
    late = Run(runs.beside())
    await settle()
    assert late.started
    await late.ends()
    await other.ends()
