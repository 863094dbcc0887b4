"""What a report makes of the journal's rows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from rehome_consumer import saga
from rehome_consumer.commands.report_lines import contents, definitions
from rehome_consumer.facts import RecordedFacts
from rehome_consumer.model import Compared
from rehome_consumer.operators.documents import Line, Step
from rehome_consumer.operators.reader import failed_tries, shown
from rehome_consumer.operators.report import COPYING, act_of, attempt_of
from rehome_consumer.ports.operators import REPLAYED, signed
from tests.support.snapshots import NOW, ago

REHEARSAL = {
    "mode": "full", "database_bytes": 1, "dump_seconds": 6.0, "restore_seconds": 21.0, "compare_seconds": 4.5,
}  # fmt: skip
COLD = {"name": "cold", "why": "REHOME_STRATEGY is cold"}
WARM = {"name": "warm", "why": "both servers allow it"}


def line(what: str, detail: str | None) -> Line:
    return Line(attempt=1, at=NOW, what=what, detail=detail)


def step(name: str, seconds: float | None, attempt: int = 1) -> Step:
    return Step(
        attempt=attempt, step=name, state="done", tries=0, error=None, next_try_at=None, started_at=NOW,
        tried_at=NOW, done_at=None if seconds is None else NOW + timedelta(seconds=seconds), seconds=seconds,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (("anna", "it is repaired", "plan.upgraded to accept: failed, no; room"), None),
        (("anna", "no; not yet", ""), None),
        (("bert@night", "", "dropped database acme on pool-1; dropped role acme on pool-1"), None),
        (("uid 4711", "", ""), None),
        (("", "the customer asked", ""), (None, None, "the customer asked")),
        (("", "", "plan.upgraded of accept"), (None, None, "plan.upgraded of accept")),
        (("anna", "by root: forged\n", "x.y of z: by root: forged; a.b to c: d"), None),
    ],
)
def test_an_act_is_read_as_it_was_signed(given: tuple[str, str, str], read: Any) -> None:
    found = act_of(line(REPLAYED, signed(*given)))
    assert (found.who, found.why, found.detail) == (read or tuple(part or None for part in given))


def test_an_act_without_a_detail_is_an_act() -> None:
    assert act_of(line(REPLAYED, None)).who is None


def test_the_forecast_is_of_the_copy_that_the_customer_waits_for() -> None:
    assert all(saga.named(name) for name in COPYING)
    steps = [step("back_up", 5.0), step("restore", 20.0), step("restore", 99.0, attempt=2)]
    cold = attempt_of(1, RecordedFacts({"strategy": COLD, "rehearsal": REHEARSAL}), steps)
    assert (cold.strategy, cold.expected_copy_seconds, cold.copy_seconds) == ("cold", 31.5, 25.0)
    warm = attempt_of(1, RecordedFacts({"strategy": WARM, "rehearsal": REHEARSAL}), steps)
    assert (warm.strategy, warm.expected_copy_seconds, warm.copy_seconds) == ("warm", None, None)
    given_up = {"strategy": WARM, "rehearsal": REHEARSAL, "warm_given_up": "it was hours behind"}
    late = attempt_of(1, RecordedFacts(given_up), steps)
    assert (late.strategy, late.strategy_reason, late.copy_seconds) == ("cold", "it was hours behind", 25.0)
    rows = {"strategy": COLD, "rehearsal": {**REHEARSAL, "mode": "definitions"}}
    assert attempt_of(1, RecordedFacts(rows), steps[:1]).expected_copy_seconds is None
    assert attempt_of(1, RecordedFacts(rows), steps[:1]).copy_seconds is None


def test_what_was_compared_of_a_warm_move_is_said() -> None:
    changed = Compared("changed", tables=5, by_key=4, rows=4820, definitions="unchanged")
    lost = Compared("everything", "the witness is lost", definitions_why="a table was made")
    for found in (changed, lost):
        attempt = attempt_of(1, RecordedFacts({"strategy": WARM, "compared": asdict(found)}), [])
        assert attempt.model_dump(mode="json")["contents"] == asdict(found)
    assert contents(changed).startswith(
        "of the 5 table(s) written to since the copy began; of 4 of them the 4820 row(s)"
    )
    assert contents(lost) == "of all tables: the witness is lost"
    assert definitions(changed).startswith("not read again: nothing has changed")
    assert definitions(lost) == "compared again: a table was made"
    of_an_older_release = {"how": "changed", "why": "", "tables": 5, "by_key": 4, "rows": 4820}
    attempt = attempt_of(1, RecordedFacts({"strategy": WARM, "compared": of_an_older_release}), [])
    assert attempt.contents is not None
    assert definitions(attempt.contents) == "compared again"
    assert attempt_of(1, RecordedFacts({"strategy": WARM}), []).contents is None


def test_a_downtime_ends_where_the_instance_served_first() -> None:
    both = {"stopped_at": ago(seconds=90), "healthy_at": ago(seconds=30), "restarted_at": ago(seconds=10)}
    texts = {name: at.isoformat() for name, at in both.items()}
    assert attempt_of(1, RecordedFacts(texts), []).downtime_seconds == 60
    del texts["healthy_at"]
    assert attempt_of(1, RecordedFacts(texts), []).downtime_seconds == 80
    del texts["restarted_at"]
    assert attempt_of(1, RecordedFacts(texts), []).downtime_seconds is None


def test_secrets_are_masked_wherever_they_stand() -> None:
    facts = {
        "tenant_password": None,
        "platform_record": {"db_password": "hunter2", "nested": [{"api_key": "hunter2", "port": 5432}]},
        "warm_given_up": "postgres://acme:hunter2@pool-1/acme: no answer",
    }
    found = shown(RecordedFacts(facts))
    assert "hunter2" not in repr(found)
    assert found["platform_record"]["nested"][0]["port"] == 5432
    assert found["tenant_password"] is None


def test_tries_are_what_the_history_says_of_steps() -> None:
    history = [
        line("opened", None), line("restore waits", "no room"), line("restore failed", "gave up"),
        line("restore done", None), line("somebody waits", "who?"),
    ]  # fmt: skip
    assert [(one.step, one.what, one.why) for one in failed_tries(history)] == [
        ("restore", "waits", "no room"),
        ("restore", "failed", "gave up"),
    ]
