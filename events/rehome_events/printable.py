"""Text from others, made safe to print: no character of it may control a terminal or hide another.

Names, comments and errors may hold escape sequences (to clear a screen, to fill the clipboard), C1 controls,
characters that change the direction of writing, and line ends that forge lines.
"""

import argparse
import re
from typing import Final, Never

_NOT_ASCII: Final = re.compile(r"[^\n -~]")


def visible(text: str) -> str:
    r"""The text with whatever is not printable written as in Python: `\n`, `\x1b`, `\u202e`.

    Printable is what Unicode calls a letter, a mark, a number, punctuation, a symbol or the space; that is what
    `str.isprintable` says. Applied twice, the result is the same.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def visible_json(text: str) -> str:
    r"""A JSON text with whatever is not printable written as in JSON, `\u202e`; it means the same, indented or not."""
    return _NOT_ASCII.sub(lambda found: _in_json(found[0]), text)


def _escaped(one: str) -> str:
    return one if one.isprintable() else repr(one)[1:-1]


def _in_json(one: str) -> str:
    if one.isprintable():
        return one
    code = ord(one)
    if code < 0x10000:  # noqa: PLR2004 - the end of what four digits hold
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors repeat their input in printable form only."""

    def error(self, message: str) -> Never:
        """Print what is wrong, and exit with code 2."""
        super().error(visible(message))
