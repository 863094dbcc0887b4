"""A new virtual environment, filled from the present one: the same files as locked, and no network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

LIMIT: Final = 120.0
BUILD_BACKEND: Final = ("hatchling", "editables")
"""What builds rehome's distributions: found beside an environment, not in it."""


class FailedError(Exception):
    """Something is not as it should be."""


def require(holds: object, otherwise: str) -> None:
    """Raise FailedError unless it holds."""
    if not holds:
        raise FailedError(otherwise)


@dataclass(frozen=True)
class Environment:
    """An environment with one or both distributions, what they need, and nothing else.

    Attributes:
        directory: the virtual environment.
        build_tools: a directory with `BUILD_BACKEND`, for builds without isolation.
    """

    directory: Path
    build_tools: Path

    @classmethod
    def create(cls, directory: Path, build_tools: Path) -> Environment:
        """Make an empty one.

        Raises:
            FailedError: it could not be made.
        """
        done = subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(directory)],
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        require(done.returncode == 0, f"no virtual environment: {done.stderr}")
        return cls(directory, build_tools)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (found,) = self.directory.glob("lib/python3*/site-packages")
        return found

    def script(self, name: str) -> str:
        """Path of a console script."""
        return str(self.directory / "bin" / name)

    def install(self, *arguments: str, at: Path | None = None) -> None:
        """Install rehome's distributions, as `pip install` does with these arguments, then add what they need.

        Raises:
            FailedError: it does not install, or needs what the present environment does not have.
        """
        self.pip("install", "--no-deps", "--no-index", "--no-build-isolation", *arguments, at=at)
        if self.add(*(name for name in self.distributions() if name.startswith("rehome-"))):
            self.pip("check")

    def add(self, *names: str) -> set[str]:
        """Copy distributions of the present environment, with all that they need; returns those that were missing."""
        missing = _closure(names, self.needs) - set(self.distributions())
        _copy(missing, self.packages)
        return missing

    def needs(self, name: str, *, extra: str = "") -> set[str]:
        """Names of the distributions that one needs by its metadata, here or in the present environment."""
        here = Distribution.discover(name=name, path=[str(self.packages)])
        return _needs(next(iter(here), None) or distribution(name), extra)

    def distributions(self) -> list[str]:
        """Names of what is installed."""
        return sorted(_plain(one.metadata["Name"]) for one in self._installed())

    def entry_points(self, group: str) -> dict[str, str]:
        """The entry points of a group, of all that is installed."""
        points = (point for one in self._installed() for point in one.entry_points.select(group=group))
        return {point.name: point.value for point in points}

    def require_owners(self) -> None:
        """Every file belongs to one distribution: of two owners, the one installed last overwrites it."""
        owners = Counter(str(file) for one in self._installed() for file in one.files or ())
        shared = [name for name, count in owners.items() if count > 1 and ".." not in name]
        require(not shared, f"installed by two distributions: {', '.join(shared[:3])}")

    def pip(self, *arguments: str, at: Path | None = None) -> str:
        """Let the present environment's pip work on this one.

        Raises:
            FailedError: pip failed; with its output.
        """
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        variables = {**os.environ, "PYTHONPATH": str(self.build_tools)}
        return _run([*command, *arguments], variables, at, 0).stdout

    def run(
        self, *arguments: str, at: Path, code: int = 0, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run its Python in a directory, expecting an exit code.

        Raises:
            FailedError: another exit code; with the output.
        """
        return _run([str(self.python), *arguments], self.environ(variables or {}), at, code)

    def environ(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Environment variables, without those that lead to other packages."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**others, "PYTHONWARNINGS": "error", **variables}

    def _installed(self) -> Iterable[Distribution]:
        return Distribution.discover(path=[str(self.packages)])


def build_tools(directory: Path) -> Path:
    """Make a directory of packages with `BUILD_BACKEND`, and all that it needs."""
    _copy(_closure(BUILD_BACKEND, lambda name: _needs(distribution(name))), directory)
    return directory


def _closure(names: Iterable[str], needs: Callable[[str], set[str]]) -> set[str]:
    """The distributions and all that they need."""
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        name = _plain(ahead.pop())
        if name not in found:
            found.add(name)
            ahead += needs(name)
    return found


def _needs(one: Distribution, extra: str = "") -> set[str]:
    found = map(Requirement, one.requires or ())
    return {
        _plain(need.name) for need in found if need.marker is None or need.marker.evaluate({"extra": extra})
    }


def _copy(names: Iterable[str], to: Path) -> None:
    """Copy distributions of the present environment into a directory of packages."""
    for name in sorted(names):
        found = distribution(name)
        for file in found.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = to / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(found.locate_file(file)), target)


def _run(
    command: list[str], variables: Mapping[str, str], at: Path | None, code: int
) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=at, env=dict(variables)
    )
    if ran.returncode != code:
        output = f"{ran.stdout}\n{ran.stderr}"
        raise FailedError(f"{' '.join(command)} ended with {ran.returncode}, not {code}:\n{output}")
    return ran


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
