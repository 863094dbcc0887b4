"""odoo.conf files as bytes by path."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from rehome_consumer.adapters.odoo.conf import as_conf, backup_path, new_values, rewritten
from rehome_consumer.adapters.odoo.conf_files import conf_path
from rehome_consumer.adapters.odoo.conf_text import SECTION, read_sections
from rehome_consumer.errors import ConfUnusable, NotReady
from rehome_consumer.ports.operators import ConfBackup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rehome_consumer.model import Conf, ConfKey, Credentials, Instance, LoginPart

WHEN = datetime(2026, 1, 1, tzinfo=UTC)

sections = lru_cache(1024)(read_sections)
"""`read_sections`, remembered: a text is the same each time, and parsing it takes long."""


def read(data: bytes, name: str) -> dict[str, str]:
    """The options in `[options]`: lower-case key -> value."""
    return sections(data, name)[SECTION]


@lru_cache(1024)
def edited(
    data: bytes,
    values: tuple[tuple[LoginPart, str], ...],
    others: tuple[tuple[ConfKey, LoginPart], ...],
    name: str,
) -> tuple[bytes, tuple[str, ...]]:
    """`rewritten`, remembered."""
    return rewritten(data, dict(values), dict(others), name)


class FakeOdooConf:
    """Port `OdooConf`.

    Attributes:
        data_root: where the files pretend to be.
        files: every file by path: each odoo.conf and each backup.
        read_only: paths that cannot be replaced.
        mounted: whether the storage is at the data root.
    """

    def __init__(self, data_root: Path = Path("/srv/instances")) -> None:
        self.data_root = data_root
        self.files: dict[Path, bytes] = {}
        self.read_only: set[Path] = set()
        self.mounted = True
        self._paths: dict[str, Path] = {}

    def path(self, instance: Instance) -> Path:
        """Where an instance's odoo.conf is."""
        name = instance.directory
        if name not in self._paths:
            self._paths[name] = conf_path(self.data_root, instance)
        return self._paths[name]

    async def require_root(self, some: Collection[Instance]) -> None:
        there = {path.parents[1] for path in self.files} if self.mounted else set()
        if some and not there & {self.data_root / instance.directory for instance in some}:
            raise NotReady(
                f"the data root {self.data_root} holds none of the directories of {len(some)} instance(s)"
            )

    async def read(self, instance: Instance) -> Conf:
        path = self.path(instance)
        return as_conf(path, sections(self._content(path), str(path)))

    async def check_writable(self, instance: Instance) -> None:
        path = self.path(instance)
        read(self._content(path), str(path))
        self._require_writable(path)

    async def back_up(self, instance: Instance, attempt_tag: str) -> Path:
        path = self.path(instance)
        backup = backup_path(path, attempt_tag)
        if backup not in self.files:
            self.files[backup] = self._content(path)
        return backup

    async def rewrite(
        self,
        instance: Instance,
        host: str,
        port: int,
        credentials: Credentials,
        others: Mapping[ConfKey, LoginPart] = MappingProxyType({}),
    ) -> tuple[str, ...]:
        path = self.path(instance)
        values = tuple(new_values(host, port, credentials).items())
        after, changed = edited(self._content(path), values, tuple(others.items()), str(path))
        self._require_writable(path)
        self.files[path] = after
        return changed

    async def restore_file(self, instance: Instance, attempt_tag: str) -> bool:
        path = self.path(instance)
        backup = backup_path(path, attempt_tag)
        if backup not in self.files:
            return False
        self._require_writable(path)
        self.files[path] = self.files[backup]
        return True

    async def remove_backup(self, instance: Instance, attempt_tag: str) -> None:
        self.files.pop(backup_path(self.path(instance), attempt_tag), None)

    async def conf_backups(self, instance: Instance) -> tuple[ConfBackup, ...]:
        path = self.path(instance)
        start = backup_path(path, "x").name.removesuffix("x")
        found = sorted(one.name for one in self.files if one.parent == path.parent and one != path)
        return tuple(
            ConfBackup(name, name.removeprefix(start) if name.startswith(start) else None, WHEN)
            for name in found
        )

    def _content(self, path: Path) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise ConfUnusable(f"{path}: it is not there") from None

    def _require_writable(self, path: Path) -> None:
        if path in self.read_only:
            raise ConfUnusable(f"{path}: the file system is read-only")
