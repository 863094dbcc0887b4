"""The table in docs/compatibility.md: a row for each area, a column for each release of Debian and its RabbitMQ."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.compatibility.areas import AREAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PAGE: Final = Path(__file__).parents[2] / "docs" / "compatibility.md"
BEGIN: Final = "<!-- brokers:begin (written by `make compatibility`, checked by a test) -->"
END: Final = "<!-- brokers:end -->"

_NOT_RUN: Final = "not run"
_HEADING: Final = re.compile(r"RabbitMQ (\d+\.\d+\.\d+)<br>Debian (\w+)<br>(\d{4}-\d\d-\d\d)")
_CELL: Final = re.compile(r"(?:(\d+) passed)?(?:, )?(?:\*\*(\d+) failed\*\*)?(?:, )?(?:(\d+) not run)?")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tests of an area passed, failed and were not run."""

    passed: int = 0
    failed: int = 0
    not_run: int = 0

    def __str__(self) -> str:
        """As a cell of the table."""
        words = (
            (self.passed, f"{self.passed} passed"),
            (self.failed, f"**{self.failed} failed**"),
            (self.not_run, f"{self.not_run} not run"),
        )
        return ", ".join(word for count, word in words if count) or _NOT_RUN


@dataclass(frozen=True, slots=True)
class Column:
    """What was run with one RabbitMQ.

    Attributes:
        version: of RabbitMQ, such as 4.0.5.
        debian: codename of the release of Debian that it comes from.
        date: of the run, as YYYY-MM-DD.
        counts: by area.
    """

    version: str
    debian: str
    date: str
    counts: Mapping[str, Counts] = field(default_factory=dict)

    @property
    def release(self) -> tuple[int, ...]:
        """Its version as numbers."""
        return tuple(int(part) for part in self.version.split("."))


def put(page: str, column: Column) -> str:
    """The page with this column, instead of an older one of the same release of Debian."""
    others = [one for one in columns(page) if one.debian != column.debian]
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    table = "\n".join(_lines(sorted([*others, column], key=lambda one: one.release)))
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def columns(page: str) -> list[Column]:
    """What the page's table says.

    Raises:
        ValueError: it is not as `put` writes it.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE.name}: the lines {BEGIN!r} and {END!r} must be there, once each")
    lines = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if not rows:
        return []
    found = []
    for number, heading in enumerate(rows[0][1:], 1):
        match = _HEADING.fullmatch(heading)
        if match is None:
            raise ValueError(
                f"{PAGE.name}: {heading!r} is no heading such as RabbitMQ 4.0.5<br>Debian trixie<br>DATE"
            )
        counts = {row[0].partition(":")[0].strip("*"): _counts(row[number]) for row in rows[2:]}
        found.append(Column(match[1], match[2], match[3], counts))
    return found


def _lines(found: list[Column]) -> Iterable[str]:
    yield _row("", *(f"RabbitMQ {one.version}<br>Debian {one.debian}<br>{one.date}" for one in found))
    yield _row("---", *("---" for _ in found), space="")
    for area in AREAS:
        yield _row(
            f"**{area.name}**: {area.what}", *(str(one.counts.get(area.name, Counts())) for one in found)
        )


def _row(*cells: str, space: str = " ") -> str:
    return f"|{'|'.join(f'{space}{cell}{space}' if cell else space for cell in cells)}|"


def _counts(cell: str) -> Counts:
    if cell == _NOT_RUN:
        return Counts()
    match = _CELL.fullmatch(cell)
    if not cell or match is None:
        raise ValueError(f"{PAGE.name}: {cell!r} is no cell such as 3 passed, **1 failed**, 2 not run")
    return Counts(*(int(count or 0) for count in match.groups()))
