"""`python -m benchmarks`: measure copies, rehearsals, whole moves and the engine here, and print tables."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import copying, downtime, moving, rehearsing
from benchmarks.engine import measure as engine
from benchmarks.engine import peers
from benchmarks.report import Table, machine, say
from sandbox.system.scratch import remove_scratch_directory, scratch_directory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WHAT = ("copy", "move", "rehearse", "downtime", "engine")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="benchmarks",
        description="Real servers on this machine, in a directory under TMPDIR (by default /tmp; about 6 GB at "
        "scale 1). Variants alternate within one run, since other work on the machine changes every figure.",
    )
    made.add_argument(
        "what", nargs="*", metavar="WHAT", help=f"of {', '.join(WHAT)}; by default all but downtime"
    )
    made.add_argument(
        "--scales",
        default="0.3,1",
        help="sizes of the database: 1 is about 1 GB, 0 Odoo's demo data (default 0.3,1)",
    )
    made.add_argument("--repeats", type=int, default=3, help="rounds of each copy or way (default 3)")
    made.add_argument("--moves", type=int, default=20, help="moves in each round of the engine (default 20)")
    made.add_argument(
        "--at-once", type=int, default=50, help="moves at the same time, of the engine (default 50)"
    )
    made.add_argument("--rounds", type=int, default=2, help="rounds of the engine and its peers (default 2)")
    made.add_argument(
        "--against", metavar="REVISION", help="measure the engine of this revision, too, by git"
    )
    made.add_argument(
        "--peers",
        default=",".join(peers.PEERS),
        help="other ways to run steps, of the engine (default: %(default)s; an empty text for none)",
    )
    made.add_argument(
        "--processes", default="1,2,4", help="numbers of consumers, of the engine (default 1,2,4)"
    )
    made.add_argument(
        "--grown",
        default="0,10000,100000",
        help="ended migrations in the journal, of the engine (default %(default)s)",
    )
    made.add_argument(
        "--odoo",
        default="4,3",
        metavar="STOP,START",
        help="seconds that the instance takes for each, of downtime (default 4,3, as Odoo 19 under Swarm)",
    )
    made.add_argument(
        "--provisioning",
        type=float,
        default=30,
        help="seconds that today's way waits for its server, of downtime (default 30; in the field minutes)",
    )
    made.add_argument(
        "--beside",
        type=Path,
        help="another checkout of this project, such as one from before a change, measured as well, of downtime",
    )
    made.add_argument(
        "--ways",
        default=",".join(sorted(downtime.WAYS)),
        help=f"which of downtime: {', '.join(sorted(downtime.WAYS))} (default all)",
    )
    return made


async def measure(what: list[str], args: argparse.Namespace) -> None:
    """Measure, and print each table as soon as it is complete."""
    say(await machine())
    scales, repeats = [float(scale) for scale in args.scales.split(",")], args.repeats
    if "engine" in what:
        await _in_scratch(partial(engine.measure, plan=_engine_plan(args)))
    if "downtime" in what:
        odoo = downtime.Odoo(*map(float, args.odoo.split(",")))
        for scale in scales:
            await _in_scratch(
                partial(
                    downtime.measure,
                    scale=scale,
                    repeats=repeats,
                    odoo=odoo,
                    provisioning=args.provisioning,
                    ways=frozenset(args.ways.split(",")),
                    beside=args.beside.resolve() if args.beside else None,
                )
            )
    if "copy" in what:
        for scale in scales:
            await _in_scratch(partial(copying.measure, scale=scale, repeats=repeats))
    if "rehearse" in what:
        sizes = [0, *(scale for scale in scales if scale)]
        await _in_scratch(partial(rehearsing.measure, scales=sizes, repeats=repeats))
    if "move" in what:
        await _in_scratch(partial(moving.measure, scales=[0, *(scale for scale in scales if scale)]))


def _engine_plan(args: argparse.Namespace) -> engine.Plan:
    return engine.Plan(
        moves=args.moves,
        at_once=args.at_once,
        rounds=args.rounds,
        against=args.against,
        peers=tuple(name for name in args.peers.split(",") if name),
        processes=tuple(int(count) for count in args.processes.split(",") if count),
        grown=tuple(int(count) for count in args.grown.split(",") if count),
    )


async def _in_scratch(work: Callable[[Path], Awaitable[list[Table]]]) -> None:
    directory = scratch_directory("rehome-bench")
    try:
        for table in await work(directory):
            say(table)
    finally:
        remove_scratch_directory(directory)


def main() -> int:
    """The command line."""
    args = parser().parse_args()
    what = args.what or [one for one in WHAT if one != "downtime"]
    if unknown := set(what) - set(WHAT):
        sys.stderr.write(
            f"benchmarks: there is no {', '.join(sorted(unknown))}; choose of {', '.join(WHAT)}\n"
        )
        return 2
    if unknown := set(args.ways.split(",")) - downtime.WAYS:
        sys.stderr.write(
            f"benchmarks: there is no way {', '.join(sorted(unknown))}; choose of {', '.join(sorted(downtime.WAYS))}\n"
        )
        return 2
    # On a disk, as in production: otherwise the scratch directory could be in memory.
    os.environ.setdefault("TMPDIR", tempfile.gettempdir())
    try:
        asyncio.run(measure(what, args))
    except moving.TooMuchMemoryError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
