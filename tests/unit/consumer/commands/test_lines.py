"""The output of commands: lines of a terminal's width, and arguments that are refused in one line."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from uuid import UUID

import pytest

from rehome_consumer.commands import migration_lines
from rehome_consumer.commands.arguments import a_count, a_span, a_text, an_id
from rehome_consumer.commands.lines import PIPED, cut, detail, field, folded, width
from rehome_consumer.operators.ages import age
from rehome_consumer.operators.attention import attention as attention_of
from rehome_consumer.ports.operators import ClaimHolder, waiting_view
from tests.support.snapshots import INSTANCE, MIGRATION, NOW, a_view, ago

if TYPE_CHECKING:
    from collections.abc import Callable

HOLDER = ClaimHolder(INSTANCE, 1, "10.0.0.7", ago(minutes=3))
LONG = "the copy differs: " + "table public.a_table_with_a_rather_long_name, " * 5


def block(state: str, holder: ClaimHolder | None = None, **columns: Any) -> str:
    return "\n".join(migration_lines.block(a_view(state, **columns), holder, now=NOW))


def attention(state: str, holder: ClaimHolder | None = None, **columns: Any) -> str | None:
    return attention_of(a_view(state, **columns), holder, now=NOW)


def test_a_waiting_step_says_why_since_when_its_next_try_and_what_follows() -> None:
    lines = block(
        "requested", step="prepare", step_state="waiting", tries=2, error=LONG,
        started_at=ago(minutes=20), tried_at=ago(minutes=1), next_try_at=ago(seconds=-40),
    )  # fmt: skip
    assert "prepare waiting" in lines
    assert "20m" in lines
    assert "in 40s" in lines
    assert "tried 2 of 7 time(s), then it is rolled back" in " ".join(lines.split())
    assert "why: the copy differs" in lines
    assert all(len(line) <= PIPED for line in lines.splitlines())
    assert "needs an operator" not in lines


def test_past_the_point_of_no_return_a_failed_step_waits_for_an_operator() -> None:
    lines = block("started", step="complete", step_state="waiting", tries=1, next_try_at=ago(seconds=-1))
    assert "tried 1 of 10 time(s), then it waits for an operator" in " ".join(lines.split())


def test_a_running_step_shows_its_consumer_its_progress_and_how_long_it_may_take() -> None:
    lines = block(
        "conf_rewritten", HOLDER, step="restore", step_state="running", progress_done=30, progress_total=40
    )
    assert "restore running 75%" in lines
    assert "a consumer at 10.0.0.7 has worked on it for 3m (a try may take 24 h)" in lines


@pytest.mark.parametrize(
    ("state", "columns", "words"),
    [
        ("failed", {}, f"it failed; rehome dead list --instance {INSTANCE}, or rehome roll-back {MIGRATION}"),
        ("failed", {"past_pivot": True}, f"it failed; rehome dead list --instance {INSTANCE}"),
        ("stopped", {"updated_at": ago(minutes=5)}, f"rehome doctor {INSTANCE}"),
        (
            "stopped",
            {"step_state": "waiting", "next_try_at": ago(minutes=4)},
            "no consumer has worked on it for 4m",
        ),
    ],
)
def test_what_needs_an_operator_names_the_commands(state: str, columns: dict[str, Any], words: str) -> None:
    assert words in (attention(state, **columns) or "")


@pytest.mark.parametrize(
    ("state", "holder", "columns"),
    [
        ("completed", None, {}),
        ("stopped", HOLDER, {}),
        ("stopped", None, {"updated_at": ago(seconds=30)}),
        ("stopped", None, {"step_state": "waiting", "next_try_at": ago(minutes=-30)}),
    ],
    ids=["over", "worked on", "changed lately", "waits for its next try"],
)
def test_a_migration_that_makes_progress_needs_no_operator(
    state: str, holder: ClaimHolder | None, columns: dict[str, Any]
) -> None:
    assert attention(state, holder, **columns) is None


def waiting(**columns: Any) -> Any:
    view = waiting_view(
        id=UUID(int=0x33, version=4), instance_id=INSTANCE, to_plan="premium-yearly", created_at=ago(minutes=9),
        updated_at=ago(seconds=20), next_try_at=ago(seconds=-40), behind=MIGRATION, behind_state="restored",
        behind_over=False,
    )  # fmt: skip
    return replace(view, **columns)


def test_a_waiting_upgrade_says_since_when_for_which_migration_and_its_next_try() -> None:
    lines = migration_lines.block(waiting(), HOLDER, now=NOW)
    assert lines[0].split() == [str(INSTANCE), "waiting", "accept", "waiting", "9m", "in", "40s"]
    details = " ".join(" ".join(lines[1:]).split())
    assert details == (
        f"upgrade to premium-yearly; its migration will be {UUID(int=0x33, version=4)} "
        f"why: migration {MIGRATION} holds the instance (restored): this upgrade waits for its end"
    )
    assert all(len(line) <= PIPED for line in lines)


def test_an_upgrade_that_does_not_come_back_needs_an_operator_whoever_works_on_the_instance() -> None:
    assert attention_of(waiting(next_try_at=ago(seconds=80)), None, now=NOW) is None
    lost = waiting(next_try_at=ago(minutes=3))
    for holder in (HOLDER, None):
        why = attention_of(lost, holder, now=NOW)
        assert why == "its next try is overdue: is a consumer running? see also rehome dead list"


def test_text_is_wrapped_and_no_identifier_is_cut() -> None:
    long = f"{'x ' * 45}{MIGRATION} {'y' * 200}"
    assert any(str(MIGRATION) in line for line in detail(long))
    assert field("name", None) == field("name", "") == []
    assert all(len(line) <= PIPED for line in field("name", "word " * 60))


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (45, "45s"),
        (119, "119s"),
        (120, "2m"),
        (3 * 3600 + 300, "3h05m"),
        (50 * 3600, "2d02h"),
        (-40, "in 40s"),
    ],
)
def test_an_age_is_short(span: int, words: str) -> None:
    assert age(NOW - timedelta(seconds=span), now=NOW) == words
    assert age(None) == ""


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (an_id, [str(INSTANCE)], ["", "acme", "7e77fa1e", f"{INSTANCE}0"]),
        (a_span, ["0", "1.5"], ["-1", "x", "", "nan", "inf"]),
        (a_count, ["1", "50"], ["0", "-5", "1.5", "x", "²", ""]),
        (a_text, ["why"], ["", "  ", "\n"]),
    ],
)
def test_wrong_arguments_are_refused(kind: Callable[[str], Any], good: list[str], bad: list[str]) -> None:
    for text in good:
        assert str(kind(text)) in (text, f"{text}.0")
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


@pytest.mark.parametrize(
    ("columns", "wanted"), [("40", 60), ("80", 80), ("100", 100), ("500", 120), ("0", PIPED), ("", PIPED)]
)
def test_lines_are_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: str, wanted: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(os, "get_terminal_size", Mock(side_effect=OSError("no terminal")))
    assert width() == wanted
    assert max(map(len, detail("word " * 90) + field("name", "word " * 90))) <= wanted


def test_a_narrow_terminal_has_the_rest_of_a_row_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cells = (str(MIGRATION), "roll_back", "gave_up_waiting", "3h05m", 4)
    assert folded(cells, (36, 14, 17, 9, 5)) == [
        f"{MIGRATION}  roll_back       gave_up_waiting",
        "    3h05m      4",
    ]
    assert folded(("a", "b", "c", "", ""), (36, 14, 17, 9, 5)) == [f"a{' ' * 37}b{' ' * 15}c"]
    monkeypatch.setenv("COLUMNS", "100")
    assert len(folded(cells, (36, 14, 17, 9, 5))) == 1


def test_a_cut_text_is_escaped_first() -> None:
    assert cut("restore running 45%", 22) == "restore running 45%"
    assert cut("\x1b" * 9, 8) == r"\x1b\x1…"


def test_a_narrow_row_keeps_id_and_state_and_tells_the_rest_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = migration_lines.block(waiting(), HOLDER, now=NOW)
    assert lines[0].split() == [str(INSTANCE), "waiting", "9m", "in", "40s"]
    assert lines[1] == "    step accept waiting"
    monkeypatch.setenv("COLUMNS", "60")
    lines = migration_lines.block(waiting(), HOLDER, now=NOW)
    assert lines[0].split() == [str(INSTANCE), "waiting"]
    assert " ".join(" ".join(lines[1:3]).split()).startswith(
        "step accept waiting, for 9m, next try in 40s upgrade to"
    )
