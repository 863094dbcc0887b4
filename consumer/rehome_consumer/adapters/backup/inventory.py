"""The backup place for the reconciler and `rehome retire`: what is in it, and how one entry is removed."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import UUID

from rehome_consumer.adapters.common.bounded_thread import in_thread
from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.errors import Conflict, Refused
from rehome_consumer.ports.operators import BackupEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Kind: TypeAlias = Literal["backup", "filestore", "partial"]

LIMIT: Final = 600.0  # seconds for removing one backup

_ID = r"(?P<migration>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?P<attempt>[0-9]{1,9})"
_FORMS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("backup", re.compile(_ID)),
    ("filestore", re.compile(rf"{_ID}-filestore\.tar")),
    ("partial", re.compile(rf"\.{_ID}(-filestore|-rehearsal)?(\.[0-9a-f]{{8}})?\.(partial|work)")),
    ("partial", re.compile(rf"{_ID}-rehearsal")),
)
"""Names as `rehome_consumer.adapters.backup.place` and `rehome_consumer.adapters.backup.filestore` give them."""


class FileBackupInventory:
    """Port `BackupInventory` on a directory."""

    def __init__(self, root: Path) -> None:
        """Use the backup place `root`."""
        self._root = root

    async def entries(self) -> list[BackupEntry]:
        """See `BackupInventory.entries`. A place that does not exist (yet) is empty.

        Raises:
            Unreachable, TimedOut: the storage does not answer.
        """
        with translated(what := f"looking at the backup place {self._root}"):
            return await in_thread(lambda _: self._entries(), what, LIMIT)

    async def remove(self, name: str) -> None:
        """See `BackupInventory.remove`; a backup that is removed only in part is none from the start.

        Raises:
            Refused: rehome gives no such names.
            Conflict: it could not be removed.
        """
        if read(name) is None:
            raise Refused(f"{name!r} is no name that rehome gives in the backup place: it is left alone")
        with translated(what := f"removing {name} from the backup place"):
            await in_thread(lambda wanted: self._remove(name, wanted), what, LIMIT)

    def _entries(self) -> list[BackupEntry]:
        found: list[BackupEntry] = []
        with suppress(FileNotFoundError):
            for path in sorted(self._root.iterdir()):
                entry = read(path.name)
                if entry is not None:
                    with suppress(FileNotFoundError):
                        changed = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
                        found.append(BackupEntry(path.name, entry[0], changed, entry[1], entry[2]))
        return found

    def _remove(self, name: str, still_wanted: Callable[[], None]) -> None:
        path = self._root / name
        still_wanted()
        with suppress(FileNotFoundError):
            if not path.is_dir() or path.is_symlink():
                path.unlink()
                return
            half = path if name.startswith(".") else self._root / f".{name}.partial"
            if half != path:
                shutil.rmtree(half, ignore_errors=True)
                path.rename(half)
            shutil.rmtree(half, ignore_errors=True)
            if half.exists():
                raise Conflict(f"{half} could not be removed")


def read(name: str) -> tuple[Kind, UUID, int] | None:
    """Kind, migration and attempt of an entry's name; None when rehome gives no such names."""
    for kind, form in _FORMS:
        match = form.fullmatch(name)
        if match:
            return kind, UUID(match["migration"]), int(match["attempt"])
    return None
