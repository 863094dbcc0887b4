"""Text from others is printed without controlling the terminal, and means the same in JSON."""

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rehome_events.__main__ import main
from rehome_events.printable import visible, visible_json

HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x7f\u202e\u2066\u2028\u200b\r\nforged"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("acme é 日本 🙂", "acme é 日本 🙂"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x9b31m\x85\x7f", r"\x9b31m\x85\x7f"),
        ("\u202eevil\u2066\u200b\ufeff\u2028\xa0", r"\u202eevil\u2066\u200b\ufeff\u2028\xa0"),
        ("\U000e0041 \ud800", r"\U000e0041 \ud800"),
    ],
)
def test_what_is_not_printable_becomes_an_escape(text: str, printed: str) -> None:
    assert visible(text) == printed


@given(st.text(st.characters()))
@example(HOSTILE)
def test_only_printable_characters_are_left_and_what_is_printable_stays(text: str) -> None:
    printed = visible(text)
    assert printed.isprintable()
    assert visible(printed) == printed
    assert not text.isprintable() or printed == text


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@example({HOSTILE: [HOSTILE, "\U000e0041 🙂"]})
def test_json_means_the_same_and_has_printable_characters_only(value: object) -> None:
    for text in (
        orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(),
        json.dumps(value, ensure_ascii=False),
    ):
        printed = visible_json(text)
        assert json.loads(printed) == value
        assert all(line.isprintable() for line in printed.split("\n"))


def test_the_command_line_prints_names_of_files_and_arguments_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["validate", f"/nonexistent/{HOSTILE}"]) == 2
    with pytest.raises(SystemExit):
        main(["list", f"--{HOSTILE}"])
    printed = capsys.readouterr().err
    assert printed.count(r"\x1b]52;c;") == 2
    assert all(line.isprintable() for line in printed.split("\n"))
    assert not any(line.startswith("forged") for line in printed.split("\n"))
