"""Seconds per part of a run."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from rehome_consumer.adapters.common import subprocesses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass
class Stopwatch:
    """Adds up seconds by the name of a part; parts may overlap."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure the block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    @contextmanager
    def programs(self) -> Iterator[None]:
        """Measure each client program that the consumer's adapters run in the block, by its name."""
        real = subprocesses.run

        async def timed(command: Sequence[str | Path], **how: Any) -> str:
            with self.part(Path(command[0]).name):
                return await real(command, **how)

        with mock.patch.object(subprocesses, "run", timed):
            yield
