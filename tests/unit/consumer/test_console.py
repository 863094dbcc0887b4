"""The console script, with and without the packages that the consumer needs."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


START = "import sys; sys.argv = ['rehome', '--help']; from consumer.console import main; sys.exit(main())"


def test_it_runs_the_command_line() -> None:
    ran = run(START)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "rehome demo" in ran.stdout


@pytest.mark.parametrize("package", ["asyncpg", "pydantic_settings"])
def test_without_the_consumers_packages_it_says_what_to_install(package: str) -> None:
    ran = run(f"import sys; sys.modules['{package}'] = None; {START}")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == (
        f"rehome: {package} is missing. Only the contract (package events) is installed here; "
        "for the consumer: pip install 'rehome[consumer]'\n"
    )


def test_a_missing_module_of_our_own_is_not_explained_away() -> None:
    ran = run(f"import sys; sys.modules['consumer.commands.dead'] = None; {START}")
    assert ran.returncode == 1
    assert "consumer.commands.dead" in ran.stderr
