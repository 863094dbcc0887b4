"""Small file systems that can be filled completely, and files whose storage fails."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.backup.place import MARK
from sandbox.system.processes import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting over files and directories needs root")

FILLER = "filler"


@dataclass(frozen=True)
class Disk:
    """A file system of its own."""

    path: Path

    def fill(self, *, but: int = 0) -> None:
        """Leave no more than `but` bytes free."""
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        with (self.path / FILLER).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - but, 1))

    def make_room(self) -> None:
        """Remove the filler."""
        (self.path / FILLER).unlink()


@asynccontextmanager
async def disk(path: Path, megabytes: int) -> AsyncIterator[Disk]:
    """An empty one, mounted over an existing directory (as root); a backup place stays the same place by its mark.

    It is unmounted even while a process still uses it: the last one to close it frees it.
    """
    mark = _mark(path)
    mode = f"mode={os.stat(path).st_mode & 0o7777:o}"  # noqa: PTH116 - at once, before the first wait
    await run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,{mode}", "tmpfs", str(path)], limit=10)
    _set_mark(path, mark)
    try:
        yield Disk(path)
    finally:
        mark = _mark(path)
        await run(["umount", "--lazy", str(path)], limit=10)
        _set_mark(path, mark)


def _mark(place: Path) -> bytes | None:
    return (place / MARK).read_bytes() if (place / MARK).exists() else None


def _set_mark(place: Path, mark: bytes | None) -> None:
    if mark is not None:
        (place / MARK).write_bytes(mark)


@asynccontextmanager
async def read_only(directory: Path) -> AsyncIterator[None]:
    """As if its file system had been mounted read-only (needs root)."""
    await run(["mount", "--bind", str(directory), str(directory)], limit=10)
    try:
        await run(["mount", "-o", "remount,bind,ro", str(directory)], limit=10)
        yield
    finally:
        await run(["umount", "--lazy", str(directory)], limit=10)


@asynccontextmanager
async def unreadable(file: Path) -> AsyncIterator[None]:
    """Reading this file is an input/output error (needs root): /proc/PID/mem is mounted over it."""
    await run(["mount", "--bind", f"/proc/{os.getpid()}/mem", str(file)], limit=10)
    try:
        yield
    finally:
        await run(["umount", "--lazy", str(file)], limit=10)
