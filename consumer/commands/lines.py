"""Lines that can be read in a terminal of 100 columns, and that keep identifiers whole."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

WIDTH = 100
INDENT = "    "


class Paragraphs(argparse.HelpFormatter):
    """Wraps a description paragraph by paragraph; the default runs all of them together."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            super(Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n")
        )


def printed(lines: Iterable[str]) -> None:
    """Lines on standard output."""
    for line in lines:
        print(line)


def row(cells: Sequence[Any], widths: Sequence[int]) -> str:
    """Cells side by side, each as wide as its column; the last one takes what it needs."""
    parts = ["" if cell is None else str(cell) for cell in cells]
    return "  ".join(part.ljust(width) for part, width in zip(parts, (*widths, 0), strict=False)).rstrip()


def detail(text: str, indent: str = INDENT) -> list[str]:
    """A sentence below its row: indented, wrapped, no word cut but for one that is longer than a line."""
    inside = " ".join(text.split())
    return textwrap.wrap(
        inside,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * (len(indent) + 2),
        break_on_hyphens=False,
    )


def field(name: str, value: Any, width: int = 11) -> list[str]:
    """A name and its value, which may be long; nothing when there is none."""
    if value is None or value == "":
        return []
    words = str(value).split()
    if max(map(len, words), default=0) > WIDTH - width:  # a long path: whole, on a line of its own
        return [name, *detail(" ".join(words))]
    return textwrap.wrap(
        " ".join(words),
        WIDTH,
        initial_indent=f"{name:<{width}}",
        subsequent_indent=" " * width,
        break_on_hyphens=False,
    )


def moment(at: datetime | None) -> str:
    """A moment to the second, in UTC as the database gives it."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""
