"""The crash matrix: SIGKILL (or worse) at every boundary of every step, on real servers; `make chaos`.

The boundaries are those that undisturbed runs pass, so a new step is in the matrix by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import random
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from sandbox.demo.chaos import NO_WATCHDOG
from sandbox.system.scratch import remove_scratch_directory, scratch_directory
from tests.chaos.arena import arena
from tests.chaos.cases import NOT_WARM, SCENARIOS, Case, record
from tests.chaos.experiment import ORDERS, UNNOTICED, Result, play
from tests.chaos.report import STEPS, console, print_result, print_tables
from tests.chaos.swarm_arena import STEPS as SWARM_STEPS
from tests.chaos.swarm_arena import swarm_arena

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.platform.local import Site
    from tests.chaos.arena import Arena

RUNTIMES = {"process": arena, "swarm": swarm_arena}
CHECKED = ".checked"
"""End of the names of boundaries between a check of the claim and the call after it: `--action stop` is for these."""
COMMON = ("moved", "rolled back")
"""Scenarios that a sample is taken from."""


class Stage:
    """An arena that is built again after an experiment that failed, so that it cannot disturb the next."""

    def __init__(self, runtime: str, **settings: str) -> None:
        """`runtime` runs the instances; `settings` are the consumers'."""
        self._build = RUNTIMES[runtime]
        self._settings = settings
        self._stack = AsyncExitStack()
        self._directory: Path | None = None
        self._arena: Arena | None = None
        self._next: tuple[str, asyncio.Task[Site]] | None = None

    async def arena(self) -> Arena:
        """The arena; built if there is none."""
        if self._arena is None:
            self._directory = scratch_directory("rehome-chaos")
            self._arena = await self._stack.enter_async_context(
                self._build(self._directory, **self._settings)
            )
        return self._arena

    async def play(self, case: Case, following: Case | None) -> Result:
        """One case; the customer of the following one is made meanwhile."""
        arena = await self.arena()
        scenario = SCENARIOS[case.scenario]
        try:
            if self._next is not None and self._next[0] == case.scenario:
                site = await self._next[1]
            else:
                site = await scenario.make_site(arena)
            self._next = None
            if following is not None:
                making = asyncio.ensure_future(SCENARIOS[following.scenario].make_site(arena))
                self._next = (following.scenario, making)
            result = await play(arena, case, site)
            await arena.dead_letters()
            if not result.breaches:
                await arena.remove_site(site)
        except (TimeoutError, OSError, RuntimeError, LookupError) as error:
            result = Result(case, "stuck", breaches=[f"{type(error).__name__}: {error}"])
        if result.breaches:
            await self.close(keep_log=case)
        return result

    async def close(self, keep_log: Case | None = None) -> None:
        """Remove everything; after a failed experiment the consumers' log is copied first."""
        if self._next is not None:
            await asyncio.gather(self._next[1], return_exceptions=True)
            self._next = None
        if self._arena is None or self._directory is None:
            return
        if keep_log is not None:
            name = f"rehome-chaos-{keep_log.boundary}-{keep_log.nth}.log"
            console.print(f"    the consumers' log is {_copied(self._arena.log, name)}")
        await self._stack.aclose()
        remove_scratch_directory(self._directory)
        self._arena = self._directory = None


def _copied(log: Path, name: str) -> Path:
    """A copy that outlives the arena."""
    return Path(shutil.copy(log, Path(tempfile.gettempdir()) / name))


def _write(path: str, results: Sequence[Result]) -> None:
    document = [asdict(result) | {"step": result.case.step} for result in results]
    Path(path).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def read(path: str) -> list[Result]:
    """The results that an earlier run has written."""
    rows = [
        {name: value for name, value in row.items() if name != "step"}
        for row in orjson.loads(Path(path).read_bytes())
    ]
    return [Result(**{**row, "case": Case(**row["case"])}) for row in rows]


async def listed(stage: Stage, scenarios: Sequence[str]) -> list[Case]:
    """Every boundary of these scenarios, each once: one that two of them pass belongs to the first."""
    cases: dict[tuple[str, int, bool], Case] = {}
    for name in scenarios:
        for case in await record(await stage.arena(), SCENARIOS[name]):
            cases.setdefault((case.boundary, case.nth, bool(case.later)), case)
    return list(cases.values())


def sample(cases: Sequence[Case], each: int, seed: int) -> list[Case]:
    """`each` of every step: a call cut in its middle, its commit, and others drawn by the seed."""
    chosen: list[Case] = []
    draw = random.Random(seed)  # noqa: S311 - a choice of experiments, no secret
    for step in STEPS:
        of_step = [case for case in cases if case.step == step]
        cut = [case for case in of_step if case.later]
        commit = [case for case in of_step if case.boundary.endswith(".committed")]
        rest = [case for case in of_step if case not in commit and not case.later]
        picked = [*draw.sample(cut, min(1, len(cut))), *commit][:each]
        chosen += [*picked, *draw.sample(rest, min(each - len(picked), len(rest)))]
    return chosen


async def run(args: argparse.Namespace) -> int:
    """Record, choose, play, print; 1 when anything did not hold."""
    settings = {NO_WATCHDOG: "yes"} if args.action in UNNOTICED else {}
    stage = Stage(args.runtime, REHOME_STRATEGY=args.strategy, **settings)
    results: list[Result] = []
    began = time.monotonic()
    try:
        on_swarm = args.runtime == "swarm"
        usual = COMMON if args.sample or on_swarm else SCENARIOS
        scenarios = [args.scenario] if args.scenario else list(usual)
        if args.strategy == "auto":
            scenarios = [name for name in scenarios if name not in NOT_WARM]
        after_check = args.action == "stop"
        cases = [
            case for case in await listed(stage, scenarios) if case.boundary.endswith(CHECKED) == after_check
        ]
        if on_swarm:
            cases = [case for case in cases if case.step in SWARM_STEPS]
        if args.only:
            cases = [
                case for case in cases if any(fnmatch.fnmatch(case.boundary, only) for only in args.only)
            ]
        if args.sample:
            cases = sample(cases, args.each, args.seed)
        part, parts = (int(number) for number in args.part.split("/"))
        cases = cases[part - 1 :: parts]
        console.print(f"{len(cases)} boundaries; recorded after {time.monotonic() - began:.0f} s")
        cases = [replace(case, action=args.action) for case in cases]
        if args.list:
            for case in cases:
                console.print(f"{case.scenario:15} {case.step:13} {case.place}")
            return 0
        for number, case in enumerate(cases):
            following = cases[number + 1] if number + 1 < len(cases) else None
            results.append(await stage.play(case, following))
            print_result(results[-1])
            if args.json:
                _write(args.json, results)
    finally:
        await stage.close()
    print_tables(results)
    console.print(f"{time.monotonic() - began:.0f} s")
    return 1 if any(result.breaches for result in results) else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--sample", action="store_true", help="a few boundaries of every step (minutes)")
    parser.add_argument(
        "--each", type=int, default=2, help="how many of each step are in a sample (default: 2)"
    )
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument(
        "--only", metavar="PATTERN", nargs="+", help="boundaries that match, such as 'restore.*'"
    )
    parser.add_argument("--scenario", choices=SCENARIOS, help="one scenario only")
    parser.add_argument(
        "--action", choices=ORDERS, default="kill", help="what to do to the consumer (default: kill)"
    )
    parser.add_argument(
        "--part",
        metavar="K/N",
        default="1/1",
        help="every N-th boundary, from the K-th on: several parts may run at once",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="process",
        help="what runs the instances (default: process); on a swarm (root, scripts/setup-swarm) the steps "
        f"{' and '.join(SWARM_STEPS)} are tested",
    )
    parser.add_argument(
        "--strategy",
        choices=("auto", "cold"),
        default="cold",
        help="auto: moves are warm; needs PostgreSQL 16 or newer for the dedicated servers (default: cold)",
    )
    parser.add_argument("--list", action="store_true", help="list the boundaries, kill nothing")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument(
        "--show",
        metavar="FILE",
        nargs="+",
        help="only show the results in such files as one table: parts in their order",
    )
    args = parser.parse_args()
    if args.show:
        parts = zip_longest(*(read(path) for path in args.show))
        print_tables([result for row in parts for result in row if result is not None])
        return 0
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
