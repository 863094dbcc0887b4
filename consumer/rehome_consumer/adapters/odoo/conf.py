"""The instance's odoo.conf on the shared storage: the only configuration that Odoo reads after its first boot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from rehome_consumer.adapters.common.bounded_thread import in_thread
from rehome_consumer.adapters.odoo import conf_files as files
from rehome_consumer.adapters.odoo.conf_text import KEYS, UNSET, edit_options, read_options
from rehome_consumer.errors import Conflict, ConfUnusable
from rehome_consumer.model import Conf, Credentials, Secret
from rehome_consumer.ports.operators import ConfBackup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rehome_consumer.model import Instance

T = TypeVar("T")

DEFAULT_PORT: Final = 5432
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class OdooConfFiles:
    """Port `OdooConf` on a file system; safe against hostile names, links and half-done work.

    The file is never missing, not for an instant: it is replaced by rename, and the temporary file is on disk
    before. The kept copy is `odoo.conf.rehome-<tag>` beside it.

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

    async def read(self, instance: Instance) -> Conf:
        """Read it as Odoo does."""
        return await self._bounded(instance, "reading", lambda _: self._read(instance))

    async def check_writable(self, instance: Instance) -> None:
        """Raise ConfUnusable unless the file can be edited and replaced, mode and owner kept. Really tries."""
        await self._bounded(instance, "checking", lambda _: self._check(instance))

    async def keep(self, instance: Instance, tag: str) -> Path:
        """Keep a copy of today's file beside it under `tag`, unless that copy is there; return its path."""
        return await self._bounded(instance, "keeping a copy of", lambda _: self._keep(instance, tag))

    async def rewrite(
        self, instance: Instance, host: str, port: int, credentials: Credentials
    ) -> tuple[str, ...]:
        """Set db_host, db_port, db_user, db_password; every other byte, mode and owner stay. Atomic.

        Returns:
            The keys that changed; none on a second call.

        Raises:
            ConfUnusable: a value cannot stand in odoo.conf, or the file cannot be edited safely.
            Conflict: somebody else changed the file at this moment.
        """
        login = (credentials.user, credentials.password.reveal())
        values = dict(zip(KEYS, (host, str(port), *login), strict=True))
        return await self._bounded(
            instance, "rewriting", lambda wanted: self._rewrite(instance, values, wanted)
        )

    async def restore_file(self, instance: Instance, tag: str) -> bool:
        """The kept copy takes the file's place, byte for byte; False when nothing was kept."""
        return await self._bounded(
            instance, "putting back", lambda wanted: self._restore_file(instance, tag, wanted)
        )

    async def forget(self, instance: Instance, tag: str) -> None:
        """Remove the kept copy and whatever temporary file is there."""
        await self._bounded(instance, "forgetting the copy of", lambda _: self._forget(instance, tag))

    async def conf_backups(self, instance: Instance) -> tuple[ConfBackup, ...]:
        """Kept copies and temporary files beside the file (for operators' tools)."""
        return await self._bounded(instance, "looking beside", lambda _: self._kept_files(instance))

    def _read(self, instance: Instance) -> Conf:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            options = read_options(files.read(directory, path).data, str(path))
        return as_conf(path, options)

    def _check(self, instance: Instance) -> None:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            content = files.read(directory, path)
            edit_options(content.data, dict.fromkeys(KEYS, "rehome-check"), str(path))
            files.require_replaceable(directory, path)
            with files.temporary(directory, path, content):
                pass

    def _keep(self, instance: Instance, tag: str) -> Path:
        path = files.conf_path(self._root, instance)
        kept = kept_path(path, tag)
        with files.open_directory(self._root, instance) as directory:
            if not files.exists(directory, kept):
                files.sweep(directory, path)
                files.add(directory, kept, files.read(directory, path))
        return kept

    def _rewrite(
        self, instance: Instance, values: dict[str, str], wanted: Callable[[], None]
    ) -> tuple[str, ...]:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            files.sweep(directory, path)
            content = files.read(directory, path)
            before = read_options(content.data, str(path))
            edited = edit_options(content.data, values, str(path))

            def unchanged() -> None:
                wanted()
                if files.read(directory, path).data != content.data:
                    raise Conflict(f"{path}: somebody else changed it at this moment")

            if edited != content.data:
                files.replace(directory, path, content._replace(data=edited), unchanged)
        return tuple(key for key in KEYS if before.get(key) != values[key])

    def _restore_file(self, instance: Instance, tag: str, wanted: Callable[[], None]) -> bool:
        path = files.conf_path(self._root, instance)
        kept = kept_path(path, tag)
        with files.open_directory(self._root, instance) as directory:
            if not files.exists(directory, kept):
                return False
            files.sweep(directory, path)
            files.replace(directory, path, files.read(directory, kept), wanted)
        return True

    def _forget(self, instance: Instance, tag: str) -> None:
        path = files.conf_path(self._root, instance)
        with files.open_directory(self._root, instance) as directory:
            files.remove(directory, kept_path(path, tag))
            files.sweep(directory, path)

    def _kept_files(self, instance: Instance) -> tuple[ConfBackup, ...]:
        path = files.conf_path(self._root, instance)
        start = kept_path(path, "x").name.removesuffix("x")
        with files.open_directory(self._root, instance) as directory:
            found = files.ours(directory, path)
        return tuple(
            ConfBackup(name, name.removeprefix(start) if name.startswith(start) else None, modified)
            for name, modified in found
        )

    async def _bounded(self, instance: Instance, doing: str, work: Callable[[Callable[[], None]], T]) -> T:
        return await in_thread(work, f"{doing} {files.conf_path(self._root, instance)}", self._limit)


def kept_path(path: Path, tag: str) -> Path:
    """Where the copy of `path` under `tag` is.

    Raises:
        ValueError: a tag of other than letters, digits, dots, hyphens and underscores.
    """
    if not _TAG.fullmatch(tag):
        raise ValueError(f"{tag!r} is no tag for a kept copy")
    return path.with_name(f"odoo.conf.rehome-{tag}")


def as_conf(path: Path, options: dict[str, str]) -> Conf:
    """What the options say about the database.

    Raises:
        ConfUnusable: host, user or password is not set, or the port is no port.
    """
    found = {key: value for key, value in options.items() if value not in UNSET}
    missing = [key for key in KEYS if key not in found and key != "db_port"]
    if missing:
        raise ConfUnusable(f"{path}: {', '.join(missing)} not set in [options]")
    port = found.get("db_port", str(DEFAULT_PORT))
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:  # noqa: PLR2004, the last TCP port
        raise ConfUnusable(f"{path}: db_port is no TCP port")
    credentials = Credentials(found["db_user"], Secret(found["db_password"]))
    return Conf(path, found["db_host"], int(port), credentials, found.get("db_name"))
