"""The documents' first ten minutes, done as written, in an empty directory."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rehome_events.testing import DISORDERS, OUTCOMES
from tests.install.environment import LIMIT, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.install.environment import Environment

BROKER: Final = "make broker"
BROKERS_MODULE: Final = "sandbox.rabbitmq.try_broker"
_BLOCK: Final = re.compile(r"([^\n]*)\n+```(\w+)\n(.*?)```", re.DOTALL)


@dataclass
class Terminal:
    """A program that runs until Ctrl-C, and the lines that it has printed."""

    command: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines += (line.rstrip("\n") for line in lines)

    def wait_for(self, pattern: str, count: int = 1) -> None:
        """Until so many lines match; FailedError otherwise."""
        deadline = time.monotonic() + LIMIT
        while len([line for line in self.lines if re.search(pattern, line)]) < count:
            printed = f"{self.command} printed {self.lines}"
            require(self.process.poll() is None, f"{printed} and ended with {self.process.returncode}")
            require(time.monotonic() < deadline, f"{printed}, not {count} times {pattern!r} in {LIMIT:g} s")
            time.sleep(0.05)


@contextmanager
def terminal(command: list[str], at: Path, variables: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a program; at the end it gets Ctrl-C, and must end with 0."""
    process = subprocess.Popen(command, cwd=at, env=dict(variables), stdout=subprocess.PIPE, text=True)
    opened = Terminal(shlex.join(command), process)
    try:
        yield opened
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(LIMIT)
        finally:
            process.kill()
    require(process.returncode == 0, f"{command} ended with {process.returncode} after Ctrl-C")


@dataclass(frozen=True)
class Reader:
    """A reader who follows a page."""

    directory: Path
    page: str
    variables: Mapping[str, str]

    def shell(self, block: str) -> str:
        """Run a block of the page as written, in a terminal where the blocks before it have been run."""
        activate = ". try/bin/activate\n" if (self.directory / "try").exists() else ""
        ran = subprocess.run(
            ["bash", "-ec", activate + block], cwd=self.directory, env=dict(self.variables),
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        require(
            ran.returncode == 0, f"the page's\n{block}ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
        )
        return ran.stdout

    def program(self, block: str) -> list[str]:
        """A block that is one command, as a program."""
        name, *arguments = shlex.split(block)
        return [str(self.directory / "try" / "bin" / name), *arguments]

    def save(self) -> list[str]:
        """Save each program under the name that the page gives it; returns the blocks for the shell."""
        (section,) = re.findall(r"^## Ten minutes\n(.*?)(?=^## )", self.page, re.DOTALL | re.MULTILINE)
        blocks = _BLOCK.findall(section)
        for before, language, text in blocks:
            if language == "python":
                (name,) = re.findall(r"as `(\w+\.py)`", before)
                (self.directory / name).write_text(text)
        return [text for _, language, text in blocks if language == "sh"]

    def announces(self, *texts: str) -> None:
        """The page says that this will be printed."""
        for text in texts:
            require(f"`{text}`" in self.page, f"the page does not announce {text!r}")


@contextmanager
def broker(directory: Path, root: Path) -> Iterator[dict[str, str]]:
    """`make broker`, already set up; what it prints, as variables."""
    require(
        f"-m {BROKERS_MODULE}" in (root / "Makefile").read_text(), f"make broker runs no {BROKERS_MODULE}"
    )
    with terminal([sys.executable, "-m", BROKERS_MODULE], root, os.environ) as running:
        running.wait_for("^export ", 5)
        exports = "\n".join(running.lines)
        values = subprocess.run(
            ["bash", "-ec", f"{exports}\nenv -0"],
            cwd=directory,
            env={},
            capture_output=True,
            text=True,
            check=True,
        )
        pairs = (line.partition("=") for line in values.stdout.split("\0"))
        yield {name: value for name, _, value in pairs if name == "REHOME" or name.endswith("_URL")}


def packages(environment: Environment, beside: Path) -> dict[str, str]:
    """Variables with which pip takes other packages, and what builds a wheel, from a new directory `beside`."""
    shutil.copytree(environment.packages, beside, ignore=shutil.ignore_patterns("rehome*"))
    shutil.copytree(environment.build_tools, beside, dirs_exist_ok=True)
    # pip takes "0" for "no isolation": the variable is the value of what the option switches off.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    return {**offline, "PYTHONPATH": str(beside)}


def work(environment: Environment, directory: Path, root: Path, variables: Mapping[str, str]) -> list[str]:
    """Follow both pages, with the variables that `make broker` prints and others; returns seconds taken."""
    require(variables["REHOME"] == str(root), f"REHOME is {variables['REHOME']!r}")
    # pip itself is not free of warnings.
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": ""}
    taken = []
    for name, do in (("publishing", _as_billing), ("subscribing", _as_subscriber)):
        place = directory / name
        place.mkdir(parents=True)
        page = (root / "docs" / f"{name}.md").read_text()
        start = time.monotonic()
        do(Reader(place, page, environment.environ({**variables, **quiet})))
        taken.append(f"{name} {time.monotonic() - start:.0f} s")
    return taken


def _as_billing(reader: Reader) -> None:
    start, install, publish = reader.save()
    require(start.strip() == BROKER, f"the page begins with {start!r}")
    valid = "upgrade.json: valid plan.upgraded v1"
    require(reader.shell(install).splitlines()[-1] == valid, f"the last line is not {valid!r}")
    require(reader.shell(publish) == "published\nconforms\n", "billing's programs print something else")
    reader.announces(valid, "published", "conforms")


def _as_subscriber(reader: Reader) -> None:
    start, install, follow, play, trouble, play_again, test = reader.save()
    require(start.strip() == BROKER, f"the page begins with {start!r}")
    reader.shell(install)
    following, failing = "following on sub_crm.upgrades", "the CRM does not answer"
    with terminal(reader.program(follow), reader.directory, reader.variables) as crm:
        crm.wait_for(f"^{following}$")
        reader.shell(play)
        crm.wait_for("^[0-9a-f-]{36}: still on the shared pool: ")
    require(len(crm.lines) == 3 and ": moved, " in crm.lines[1], f"the subscriber printed {crm.lines}")
    with terminal(reader.program(trouble), reader.directory, reader.variables) as crm:
        crm.wait_for("^following on sub_crm.trouble$")
        reader.shell(play_again)
        crm.wait_for("^[0-9a-f-]{36}: moved, ")
    require(crm.lines[1] == failing and len(crm.lines) == 3, f"the failing subscriber printed {crm.lines}")
    passed = f"{len(OUTCOMES) * len(DISORDERS)} passed"
    require(passed in reader.shell(test), f"not {passed}")
    reader.announces(following, failing, passed)
