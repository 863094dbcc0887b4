"""Blocking work in a thread: nobody waits for it longer than a limit, and after that it changes nothing."""

from __future__ import annotations

import asyncio
import time
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from rehome_consumer.errors import TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

T = TypeVar("T")


async def in_thread(
    work: Callable[[Callable[[], None]], T], what: str, limit: float, executor: Executor | None = None
) -> T:
    """Run `work` in a thread and return what it returns.

    A thread cannot be ended from outside. So `work` gets a function to call before it changes anything for
    good. It raises in a run that nobody waits for any more: one that was too slow, one whose step was
    cancelled, and one that was frozen with its process for longer than the limit.

    Args:
        work: called in the thread.
        what: what is being done and to what, for the error.
        limit: seconds.
        executor: whose thread; by default the loop's.

    Raises:
        TimedOut: the limit passed.
    """
    until = time.monotonic() + limit
    given_up = Event()

    def still_wanted() -> None:
        if given_up.is_set() or time.monotonic() > until:
            raise TimedOut(f"{what}: given up after {limit:g} s")

    try:
        async with asyncio.timeout(limit):
            return await asyncio.get_running_loop().run_in_executor(executor, work, still_wanted)
    except TimeoutError:
        raise TimedOut(f"{what}: the storage did not answer in {limit:g} s") from None
    finally:
        given_up.set()
