"""The files of a backup: what JSON says of them, their digests, and how they are flushed to disk."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class TooLarge(ValueError):
    """The file has more bytes than are read."""


MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading bad JSON may raise."""

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a manifest that is read back: some 300,000 files or tables."""

_LONGEST_NAME = 255
_CHUNK = 1024 * 1024


def read(path: Path) -> bytes:
    """A manifest, or the description of a dump. Raises TooLarge, OSError."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise TooLarge(f"it has more than {LARGEST} bytes")
    return data


def describe_error(error: Exception) -> str:
    """Why a file cannot be read, without its content."""
    return str(error) if isinstance(error, TooLarge) else type(error).__name__


def size(directory: Path) -> int:
    """Bytes of all files below a directory, one that is being written included."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def require_valid(files: Mapping[str, Any]) -> None:
    """Raise ValueError unless every name is that of a file below the backup, and every size is a number of bytes."""
    for name, entry in files.items():
        path = PurePosixPath(name)
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise ValueError("a name that no file can have")
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name:
            raise ValueError("a file that is not in the backup")
        if type(entry["bytes"]) is not int or entry["bytes"] < 0:
            raise ValueError("a size that is no number of bytes")


def parse_time(text: str) -> datetime:
    """A point in time. Raises one of MALFORMED when it is none, or has no time zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time


def require_complete(place: Path, sizes: Mapping[str, int]) -> None:
    """Raise Conflict unless every file is as the dump left it: an older, lost run may have removed some."""
    for name, expected in sizes.items():
        path = place / name
        if not path.is_file() or path.stat().st_size != expected:
            raise Conflict(f"{path} is not as pg_dump left it: dump again")


def digest(path: Path, still_wanted: Callable[[], None], *, flush: bool) -> dict[str, Any]:
    """A file's size and SHA-256; if `flush`, it is on disk then.

    Args:
        path: the file.
        still_wanted: called for every piece; raises in a run that nobody waits for any more.
        flush: whether what the system still holds in memory is written first.
    """
    sha256 = hashlib.sha256()
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            still_wanted()
            sha256.update(chunk)
            total += len(chunk)
        if flush:
            os.fsync(file.fileno())
    return {"bytes": total, "sha256": sha256.hexdigest()}


def write(path: Path, value: Any) -> None:
    """Write JSON; it is on disk when this returns."""
    with path.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def flush_names(directory: Path) -> None:
    """Flush the names of a directory's files to disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
