"""`python -m tests.compatibility`: run what has a broker, and write this RabbitMQ's column of docs/compatibility.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.compatibility.areas import AREAS
from tests.compatibility.counting import FILE
from tests.compatibility.table import PAGE, Column, Counts, columns, put

if TYPE_CHECKING:
    from tests.compatibility.areas import Area

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = ROOT / "build" / "compatibility"
COLUMN: Final = PLACE / "column.json"
"""The last run's column; `--take` reads it on another machine, or outside of the other Debian's root."""

_BROKERS: Final = Path("/usr/lib/rabbitmq/lib")
_AREA_SECONDS: Final = 7200.0
_TEST_SECONDS: Final = 900


def main() -> int:
    """Run, or take another run's column."""
    args = _arguments()
    if args.take:
        column = read_column(args.take)
        write(column)
    else:
        PLACE.mkdir(parents=True, exist_ok=True)
        COLUMN.unlink(missing_ok=True)
        column = asyncio.run(run(args.areas, representative=args.representative, jobs=args.jobs))
    failed = sum(one.failed for one in column.counts.values())
    print(
        f"RabbitMQ {column.version}, Debian {column.debian}: {failed or 'nothing'} failed; see docs/{PAGE.name}"
    )
    return 1 if failed else 0


async def run(names: list[str], *, representative: bool, jobs: int) -> Column:
    """Run areas, and write what is known after each; those not named keep what the page says of this version."""
    version, debian = broker_version(), os_release()["VERSION_CODENAME"]
    before = next((one for one in columns(PAGE.read_text(encoding="utf-8")) if one.debian == debian), None)
    counts = dict(before.counts) if before and before.version == version else {}
    column = Column(version, debian, datetime.now(UTC).date().isoformat(), counts)
    slots = asyncio.Semaphore(jobs)

    async def one(area: Area) -> None:
        async with slots:
            counts[area.name] = await run_area(area, representative=representative)
            COLUMN.write_text(json.dumps(asdict(column), indent=2))
            write(column)

    await asyncio.gather(*(one(area) for area in AREAS if not names or area.name in names))
    return column


def write(column: Column) -> None:
    """Put a column into the page."""
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), column), encoding="utf-8")


async def run_area(area: Area, *, representative: bool) -> Counts:
    """Run an area's tests in a process of its own; what it prints is in a file beside the counts."""
    name = area.name.replace(" ", "_").replace("'", "")
    counts, log = PLACE / f"{name}.json", PLACE / f"{name}.log"
    counts.unlink(missing_ok=True)
    marks = ["-m", "representative"] if representative and area.long else []
    command = [sys.executable, "-m", "pytest", "-p", "tests.compatibility.counting", "-v", "--durations", "5"]
    limits = ["--timeout", str(_TEST_SECONDS)]
    began = time.monotonic()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, *limits, *marks, *area.paths,
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT,
            env={**os.environ, FILE: str(counts)},
        )  # fmt: skip
        try:
            await asyncio.wait_for(process.wait(), _AREA_SECONDS)
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
    found = Counts(**json.loads(counts.read_text())) if counts.exists() else Counts()
    if process.returncode != 0 and not found.failed:  # it could not even begin
        found = Counts(found.passed, 1, found.not_run)
    where = f"; see {log}" if found.failed else ""
    print(f"{area.name}: {found} ({time.monotonic() - began:.0f} s){where}", flush=True)
    return found


def read_column(file: Path) -> Column:
    """Another run's column.

    Raises:
        SystemExit: there is none.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"compatibility: {file} holds no column: {error}") from error
    counts = {name: Counts(**one) for name, one in found.pop("counts").items()}
    return Column(**found, counts=counts)


def broker_version() -> str:
    """Of the RabbitMQ that is installed here.

    Raises:
        SystemExit: none is.
    """
    found = sorted(_BROKERS.glob("rabbitmq_server-*"))
    if not found:
        raise SystemExit(f"compatibility: RabbitMQ is not in {_BROKERS}: install it (make setup)")
    return found[-1].name.rpartition("-")[2]


def os_release() -> dict[str, str]:
    """What /etc/os-release says (os-release(5))."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility", description=__doc__)
    parser.add_argument(
        "--area",
        action="append",
        default=[],
        dest="areas",
        choices=[area.name for area in AREAS],
        help="only this one (may be repeated); the others keep what the page says",
    )
    parser.add_argument(
        "--representative", action="store_true", help="of the areas that take long only one test of each kind"
    )
    parser.add_argument("--jobs", type=int, default=2, help="areas at the same time (default: %(default)s)")
    parser.add_argument(
        "--take", type=Path, metavar="FILE", help="run nothing; write the column of another run"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
