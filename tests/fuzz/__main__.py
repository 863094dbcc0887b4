"""`python -m tests.fuzz`: look for inputs that break a parser, guided by coverage. One process per parser."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = ("consumer", "events", "tests.fuzz")
LARGEST = 64 * 1024
SECONDS_PER_INPUT = 10
MEBIBYTES = 2048


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="tests.fuzz",
        description="Runs one parser after the other, each from tests/fuzz/corpus and its seeds. An input that "
        "breaks a promise is written to tests/fuzz/corpus/PARSER, where the tests replay it, and the exit code is 1.",
    )
    made.add_argument("names", nargs="*", metavar="PARSER", help="by default all of tests/fuzz/parsers.py")
    made.add_argument("--seconds", type=int, default=60, help="for all parsers together (default 60)")
    made.add_argument("--one", metavar="PARSER", help=argparse.SUPPRESS)  # what a process of its own does
    return made


def run_one(name: str, seconds: int) -> None:
    """Fuzz one parser in this process; libFuzzer ends it."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=list(OURS), enable_loader_override=False):
        table: Any = importlib.import_module("tests.fuzz.parsers")
    chosen = table.PARSERS[name]
    with tempfile.TemporaryDirectory(prefix="rehome-fuzz-") as place:
        found, seeds, words = Path(place) / "found", Path(place) / "seeds", Path(place) / "words"
        found.mkdir()
        seeds.mkdir()
        for number, seed in enumerate(chosen.seeds()):
            (seeds / str(number)).write_bytes(seed)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in chosen.words))
        arguments = [
            *(f"-max_total_time={seconds}", f"-timeout={SECONDS_PER_INPUT}", f"-rss_limit_mb={MEBIBYTES}"),
            *(f"-max_len={LARGEST}", f"-dict={words}", "-print_final_stats=1", "-verbosity=1"),
            *(f"-artifact_prefix={_corpus(name)}{os.sep}", str(found), str(seeds), str(_corpus(name))),
        ]
        atheris.Setup([sys.argv[0], *arguments], chosen.check)
        atheris.Fuzz()


def run_all(names: Sequence[str], seconds: int) -> int:
    """One process per parser, one after the other; how many broke."""
    each = max(seconds // len(names), 2)
    broken = []
    for name in names:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--one", name, "--seconds", str(each)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=each + 120,
        )  # fmt: skip
        said = done.stdout.decode(errors="replace")
        executed = [line.split()[-1] for line in said.splitlines() if "number_of_executed_units" in line]
        sys.stdout.write(
            f"{name:<20} {executed[-1] if executed else '?':>9} inputs  {'ok' if not done.returncode else 'BROKEN'}\n"
        )
        sys.stdout.flush()
        if done.returncode:
            broken.append(name)
            sys.stdout.write(said[-6000:])
    return len(broken)


def _corpus(name: str) -> Path:
    place = Path(__file__).parent / "corpus" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main() -> int:
    """The command line."""
    args = parser().parse_args()
    if args.one:
        run_one(args.one, args.seconds)
        return 0
    from tests.fuzz.parsers import PARSERS  # noqa: PLC0415 - a fuzzing process imports it instrumented

    if unknown := set(args.names) - set(PARSERS):
        sys.stderr.write(
            f"tests.fuzz: there is no {', '.join(sorted(unknown))}; choose of {', '.join(PARSERS)}\n"
        )
        return 2
    return 1 if run_all(args.names or list(PARSERS), args.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
