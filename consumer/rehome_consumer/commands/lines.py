"""Lines for a terminal of 100 columns; identifiers are never split.

All output goes through this module, and is escaped as `rehome_events.printable` says: a tenant's database may have any
name, and errors quote it.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from rehome_events.printable import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

WIDTH = 100
INDENT = "    "
_BLANK = re.compile(r"[ \t\r\n]+")


class Paragraphs(argparse.HelpFormatter):
    """Wraps a description paragraph by paragraph; the default runs all of them together."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            super(Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n")
        )


def printed(lines: Iterable[str]) -> None:
    """Lines on standard output."""
    say(*lines)


def say(*lines: str, error: bool = False) -> None:
    """Lines on standard output, or on standard error; a line end inside one is escaped."""
    for line in lines:
        print(visible(line), file=sys.stderr if error else sys.stdout, flush=True)


def say_json(text: str) -> None:
    """A JSON text on standard output."""
    print(visible_json(text), flush=True)  # noqa: T201 - for all others


def words(text: str) -> str:
    """The text in one line, escaped."""
    return visible(_BLANK.sub(" ", text).strip(" "))


def row(cells: Sequence[Any], widths: Sequence[int]) -> str:
    """Cells side by side, each padded to its column's width; the last one is as long as it is."""
    parts = ["" if cell is None else visible(str(cell)) for cell in cells]
    return "  ".join(part.ljust(width) for part, width in zip(parts, (*widths, 0), strict=False)).rstrip()


def detail(text: str, indent: str = INDENT) -> list[str]:
    """A sentence below its row: indented and wrapped; no word is cut unless it is longer than a line."""
    return textwrap.wrap(
        words(text),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * (len(indent) + 2),
        break_on_hyphens=False,
    )


def field(name: str, value: Any, width: int = 11) -> list[str]:
    """A name and its value, wrapped; nothing when there is no value."""
    if value is None or value == "":
        return []
    text = words(str(value))
    if max(map(len, text.split(" ")), default=0) > WIDTH - width:  # a long path: uncut, on a line of its own
        return [name, *detail(text)]
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{name:<{width}}",
        subsequent_indent=" " * width,
        break_on_hyphens=False,
    )


def moment(at: datetime | None) -> str:
    """A moment to the second, in UTC as the database returns it."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""
