"""docs/other-clients.md, followed as a reader would: its programs are saved and its commands run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "other-clients.md"
NODE: Final = ROOT / "build" / "node"
LIMIT: Final = 60.0

_BLOCK: Final = re.compile(r"((?:[^\n]+\n)*)\n+```(\w+)\n(.*?)```", re.DOTALL)
_NAME: Final = re.compile(r"`(\w+\.(?:py|mjs))`")
_INSTALLS: Final = re.compile(r"^(npm install|pip install|python3 -m venv|make broker)\b.*$", re.MULTILINE)


def section(title: str) -> str:
    """A section with its subsections."""
    (found,) = re.findall(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return str(found)


@dataclass(frozen=True)
class Reader:
    """A reader in a directory of their own, with the variables that `make broker` prints."""

    directory: Path
    variables: Mapping[str, str]

    def save(self, title: str) -> list[str]:
        """Save the section's programs under the names that it gives them; returns the commands that follow.

        What installs is left out: make contract has installed the same versions, see `installed`.
        """
        commands = []
        for before, language, text in _BLOCK.findall(section(title)):
            if language == "sh":
                commands.append(_INSTALLS.sub("", text).strip())
            else:
                (name,) = _NAME.findall(before)
                (self.directory / name).write_text(text)
        if NODE.exists() and not (self.directory / "node_modules").exists():
            (self.directory / "node_modules").symlink_to(NODE / "node_modules")
        return [text for text in commands if text]

    def environment(self, **more: str) -> dict[str, str]:
        """As of a terminal in which the packages are installed."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, **self.variables, "PATH": path, "PYTHONWARNINGS": "", **more}

    def shell(self, block: str, **more: str) -> str:
        """Run commands as they stand; returns what they print."""
        ran = subprocess.run(
            ["bash", "-ec", block], cwd=self.directory, env=self.environment(**more),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{block} ended with {ran.returncode}:\n{ran.stdout}"
        return ran.stdout

    def program(self, command: str) -> list[str]:
        """A command as a program, whose name is looked up as the reader's shell does."""
        name, *arguments = command.split()
        found = shutil.which(name, path=self.environment()["PATH"])
        assert found, f"{name} is not here"
        return [found, *arguments]


def installed() -> set[str]:
    """What the page installs with npm and pip."""
    return {
        word.strip('"')
        for line in re.findall(r"^(?:npm|pip) install (.*)$", PAGE.read_text(), re.MULTILINE)
        for word in line.split()
    }
