"""`benchmarks.customer.Marks`: of what a gap consists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.customer import PARTS, REST, Interval, Marks

if TYPE_CHECKING:
    from pathlib import Path


def test_the_parts_of_a_gap_add_up_to_it_and_a_moment_counts_once() -> None:
    marks = Marks([Interval("stop", 0, 4), Interval("copy", 3, 7), Interval("verification", 6, 8)])
    shares = marks.shares(1, 10)
    assert shares == {"copy": 4, "verification": 1, "start": 0, "stop": 2, REST: 2}
    assert tuple(shares) == PARTS


def test_the_calls_of_a_consumer_become_intervals(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    reached.write_text(
        "1.0 7 stop.claimed\n"
        "1.5 7 stop.databases.fence.before\n"
        "1.6 7 stop.databases.fence.checked\n"
        "2.0 7 stop.databases.fence.after\n"
        "3.0 7 restore.copier.restore.before\n"
        "3.5 7 restore.verifier.fingerprint.before\n"
        "4.0 7 restore.verifier.fingerprint.after\n"
        "5.0 7 restore.copier.restore.after\n"
        "6.0 7 restore.databases.promote.before\n"
        "6.5 7 restore.databases.promote.after\n"
        "7.0 7 start.runtime.start.before\n"
    )
    marks = Marks()
    marks.read(reached)
    assert marks.intervals == [
        Interval("stop", 1.5, 2.0),
        Interval("verification", 3.5, 4.0),
        Interval("copy", 3.0, 5.0),
        Interval(REST, 6.0, 6.5),
    ]
