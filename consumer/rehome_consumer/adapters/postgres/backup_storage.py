"""What the copier needs of the place where backups are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from uuid import UUID

    from rehome_consumer.model import Backup


class BackupStorage(Protocol):
    """Where backups are: `rehome_consumer.adapters.backup.place.BackupPlace` says how.

    Its methods block: they are called in threads, and call `still_wanted` before they change anything for good.
    """

    def require_writable(self) -> int:
        """Free bytes."""
        ...

    def require_mark(self, mark: UUID | None) -> UUID:
        """The place's mark, made now where it has none and `mark` is None. Raises NotReady when it is another."""
        ...

    def sealed(self, backup_id: str) -> Path:
        """Where a sealed backup is, or will be."""
        ...

    def begin(self, backup_id: str, still_wanted: Callable[[], None]) -> Path:
        """A new, empty directory for one run of a dump or restore."""
        ...

    def dump_in(self, directory: Path) -> Path:
        """Where the dump is in such a directory, or in a sealed backup."""
        ...

    def dumped_bytes(self, directory: Path) -> int:
        """Bytes of the dump in such a directory so far."""
        ...

    def finish(
        self, run: Path, backup_id: str, source: Mapping[str, Any], still_wanted: Callable[[], None]
    ) -> None:
        """The run's dump is complete."""
        ...

    def seal(
        self,
        backup_id: str,
        rows: Mapping[str, int],
        versions: Mapping[str, str],
        still_wanted: Callable[[], None],
    ) -> Backup:
        """Hash, flush, write the manifest, rename."""
        ...

    def check(self, backup_id: str, still_wanted: Callable[[], None]) -> Backup | None:
        """The sealed backup, checked; None when there is none."""
        ...

    def source_of(self, backup: Backup) -> dict[str, Any]:
        """What the dump was taken of."""
        ...

    def discard(self, backup_id: str, still_wanted: Callable[[], None]) -> None:
        """Remove the backup, sealed or not."""
        ...
