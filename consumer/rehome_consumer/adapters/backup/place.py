"""The backup place: one directory per backup, hidden until it is sealed, checked against its manifest.

```
<root>/<backup id>/dump/           pg_dump's directory format; `pg_restore -d DATABASE <root>/<id>/dump` reads it
<root>/<backup id>/source.json     what the dump was taken of, and its files' sizes
<root>/<backup id>/manifest.json   every file's size and SHA-256, row counts, versions, times
<root>/.<backup id>.partial/       a complete dump that is not sealed yet
<root>/.rehome-place               the place's mark; its presence proves that the right thing is mounted
<root>/.<backup id>.<run>.work/    a running dump or restore; each run has its own, so that two cannot mix
```

Functions here block: they are called in threads (`bounded_thread.in_thread`). Before they change anything for good
they call `still_wanted`, which raises in a run that nobody waits for any more.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from rehome_consumer.adapters.backup import files
from rehome_consumer.errors import Conflict, NotFound, NotReady, Refused
from rehome_consumer.model import Backup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    StillWanted = Callable[[], None]

MANIFEST: Final = "manifest.json"
SOURCE: Final = "source.json"
DUMP: Final = "dump"
MARK: Final = ".rehome-place"

_FORMAT = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_SHOWN = 200
_LONGEST_MARK = 100


@dataclass(frozen=True, slots=True)
class BackupPlace:
    """The directory that holds all backups."""

    root: Path
    threads: int = 4

    def sealed(self, backup_id: str) -> Path:
        """Where a sealed backup is."""
        return self.root / _checked(backup_id)

    def partial(self, backup_id: str) -> Path:
        """Where a complete dump waits to be sealed."""
        return self.root / f".{_checked(backup_id)}.partial"

    def begin(self, backup_id: str, still_wanted: StillWanted) -> Path:
        """A new, empty directory for one run of a dump or restore; what earlier runs left is removed."""
        self.require_writable()
        still_wanted()
        for left in self._running(backup_id):
            shutil.rmtree(left, ignore_errors=True)
        run = self.root / f".{_checked(backup_id)}.{secrets.token_hex(4)}.work"
        run.mkdir(mode=0o700)
        return run

    def dump_in(self, directory: Path) -> Path:
        """Where the dump is in a run's directory, or in a sealed backup."""
        return directory / DUMP

    def dumped_bytes(self, directory: Path) -> int:
        """Bytes of the dump in a run's directory so far."""
        return files.size(directory / DUMP)

    def source_of(self, backup: Backup) -> dict[str, Any]:
        """What the dump of a sealed backup was taken of.

        Raises:
            NotFound: the backup is missing.
            Refused: its description cannot be read.
        """
        try:
            return dict(json.loads(files.read(backup.place / SOURCE)))
        except FileNotFoundError:
            raise NotFound(f"backup {backup.id} is missing from the backup place") from None
        except files.MALFORMED as error:
            raise Refused(
                f"backup {backup.id}: {SOURCE} cannot be read: {files.describe_error(error)}"
            ) from None

    def finish(self, run: Path, backup_id: str, source: Mapping[str, Any], still_wanted: StillWanted) -> None:
        """The run's dump is complete; `source` says what of, and when."""
        sizes = {
            path.relative_to(run).as_posix(): path.stat().st_size for path in run.rglob("*") if path.is_file()
        }
        files.write(run / SOURCE, {**source, "files": sizes})
        still_wanted()
        shutil.rmtree(self.partial(backup_id), ignore_errors=True)
        run.rename(self.partial(backup_id))

    def require_writable(self) -> int:
        """Free bytes. Raises NotReady when it is not there, or nothing can be written."""
        try:
            with tempfile.TemporaryFile(dir=self.root):
                return shutil.disk_usage(self.root).free
        except FileNotFoundError:
            raise NotReady(
                f"the backup place {self.root} is not there: mount it, or make the directory (REHOME_BACKUP_ROOT)"
            ) from None
        except OSError as error:
            raise NotReady(f"the backup place {self.root} cannot be written to: {error.strerror}") from None

    def require_mark(self, mark: UUID | None) -> UUID:
        """The place's mark: a file with an id, which is in one place only, and in no empty mount point.

        Args:
            mark: the one it must have; None: any, and one is made where there is none.

        Raises:
            NotReady: the place is not there, cannot be written to, or has another mark or none.
        """
        self.require_writable()
        path = self.root / MARK
        try:
            if mark is None:
                with suppress(FileExistsError), path.open("x", encoding="ascii") as file:
                    file.write(f"{uuid4()}\n")
            text = path.read_bytes()[:_LONGEST_MARK].decode("ascii").strip()
            found = UUID(text)
        except FileNotFoundError:
            raise NotReady(
                f"the backup place {self.root} has no file {MARK}: is it what should be mounted there? "
                f"If it is a new place, on purpose: echo {mark} > {path}"
            ) from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "there is no id in it"
            raise NotReady(f"the backup place {self.root}: {MARK} cannot be read: {why}") from None
        if mark is not None and found != mark:
            raise NotReady(
                f"the backup place {self.root} is another one than the consumers have used: {MARK} says {found}, "
                f"not {mark}. Mount the same place for all. If it is a new one, on purpose: echo {mark} > {path}"
            )
        return found

    def seal(
        self,
        backup_id: str,
        rows: Mapping[str, int],
        versions: Mapping[str, str],
        still_wanted: StillWanted,
    ) -> Backup:
        """Hash, flush to disk, write the manifest, rename. A sealed one stays as it is.

        Raises:
            Conflict: there is no complete dump to seal.
        """
        found = self.check(backup_id, still_wanted)
        if found is not None:
            return found
        place = self.partial(backup_id)
        source = self._source(backup_id)
        files.require_complete(place, source["files"])
        dumped = sorted(path for path in place.rglob("*") if path.is_file() and path.name != MANIFEST)
        manifest: dict[str, Any] = {
            "format": _FORMAT,
            "id": backup_id,
            "started_at": source["started_at"],
            "ended_at": source["ended_at"],
            "versions": dict(versions),
            "rows": dict(sorted(rows.items())),
            "files": self._digests(place, dumped, still_wanted, flush=True),
        }
        files.write(place / MANIFEST, manifest)
        for directory in (*(path for path in place.rglob("*") if path.is_dir()), place):
            files.flush_names(directory)
        still_wanted()
        place.rename(self.sealed(backup_id))
        files.flush_names(self.root)
        return self._described(backup_id, manifest, files.read(self.sealed(backup_id) / MANIFEST))

    def check(self, backup_id: str, still_wanted: StillWanted) -> Backup | None:
        """The sealed backup, every file compared with the manifest; None when there is none.

        Raises:
            Refused: a file is missing or altered; names it.
        """
        place = self.sealed(backup_id)
        if not place.is_dir():
            return None
        try:
            data = files.read(place / MANIFEST)
            manifest = json.loads(data)
            expected: dict[str, dict[str, Any]] = manifest["files"]
            described = self._described(backup_id, manifest, data)
        except (OSError, *files.MALFORMED) as error:
            raise Refused(
                f"backup {backup_id}: {MANIFEST} cannot be read: {files.describe_error(error)}"
            ) from None
        missing = [name for name in expected if not (place / name).is_file()]
        if missing:
            raise Refused(f"backup {backup_id}: file {ascii(missing[0])[:_SHOWN]} is missing")
        found = self._digests(place, [place / name for name in expected], still_wanted, flush=False)
        for name, digest in expected.items():
            if found[name] != digest:
                raise Refused(f"backup {backup_id}: file {name} was altered since it was sealed")
        return described

    def discard(self, backup_id: str, still_wanted: StillWanted) -> None:
        """Remove the backup, sealed or not. Raises NotReady when the place cannot be written to."""
        self.require_writable()
        still_wanted()
        sealed, partial = self.sealed(backup_id), self.partial(backup_id)
        if sealed.exists():  # from now on it is no backup, even if removing it is cut off
            shutil.rmtree(partial, ignore_errors=True)
            sealed.rename(partial)
        for left in (partial, *self._running(backup_id)):
            shutil.rmtree(left, ignore_errors=True)
            if left.exists():
                raise Conflict(f"backup {backup_id}: {left} could not be removed")

    def _running(self, backup_id: str) -> list[Path]:
        return list(self.root.glob(f".{_checked(backup_id)}.*.work"))

    def _source(self, backup_id: str) -> dict[str, Any]:
        """The description of the dump. Raises Conflict when there is none, or it is incomplete."""
        try:
            source: dict[str, Any] = json.loads(files.read(self.partial(backup_id) / SOURCE))
            files.require_valid({name: {"bytes": size} for name, size in source["files"].items()})
            for time in ("started_at", "ended_at"):
                files.parse_time(source[time])
        except FileNotFoundError:
            raise Conflict(f"there is no complete dump of backup {backup_id} to seal: dump again") from None
        except files.MALFORMED as error:
            why = files.describe_error(error)
            raise Conflict(f"backup {backup_id}: {SOURCE} cannot be read ({why}): dump again") from None
        return source

    def _described(self, backup_id: str, manifest: Mapping[str, Any], data: bytes) -> Backup:
        """What a manifest says, whose file holds `data`; raises one of files.MALFORMED when it is malformed."""
        files.require_valid(manifest["files"])
        return Backup(
            id=backup_id,
            place=self.sealed(backup_id),
            bytes=sum(file["bytes"] for file in manifest["files"].values()),
            files=len(manifest["files"]),
            manifest_sha256=hashlib.sha256(data).hexdigest(),
            started_at=files.parse_time(manifest["started_at"]),
            ended_at=files.parse_time(manifest["ended_at"]),
        )

    def _digests(
        self, place: Path, paths: list[Path], still_wanted: StillWanted, *, flush: bool
    ) -> dict[str, dict[str, Any]]:
        """Size and SHA-256 of each file, by its name below `place`."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="backup") as threads:
            digests = threads.map(lambda path: files.digest(path, still_wanted, flush=flush), paths)
            return {
                path.relative_to(place).as_posix(): digest
                for path, digest in zip(paths, digests, strict=True)
            }


def _checked(backup_id: str) -> str:
    """The id, if it can be a file name.

    Raises:
        Refused: it could lead out of the backup place.
    """
    if not _ID.fullmatch(backup_id):
        raise Refused(f"{backup_id!r} is no backup id: letters, digits, - and _ only, at most 80")
    return backup_id
