"""The editor of odoo.conf against Odoo's own parser, on files made up at random."""

from __future__ import annotations

import configparser
import io
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rehome_consumer.adapters.odoo.conf_text import KEYS, edit_options, read_sections
from rehome_consumer.errors import ConfUnusable

Parsed = dict[str, dict[str, str]]

VALUES = {"db_host": "new-host", "db_port": "6432", "db_user": "new", "db_password": "%(x)s = ; # ' \" $"}

BLANKS = st.sampled_from(["", "", "", " ", "  ", "\t", "\x0b", "\u00a0"])
NAMES = st.sampled_from([*KEYS, "DB_Host", "Db_Password", "db_name", "workers", "x", "#db_host", "[options"])
DELIMITERS = st.sampled_from(["=", ":", " = ", " : ", "\t=", "==", " "])
WORDS = st.sampled_from(
    ["", "1", "False", "a = b", "; no", "# no", "[x]", "é", "\x1c", "\u2028", "%s", "a  b"]
)
HEADERS = st.sampled_from(
    ["[options]", "[options]", "[options] x", "[OPTIONS]", "[queue_job]", "[DEFAULT]", "[]"]
)
BREAKS = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"])

OPTIONS = st.builds("{}{}{}{}{}".format, BLANKS, NAMES, DELIMITERS, WORDS, BLANKS)
COMMENTS = st.builds("{}{}{}".format, BLANKS, st.sampled_from("#;"), WORDS)
LINES = st.one_of(OPTIONS, OPTIONS, st.builds("{}{}".format, BLANKS, HEADERS), COMMENTS, BLANKS, WORDS)
FILES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "[options]\n", "[options]\r\n", "# top\n[options]\n", "\ufeff[options]\n"]),
    st.lists(st.builds("{}{}".format, LINES, BREAKS), max_size=12).map("".join),
    LINES | st.just(""),
)


def as_odoo_reads(text: str) -> Parsed:
    parser = configparser.RawConfigParser()
    parser.read_file(io.StringIO(text, newline=None))
    if not parser.has_section("options"):
        raise configparser.NoSectionError("options")
    return {"DEFAULT": dict(parser.defaults())} | {
        section: dict(parser.items(section)) for section in parser.sections()
    }


def pieces(text: str) -> list[str]:
    """Lines and line breaks, in turn."""
    return re.split(r"(\r\n|\r|\n)", text)


def edited(text: str) -> str:
    return edit_options(text.encode(), VALUES, "odoo.conf").decode()


@given(FILES)
@example("[options]\ndb_host =")
@example("[options]\n  a = 1\n  [other]\n  db_host = 2")
@example("[options]\nA = 1\n  db_host = 2\n\n# c\n   [x]\ndb_port=1\n[other]\ndb_user=2")
def test_an_edit_changes_the_four_options_alone_or_is_refused(text: str) -> None:
    """Whatever Odoo can read: all other options and all other lines stay."""
    try:
        before = as_odoo_reads(text)
    except configparser.Error:
        with pytest.raises(ConfUnusable):
            edited(text)
        return
    try:
        after = edited(text)
    except ConfUnusable:
        # The only allowed reason: the value of one of the four options goes over several lines, or would.
        options = before["options"]
        assert any("\n" in options.get(key, "\n") for key in KEYS)
        return
    assert as_odoo_reads(after) == {**before, "options": {**before["options"], **VALUES}}
    assert_lines_stay(pieces(text), pieces(after))


@given(FILES)
@example("[options]\ndb_host =\n[queue_job]\njobrunner_db_host =")
@example("[queue_job]\n[options]\n x = 1\n  y\n[x]")
@example("[options]\n[DEFAULT]\njobrunner_db_host = 1\n[queue_job]\n")
def test_an_edit_of_further_options_changes_them_alone_or_is_refused(text: str) -> None:
    """In every section that the file has, one option more."""
    try:
        before = as_odoo_reads(text)
    except configparser.Error:
        return
    others = {(one, "jobrunner_db_host"): "new-host" for one in before if one not in ("DEFAULT", "options")}
    others["options", "db_replica_host"] = "new-host"
    try:
        after = edit_options(text.encode(), VALUES, "odoo.conf", others).decode()
    except ConfUnusable:
        options = [before["options"].get(key, "\n") for key in (*KEYS, "db_replica_host")]
        assert any("\n" in value for value in options) or "\n" in str(before)
        return
    wanted = {section: dict(options) for section, options in before.items()}
    wanted["options"].update(VALUES)
    for (section, key), value in others.items():
        wanted[section][key] = value
    assert as_odoo_reads(after) == wanted
    rest = pieces(after)
    assert [line for line in pieces(text) if line not in rest] == [
        line for line in pieces(text) if line not in rest and is_old(line)
    ]


def is_old(line: str) -> bool:
    """Whether it is an option that was given a new value."""
    key = re.split(r"\s*[=:]", line.strip(), maxsplit=1)[0].strip().lower()
    return key in {*KEYS, "db_replica_host", "jobrunner_db_host"}


def assert_lines_stay(old: list[str], new: list[str]) -> None:
    """`new` is `old` with new values, and one block of new options inserted."""
    added = len(new) - len(old)
    for place in range(0, len(old), 2):
        rest = new[: place + 1] + new[place + 1 + added :]
        differing = [(a, b) for a, b in zip(old, rest, strict=True) if a != b]
        inserted = new[place + 2 : place + 1 + added : 2]
        if all(is_new(b) for _, b in differing) and all(is_new(line) for line in inserted):
            return
    raise AssertionError(f"lines differ: {old} {new}")


def is_new(line: str) -> bool:
    key, _, value = re.sub(r"\s*[=:]\s*", "=", line.strip(), count=1).partition("=")
    return VALUES.get(key.lower()) == value


@given(st.text(min_size=1, max_size=20), st.sampled_from(KEYS))
def test_a_value_that_is_written_is_read_back(value: str, key: str) -> None:
    try:
        data = edit_options(b"[options]\nx = 1\n", {key: value}, "odoo.conf")
    except ConfUnusable:
        return
    assert as_odoo_reads(data.decode())["options"] == {"x": "1", key: value}
    assert read_sections(data, "odoo.conf")["options"][key] == value


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_every_printable_password_can_be_written(password: str) -> None:
    assume(password not in {"True", "true", "False", "false", "None"})
    data = edit_options(b"[options]\ndb_password = x\n", {"db_password": password}, "odoo.conf")
    assert as_odoo_reads(data.decode())["options"]["db_password"] == password


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"[options]", b"[options]\ndb_host = h"),
        (b"[options]\r\nx = 1\r\n\r\n[other]\r\n", b"[options]\r\nx = 1\r\ndb_host = h\r\n\r\n[other]\r\n"),
        (b"[options]\n\tx = 1\n", b"[options]\n\tx = 1\n\tdb_host = h\n"),
        (b"[options]\nx = 1,\n  2\n; end\n[y]", b"[options]\nx = 1,\n  2\ndb_host = h\n; end\n[y]"),
        (b"[options]\ndb_host =", b"[options]\ndb_host =h"),
        (b"[a]\ndb_host = 1\n[options]\nDb_Host\t:\t2 \n", b"[a]\ndb_host = 1\n[options]\nDb_Host\t:\th \n"),
    ],
)
def test_an_option_is_replaced_in_place_or_added_after_the_last_one(before: bytes, after: bytes) -> None:
    assert edit_options(before, {"db_host": "h"}, "odoo.conf") == after
