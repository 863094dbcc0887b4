"""The filestore (attachments) as a tar beside the database's backup: `<backup root>/<backup id>-filestore.tar`.

A move leaves the filestore where it is; the archive makes a backup complete. It stands beside the backup's
directory, not in it, since that is sealed by a manifest by then.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

import structlog

from consumer.adapters.bounded_thread import in_thread
from consumer.adapters.instance_directory import open_below
from consumer.errors import Conflict, Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from consumer.model import Instance

_LOG = structlog.get_logger()
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_CHUNK: Final = 1024 * 1024
_NICENESS: Final = 10


class FilestoreArchive:
    """Port `Filestore`: one thread of low priority writes the tar; memory does not grow with the filestore.

    The archive appears under its name when it is whole and on disk. Files that Odoo removes meanwhile are left
    out, so an instance may run; links and other things that are no files or directories are left out too.
    """

    def __init__(
        self, data_root: Path, backup_root: Path, *, enabled: bool, limit: float = 4 * 3600.0
    ) -> None:
        """Archive from `data_root` to `backup_root`.

        Args:
            data_root: holds one directory per instance.
            backup_root: holds the backups.
            enabled: whether archiving is asked for at all.
            limit: seconds that one archive may take.
        """
        self._data_root = data_root
        self._backup_root = backup_root
        self._enabled = enabled
        self._limit = limit

    async def archive(self, instance: Instance, backup_id: str) -> Path | None:
        """A tar of the filestore; the one of an earlier call if it is there.

        Returns:
            Its path. None when archiving is not asked for, or (and the log says so) there is no filestore, which
            is so for an instance that never stored an attachment.

        Raises:
            Refused: the filestore's path leads out of the instance's directory.
            Unreachable: the storage, or the backup place, fails or is full.
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
        with _told(what), ExitStack() as stack:
            if target.exists():
                return target
            try:
                directory = stack.enter_context(open_below(self._data_root, instance, parts, Refused))
            except FileNotFoundError as error:
                _LOG.warning("filestore.missing", instance=str(instance.id), missing=error.filename)
                return None
            self._write(target, directory, database, wanted)
        return target

    def _write(self, target: Path, directory: int, database: str, wanted: Callable[[], None]) -> None:
        """Write under a temporary name, then rename; what a killed run left is swept first."""
        for left in target.parent.glob(f".{target.stem}.*.partial"):
            left.unlink(missing_ok=True)
        partial = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.partial")
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as tar:
                _write_tar(tar, directory, database, wanted)
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


def _write_tar(tar: BinaryIO, directory: int, name: str, wanted: Callable[[], None]) -> None:
    """Everything below `directory`, as `name`. Not by `TarFile`, which keeps every entry in memory."""
    for place, folders, files, here in os.fwalk(".", dir_fd=directory, onerror=_unless_gone):
        folders.sort()
        inside = name + place.removeprefix(".")
        tar.write(_header(inside, os.fstat(here), tarfile.DIRTYPE, 0))
        for file in sorted(files):
            opened = _open_regular(file, here)
            if opened is not None:
                with opened:
                    _write_file(tar, opened, f"{inside}/{file}", wanted)
    tar.write(bytes(2 * tarfile.BLOCKSIZE))


def _write_file(tar: BinaryIO, file: BinaryIO, name: str, wanted: Callable[[], None]) -> None:
    status = os.fstat(file.fileno())
    tar.write(_header(name, status, tarfile.REGTYPE, status.st_size))
    left = status.st_size
    while left:
        wanted()
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise OSError(errno.EAGAIN, "it became shorter while it was read", name)
        tar.write(chunk)
        left -= len(chunk)
    tar.write(bytes(-status.st_size % tarfile.BLOCKSIZE))


def _header(name: str, status: os.stat_result, kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    return entry.tobuf(tarfile.PAX_FORMAT)


def _open_regular(name: str, directory: int) -> BinaryIO | None:
    """The file, opened; None when it is gone since it was listed, or is a link, a pipe or a socket."""
    try:
        # Without O_NONBLOCK a named pipe would block for ever.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    opened = os.fdopen(file, "rb")
    if stat.S_ISREG(os.fstat(file).st_mode):
        return opened
    opened.close()
    return None


def _unless_gone(error: OSError) -> None:
    """`os.fwalk` passes over directories that it cannot list; that is right only for those that are gone."""
    if error.errno != errno.ENOENT:
        raise error


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
def _told(what: str) -> Iterator[None]:
    """Translate the operating system's errors. All may pass: by then it is the operator's storage that fails."""
    try:
        yield
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        raise Unreachable(f"{what}: {error.strerror}{place}") from error
