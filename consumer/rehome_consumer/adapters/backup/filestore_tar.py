"""Writing a directory as a tar file: memory does not grow, holes stay holes, and the disk is not filled up."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK: Final = 1024 * 1024
_ZEROS: Final = bytes(_CHUNK)
_RESERVE: Final = 1024**3
_SHARE: Final = 20


class Room:
    """How much of a file system may be used: other moves need to write there too."""

    def __init__(self, directory: str, reserve: int | None = None) -> None:
        """Watch the file system of `directory`.

        Args:
            directory: anywhere in it.
            reserve: bytes that stay free; by default 1 GiB, or a twentieth where that is less.
        """
        self._directory = directory
        self._reserve = reserve

    def require(self, size: int, name: str) -> None:
        """Raise OSError (ENOSPC) unless `size` bytes more for the file `name` leave the reserve."""
        there = os.statvfs(self._directory)
        reserve = (
            min(_RESERVE, there.f_blocks * there.f_frsize // _SHARE)
            if self._reserve is None
            else self._reserve
        )
        free = there.f_bavail * there.f_frsize
        if free - size < reserve:
            raise OSError(
                errno.ENOSPC,
                f"{self._directory} has {free / 1e9:.1f} GB free, of which {reserve / 1e9:.1f} GB stay for "
                "other moves. Make room there, or leave filestores out (REHOME_BACKUP_FILESTORE=false). Too little for",
                name,
            )


def write_tar(tar: BinaryIO, directory: int, name: str, room: Room, wanted: Callable[[], None]) -> None:
    """Write everything below `directory`, as `name`. Not by `TarFile`, which keeps every entry in memory.

    Args:
        tar: an empty file; holes of files below `directory` are holes in it, too.
        directory: a file descriptor.
        name: what the directory is called in the archive.
        room: how much may be written.
        wanted: called before every piece; raises to end the work.

    Raises:
        OSError: reading or writing failed, a file became shorter while it was read, or there is no room.
    """
    for place, folders, files, here in os.fwalk(".", dir_fd=directory, onerror=_unless_missing):
        folders.sort()
        inside = name + place.removeprefix(".")
        _put(tar, _header(inside, os.fstat(here), tarfile.DIRTYPE, 0), inside, room, wanted)
        for file in sorted(files):
            opened = _open_regular(file, here)
            if opened is not None:
                try:
                    _write_file(tar, opened, f"{inside}/{file}", room, wanted)
                finally:
                    os.close(opened)
    tar.write(bytes(2 * tarfile.BLOCKSIZE))


def _write_file(tar: BinaryIO, file: int, name: str, room: Room, wanted: Callable[[], None]) -> None:
    status = os.fstat(file)
    size = status.st_size
    _put(tar, _header(name, status, tarfile.REGTYPE, size), name, room, wanted)
    start = tar.tell()
    for at, end in _pieces(file, size):
        wanted()
        piece = os.pread(file, end - at, at)
        if len(piece) < end - at:
            raise _shorter(name)
        if piece != _ZEROS[: len(piece)]:  # also a hole, where a storage does not report holes
            tar.seek(start + at)
            _put(tar, piece, name, room, wanted)
    if os.fstat(file).st_size < size:
        raise _shorter(name)
    tar.seek(start + size)
    tar.write(bytes(-size % tarfile.BLOCKSIZE))


def _pieces(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of what is no hole in the first `size` bytes, no piece longer than a chunk."""
    at = 0
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = min(os.lseek(file, at, os.SEEK_HOLE), size)
        while at < end:
            yield at, min(at + _CHUNK, end)
            at += _CHUNK
        at = end


def _put(tar: BinaryIO, data: bytes, name: str, room: Room, wanted: Callable[[], None]) -> None:
    wanted()
    room.require(len(data), name)
    tar.write(data)


def _shorter(name: str) -> OSError:
    return OSError(errno.EAGAIN, "it became shorter while it was read", name)


def _header(name: str, status: os.stat_result, kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    return entry.tobuf(tarfile.PAX_FORMAT)


def _open_regular(name: str, directory: int) -> int | None:
    """The file, opened; None when it was removed since it was listed, or is a link, a pipe or a socket."""
    try:
        # Without O_NONBLOCK a named pipe would block for ever.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def _unless_missing(error: OSError) -> None:
    """`os.fwalk` skips directories that it cannot list; that is right only for those that were removed."""
    if error.errno != errno.ENOENT:
        raise error
