"""An instance's directory on the shared storage, opened so that no name and no symbolic link leads out of it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rehome_consumer.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rehome_consumer.errors import Refused
    from rehome_consumer.model import Instance


def instance_directory(data_root: Path, instance: Instance, refusal: type[Refused]) -> Path:
    """Its path by the platform's naming rule.

    Raises:
        refusal: the instance's name, which comes from a database row, is no file name.
    """
    name = instance.directory
    if "/" in name or not name.isprintable():
        raise refusal(f"instance {instance.id}: database_name {instance.database_name!r} is no file name")
    return data_root / name


@contextmanager
def open_below(
    data_root: Path, instance: Instance, parts: tuple[str, ...], refusal: type[Refused]
) -> Iterator[int]:
    """A directory below the instance's, as a file descriptor to which all names are relative.

    The instance's directory itself may be a symbolic link to another place below the data root (operators
    move directories), but not to another instance's. Below it the tenant can write, so there no link is
    followed, and no directory can be replaced by a link between check and use.

    Args:
        data_root: holds the instances' directories.
        instance: whose directory.
        parts: names of the directories to go down.
        refusal: the error for a place that must not be used.

    Raises:
        OSError: a directory is missing, is a link, or may not be opened.
        refusal: the instance's directory leads elsewhere.
        Unreachable: the data root is missing: the storage is not mounted.
    """
    path = instance_directory(data_root, instance, refusal)
    if not data_root.is_dir():
        raise Unreachable(f"the data root {data_root} is not there: is the shared storage mounted?")
    place, root = path.resolve(strict=True), data_root.resolve()
    if place == root or not place.is_relative_to(root):
        raise refusal(f"{path} leads to {place}, out of the data root {root}")
    if place.name != path.name and place.name.startswith("odoo_data_"):
        raise refusal(f"{path} leads to another instance's directory, {place}")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(place, flags)
    try:
        for part in parts:
            below = os.open(part, flags, dir_fd=directory)
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)
