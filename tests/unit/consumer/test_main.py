"""`rehome demo` runs the sandbox of its own checkout, and no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rehome_consumer import __main__ as command_line


@pytest.mark.parametrize(("place", "runs"), [("consumer", True), ("vendor", False)])
def test_the_demo_of_a_project_beside_an_installed_package_is_not_run(
    place: str, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sandbox" / "demo").mkdir(parents=True)
    monkeypatch.setattr(command_line, "__file__", str(tmp_path / place / "rehome_consumer" / "__main__.py"))
    started: list[tuple[Path, list[str]]] = []

    def become(_program: str, arguments: list[str]) -> int:
        started.append((Path.cwd(), arguments[1:]))
        return 0

    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(os, "execv", become)
    assert command_line.main(["demo", "--json"]) == (0 if runs else 2)
    assert started == ([(tmp_path, ["-m", "sandbox.demo", "--json"])] if runs else [])
