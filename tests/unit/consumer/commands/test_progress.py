"""How far a long step is, in one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from rehome_consumer.commands.migration_lines import progressed
from rehome_consumer.ports.operators import MigrationView

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(done: int, total: int, seconds: float) -> MigrationView:
    """A step that has run for so many seconds."""
    return MigrationView(
        id=uuid4(), instance_id=uuid4(), attempt=1, state="conf_rewritten", past_pivot=False, reason=None,
        created_at=NOW, updated_at=NOW, ended_at=None, to_plan="premium", step="restore", step_state="running",
        tried_at=NOW - timedelta(seconds=seconds), progress_done=done, progress_total=total,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (at(450, 1000, 45), "45% [#########...........], about 55 s left"),
        (at(1, 1000, 45), "0% [....................]"),
        (at(2000, 1000, 45), "100% [####################]"),
        (at(50, 100, 300), "50% [##########..........], about 5 min left"),
        (at(10, 100, 3600), "10% [##..................], about 9 h left"),
    ],
)
def test_people_see_a_bar_and_how_long_it_takes_yet(one: MigrationView, said: str) -> None:
    assert progressed(one, terminal=True, now=NOW) == said


def test_programs_see_no_bar() -> None:
    assert progressed(at(450, 1000, 45), terminal=False, now=NOW) == "45%, about 55 s left"
