"""The filestore (attachments) as a tar beside the database's backup: `<backup root>/<backup id>-filestore.tar`.

A move leaves the filestore where it is; the archive makes a backup complete. It is beside the backup's
directory, not in it, since that is sealed by a manifest already.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.backup.filestore_tar import Room, write_tar
from rehome_consumer.adapters.common.bounded_thread import in_thread
from rehome_consumer.adapters.common.instance_directory import open_below
from rehome_consumer.errors import Conflict, Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rehome_consumer.model import Instance

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_NICENESS: Final = 10


class FilestoreArchive:
    """Port `Filestore`: one thread of low priority writes the tar; memory does not grow with the filestore.

    The archive gets its name when it is complete and on disk. Files that Odoo removes meanwhile are left out, so an
    instance may run; so is everything that is neither a file nor a directory, such as links.
    A tenant cannot fill the backup place with it: holes stay holes, and a reserve stays free.
    """

    def __init__(
        self,
        data_root: Path,
        backup_root: Path,
        *,
        enabled: bool,
        limit: float = 4 * 3600.0,
        reserve: int | None = None,
    ) -> None:
        """Archive from `data_root` to `backup_root`.

        Args:
            data_root: holds one directory per instance.
            backup_root: holds the backups.
            enabled: whether filestores are archived at all.
            limit: seconds that one archive may take.
            reserve: bytes that stay free at the backup place; by default as `Room` says.
        """
        self._data_root = data_root
        self._backup_root = backup_root
        self._enabled = enabled
        self._limit = limit
        self._reserve = reserve

    async def archive(self, instance: Instance, backup_id: str) -> Path | None:
        """A tar of the filestore; the one of an earlier call if it is there.

        Returns:
            Its path. None when archiving is disabled, or when there is no filestore (which is logged): an instance
            that never stored an attachment has none.

        Raises:
            Refused: the filestore's path leads out of the instance's directory.
            Unreachable: the storage, or the backup place, fails or is full up to the reserve.
            TimedOut: the limit passed.
            Conflict: another run took over.
        """
        if not self._enabled:
            return None
        if not _ID.fullmatch(backup_id):
            raise ValueError(f"{backup_id!r} is no id of a backup")
        what = f"archiving the filestore of {instance.database} for backup {backup_id}"
        executor = ThreadPoolExecutor(1, "filestore", initializer=_be_nice)
        try:
            return await in_thread(
                lambda wanted: self._archive(instance, backup_id, what, wanted), what, self._limit, executor
            )
        finally:
            executor.shutdown(wait=False)

    def _archive(
        self, instance: Instance, backup_id: str, what: str, wanted: Callable[[], None]
    ) -> Path | None:
        target = self._backup_root / f"{backup_id}-filestore.tar"
        database = instance.database
        if database in {"", ".", ".."} or "/" in database or not database.isprintable():
            raise Refused(f"{what}: {database!r} is no file name")
        parts = ("data", "filestore", database)
        with _translated(what), ExitStack() as stack:
            if target.exists():
                return target
            try:
                directory = stack.enter_context(open_below(self._data_root, instance, parts, Refused))
            except FileNotFoundError as error:
                log.warning("filestore.missing instance=%s missing=%s", instance.id, error.filename)
                return None
            self._write(target, directory, database, wanted)
        return target

    def _write(self, target: Path, directory: int, database: str, wanted: Callable[[], None]) -> None:
        """Write under a temporary name, then rename; what a killed run left is removed first."""
        for left in target.parent.glob(f".{target.stem}.*.partial"):
            left.unlink(missing_ok=True)
        partial = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.partial")
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as tar:
                write_tar(tar, directory, database, Room(str(target.parent), self._reserve), wanted)
                tar.flush()
                os.fsync(tar.fileno())
            wanted()
            try:
                partial.rename(target)
            except FileNotFoundError:
                raise Conflict(f"{target}: another run writes it at this moment") from None
            _sync(target.parent)
        finally:
            partial.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _be_nice() -> None:
    """Lower this thread's priority; on Linux a thread has its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Translate the operating system's errors, all into Unreachable: here it is the operator's storage that fails."""
    try:
        yield
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        raise Unreachable(f"{what}: {error.strerror}{place}") from error
