"""`rehome demo` runs the sandbox of its own checkout, and no other."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from rehome_consumer import __main__ as command_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("place", "runs"), [("consumer", True), ("vendor", False)])
def test_the_demo_of_a_project_beside_an_installed_package_is_not_run(
    place: str, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sandbox" / "demo").mkdir(parents=True)
    monkeypatch.setattr(command_line, "__file__", str(tmp_path / place / "rehome_consumer" / "__main__.py"))
    started: list[Path] = []

    def call(_arguments: list[str], *, cwd: Path) -> int:
        started.append(cwd)
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    assert command_line.main(["demo"]) == (0 if runs else 2)
    assert started == ([tmp_path] if runs else [])
