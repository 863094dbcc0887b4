"""The handbook for operators agrees with the code: its tables and words; and its commands, and the runbook's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from rehome_consumer import saga
from rehome_consumer.__main__ import _parser
from rehome_consumer.doctor.finding import Kind
from rehome_consumer.engine.outcome import PATIENCE, UNKNOWN_TRIES
from rehome_consumer.process import health

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operating.md").read_text()
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
COMMAND = re.compile(r"`(rehome [^`]+)`|^\$ (rehome .*)$|^(rehome [a-z][^#\n]*)#", re.MULTILINE)
PLACES = dict.fromkeys(("INSTANCE", "MIGRATION"), "7e77fa1e-d1d7-45cd-a43e-0f7d03ee63aa")
ELSEWHERE = re.compile(r"rehome (publish|run|topology)\b")


def row(step: saga.Step) -> str:
    minutes = int(step.limit.total_seconds()) // 60
    limit = f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"
    then = {"roll_back": "rolled back", "operator": "an operator"}[step.if_it_fails]
    return f"| `{step.name}` | {len(step.retries) + 1} | {', '.join(step.retries)} | {limit} | {then} |"


def test_the_retry_table_agrees_with_the_saga() -> None:
    wanted = [row(step) for step in saga.MIGRATION]
    names = "|".join(step.name for step in saga.MIGRATION)
    assert re.findall(rf"^\| `(?:{names})` \|.*$", PAGE, re.MULTILINE) == wanted


def test_deferrals_and_unexpected_errors_are_explained_with_their_numbers() -> None:
    assert UNKNOWN_TRIES == 3
    assert "is tried three times at most" in PAGE
    assert ", ".join(PATIENCE) == "1s, 1s, 10s, 10s, 1m"
    assert "come back after 1s, 1s, 10s, 10s, then every minute" in PAGE


def test_every_finding_is_explained() -> None:
    firsts = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", PAGE, re.MULTILINE)
    explained = {kind.strip("`") for first in firsts for kind in first.split(", ")}
    assert [kind for kind in get_args(Kind) if kind not in explained] == []


def test_every_metric_is_explained() -> None:
    source = Path(health.__file__).read_text()
    metrics = set(re.findall(r'"(rehome_[a-z_]+)"', source))
    assert metrics == set(re.findall(r"^\| `(rehome_[a-z_]+)", PAGE, re.MULTILINE))


def commands() -> list[str]:
    found = {"".join(groups).strip() for page in (PAGE, RUNBOOK) for groups in COMMAND.findall(page)}
    return sorted(one for one in found if not ELSEWHERE.match(one))


def exit_code(words: list[str]) -> object:
    """The exit code of parsing a command's arguments, 0 when they are valid."""
    try:
        _parser().parse_args(words)
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("command", commands())
def test_every_command_is_valid(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [PLACES.get(word, word) for word in shlex.split(command)[1:]]
    if words in (["check"], ["roll-back"]):  # mentioned without what it needs
        words.append("--help")
    assert exit_code(words) == 0, capsys.readouterr().err
