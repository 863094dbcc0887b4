"""Replacing odoo.conf and keeping copies beside it, by the rules of a careful file system citizen."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from rehome_consumer.adapters.common.instance_directory import instance_directory, open_below
from rehome_consumer.errors import Conflict, ConfUnusable, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rehome_consumer.model import Instance

LARGEST: Final = 1024 * 1024
"""Bytes; a real odoo.conf has a few thousand."""

_TEMPORARY: Final = (".odoo.conf.rehome-", ".tmp")

_ADVICE: Final = {
    errno.ENOENT: "it is not there; Odoo cannot start without it, so restore it first",
    errno.ENOTDIR: "a part of its path is no directory, or a symbolic link",
    errno.EISDIR: "it is a directory, not a file",
    errno.ELOOP: "it is a symbolic link, and is not followed since a tenant can make one: put the file there",
    errno.EACCES: "the consumer's user may not use it: grant it read and write access",
    errno.EPERM: "it may not be changed (is it immutable? see lsattr)",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ENXIO: "it is not a regular file",
    errno.EMLINK: "it has too many links",
}
"""Errors that trying again does not change, and what to say. All others may pass."""

_LINKED: Final = (
    "it has another name elsewhere (a hard link), and is not used since a tenant can make one to a file of others: "
    "find the names with `find -samefile`, then put a copy in its place (cp, then mv)"
)


class Content(NamedTuple):
    """A file's bytes, and its mode and owner."""

    data: bytes
    status: os.stat_result


def conf_path(data_root: Path, instance: Instance) -> Path:
    """Where the instance's odoo.conf is by the platform's naming rule.

    Raises:
        ConfUnusable: the instance's names, which come from a database row, lead out of the data root.
    """
    return instance_directory(data_root, instance, ConfUnusable) / "conf" / "odoo.conf"


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Translate the operating system's errors about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _ADVICE:
            raise ConfUnusable(f"{path}: {_ADVICE[error.errno]}") from error
        raise Unreachable(f"{path}: {error.strerror}") from error


@contextmanager
def open_directory(data_root: Path, instance: Instance) -> Iterator[int]:
    """The directory of the instance's odoo.conf, as a file descriptor to which all names are relative.

    Raises:
        ConfUnusable: it is not there, or leads elsewhere; see `open_below` for which links are followed.
        Unreachable: the storage is not mounted.
    """
    with ExitStack() as stack:
        with told(conf_path(data_root, instance).parent):
            directory = stack.enter_context(open_below(data_root, instance, ("conf",), ConfUnusable))
        yield directory


def read(directory: int, path: Path) -> Content:
    """The file `path.name` in `directory`.

    Raises:
        ConfUnusable: not there, not readable, no regular file, one with several names, too large.
    """
    with told(path):
        # Without O_NONBLOCK a named pipe in the file's place would block for ever.
        file = os.open(
            path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
        with os.fdopen(file, "rb") as stream:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ConfUnusable(f"{path}: it is not a regular file")
            if status.st_nlink > 1:
                raise ConfUnusable(f"{path}: {_LINKED}")
            data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ConfUnusable(f"{path}: it is larger than {LARGEST} bytes, which is no odoo.conf")
    return Content(data, status)


def require_replaceable(directory: int, path: Path) -> None:
    """Raise ConfUnusable where the file itself forbids it though its directory does not: immutable, or linked."""
    with told(path):
        _require_one_name(directory, path)
    try:
        # Neither changes nor truncates. What mode bits say of the file does not matter to a rename.
        os.close(os.open(path.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory))
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise ConfUnusable(f"{path}: {_ADVICE[errno.EPERM]}") from error
    except OSError as error:
        raise ConfUnusable(f"{path}: {error.strerror}") from error


@contextmanager
def temporary(directory: int, path: Path, content: Content) -> Iterator[str]:
    """A new file beside `path` with this content, mode and owner, safe on disk; gone after the block.

    Raises:
        ConfUnusable: the directory takes no file, or the owner cannot be kept.
    """
    name = f"{_TEMPORARY[0]}{secrets.token_hex(8)}{_TEMPORARY[1]}"
    with told(path.parent):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with told(path), os.fdopen(file, "wb") as stream:
            stream.write(content.data)
            stream.flush()
            _keep_owner(file, content.status, path)
            os.fchmod(file, stat.S_IMODE(content.status.st_mode))
            os.fsync(file)
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def replace(directory: int, path: Path, content: Content, still_wanted: Callable[[], None]) -> None:
    """Put `content` in the place of `path.name`: readers see the old file or the new one, never none.

    Args:
        directory: where `path` is.
        path: the file; its name is used in `directory`, the rest in errors.
        content: bytes, mode and owner.
        still_wanted: called at the last moment; raises to keep the old file.

    Raises:
        Conflict: another consumer, which holds the claim by now, removed the temporary file.
        ConfUnusable: the file cannot be replaced, or has a second name.
    """
    with temporary(directory, path, content) as name:
        still_wanted()
        with told(path):
            _require_one_name(directory, path)
            try:
                os.rename(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            except FileNotFoundError:
                raise Conflict(f"{path}: another process is changing it at this moment") from None
            os.fsync(directory)


def _require_one_name(directory: int, path: Path) -> None:
    with suppress(FileNotFoundError):
        if os.stat(path.name, dir_fd=directory, follow_symlinks=False).st_nlink > 1:
            raise ConfUnusable(f"{path}: {_LINKED}")


def add(directory: int, path: Path, content: Content) -> None:
    """Make `path.name` with `content`, whole from its first instant; leave one that is there as it is."""
    with temporary(directory, path, content) as name, told(path):
        with suppress(FileExistsError):
            os.link(name, path.name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.fsync(directory)


def remove(directory: int, path: Path) -> None:
    """Remove `path.name` if it is there."""
    with told(path), suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=directory)


def exists(directory: int, path: Path) -> bool:
    """Whether there is anything of this name, a dangling symbolic link included."""
    with told(path):
        try:
            os.stat(path.name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
    return True


def sweep(directory: int, path: Path) -> None:
    """Remove temporary files beside `path` that a killed run left; a run that still lives fails for it."""
    with told(path.parent):
        for name in os.listdir(directory):
            if name.startswith(_TEMPORARY[0]) and name.endswith(_TEMPORARY[1]):
                remove(directory, path.with_name(name))


def own_files(directory: int, path: Path) -> list[tuple[str, datetime]]:
    """Names of temporary files and backups beside `path`, and when each was changed last."""
    found = []
    with told(path.parent):
        for name in sorted(os.listdir(directory)):
            if name.startswith((_TEMPORARY[0], f"{path.name}.rehome-")):
                with suppress(FileNotFoundError):
                    changed = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
                    found.append((name, datetime.fromtimestamp(changed, UTC)))
    return found


def _keep_owner(file: int, wanted: os.stat_result, path: Path) -> None:
    made = os.fstat(file)
    if (made.st_uid, made.st_gid) == (wanted.st_uid, wanted.st_gid):
        return
    try:
        os.fchown(file, wanted.st_uid, wanted.st_gid)
    except PermissionError:
        raise ConfUnusable(
            f"{path}: replacing it would change its owner from {wanted.st_uid}:{wanted.st_gid} to "
            f"{made.st_uid}:{made.st_gid}. Run the consumer as that user, or as root"
        ) from None
