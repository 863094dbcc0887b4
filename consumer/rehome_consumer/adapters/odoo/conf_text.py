"""odoo.conf as text: read as Odoo reads it, edited without touching any other byte.

Odoo reads it with `RawConfigParser`. Writing through that parser would drop comments and lower-case the keys,
so the lines are found by a scanner written here; afterwards both texts are parsed as Odoo would, and nothing
but the four options may differ.
"""

from __future__ import annotations

import io
import re
from configparser import (
    DuplicateOptionError,
    DuplicateSectionError,
    MissingSectionHeaderError,
    ParsingError,
    RawConfigParser,
)
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import ConfUnusable

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS: Final = ("db_host", "db_port", "db_user", "db_password")
"""The options that a migration changes."""

UNSET: Final = frozenset({"", "False", "false", "None"})
"""Texts that Odoo reads as no value (it writes `db_host = False` itself)."""

_NOT_A_TEXT: Final = UNSET | {"True", "true"}

_SECTION = "options"
_LINE = re.compile(r"(?P<content>[^\r\n]*)(?P<end>\r\n|\r|\n|\Z)")


def read_options(data: bytes, name: str) -> dict[str, str]:
    """The options in `[options]`: lower-case key -> value, as Odoo sees it.

    Args:
        data: the file's bytes.
        name: the file's name, which errors start with.

    Raises:
        ConfUnusable: Odoo cannot read it either, or one of the four options goes over several lines.
    """
    text = _decode(data, name)
    sections = _parse(text, name)
    _scan(text, name)
    return sections[_SECTION]


def edit_options(data: bytes, values: Mapping[str, str], name: str) -> bytes:
    """The file with these options in `[options]`; every other byte stays.

    An option that is there keeps its line, with a new value; one that is not is added at the section's end.

    Args:
        data: the file's bytes.
        values: new value by lower-case key; only `KEYS`.
        name: the file's name, which errors start with.

    Raises:
        ConfUnusable: as `read_options`; or a value cannot be written so that Odoo reads it back.
    """
    for key, value in values.items():
        _require_writable(key, value, name)
    text = _decode(data, name)
    before = _parse(text, name)
    edited = _apply(text, _scan(text, name), values)
    expected = {**before, _SECTION: {**before[_SECTION], **values}}
    with suppress(ConfUnusable):
        if _parse(edited, name) == expected:
            return edited.encode()
    raise ConfUnusable(f"{name}: it cannot be edited without changing other options; edit it by hand")


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfUnusable(f"{name}: byte {error.start} is not UTF-8") from None


def _parse(text: str, name: str) -> dict[str, dict[str, str]]:
    """Section -> options, as Odoo's parser sees them. No error shows a line: it may be the password."""
    parser = RawConfigParser()
    try:
        parser.read_file(io.StringIO(text, newline=None))
    except DuplicateSectionError as error:
        reason = f"line {error.lineno}: section [{error.section}] appears twice"
    except DuplicateOptionError as error:
        reason = f"line {error.lineno}: option {error.option} appears twice in [{error.section}]"
    except MissingSectionHeaderError as error:
        what = "the byte-order mark before it" if text.startswith("\ufeff") else "something"
        reason = f"line {error.lineno}: {what} appears above the first section"
    except ParsingError as error:
        lines = ", ".join(str(number) for number, _ in error.errors)
        reason = f"line {lines}: neither a section, an option, nor a comment"
    else:
        if parser.has_section(_SECTION):
            return {parser.default_section: dict(parser.defaults())} | {
                section: dict(parser.items(section)) for section in parser.sections()
            }
        reason = f"it has no section [{_SECTION}]"
    raise ConfUnusable(f"{name}: {reason}; Odoo cannot read it") from None


@dataclass
class _Found:
    """Where things are in the text.

    Attributes:
        values: key -> start and end of its value.
        end: where a further option may be inserted, its line break before it.
        indent: what is before the last option, or header, of the section.
        line_break: how the section's lines end.
    """

    values: dict[str, tuple[int, int]] = field(default_factory=dict)
    end: int = 0
    indent: str = ""
    line_break: str = "\n"


def _scan(text: str, name: str) -> _Found:
    """Find the four options' values and the section's end, line by line, by the rules of `RawConfigParser`.

    The text is one that the parser has read, so a line is blank, a comment, the continuation of a value
    (indented deeper than its option), a section's header or an option.
    """
    found = _Found()
    section = option = None
    level = 0
    for line in _LINE.finditer(text):
        content, line_break = line["content"], line["end"]
        bare = content.strip()
        if not bare or bare[0] in "#;":
            continue
        indent = len(content) - len(content.lstrip())
        if option is not None and indent > level:
            if section == _SECTION and option in KEYS:
                raise ConfUnusable(f"{name}: the value of {option} goes over several lines")
        else:
            level = indent
            if header := RawConfigParser.SECTCRE.match(bare):
                section, option = header["header"], None
            elif entry := RawConfigParser.OPTCRE.match(bare):
                option = entry["option"].rstrip().lower()
                if section == _SECTION and option in KEYS:
                    first = line.start() + indent
                    found.values[option] = (first + entry.start("value"), first + len(bare))
            found.indent = content[:indent] if section == _SECTION else found.indent
        if section == _SECTION:
            found.end = line.end("content")
            found.line_break = line_break or found.line_break
    return found


def _apply(text: str, found: _Found, values: Mapping[str, str]) -> str:
    added = "".join(
        f"{found.line_break}{found.indent}{key} = {value}"
        for key, value in values.items()
        if key not in found.values
    )
    text = text[: found.end] + added + text[found.end :]
    # From the end, so that earlier places stay where they were found.
    for (start, end), key in sorted(
        ((found.values[key], key) for key in values if key in found.values), reverse=True
    ):
        text = text[:start] + values[key] + text[end:]
    return text


def _require_writable(key: str, value: str, name: str) -> None:
    """Raise ConfUnusable unless Odoo reads the value back as it is. Does not show it."""
    if value in _NOT_A_TEXT:
        reason = "is a word that Odoo does not read as text"
    elif re.search(r"[\r\n\0]", value):
        reason = "holds a line break or a NUL"
    elif value != value.strip():
        reason = "begins or ends with a blank"
    elif re.search("[\ud800-\udfff]", value):
        reason = "is not Unicode text"
    else:
        return
    raise ConfUnusable(f"{name}: the new {key} {reason}, which odoo.conf cannot hold; choose another")
