"""The command line of a service, searched for Odoo's options. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from rehome_consumer.steps.support.conf_settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LONG: Final = {one.key.replace("-", "_"): one.key for one in SETTINGS if one.place == "arguments"}
_SHORT: Final = {short: one.key for one in SETTINGS if one.place == "arguments" for short in one.aliases}
_ABBREVIATED: Final = "__db_"
"""Odoo takes a long option's beginning for the whole, if no other one begins like that."""
_ODOO: Final = frozenset({"odoo", "odoo-bin", "odoo.py", "openerp-server", "--"})


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What was found.

    Attributes:
        options: the key in `SETTINGS`, and its value; in the order of the command line, where the last one counts.
        rest: all other words.
    """

    options: tuple[tuple[str, str], ...] = ()
    rest: tuple[str, ...] = ()


def parsed(words: Iterable[str]) -> CommandLine:
    """Odoo's options that `SETTINGS` knows, also inside of a shell's command line (`sh -c "odoo --db_host=..."`).

    Short options (`-r`) count from Odoo's program on, or where the image's own program is given options only.
    """
    remaining = _split(words)
    options: list[tuple[str, str]] = []
    rest: list[str] = []
    odoo: bool | None = None
    for word in remaining:
        if odoo is None:
            odoo = word.startswith("-")
        name, given, value = word.partition("=")
        if PurePosixPath(word).name in _ODOO:
            odoo = True
        elif (key := _long(name)) is not None:
            options.append((key, value if given else next(remaining, "")))
        elif odoo and word[:2] in _SHORT:
            options.append((_SHORT[word[:2]], word[2:] or next(remaining, "")))
        else:
            rest.append(word)
    return CommandLine(tuple(options), tuple(rest))


def _split(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        try:
            yield from shlex.split(word) if any(map(str.isspace, word)) else (word,)
        except ValueError:
            yield from word.split()


def _long(name: str) -> str | None:
    if not name.startswith("--"):
        return None
    plain = name.replace("-", "_")
    if plain in _LONG:
        return _LONG[plain]
    begin = [key for known, key in _LONG.items() if known.startswith(plain)]
    return begin[0] if plain.startswith(_ABBREVIATED) and len(begin) == 1 else None
