"""`python -m tests.fuzz`: search for inputs that break a parser, guided by coverage. One process per parser."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.fuzz.common import Parser

PACKAGES: Final = ("rehome_consumer", "rehome_events", "tests.fuzz")
LARGEST: Final = 64 * 1024
SECONDS_PER_INPUT: Final = 10
MEBIBYTES: Final = 2048
GRACE: Final = 60.0
"""Seconds that a parser's process may take beyond its share."""


def arguments() -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="tests.fuzz",
        description="Runs one parser after the other, each from tests/fuzz/corpus and its seeds. An input that "
        "breaks a promise is written to tests/fuzz/corpus/PARSER, where the tests replay it, and the exit code is 1.",
    )
    made.add_argument("names", nargs="*", metavar="PARSER", help="by default all of tests/fuzz/parsers.py")
    made.add_argument("--seconds", type=int, default=60, help="for all parsers together (default 60)")
    return made.parse_args()


def instrumented() -> tuple[Any, Mapping[str, Parser]]:
    """The fuzzer, and the table of parsers with the project's code instrumented for coverage."""
    atheris: Any = importlib.import_module("atheris")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - it names every module on standard error
        os.dup2(nothing.fileno(), 2)
    try:
        with atheris.instrument_imports(include=list(PACKAGES), enable_loader_override=False):
            table: Any = importlib.import_module("tests.fuzz.parsers")
    finally:
        os.dup2(stderr, 2)
    return atheris, table.PARSERS


def fuzz(atheris: Any, name: str, chosen: Parser, seconds: int, place: Path) -> None:
    """Fuzz one parser in this process, with files in an empty directory; libFuzzer ends it."""
    found, seeds, words = place / "found", place / "seeds", place / "words"
    found.mkdir()
    seeds.mkdir()
    for number, seed in enumerate(chosen.seeds()):
        (seeds / str(number)).write_bytes(seed)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in chosen.words))
    options = [
        *(f"-max_total_time={seconds}", f"-timeout={SECONDS_PER_INPUT}", f"-rss_limit_mb={MEBIBYTES}"),
        *(
            f"-max_len={LARGEST}",
            *([f"-dict={words}"] if chosen.words else ()),
            "-print_final_stats=1",
            "-verbosity=1",
        ),
        *(f"-artifact_prefix={_corpus(name)}{os.sep}", str(found), str(seeds), str(_corpus(name))),
    ]
    atheris.Setup([sys.argv[0], *options], chosen.check)
    atheris.Fuzz()


def in_a_process(atheris: Any, name: str, chosen: Parser, seconds: int) -> tuple[bool, str]:
    """Fuzz one parser in a forked process; whether it kept its promises, and its output.

    libFuzzer ends that process without any cleaning up, so its temporary files are in a directory of this one.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory(prefix="rehome-fuzz-") as place:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            tempfile.tempdir = place
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            try:
                fuzz(atheris, name, chosen, seconds, Path(place))
            finally:
                os._exit(70)  # libFuzzer does not return, so this is an error
        status = _ended(child, seconds + GRACE)
        output.seek(0)
        return status == 0, output.read().decode(errors="replace")


def _ended(child: int, limit: float) -> int:
    """How a process ended; one that does not within so many seconds is killed."""
    deadline = time.monotonic() + limit
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.05)


def run(atheris: Any, table: Mapping[str, Parser], names: Sequence[str], seconds: int) -> int:
    """Each parser after the other; how many broke."""
    each = max(seconds // len(names), 1)
    broken = 0
    for name in names:
        held, output = in_a_process(atheris, name, table[name], each)
        executed = [line.split()[-1] for line in output.splitlines() if "number_of_executed_units" in line]
        print(
            f"{name:<20} {executed[-1] if executed else '?':>9} inputs  {'ok' if held else 'BROKEN'}",
            flush=True,
        )
        if not held:
            broken += 1
            print(output[-6000:], flush=True)
    return broken


def _corpus(name: str) -> Path:
    place = Path(__file__).parent / "corpus" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main() -> int:
    """The command line."""
    args = arguments()
    atheris, table = instrumented()
    if unknown := set(args.names) - set(table):
        print(
            f"tests.fuzz: there is no {', '.join(sorted(unknown))}; choose of {', '.join(table)}",
            file=sys.stderr,
        )
        return 2
    return 1 if run(atheris, table, args.names or list(table), args.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
