"""odoo.conf as text: read as Odoo reads it, edited without touching any other byte.

Odoo reads it with `RawConfigParser`. Writing through that parser would drop comments and lower-case the keys,
so the lines are found by a scanner written here; afterwards both texts are parsed as Odoo would, and nothing
but the options that were to be changed may differ.
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
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import ConfUnusable
from rehome_consumer.model import CONF_UNSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rehome_consumer.model import ConfKey, LoginPart

KEYS: Final[tuple[LoginPart, ...]] = ("db_host", "db_port", "db_user", "db_password")
"""The options of `[options]` that every migration changes."""

SECTION: Final = "options"
"""The section that Odoo itself reads."""

_NOT_A_TEXT: Final = CONF_UNSET | {"True", "true"}
_NONE: Final[Mapping[ConfKey, str]] = MappingProxyType({})

_LINE = re.compile(r"(?P<content>[^\r\n]*)(?P<end>\r\n|\r|\n|\Z)")


def read_sections(data: bytes, name: str) -> dict[str, dict[str, str]]:
    """Every section: lower-case key -> value, as Odoo sees them; what `[DEFAULT]` gives is in all of them.

    Args:
        data: the file's bytes.
        name: the file's name, which errors start with.

    Raises:
        ConfUnusable: Odoo cannot read it either, or one of the four options goes over several lines.
    """
    text = _decode(data, name)
    sections = _parse(text, name)
    _require_one_line(_scan(text), [(SECTION, key) for key in KEYS], name)
    return sections


def edit_options(
    data: bytes, values: Mapping[str, str], name: str, others: Mapping[ConfKey, str] = _NONE
) -> bytes:
    """The file with these options in `[options]`, and `others` elsewhere; every other byte stays.

    An option that is there keeps its line, with a new value; one that is not is added at the section's end.

    Args:
        data: the file's bytes.
        values: new value by lower-case key; only `KEYS`.
        name: the file's name, which errors start with.
        others: new value by section and lower-case key; the section is there.

    Raises:
        ConfUnusable: as `read_sections`; or a value cannot be written so that Odoo reads it back.
    """
    wanted = {**{(SECTION, key): value for key, value in values.items()}, **others}
    for place, value in wanted.items():
        _require_writable(place, value, name)
    text = _decode(data, name)
    before = _parse(text, name)
    found = _scan(text)
    if gone := sorted({section for section, _ in wanted} - found.keys()):
        raise ConfUnusable(f"{name}: it has no section [{gone[0]}] any more")
    _require_one_line(found, [*((SECTION, key) for key in KEYS), *wanted], name)
    edited = _apply(text, found, wanted)
    expected = {section: dict(options) for section, options in before.items()}
    for (section, key), value in wanted.items():
        expected[section][key] = value
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
        if parser.has_section(SECTION):
            return {parser.default_section: dict(parser.defaults())} | {
                section: dict(parser.items(section)) for section in parser.sections()
            }
        reason = f"it has no section [{SECTION}]"
    raise ConfUnusable(f"{name}: {reason}; Odoo cannot read it") from None


@dataclass
class _Found:
    """Where things are in one section.

    Attributes:
        values: key -> start and end of its value.
        folded: keys whose value goes over several lines.
        end: where a further option may be inserted, its line break before it.
        indent: what is before the last option, or header, of the section.
        line_break: how the section's lines end.
    """

    values: dict[str, tuple[int, int]] = field(default_factory=dict)
    folded: set[str] = field(default_factory=set)
    end: int = 0
    indent: str = ""
    line_break: str = "\n"


def _scan(text: str) -> dict[str, _Found]:
    """Find every section's values and end, line by line, by the rules of `RawConfigParser`.

    The text is one that the parser has read, so a line is blank, a comment, the continuation of a value
    (indented deeper than its option), a section's header or an option.
    """
    sections: dict[str, _Found] = {}
    found = _Found()
    option = None
    level = 0
    for line in _LINE.finditer(text):
        content, line_break = line["content"], line["end"]
        bare = content.strip()
        if not bare or bare[0] in "#;":
            continue
        indent = len(content) - len(content.lstrip())
        if option is not None and indent > level:
            found.folded.add(option)
        else:
            level = indent
            if header := RawConfigParser.SECTCRE.match(bare):
                found, option = sections.setdefault(header["header"], _Found()), None
            elif entry := RawConfigParser.OPTCRE.match(bare):
                option = entry["option"].rstrip().lower()
                first = line.start() + indent
                found.values[option] = (first + entry.start("value"), first + len(bare))
            found.indent = content[:indent]
        found.end = line.end("content")
        found.line_break = line_break or found.line_break
    return sections


def _require_one_line(sections: Mapping[str, _Found], keys: Iterable[ConfKey], name: str) -> None:
    for section, key in keys:
        if section in sections and key in sections[section].folded:
            raise ConfUnusable(f"{name}: the value of {shown((section, key))} goes over several lines")


def _apply(text: str, sections: Mapping[str, _Found], values: Mapping[ConfKey, str]) -> str:
    """Set the values; a section that has not got a key gets it at its end, in the order of `values`."""
    replaced: list[tuple[int, int, str]] = []
    added: dict[str, str] = {}
    for (section, key), value in values.items():
        found = sections[section]
        if key in found.values:
            replaced.append((*found.values[key], value))
        else:
            line = f"{found.line_break}{found.indent}{key} = {value}"
            added[section] = added.get(section, "") + line
    inserted = [(sections[section].end, sections[section].end, lines) for section, lines in added.items()]
    # From the end, so that earlier places stay where they were found; an insertion before the value that it follows.
    for start, end, new in sorted([*inserted, *replaced], key=lambda edit: edit[:2], reverse=True):
        text = text[:start] + new + text[end:]
    return text


def shown(place: ConfKey) -> str:
    """How people and events are told of an option: `db_host`, `queue_job.jobrunner_db_host`."""
    section, key = place
    return key if section == SECTION else f"{section}.{key}"


def _require_writable(place: ConfKey, value: str, name: str) -> None:
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
    raise ConfUnusable(
        f"{name}: the new {shown(place)} {reason}, which odoo.conf cannot hold; choose another"
    )
