"""Lines as wide as the terminal, 100 columns where there is none; identifiers are never split.

All output goes through this module, and is escaped as `rehome_events.printable` says: a tenant's database may have any
name, and errors quote it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, TextIO

from rehome_events.printable import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

PIPED = 100
"""Columns where the output is no terminal: a pipe, a file. COLUMNS says otherwise."""
NARROWEST = 60
"""Narrower terminals break lines themselves: an id in its sentence needs as much."""
WIDEST = 120
"""Sentences that are longer are not read."""
READER_GONE = 141
"""Exit code when whoever read the output has ended, as shells report it (SIGPIPE)."""
INDENT = "    "
_BLANK = re.compile(r"[ \t\r\n]+")


class Paragraphs(argparse.HelpFormatter):
    """Wraps a description paragraph by paragraph; the default runs all of them together."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            super(Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n")
        )


def width() -> int:
    """Columns of a line."""
    return min(max(shutil.get_terminal_size((PIPED, 24)).columns, NARROWEST), WIDEST)


def is_terminal() -> bool:
    """Whether a person looks at the output as it is printed."""
    return sys.stdout.isatty()


def printed(lines: Iterable[str]) -> None:
    """Lines on standard output."""
    say(*lines)


def say(*lines: str, error: bool = False) -> None:
    """Lines on standard output, or on standard error; a line end inside one is escaped."""
    for line in lines:
        _print(visible(line), sys.stderr if error else sys.stdout)


def say_json(text: str) -> None:
    """A JSON text on standard output."""
    _print(visible_json(text), sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    """Print it; when its reader has gone (`| head`), end quietly."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python writes the rest at its end
        raise SystemExit(READER_GONE) from None


def words(text: str) -> str:
    """The text in one line, escaped."""
    return visible(_BLANK.sub(" ", text).strip(" "))


def row(cells: Sequence[Any], widths: Sequence[int]) -> str:
    """Cells side by side, each padded to its column's width; the last one is as long as it is."""
    parts = ["" if cell is None else visible(str(cell)) for cell in cells]
    return "  ".join(part.ljust(size) for part, size in zip(parts, (*widths, 0), strict=False)).rstrip()


def folded(cells: Sequence[Any], widths: Sequence[int]) -> list[str]:
    """A row, or two where the terminal is too narrow for its columns: those that do not fit are below, indented.

    Args:
        cells: the first ones are what matters; headings are folded in the same places.
        widths: of all columns, also of the last.
    """
    fitting, used = 0, -2
    for size in widths:
        used += size + 2
        if used > width():
            break
        fitting += 1
    lines = [row(cells[:fitting], widths[:fitting])]
    if rest := row(cells[fitting:], widths[fitting:]):
        lines.append(f"{INDENT}{rest}")
    return lines


def cut(text: str, size: int) -> str:
    """The text, escaped, in so many columns."""
    text = visible(text)
    return text if len(text) <= size else f"{text[: size - 1]}…"


def detail(text: str, indent: str = INDENT) -> list[str]:
    """A sentence below its row: indented and wrapped; no word is cut unless it is longer than a line."""
    return textwrap.wrap(
        words(text),
        width(),
        initial_indent=indent,
        subsequent_indent=" " * (len(indent) + 2),
        break_on_hyphens=False,
    )


def field(name: str, value: Any, start: int = 11) -> list[str]:
    """A name and its value, wrapped; nothing when there is no value."""
    if value is None or value == "":
        return []
    text = words(str(value))
    if (
        max(map(len, text.split(" ")), default=0) > width() - start
    ):  # a long path: uncut, on a line of its own
        return [name, *detail(text)]
    return textwrap.wrap(
        text,
        width(),
        initial_indent=f"{name:<{start}}",
        subsequent_indent=" " * start,
        break_on_hyphens=False,
    )


def moment(at: datetime | None) -> str:
    """A moment to the second, in UTC as the database returns it."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""
