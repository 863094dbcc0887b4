"""The command line of the simulation; see the package."""

from __future__ import annotations

import argparse
import gc
import hashlib
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.mutants import BOUND, MUTANTS, hunt
from tests.simulation.schedule import Schedule
from tests.simulation.unplayable import why

CHUNK = 50
HEAD = "| broken guarantee | schedules until it is found | invariant that notices |\n|---|---|---|"


def main() -> int:
    """Run what the arguments say; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this schedule alone, and print what happened")
    parser.add_argument("--schedules", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument(
        "--mutants",
        nargs="?",
        const="",
        metavar="PART",
        help="hunt broken guarantees; those with this in their name",
    )
    parser.add_argument(
        "--bound",
        type=int,
        default=BOUND,
        help="schedules in which a mutant must be found (default: %(default)s)",
    )
    parser.add_argument("--first", type=int, default=0, help="the first one's seed (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    gc.freeze()  # imported modules are no garbage, and need not be examined again and again
    gc.set_threshold(1_000_000, 20, 100)
    if args.seed is not None:
        return _one(args.seed)
    if args.mutants is not None:
        return _mutants([name for name in MUTANTS if args.mutants in name], args)
    return _many(range(args.first, args.first + args.schedules), args.jobs)


def _one(seed: int) -> int:
    schedule = Schedule(seed, keep_trace=True)
    violations = schedule.run()
    digest = hashlib.sha256()
    for seconds, who, what in schedule.trace or ():
        line = f"{seconds:12.3f}  {who:<10} {what}"
        digest.update(line.encode())
        print(line)
    print(f"seed {seed}: {schedule.plan}")
    print(f"trace {digest.hexdigest()}")
    for violation in violations:
        print(f"VIOLATED: {violation}")
    return bool(violations)


def _many(seeds: range, jobs: int) -> int:
    began = time.monotonic()
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    played = Played()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for one in pool.imap_unordered(play, chunks):
            played.add(one)
    for seed, violations in sorted(played.failed)[:10]:
        print(f"seed {seed}: {violations[0]} (to play it again with its trace: make simulate SEED={seed})")
    seconds = time.monotonic() - began
    print(
        f"{len(seeds)} schedules, {played.boundaries} boundaries, {len(played.failed)} violated, {seconds:.1f} s "
        f"({len(seeds) / seconds:.0f} a second)"
    )
    print(
        f"killed at {len(played.killed)} of {len(played.passed)} places; "
        f"{', '.join(f'{kind} {times}' for kind, times in sorted(played.injected.items()))}"
    )
    return bool(played.failed)


def _mutants(names: list[str], args: argparse.Namespace) -> int:
    found = {}
    with multiprocessing.get_context("fork").Pool(args.jobs, maxtasksperchild=1) as pool:
        hunts = partial(hunt, bound=args.bound, first=args.first)
        for one in pool.imap_unordered(hunts, names, chunksize=1):
            found[one.name] = one
            if sys.stderr.isatty():
                print(f"{len(found)} of {len(names)}: {one.name}", file=sys.stderr)
    print(HEAD)
    for name in names:
        print(found[name].row)
    survivors = sum(one.seed is None for one in found.values())
    seconds = sum(one.seconds for one in found.values())
    print(f"{len(names)} mutants, {survivors} survived, {seconds:.0f} s of CPU time")
    return bool(survivors or not names)


@dataclass
class Played:
    """The results of some schedules.

    Attributes:
        failed: seed and violations of those that did not hold.
        boundaries: how many were passed.
        passed: their names.
        killed: names of those at which a consumer was killed.
        injected: how often each kind of fault was injected.
    """

    failed: list[tuple[int, list[str]]] = field(default_factory=list)
    boundaries: int = 0
    passed: set[str] = field(default_factory=set)
    killed: set[str] = field(default_factory=set)
    injected: Counter[str] = field(default_factory=Counter)

    def add(self, other: Played) -> None:
        """Add another's results to these."""
        self.failed += other.failed
        self.boundaries += other.boundaries
        self.passed |= other.passed
        self.killed |= other.killed
        self.injected += other.injected


def play(seeds: range) -> Played:
    """Play a chunk."""
    played = Played()
    for seed in seeds:
        schedule = Schedule(seed)
        try:
            violations = schedule.run()
        except Exception as error:  # noqa: BLE001 - a schedule that cannot be played has failed
            violations = [f"it can be played: {why(error)}"]
        if violations:
            played.failed.append((seed, violations))
        played.boundaries += schedule.boundaries
        played.passed |= schedule.passed_names
        played.killed.update(at for kind, at in schedule.injected if kind == "kill")
        played.injected.update(kind for kind, _ in schedule.injected)
        del schedule
        gc.collect(0)  # all of it is garbage now, and the next one reuses its memory
    return played


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts in the same order everywhere
        os.execve(  # noqa: S606 - this program again
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
