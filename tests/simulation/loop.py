"""An event loop with virtual time: it passes when no task has anything to do."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVarTuple

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Generator, Iterator

Ts = TypeVarTuple("Ts")

_ASKED = (
    (asyncio, "get_running_loop"),
    (asyncio.events, "get_running_loop"),
    (asyncio.events, "_get_running_loop"),
    (asyncio.events, "_get_event_loop"),  # until Python 3.11
)
"""Functions by which asyncio finds the running loop; each call asks the operating system for the process id."""

OWNER: ContextVar[Any] = ContextVar("owner", default=None)
"""The process whose code is running."""


def _wake(waking: asyncio.Future[None]) -> None:
    if not waking.done():
        waking.set_result(None)


@contextmanager
def known(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """While this loop runs, and no other in this process, these functions return it at once."""
    before = [(module, name, getattr(module, name)) for module, name in _ASKED if hasattr(module, name)]

    def it(*_: object, **__: object) -> asyncio.AbstractEventLoop:
        return loop

    try:
        for module, name, _ in before:
            setattr(module, name, it)
        yield
    finally:
        for module, name, asked in before:
            setattr(module, name, asked)


class StuckError(Exception):
    """All tasks wait for something that will never happen."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have the same order in every run."""

    def __init__(self, number: int, coro: Any, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.number = number  # before the task is put into asyncio's set of all tasks, by its hash
        self.owner = context.get(OWNER)
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self.number


class Handle(asyncio.Handle):
    """A callback that is ready; cheaper to make than asyncio's."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class Timer(asyncio.TimerHandle):
    """A callback with a time; cheaper to make and cancel than asyncio's."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        Handle.__init__(self, callback, args, loop, context)  # type: ignore[arg-type] # a handle like any other
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        self._cancelled = True


class VirtualLoop(asyncio.BaseEventLoop):
    """The standard loop without a selector: there is no input, and no waiting.

    What is ready runs in the order it came; then the clock goes to the next timer, and those of one instant
    run in the order they were set.

    Args:
        seed: which schedule it is; tasks of different schedules have different numbers.
    """

    _ready: deque[asyncio.Handle]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = count()
        self._made: list[NumberedTask] = []
        self._first = seed * 1_000_003
        self.set_task_factory(self._numbered)

    def unfinished(self, owner: object = None) -> list[NumberedTask]:
        """Tasks that are not done, in the order they were made; of one owner, or of all."""
        return [task for task in self._made if not task.done() and owner in (None, task.owner)]

    def close(self) -> None:
        super().close()
        self._made.clear()
        self._timers.clear()

    def time(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep` without its search for the running loop."""
        waking: asyncio.Future[None] = asyncio.Future(loop=self)
        handle = self.call_at(self._now + seconds, _wake, waking)
        try:
            await waking
        finally:
            handle.cancel()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = Timer(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._set), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Called by `run_forever` until it is stopped."""
        ready = self._ready
        if not ready:
            self._pass_time()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]

    def _pass_time(self) -> None:
        """Until the next timer that was not cancelled."""
        while self._timers:
            when, _, handle = heappop(self._timers)
            if handle._cancelled:
                continue
            self._now = max(self._now, when)
            self._ready.append(handle)
            while self._timers and self._timers[0][0] <= self._now:
                self._ready.append(heappop(self._timers)[2])
            return
        raise StuckError(f"at {self._now:.3f} s nothing is left to happen")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: it is skipped when its time comes."""

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        """They are not listed: the code that begins one ends it, and a schedule's end cancels all tasks."""

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is no other thread to wake it from."""

    def _numbered(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        context: Context | None = None,
        **_: Any,
    ) -> NumberedTask:
        """Make every task of this loop. From Python 3.13.3 on, asyncio hands over a name as well."""
        task = NumberedTask(
            self._first + len(self._made), coro, loop, copy_context() if context is None else context
        )
        self._made.append(task)
        return task
