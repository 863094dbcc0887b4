"""How commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDE = 200
"""Columns of a table that goes into a file or a pipe."""


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")


def as_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table, or the sentence `empty` when there are no rows."""
    listed = [[_cell(value) for value in row] for row in rows]
    if not listed:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE)
    console.print(table)


def age(moment: datetime | None, *, now: datetime | None = None) -> str:
    """How long ago, or `in ...`: 45s, 12m, 3h05m, 2d04h."""
    if moment is None:
        return ""
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    sign, seconds = ("in ", -seconds) if seconds < 0 else ("", seconds)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{sign}{days}d{hours % 24:02}h"
    if hours:
        return f"{sign}{hours}h{minutes % 60:02}m"
    return f"{sign}{minutes}m" if minutes >= 2 else f"{sign}{seconds}s"  # noqa: PLR2004 - 90s reads better than 1m


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
