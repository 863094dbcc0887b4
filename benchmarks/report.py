"""The printed results: one table per question, with medians and ratios, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.postgres.server import programs
from sandbox.system.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MEBIBYTE = 1024 * 1024


@dataclass
class Table:
    """One question and its measurements; printed as Markdown, so that it can be copied into a document."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)

    def __str__(self) -> str:
        cells = [list(map(_cell, row)) for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([f"\n## {self.title}\n", lines[0], rule, *lines[1:]])


def say(text: object) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def median(values: Iterable[float]) -> float:
    """The median, in the unit of the values."""
    return statistics.median(values)


async def machine() -> str:
    """The machine and its load at the start."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    server = (await run([programs() / "postgres", "--version"], limit=10)).strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({_processor()}), {memory:.0f} GB of memory, {server}, "
        f"Python {platform.python_version()}, load average before {os.getloadavg()[0]:.1f}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), platform.machine())


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
