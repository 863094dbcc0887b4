"""The instance's odoo.conf on the shared storage: the only configuration that Odoo reads after its first boot."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from rehome_consumer.adapters.common.bounded_thread import in_thread
from rehome_consumer.adapters.common.instance_directory import instance_directory
from rehome_consumer.adapters.odoo import conf_files as files
from rehome_consumer.adapters.odoo.conf_text import KEYS, SECTION, edit_options, read_sections, shown
from rehome_consumer.errors import Conflict, ConfUnusable, NotReady
from rehome_consumer.model import CONF_UNSET, Conf, Credentials, Secret
from rehome_consumer.ports.operators import ConfBackup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from rehome_consumer.model import ConfKey, Instance, LoginPart

T = TypeVar("T")

DEFAULT_PORT: Final = 5432
_ATTEMPT_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class OdooConfFiles:
    """Port `OdooConf` on a file system; safe against hostile names, links and interrupted work.

    The file is never missing, not for an instant: a temporary file is written to disk, then renamed over it.
    The backup is `odoo.conf.rehome-<attempt tag>` beside it.

    Errors of every method, besides those it names: ConfUnusable (missing, unreadable, read-only, not in a form
    that Odoo reads, ...), Unreachable (the storage), TimedOut.
    """

    def __init__(self, data_root: Path, *, limit: float = 30.0) -> None:
        """Use the instances' directories below `data_root`.

        Args:
            data_root: holds one directory per instance.
            limit: seconds that one call may take; a storage that hangs is not waited for longer.
        """
        self._root = data_root
        self._limit = limit
        # One thread: looks at a storage that hangs wait for each other, instead of taking all threads there are.
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="data-root")

    async def require_root(self, some: Collection[Instance]) -> None:
        """Raise NotReady unless the data root is there, writable, and holds the directory of one of these."""
        what = f"looking at {self._root}"
        await in_thread(lambda _: self._require_root(some), what, self._limit, self._looking)

    async def read(self, instance: Instance) -> Conf:
        """Read it as Odoo does."""
        return await self._bounded(instance, "reading", lambda _: self._read(instance))

    async def check_writable(self, instance: Instance) -> None:
        """Raise ConfUnusable unless the file can be edited and replaced with its mode and owner; tries it for real."""
        await self._bounded(instance, "checking", lambda _: self._check(instance))

    async def back_up(self, instance: Instance, attempt_tag: str) -> Path:
        """Back the file up beside it, once per attempt (`attempt_tag`); return the backup's path."""
        return await self._bounded(instance, "backing up", lambda _: self._back_up(instance, attempt_tag))

    async def rewrite(
        self,
        instance: Instance,
        host: str,
        port: int,
        credentials: Credentials,
        others: Mapping[ConfKey, LoginPart] = MappingProxyType({}),
    ) -> tuple[str, ...]:
        """Set db_host, db_port, db_user, db_password; every other byte, mode and owner stay. Atomic.

        Args:
            instance: whose file.
            host: of the server.
            port: of the server.
            credentials: the tenant's login there.
            others: further options, each with the one of the four whose new value it takes.

        Returns:
            The keys that changed, one of another section as `section.key`; none on a second call.

        Raises:
            ConfUnusable: a value cannot be written into odoo.conf, or the file cannot be edited safely.
            Conflict: another process changed the file at this moment.
        """
        values = new_values(host, port, credentials)
        return await self._bounded(
            instance, "rewriting", lambda wanted: self._rewrite(instance, values, others, wanted)
        )

    async def restore_file(self, instance: Instance, attempt_tag: str) -> bool:
        """Replace the file by its backup of this attempt, byte for byte; False when there is none."""
        return await self._bounded(
            instance, "restoring", lambda wanted: self._restore_file(instance, attempt_tag, wanted)
        )

    async def remove_backup(self, instance: Instance, attempt_tag: str) -> None:
        """Remove the backup of this attempt, and temporary files."""
        await self._bounded(
            instance, "removing the backup of", lambda _: self._remove_backup(instance, attempt_tag)
        )

    async def conf_backups(self, instance: Instance) -> tuple[ConfBackup, ...]:
        """Backups and temporary files beside the file (for operators' tools)."""
        return await self._bounded(instance, "listing the files beside", lambda _: self._backups(instance))

    def _require_root(self, some: Collection[Instance]) -> None:
        what = f"the data root {self._root}"
        try:
            with os.scandir(self._root):
                read_only = os.statvfs(self._root).f_flag & os.ST_RDONLY
            there = [name for name in map(self._directory, some) if name is not None and name.is_dir()]
        except OSError as error:
            raise NotReady(f"{what} cannot be read: {error.strerror} (REHOME_DATA_ROOT)") from None
        if read_only:
            raise NotReady(f"{what} is mounted read-only: no odoo.conf can be changed in it")
        if some and not there:
            raise NotReady(
                f"{what} holds none of the directories of {len(some)} instance(s), such as "
                f"{next(iter(some)).directory}: is the shared storage mounted there? (REHOME_DATA_ROOT)"
            )

    def _directory(self, instance: Instance) -> Path | None:
        """An instance's directory; None where its record's names lead out of the data root."""
        try:
            return instance_directory(self._root, instance, ConfUnusable)
        except ConfUnusable:
            return None

    def _read(self, instance: Instance) -> Conf:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            sections = read_sections(files.read(directory, path).data, str(path))
        return as_conf(path, sections)

    def _check(self, instance: Instance) -> None:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            content = files.read(directory, path)
            edit_options(content.data, dict.fromkeys(KEYS, "rehome-check"), str(path))
            files.require_replaceable(directory, path)
            with files.temporary(directory, path, content):
                pass

    def _back_up(self, instance: Instance, attempt_tag: str) -> Path:
        path = files.conf_path(self._root, instance)
        backup = backup_path(path, attempt_tag)
        with files.open_directory(self._root, instance) as directory:
            if not files.exists(directory, backup):
                files.sweep(directory, path)
                files.add(directory, backup, files.read(directory, path))
        return backup

    def _rewrite(
        self,
        instance: Instance,
        values: Mapping[LoginPart, str],
        others: Mapping[ConfKey, LoginPart],
        wanted: Callable[[], None],
    ) -> tuple[str, ...]:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            files.sweep(directory, path)
            content = files.read(directory, path)
            edited, changed = rewritten(content.data, values, others, str(path))

            def unchanged() -> None:
                wanted()
                if files.read(directory, path).data != content.data:
                    raise Conflict(f"{path}: another process changed it at this moment")

            if edited != content.data:
                files.replace(directory, path, content._replace(data=edited), unchanged)
        return changed

    def _restore_file(self, instance: Instance, attempt_tag: str, wanted: Callable[[], None]) -> bool:
        path = files.conf_path(self._root, instance)
        backup = backup_path(path, attempt_tag)
        with files.open_directory(self._root, instance) as directory:
            if not files.exists(directory, backup):
                return False
            files.sweep(directory, path)
            files.replace(directory, path, files.read(directory, backup), wanted)
        return True

    def _remove_backup(self, instance: Instance, attempt_tag: str) -> None:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            files.remove(directory, backup_path(path, attempt_tag))
            files.sweep(directory, path)

    def _backups(self, instance: Instance) -> tuple[ConfBackup, ...]:
        path = files.conf_path(self._root, instance)
        start = backup_path(path, "x").name.removesuffix("x")
        with files.open_directory(self._root, instance) as directory:
            found = files.own_files(directory, path)
        return tuple(
            ConfBackup(name, name.removeprefix(start) if name.startswith(start) else None, modified)
            for name, modified in found
        )

    async def _bounded(self, instance: Instance, doing: str, work: Callable[[Callable[[], None]], T]) -> T:
        return await in_thread(work, f"{doing} {files.conf_path(self._root, instance)}", self._limit)


def backup_path(path: Path, attempt_tag: str) -> Path:
    """Where the attempt's backup of `path` is.

    Raises:
        ValueError: a tag of other than letters, digits, dots, hyphens and underscores.
    """
    if not _ATTEMPT_TAG.fullmatch(attempt_tag):
        raise ValueError(f"{attempt_tag!r} cannot be part of the name of a backup of odoo.conf")
    return path.with_name(f"odoo.conf.rehome-{attempt_tag}")


def new_values(host: str, port: int, credentials: Credentials) -> dict[LoginPart, str]:
    """The four values as odoo.conf has them, in the order of `KEYS`."""
    return {
        "db_host": host,
        "db_port": str(port),
        "db_user": credentials.user,
        "db_password": credentials.password.reveal(),
    }


def rewritten(
    data: bytes, values: Mapping[LoginPart, str], others: Mapping[ConfKey, LoginPart], name: str
) -> tuple[bytes, tuple[str, ...]]:
    """The file with the four values, also in `others`; and the keys that changed.

    Raises:
        ConfUnusable: as `edit_options`.
    """
    before = read_sections(data, name)
    elsewhere = {place: values[part] for place, part in others.items()}
    edited = edit_options(data, {key: values[key] for key in KEYS}, name, elsewhere)
    wanted: dict[ConfKey, str] = {(SECTION, key): values[key] for key in KEYS}
    wanted.update(elsewhere)
    changed = [place for place, value in wanted.items() if before[place[0]].get(place[1]) != value]
    return edited, tuple(shown(place) for place in changed)


def as_conf(path: Path, sections: Mapping[str, Mapping[str, str]]) -> Conf:
    """What the file says about the database.

    Raises:
        ConfUnusable: host, user or password is not set, or the port is no port.
    """
    found = {key: value for key, value in sections[SECTION].items() if value not in CONF_UNSET}
    missing = [key for key in KEYS if key not in found and key != "db_port"]
    if missing:
        raise ConfUnusable(f"{path}: {', '.join(missing)} not set in [{SECTION}]")
    port = found.get("db_port", str(DEFAULT_PORT))
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:  # noqa: PLR2004, the last TCP port
        raise ConfUnusable(f"{path}: db_port is no TCP port")
    credentials = Credentials(found["db_user"], Secret(found["db_password"]))
    return Conf(path, found["db_host"], int(port), credentials, found.get("db_name"), sections)
