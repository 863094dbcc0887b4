"""Directories for a process's servers, removed by the next process when their own was killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108, the directories in it are made by mkdtemp
_ROOM_IN_MEMORY = 4 * 1024**3

_LOCK = ".lock"

# The open lock file of each directory that this process made; closing it would give up the lock.
_locks: dict[Path, int] = {}


def scratch_directory(prefix: str) -> Path:
    """Make a directory that every account may pass through, but not list; the caller removes it.

    It is in memory (``/dev/shm``) where that has 4 GB to spare, since servers make thousands of files, else
    under the system's temporary directory; ``TMPDIR`` overrides both. Directories of the same prefix whose
    process was killed before it removed them are removed now.
    """
    root = _root()
    for sibling in root.glob(f"{prefix}-*/{_LOCK}"):
        _remove_if_abandoned(sibling.parent)
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=root))
    directory.chmod(0o711)
    # Locked before it has the name that others look for.
    unnamed = directory / f"{_LOCK}-new"
    lock = os.open(unnamed, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    unnamed.rename(directory / _LOCK)
    _locks[directory] = lock
    return directory


def _root() -> Path:
    if "TMPDIR" not in os.environ:
        with contextlib.suppress(OSError):
            if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM_IN_MEMORY:
                return _MEMORY
    return Path(tempfile.gettempdir())


def remove_scratch_directory(directory: Path) -> None:
    """Remove a directory that `scratch_directory` made, with its contents."""
    shutil.rmtree(directory)
    os.close(_locks.pop(directory))


def _remove_if_abandoned(directory: Path) -> None:
    """Remove another process's directory if its lock is free, which it is once that process has ended."""
    if directory in _locks:
        return
    with contextlib.suppress(FileNotFoundError, PermissionError):
        lock = os.open(directory / _LOCK, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            return
        finally:
            os.close(lock)
