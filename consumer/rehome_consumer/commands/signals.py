"""SIGTERM and SIGINT, for commands that end in their own way."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def at_signals(act: Callable[[], object]) -> Iterator[list[int]]:
    """Do this at each SIGTERM or SIGINT, for the length of the block; yields those that came."""
    loop = asyncio.get_running_loop()
    came: list[int] = []

    def arrived(number: int) -> None:
        came.append(number)
        act()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, arrived, number)
    try:
        yield came
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
