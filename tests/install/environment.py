"""A new virtual environment, filled from the present one: the same files as locked, and no network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LIMIT = 120.0


class FailedError(Exception):
    """Something is not as it should be."""


def require(holds: object, otherwise: str) -> None:
    """Raise FailedError unless it holds."""
    if not holds:
        raise FailedError(otherwise)


@dataclass(frozen=True)
class Environment:
    """The environment of somebody who installed the wheel and nothing else."""

    directory: Path

    @classmethod
    def create(cls, directory: Path, wheel: Path) -> Environment:
        """Make it: the wheel as pip installs it, beside what its metadata asks for.

        Raises:
            FailedError: the wheel does not install, or asks for what is not there.
        """
        made = cls(directory)
        done = subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(directory)],
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        require(done.returncode == 0, f"no virtual environment: {done.stderr}")
        made.pip("install", "--no-deps", "--no-index", str(wheel))
        made.add("rehome")
        made.pip("check")
        return made

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (found,) = self.directory.glob("lib/python3*/site-packages")
        return found

    def add(self, *names: str) -> None:
        """Copy distributions that the present environment has, with all that they ask for."""
        there = set(self.distributions())
        for needed in sorted(self._needed(names) - there):
            _copy(distribution(needed), self.packages)

    def asked(self, name: str, extra: str = "") -> set[str]:
        """Names of the distributions that one asks for, with an extra."""
        here = Distribution.discover(name=name, path=[str(self.packages)])
        texts = next(iter(here), None) or distribution(name)
        found = map(Requirement, texts.requires or ())
        return {
            _plain(one.name) for one in found if one.marker is None or one.marker.evaluate({"extra": extra})
        }

    def distributions(self) -> list[str]:
        """Names of what is installed."""
        return sorted(
            _plain(one.metadata["Name"]) for one in Distribution.discover(path=[str(self.packages)])
        )

    def pip(self, *arguments: str) -> str:
        """Let the present environment's pip work on this one."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        return self._run([*command, *arguments], {}, None).stdout

    def run(
        self, *arguments: str, at: Path, code: int = 0, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run its Python somewhere, expecting an exit code.

        Raises:
            FailedError: it ended otherwise; with what it printed.
        """
        return self._run([str(self.python), *arguments], variables or {}, at, code)

    def environ(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Environment variables, without those that lead to other packages."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**kept, "PYTHONWARNINGS": "error", **variables}

    def _needed(self, names: Iterable[str]) -> set[str]:
        """The distributions and all that they ask for."""
        found: set[str] = set()
        ahead = list(names)
        while ahead:
            name = _plain(ahead.pop())
            if name not in found:
                found.add(name)
                ahead += self.asked(name)
        return found

    def _run(
        self, command: list[str], variables: Mapping[str, str], at: Path | None, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=at,
            env=self.environ(variables) if at else None,
        )  # fmt: skip
        if ran.returncode != code:
            told = f"{ran.stdout}\n{ran.stderr}"
            raise FailedError(f"{' '.join(command)} ended with {ran.returncode}, not {code}:\n{told}")
        return ran


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _copy(one: Distribution, to: Path) -> None:
    for file in one.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = to / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(one.locate_file(file)), target)
