"""Which instances of a pool a drain moves, in which order, and why not the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from rehome_consumer.commands.drain_lines import plan_lines, size
from rehome_consumer.commands.lines import PIPED
from rehome_consumer.model import Credentials, Instance, Secret, Server
from rehome_consumer.operators.drain_plan import Entry, Wanted, plan, sums
from rehome_consumer.ports.operators import MigrationView, Resident, waiting_view
from rehome_events.parts import Entitlements

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
POOL = Server(uuid4(), "pool-1", "pool-1", 5432, "shared", "active", Credentials("postgres", Secret("x")))
WANTED = Wanted("premium-monthly", "premium", Entitlements(db_type="dedicated"))


def resident(name: str, *, ambiguous: bool = False, **columns: Any) -> Resident:
    row = {"status": "running", "database_name": name, "db_host": "pool-1", **columns}
    return Resident(Instance(id=uuid4(), customer_id=uuid4(), name=name, **row), None, ambiguous)


def a_move(of: Resident, state: str, *, hours: float = 0, reason: str | None = None) -> MigrationView:
    over = state in {"completed", "rolled_back"}
    at = NOW + timedelta(hours=hours)
    return MigrationView(
        id=uuid4(), instance_id=of.instance.id, attempt=1, state=state, past_pivot=False, reason=reason,
        created_at=at, updated_at=at, ended_at=at if over else None, to_plan="premium-monthly",
    )  # fmt: skip


def made(
    residents: list[Resident],
    sizes: dict[str, int],
    moves: list[MigrationView] | None = None,
    *,
    again: bool = False,
) -> dict[str, Entry]:
    """The plan by names, in its order."""
    return {one.instance.name: one for one in plan(POOL, residents, sizes, moves or [], again=again)}


def test_the_smallest_database_comes_first_and_equal_ones_by_name() -> None:
    residents = [resident(name) for name in ("d", "c", "b", "a")]
    found = made(residents, {"a": 7, "b": 9, "c": 7, "d": 1})
    assert list(found) == ["d", "a", "c", "b"]
    assert {one.verdict for one in found.values()} == {"moves"}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"status": "terminated"}, "terminated"),
        ({"status": "creating"}, "being created"),
        ({"status": "updating"}, "it is updating: another process"),
        ({"db_name": "gone"}, "there is no database gone on pool-1"),
        ({"ambiguous": True}, "several servers are at its db_host pool-1"),
    ],
)
def test_who_cannot_be_moved_is_left_out_with_the_reason(columns: dict[str, Any], said: str) -> None:
    found = made([resident("a"), resident("b", **columns)], {"a": 2, "b": 1})
    assert list(found) == ["a", "b"]
    assert (found["b"].verdict, said in found["b"].why) == ("left_out", True)


@pytest.mark.parametrize("status", ["running", "stopped", "error", "paused", "container_missing"])
def test_who_is_at_rest_is_moved_whatever_the_status(status: str) -> None:
    assert made([resident("a", status=status)], {"a": 1})["a"].verdict == "moves"


def test_who_was_rolled_back_is_moved_only_when_that_is_asked_for() -> None:
    one = resident("a")
    moves = [a_move(one, "rolled_back", reason="the disk was full")]
    first, again = made([one], {"a": 1}, moves)["a"], made([one], {"a": 1}, moves, again=True)["a"]
    assert (first.verdict, "--again" in first.why, again.verdict) == ("left_out", True, "moves")
    assert again.rolled_back is moves[0]
    text = "\n".join(plan_lines(POOL, [first]))
    assert "rolled back at 2026-01-02 03:04:00: the disk was full" in text


def test_a_move_back_and_forth_counts_by_its_last_one() -> None:
    one = resident("a")
    moves = [a_move(one, "completed", hours=1), a_move(one, "rolled_back")]
    assert made([one], {"a": 1}, moves)["a"].verdict == "moves"


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_under_way_is_shown_and_not_what_waits_for_it(order: int) -> None:
    one = resident("a", status="maintenance")
    open_ = a_move(one, "stopped")
    waits = waiting_view(
        id=uuid4(), instance_id=one.instance.id, behind=open_.id, behind_state="stopped", behind_over=False,
        to_plan="x", created_at=NOW + timedelta(hours=2), updated_at=NOW, next_try_at=NOW,
    )  # fmt: skip
    over = a_move(one, "rolled_back", hours=3)
    found = made([one], {}, [open_, waits, over][::order])["a"]
    assert (found.verdict, found.migration, found.needs_operator) == ("under_way", open_, False)
    assert made([one], {}, [waits, over][::order])["a"].migration == waits


def test_the_plan_fits_a_terminal_and_has_whole_rows_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "customer_" * 6
    residents = [resident("acme"), resident(long), resident("b"), resident("c", status="terminated")]
    failed = a_move(residents[2], "failed")
    entries = plan(POOL, residents, {"acme": 54_000_000, long: 2_340_000_000, "b": 1}, [failed], again=False)
    for columns in (60, 80, PIPED):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = plan_lines(POOL, entries)
        assert max(map(len, lines)) <= columns
        ids = [str(one.instance.id) for one in entries]
        assert [line[:36] for line in lines if line[:36] in ids] == ids
    first = lines[1]
    assert first.split() == [ids[0], "running", "54", "MB", "acme"]
    text = " ".join(" ".join(lines).split())
    assert f"database {long}" in text
    assert "failed; it needs an operator" in text
    assert "2 would be moved (2.4 GB), 1 under way (0 MB), 1 left out" in text
    assert "rehome drain pool-1 --publish --to-plan NAME" in text
    assert sums(entries)["moves"] == {"instances": 2, "bytes": 2_394_000_000}


def test_an_empty_pool_says_so() -> None:
    assert plan_lines(POOL, []) == ["no instance's record says that its database is on pool-1"]


def test_sizes_are_in_the_unit_that_is_read() -> None:
    assert [size(one) for one in (0, 54_400_000, 1_234_000_000)] == ["0 MB", "54 MB", "1.2 GB"]


def test_the_same_order_after_the_same_past_is_the_same_event() -> None:
    one, last = resident("a"), uuid4()
    event = WANTED.event(one, last, NOW)
    assert WANTED.event(one, last, NOW + timedelta(hours=1)).id == event.id
    others = [
        WANTED.event(one, None, NOW),
        WANTED.event(resident("a"), last, NOW),
        Wanted("basic", "premium", Entitlements(db_type="dedicated")).event(one, last, NOW),
    ]
    urgent = replace(WANTED, priority=9).event(one, last, NOW)
    assert urgent.data.priority == 9
    assert len({event.id, urgent.id, *(other.id for other in others)}) == 5
    assert (event.data.subscription_id, event.source, event.subject) == (
        one.instance.id,
        "/billing",
        str(one.instance.id),
    )
    assert isinstance(event.id, UUID)
