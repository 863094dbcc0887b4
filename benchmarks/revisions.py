"""An earlier revision of this project, by git, to be measured in the same run as this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox.platform.local import ROOT
from sandbox.system.processes import run

if TYPE_CHECKING:
    from pathlib import Path

PARTS: Final = ("benchmarks", "consumer", "events", "rabbitmq", "sandbox", "tests")
_COMPLETE: Final = "complete 2"
"""A file that is there when all of them are."""


async def exported(revision: str) -> Path:
    """Its packages, benchmarks and tests, in a directory below build/ that is kept for the next time.

    Raises:
        CommandFailedError: git does not know the revision.
    """
    name = (await run(["git", "-C", str(ROOT), "rev-parse", "--short", revision], limit=30)).strip()
    there = ROOT / "build" / "revisions" / name
    if not (there / _COMPLETE).exists():
        there.mkdir(parents=True, exist_ok=True)
        archive = there / "archive.tar"
        await run(["git", "-C", str(ROOT), "archive", "-o", str(archive), name, *PARTS], limit=60)
        await run(["tar", "-xf", str(archive), "-C", str(there)], limit=60)
        archive.unlink()
        (there / _COMPLETE).touch()
    return there


def python_path(source: Path) -> str:
    """PYTHONPATH of a process that runs the code in `source`, whatever is installed."""
    return ":".join(str(source / part) for part in ("consumer", "events", "."))
