"""The completion is made from the commands, and a real bash completes by it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "rehome"
    printed = subprocess.run(
        [sys.executable, "-m", "rehome_consumer", "completion", "bash"],
        check=True,
        capture_output=True,
        text=True,
    )
    path.write_text(printed.stdout)
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(map(shlex.quote, ("rehome", *words)))
    asked = f"""
        source {shlex.quote(str(script))}
        COMP_WORDS=({line}); COMP_CWORD={len(words)}
        _rehome; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    answer = subprocess.run(["bash", "--norc", "-u", "-c", asked], check=True, capture_output=True, text=True)
    assert answer.stderr == ""
    return answer.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("sta",), ["status"]),
        (("re",), ["report", "resume", "retire"]),
        (("status", "--"), ["--all", "--help", "--json", "--limit"]),
        (("dead", "re"), ["replay"]),
        (("dead", "replay", "--fo"), ["--forward"]),
        (("publish", "pl"), ["plan.upgraded"]),
        (("publish", "plan.upgraded", "--db-type", ""), ["shared", "dedicated"]),
        (("pause", "--reason", "status", "--j"), ["--json"]),  # a word of a reason is no command
        (("status", "--limit", ""), []),
        (("completion", ""), ["bash", "zsh", "--help"]),
        (("no-such", ""), None),
    ],
)
def test_bash_completes(script: Path, words: tuple[str, ...], offered: list[str] | None) -> None:
    found = completed(script, *words)
    assert found == offered or (offered is None and "status" in found)


def test_every_command_is_offered(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    offered = completed(script, "")
    assert len(offered) > 10
    assert [name for name in offered if f"  {name}" not in listed and name != "dead-letters"] == []


def test_zsh_reads_it_by_its_own_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit")
