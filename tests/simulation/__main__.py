"""The command line of the simulation; see the package."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import sys
import time
from functools import partial

from tests.simulation.schedule import Schedule

CHUNK = 50


def main() -> int:
    """Run what is asked for; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this schedule alone, and tell what happened")
    parser.add_argument("--schedules", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    gc.freeze()  # what was imported is no garbage, and need not be looked at time and again
    gc.set_threshold(20_000, 20, 100)
    if args.seed is not None:
        return _one(args.seed)
    return _many(range(args.first, args.first + args.schedules), args.jobs)


def _one(seed: int) -> int:
    schedule = Schedule(seed, keep_trace=True)
    violations = schedule.run()
    for seconds, who, what in schedule.trace or ():
        print(f"{seconds:12.3f}  {who:<10} {what}")
    print(f"seed {seed}: {schedule.plan}")
    for violation in violations:
        print(f"VIOLATED: {violation}")
    return bool(violations)


def _many(seeds: range, jobs: int) -> int:
    began = time.monotonic()
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    failed: list[tuple[int, list[str]]] = []
    boundaries = 0
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for found, passed in pool.imap_unordered(partial(play), chunks):
            failed += found
            boundaries += passed
    for seed, violations in sorted(failed)[:10]:
        print(
            f"seed {seed}: {violations[0]} (again, with everything that happened: make simulate SEED={seed})"
        )
    seconds = time.monotonic() - began
    print(
        f"{len(seeds)} schedules, {boundaries} boundaries, {len(failed)} violated, {seconds:.1f} s "
        f"({len(seeds) / seconds:.0f} a second)"
    )
    return bool(failed)


def play(seeds: range) -> tuple[list[tuple[int, list[str]]], int]:
    """Play a chunk: what failed, as (seed, violations), and how many boundaries were passed."""
    failed, boundaries = [], 0
    for seed in seeds:
        schedule = Schedule(seed)
        try:
            violations = schedule.run()
        except Exception as error:  # noqa: BLE001 - a schedule that cannot be played is a failure of its own
            violations = [f"{type(error).__name__}: {error}"]
        if violations:
            failed.append((seed, violations))
        boundaries += schedule.boundaries
    return failed, boundaries


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts in the same order everywhere
        os.execve(  # noqa: S606 - ourselves
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
