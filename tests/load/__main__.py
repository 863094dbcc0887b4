"""A burst of upgrades on real RabbitMQ and PostgreSQL, with a consumer killed every few seconds; `make load`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.revisions import exported, python_path
from sandbox.system.processes import run as command
from sandbox.system.scratch import remove_scratch_directory, scratch_directory
from tests.load.burst import Size, burst
from tests.load.invariants import (
    breaches,
    idle_seconds,
    longest_running,
    most_at_once,
    most_rehearsals,
    rolled_back,
)

if TYPE_CHECKING:
    from tests.load.burst import Burst

SHOWN = 20
START_SECONDS = 300.0
"""For an earlier revision's servers and consumers to start."""

console = Console(highlight=False, soft_wrap=True)


def report(played: Burst, dead_letters: list[tuple[str, str]], repeated: int) -> Table:
    """The measurements."""
    memory = longest_running(played)
    copies = sum(played.copies.values()) - len(played.copies)
    most = most_at_once(played)
    idle = idle_seconds(played)
    table = Table("", "measured", title=f"{played.size.upgrades} upgrades in one burst", show_lines=False)
    for name, value in (
        ("ended", f"{len(played.outcomes)} of {len(played.upgrades)}"),
        ("completed; rolled back after four kills", _ends(played)),
        ("seconds", f"{played.seconds:.0f}"),
        ("migrations per second", f"{len(played.outcomes) / played.seconds:.1f}"),
        ("consumers killed", f"{played.killed}, and {played.poisoned} by the poison"),
        ("runs of steps cut off and repeated", str(repeated)),
        ("copies of events a subscriber got twice", f"{copies} of {sum(played.copies.values())}"),
        ("dead letters", ", ".join(f"{handler}: {reason}" for handler, reason in dead_letters) or "none"),
        (
            f"most instances of a server down for a dump (limit {played.size.dumps})",
            ", ".join(f"{pool} {count}" for pool, count in sorted(most.items())),
        ),
        (
            f"most rehearsals of a server at once (limit {played.size.rehearsals})",
            ", ".join(f"{pool} {count}" for pool, count in sorted(most_rehearsals(played).items())),
        ),
        (
            "seconds until a server's next rehearsal began",
            f"{idle[len(idle) // 2]:.1f} in the middle, {idle[-1]:.1f} at most"
            if idle
            else "never waited for",
        ),
        (
            f"memory of {memory.name}, MiB, over {len(memory.samples)} s",
            f"{memory.samples[0]:.0f} at first, {max(memory.samples):.0f} at most, {memory.samples[-1]:.0f} at last",
        ),
    ):
        table.add_row(name, value)
    return table


def _ends(played: Burst) -> str:
    undone = len(rolled_back(played))
    return f"{len(played.outcomes) - 1 - undone}; {undone}"


async def compare(size: Size, against: str | None) -> int:
    """Let an earlier revision, if one is given, play first; 1 when something did not hold in this one."""
    before = None
    if against:
        console.print(f"{against}; load average {os.getloadavg()[0]:.1f}")
        before = await earlier(size, against)
    console.print(f"this engine; load average {os.getloadavg()[0]:.1f}")
    failed, seconds = await run(size)
    if before is not None:
        console.print(f"{seconds:.0f} s instead of {before:.0f}: {before / seconds:.1f} times as fast")
    return failed


async def earlier(size: Size, revision: str) -> float:
    """Let an earlier revision play such a burst, with its own programme and fakes; print its report; its seconds."""
    source = await exported(revision)
    options = [
        f"--{name.replace('_', '-')}={getattr(size, name)}"
        for name in ("upgrades", "pools", "dumps", "rehearsals", "kill_every", "limit", "seed")
    ]
    said = await command(
        ["env", "-C", source, sys.executable, "-m", "tests.load", *options],
        limit=size.limit + START_SECONDS,
        env={**os.environ, "PYTHONPATH": python_path(source)},
    )
    console.print(said, markup=False)
    return seconds_in(said)


def seconds_in(report: str) -> float:
    """What a printed report says that the burst took."""
    found = re.search(r"^\W*seconds\W+(\d+)", report, re.MULTILINE)
    if found is None:
        raise ValueError(f"no line `seconds` in what the earlier revision printed: {report[-2000:]}")
    return float(found[1])


async def run(size: Size) -> tuple[int, float]:
    """Play, print; 1 when something did not hold, and the seconds."""
    directory = scratch_directory("rehome-load")
    try:
        async with burst(directory, size) as played:
            try:
                await played.play()
            finally:
                if played.log.exists():
                    log = Path(tempfile.gettempdir()) / "rehome-load.log"
                    shutil.copy(played.log, log)
            found = [breach async for breach in breaches(played)]
            async with played.platform.cluster.connect(played.platform.instance_database) as platform:
                repeated = await platform.fetchval("SELECT sum(deaths) FROM rehome.steps")
            console.print(report(played, await played.dead_letters(), repeated))
    finally:
        remove_scratch_directory(directory)
    for breach in found[:SHOWN]:
        console.print(f"BREACH: {breach}", markup=False)
    if found:
        console.print(f"{len(found)} breaches; the consumers' log is {log}")
    return (1 if found else 0), played.seconds


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    usual = Size()
    parser.add_argument("--upgrades", type=int, default=usual.upgrades, help="default: %(default)s")
    parser.add_argument(
        "--pools", type=int, default=usual.pools, help="source servers (default: %(default)s)"
    )
    parser.add_argument(
        "--dumps", type=int, default=usual.dumps, help="at once per server (default: %(default)s)"
    )
    parser.add_argument(
        "--rehearsals",
        type=int,
        default=usual.rehearsals,
        help="at once per server (default: %(default)s)",
    )
    parser.add_argument(
        "--kill-every", type=float, default=usual.kill_every, help="seconds (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=float, default=usual.limit, help="seconds for all (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=usual.seed,
        help="chooses which consumers are killed (default: %(default)s)",
    )
    parser.add_argument(
        "--against",
        metavar="REVISION",
        help="let this earlier revision play first, by git, and compare",
    )
    given = parser.parse_args()
    size = Size(
        upgrades=given.upgrades,
        pools=given.pools,
        dumps=given.dumps,
        rehearsals=given.rehearsals,
        kill_every=given.kill_every,
        limit=given.limit,
        seed=given.seed,
    )
    return asyncio.run(compare(size, given.against))


if __name__ == "__main__":
    sys.exit(main())
