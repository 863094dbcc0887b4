"""A busy machine, made on purpose: a test that is judged by the clock fails here, and not now and then elsewhere."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

TURNS: Final = 40
"""First turns of the event loop, in each test, that may be held up; else a test with many would never end."""
SHARE: Final = 0.3
"""Of them, how many are."""


class Stalls:
    """A plugin of pytest.

    Args:
        seconds: how long a turn is held up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = 0
        self._drawn = random.Random(0)  # noqa: S311 - no secret

    def pytest_configure(self) -> None:
        """Put a pause before turns of asyncio's own loop; one with virtual time has turns of its own."""
        loop: Any = asyncio.BaseEventLoop
        turn: Callable[[Any], None] = loop._run_once

        def held_up(self_: Any) -> None:
            if self._left:
                self._left -= 1
                if self._drawn.random() < SHARE:
                    time.sleep(self._seconds)
            turn(self_)

        loop._run_once = held_up

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Fixtures are left alone: what starts servers has its limits."""
        self._drawn.seed(item.nodeid)
        self._left = TURNS

    def pytest_runtest_teardown(self) -> None:
        """So are those that end them."""
        self._left = 0
