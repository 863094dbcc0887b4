"""Run the suites of the PostgreSQL adapters, whole moves and attacks on pairs of versions: `make pairs`.

Each pair is a pool's version and a dedicated server's. The table in docs/postgresql-versions.md gets the results; what
was not run, a pair or a suite, stays there as it was, unless the pair's releases are others now.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from tests.support.postgres_versions import PAIRS, pair

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "postgresql-versions.md"
BEGIN: Final = "<!-- pairs: written by make pairs -->"
END: Final = "<!-- end of pairs -->"
HEAD: Final = (
    "| pool → dedicated | releases | client programs | adapters | differences | whole moves | attacks | run on |",
    "|---|---|---|---|---|---|---|---|",
)

SUITES: Final = {
    "adapters": (
        *(f"tests/contract/test_{name}.py" for name in ("databases", "databases_target", "copier")),
        *(f"tests/contract/test_{name}.py" for name in ("verifier", "inspector")),
        "tests/integration/moving",
    ),
    "differences": ("tests/pairs/test_newer_objects.py", "tests/pairs/test_databases.py"),
    "whole moves": ("tests/pairs/test_whole_moves.py",),
    "attacks": ("tests/attack", "-m", "representative"),
}
"""Name -> arguments of pytest. Of the attacks the representative part: `make attack` runs all."""
REPRESENTATIVE: Final = ("15-17", "17-18")
SECONDS: Final = 1800
"""For one suite on one pair."""


@dataclass
class Outcome:
    """Of one suite on one pair."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.passed} passed"
            if not self.failed
            else f"**{len(self.failed)} failed**, {self.passed} passed"
        )


def main() -> int:
    """The exit code: 0 when everything passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.pairs", description=__doc__)
    parser.add_argument(
        "pairs", nargs="*", metavar="POOL-DEDICATED", help=f"of {', '.join(PAIRS)} (default: all)"
    )
    parser.add_argument(
        "--representative", action="store_true", help="minutes: a whole move and a comparison for two pairs"
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one; may be given again")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time (default: 2)")
    arguments = parser.parse_args()
    if unknown := set(arguments.pairs) - set(PAIRS):
        parser.error(f"no such pair: {', '.join(sorted(unknown))}; a pair is one of {', '.join(PAIRS)}")
    if arguments.representative:
        chosen = arguments.pairs or REPRESENTATIVE
        bad = [name for name in chosen if _run(name, ("tests/pairs", "-m", "representative"), 1).failed]
        return 1 if bad else 0
    failed = False
    for name in arguments.pairs or PAIRS:
        chosen = arguments.suite or SUITES
        outcomes = {
            suite: _run(name, words, arguments.jobs) for suite, words in SUITES.items() if suite in chosen
        }
        write_line(name, outcomes)
        failed = failed or any(one.failed for one in outcomes.values())
    return 1 if failed else 0


def _run(name: str, words: tuple[str, ...], jobs: int) -> Outcome:
    """Run pytest on a pair; what fails is printed."""
    print(f"pairs: {name}: pytest {' '.join(words)}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", *words, "--postgresql", name, "-q", "--timeout", "600"]
        command += (
            [f"--junit-xml={report}", "-n", str(jobs), "--dist", "loadfile"]
            if jobs > 1
            else [f"--junit-xml={report}"]
        )
        ended = subprocess.run(command, cwd=ROOT, check=False, timeout=SECONDS)
        outcome = _outcome(report)
    if ended.returncode and not outcome.failed:
        outcome.failed.append(f"pytest ended with {ended.returncode}")
    print(f"pairs: {name}: {outcome} in {time.monotonic() - began:.0f} s", flush=True)
    for one in outcome.failed:
        print(f"pairs: {name}: failed: {one}", flush=True)
    return outcome


def _outcome(report: Path) -> Outcome:
    outcome = Outcome()
    if not report.exists():
        return outcome
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest's own
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            outcome.skipped += 1
        else:
            outcome.passed += 1
    return outcome


def write_line(name: str, outcomes: dict[str, Outcome], page: Path = PAGE) -> None:
    """Put a pair's results into the table on the page."""
    pool, dedicated, clients = _releases(name)
    shown = name.replace("-", " → ")
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    lines = {found[1]: row for row in table.splitlines() if (found := re.match(r"\| (\d+ → \d+) \|", row))}
    fixed = [shown, f"{pool} → {dedicated}", clients]
    earlier = [cell.strip() for cell in lines.get(shown, "").strip("|").split("|")]
    if earlier[: len(fixed)] != fixed:
        earlier = [*fixed, *("not run" for _ in SUITES)]
    results = [str(outcomes.get(suite, earlier[len(fixed) + place])) for place, suite in enumerate(SUITES)]
    when = f"{_system()}, {datetime.now(UTC):%Y-%m-%d}"
    lines[shown] = f"| {' | '.join((*fixed, *results, when))} |"
    rows = [lines[one] for one in (pair_name.replace("-", " → ") for pair_name in PAIRS) if one in lines]
    page.write_text("\n".join((f"{before}{BEGIN}", *HEAD, *rows, f"{END}{after}")), encoding="utf-8")


def _releases(name: str) -> tuple[str, str, str]:
    """Of the pool, the dedicated server, and the client programs; such as 17.12."""
    with tempfile.TemporaryDirectory() as scratch:
        programs = pair(name, Path(scratch))
        return (
            _release(programs.pool / "postgres"),
            _release(programs.dedicated / "postgres"),
            _release(programs.clients / "pg_dump"),
        )


def _release(program: Path) -> str:
    output = subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True, timeout=20
    ).stdout
    found = re.search(r"\(PostgreSQL\) (\S+)", output)
    return found[1] if found else output.strip()


def _system() -> str:
    """Such as `Debian 12`."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "unknown"
    values = dict(line.replace('"', "").split("=", 1) for line in lines if "=" in line)
    return f"{values.get('NAME', 'unknown').split()[0]} {values.get('VERSION_ID', '')}".strip()


if __name__ == "__main__":
    sys.exit(main())
