"""An event loop whose time is virtual: it passes when nobody has anything to do."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context


OWNER: ContextVar[Any] = ContextVar("owner", default=None)
"""The process whose code is running."""


class StuckError(Exception):
    """Everybody waits for something that nobody will do."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have the same order in every run."""

    number = 0
    owner: Any = None

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """The standard loop with its clock and its selector replaced: there is no input, and no waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector: VirtualLoop | None = self
        self._made: list[NumberedTask] = []
        self.set_task_factory(self._numbered)

    def unfinished(self, owner: object = None) -> list[NumberedTask]:
        """Tasks that are not done, in the order they were made; of one owner, or of all."""
        return [task for task in self._made if not task.done() and owner in (None, task.owner)]

    def close(self) -> None:
        super().close()
        self._made.clear()
        self._selector = None

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        """Called by the loop when nothing is ready: let the time pass until the next timer."""
        if timeout is None:
            raise StuckError(f"at {self._now:.3f} s nothing is left to happen")
        self._now += timeout
        return ()

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
    ) -> NumberedTask:
        """Make every task of this loop."""
        task = NumberedTask(coro, loop=loop, context=context)
        self._made.append(task)
        task.number = len(self._made)
        task.owner = OWNER.get() if context is None else context.get(OWNER)
        return task
