"""The canary in a tenant's database: how it gets there, and what it has reported in a server's log."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox.postgres.databases import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN: Final = 150
_SQL: Final = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class Canary:
    """One tenant's.

    Attributes:
        token: identifies its reports in a log.
        tenant: the role whose rights it may have.
        marks: directory where it leaves a file when it may write a file or run a program.
    """

    token: str
    tenant: str
    marks: Path

    def script(self, name: str) -> str:
        """A file of `tests/attack/sql`, for this tenant."""
        mark = f"{self.marks}/{self.token}"
        text = (_SQL / f"{name}.sql").read_text()
        for word, value in {"TOKEN": self.token, "TENANT": self.tenant, "MARKS": str(self.marks)}.items():
            text = text.replace(f"@{word}@", literal(value).strip())
        return text.replace("@MARK@", mark)

    def reports(self, log: Path) -> list[Report]:
        """What it has reported in this server's log."""
        return list(self._reports(log.read_text(errors="replace")))

    def _reports(self, text: str) -> Iterator[Report]:
        for match in re.finditer(rf"CANARY {self.token} (\{{.*\}})$", text, re.MULTILINE):
            yield Report(**json.loads(match[1]))

    def left(self) -> list[str]:
        """Names of the files that it left."""
        return sorted(mark.name for mark in self.marks.iterdir() if mark.name.startswith(self.token))


@dataclass(frozen=True)
class Report:
    """What the canary found: `site` is the object that called it, `powers` what it could do beyond the tenant."""

    site: str
    session: str
    current: str
    database: str
    application: str
    powers: list[Any]

    def __str__(self) -> str:
        who = f"session of {self.session} as {self.current} ({self.application!r}, database {self.database})"
        powers = "; ".join(self.powers) or "nothing more than the tenant"
        return f"{self.site}, {who}: {powers[:_SHOWN]}"
