from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.common import bounded_thread
from rehome_consumer.adapters.common.bounded_thread import in_thread
from rehome_consumer.errors import TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable


class Work:
    """Blocks until it may continue, then asks whether it is still wanted before it changes anything."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.may_continue = threading.Event()
        self.ended = threading.Event()
        self.changed = False

    def __call__(self, still_wanted: Callable[[], None]) -> str:
        try:
            self.started.set()
            self.may_continue.wait(10)
            still_wanted()
            self.changed = True
            return "done"
        finally:
            self.ended.set()


async def test_work_that_ends_in_time_returns_its_result() -> None:
    work = Work()
    work.may_continue.set()
    assert await in_thread(work, "working", 10) == "done"
    assert work.changed


async def test_work_whose_step_is_cancelled_changes_nothing_any_more() -> None:
    work = Work()
    step = asyncio.create_task(in_thread(work, "working", 10))
    await asyncio.to_thread(work.started.wait, 10)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    work.may_continue.set()
    await asyncio.to_thread(work.ended.wait, 10)
    assert not work.changed


async def test_work_that_was_frozen_with_its_process_changes_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stopped process loses its claim; when it continues, its threads may run before its event loop does."""

    def frozen(still_wanted: Callable[[], None]) -> None:
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 11)
        monkeypatch.setattr(bounded_thread, "time", later)
        still_wanted()

    with pytest.raises(TimedOut, match="working: given up after 10 s"):
        await in_thread(frozen, "working", 10)
