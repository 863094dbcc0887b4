"""A pytest plug-in that counts what passed, what failed and what was not run, and writes that down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

FILE = "REHOME_COUNTS"
"""Environment variable: the file to write."""

# A test counts once, with the worst of what its setup, itself and its teardown reported.
_results: dict[str, str] = {}
_left_out: set[str] = set()
_WORSE = ("passed", "skipped", "failed")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Left out because of its mark."""
    _left_out.update(item.nodeid for item in items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One of the three phases of a test."""
    before = _results.get(report.nodeid, "passed")
    _results[report.nodeid] = max(before, report.outcome, key=_WORSE.index)


def pytest_sessionfinish() -> None:
    """All were run."""
    outcomes = list(_results.values())
    counts = {
        "passed": outcomes.count("passed"),
        "failed": outcomes.count("failed"),
        "not_run": outcomes.count("skipped") + len(_left_out),
    }
    Path(os.environ[FILE]).write_text(json.dumps(counts))
