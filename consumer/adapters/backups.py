"""The backup place: one directory per backup, invisible until it is sealed, checked against its manifest.

```
<root>/<backup id>/dump/           pg_dump's directory format; `pg_restore -d DATABASE <root>/<id>/dump` reads it
<root>/<backup id>/source.json     what the dump was taken of, and its files' sizes
<root>/<backup id>/manifest.json   every file's size and SHA-256, row counts, versions, times
<root>/.<backup id>.partial/       a whole dump that is not sealed yet
<root>/.<backup id>.<run>.work/    a dump or restore under way; each run has its own, so that two cannot mix
```

Functions here block: they are called in threads (`bounded_thread.in_thread`), and call `still_wanted`, which
raises in a run that nobody waits for any more, before they change anything for good.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from consumer.errors import Conflict, Incompatible, Refused
from consumer.model import Backup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    StillWanted = Callable[[], None]

MANIFEST: Final = "manifest.json"
SOURCE: Final = "source.json"
DUMP: Final = "dump"

_FORMAT = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackupPlace:
    """The directory that holds all backups."""

    root: Path
    threads: int = 4

    def sealed(self, backup_id: str) -> Path:
        """Where a sealed backup is."""
        return self.root / _checked(backup_id)

    def partial(self, backup_id: str) -> Path:
        """Where a whole dump waits for its seal."""
        return self.root / f".{_checked(backup_id)}.partial"

    def begin(self, backup_id: str, still_wanted: StillWanted) -> Path:
        """A new, empty directory for one run of a dump or restore; what earlier runs left is removed."""
        self.require_writable()
        still_wanted()
        for left in self._under_way(backup_id):
            shutil.rmtree(left, ignore_errors=True)
        run = self.root / f".{_checked(backup_id)}.{secrets.token_hex(4)}.work"
        run.mkdir(mode=0o700)
        return run

    def finish(self, run: Path, backup_id: str, source: Mapping[str, Any], still_wanted: StillWanted) -> None:
        """The run's dump is whole; `source` says what of, and when."""
        sizes = {
            path.relative_to(run).as_posix(): path.stat().st_size for path in run.rglob("*") if path.is_file()
        }
        _write(run / SOURCE, {**source, "files": sizes})
        still_wanted()
        shutil.rmtree(self.partial(backup_id), ignore_errors=True)
        run.rename(self.partial(backup_id))

    def require_writable(self) -> int:
        """Free bytes. Raises Incompatible when nothing can be written."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                return shutil.disk_usage(self.root).free
        except OSError as error:
            raise Incompatible(
                f"the backup place {self.root} cannot be written to: {error.strerror}"
            ) from None

    def seal(
        self,
        backup_id: str,
        rows: Mapping[str, int],
        versions: Mapping[str, str],
        still_wanted: StillWanted,
    ) -> Backup:
        """Hash, flush to disk, write the manifest, rename. A sealed one is left as it is.

        Raises:
            Conflict: there is no whole dump to seal.
        """
        found = self.check(backup_id, still_wanted)
        if found is not None:
            return found
        place = self.partial(backup_id)
        try:
            source = json.loads((place / SOURCE).read_text())
        except FileNotFoundError:
            raise Conflict(f"there is no whole dump of backup {backup_id} to seal: dump again") from None
        _require_whole(place, source["files"])
        files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != MANIFEST)
        manifest: dict[str, Any] = {
            "format": _FORMAT,
            "id": backup_id,
            "started_at": source["started_at"],
            "ended_at": source["ended_at"],
            "versions": dict(versions),
            "rows": dict(sorted(rows.items())),
            "files": self._digests(place, files, still_wanted, flush=True),
        }
        _write(place / MANIFEST, manifest)
        for directory in (*(path for path in place.rglob("*") if path.is_dir()), place):
            _flush(directory)
        still_wanted()
        place.rename(self.sealed(backup_id))
        _flush(self.root)
        return self._described(backup_id, manifest)

    def check(self, backup_id: str, still_wanted: StillWanted) -> Backup | None:
        """The sealed backup, every file compared with the manifest; None when there is none.

        Raises:
            Refused: a file is missing or altered; names it.
        """
        place = self.sealed(backup_id)
        if not place.is_dir():
            return None
        try:
            manifest = json.loads((place / MANIFEST).read_bytes())
            expected: dict[str, dict[str, Any]] = manifest["files"]
            described = self._described(backup_id, manifest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(f"backup {backup_id}: {MANIFEST} cannot be read: {type(error).__name__}") from None
        missing = [name for name in expected if not (place / name).is_file()]
        if missing:
            raise Refused(f"backup {backup_id}: file {missing[0]} is missing")
        found = self._digests(place, [place / name for name in expected], still_wanted, flush=False)
        for name, digest in expected.items():
            if found[name] != digest:
                raise Refused(f"backup {backup_id}: file {name} was altered since it was sealed")
        return described

    def discard(self, backup_id: str, still_wanted: StillWanted) -> None:
        """Remove the backup and whatever is half of it."""
        still_wanted()
        sealed, partial = self.sealed(backup_id), self.partial(backup_id)
        if sealed.exists():  # from now on it is no backup, even if we do not get to the end
            shutil.rmtree(partial, ignore_errors=True)
            sealed.rename(partial)
        for left in (partial, *self._under_way(backup_id)):
            shutil.rmtree(left, ignore_errors=True)
            if left.exists():
                raise Conflict(f"backup {backup_id}: {left} could not be removed")

    def _under_way(self, backup_id: str) -> list[Path]:
        return list(self.root.glob(f".{_checked(backup_id)}.*.work"))

    def _described(self, backup_id: str, manifest: Mapping[str, Any]) -> Backup:
        place = self.sealed(backup_id)
        return Backup(
            id=backup_id,
            place=place,
            bytes=sum(file["bytes"] for file in manifest["files"].values()),
            files=len(manifest["files"]),
            manifest_sha256=hashlib.sha256((place / MANIFEST).read_bytes()).hexdigest(),
            started_at=datetime.fromisoformat(manifest["started_at"]),
            ended_at=datetime.fromisoformat(manifest["ended_at"]),
        )

    def _digests(
        self, place: Path, files: list[Path], still_wanted: StillWanted, *, flush: bool
    ) -> dict[str, dict[str, Any]]:
        """Size and SHA-256 of each file, by its name below `place`."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="backup") as threads:
            digests = threads.map(lambda path: _digest(path, still_wanted, flush=flush), files)
            return {
                path.relative_to(place).as_posix(): digest
                for path, digest in zip(files, digests, strict=True)
            }


def size(directory: Path) -> int:
    """Bytes of all files below a directory, one that is being written included."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _checked(backup_id: str) -> str:
    """The id, when it is fit for a file name.

    Raises:
        Refused: it could lead out of the backup place.
    """
    if not _ID.fullmatch(backup_id):
        raise Refused(f"{backup_id!r} is no backup id: letters, digits, - and _ only, at most 80")
    return backup_id


def _require_whole(place: Path, sizes: Mapping[str, int]) -> None:
    """Raise Conflict unless every file is as the dump left it: an older, lost run may have tidied up late."""
    for name, expected in sizes.items():
        path = place / name
        if not path.is_file() or path.stat().st_size != expected:
            raise Conflict(f"{path} is not as pg_dump left it: dump again")


def _digest(path: Path, still_wanted: StillWanted, *, flush: bool) -> dict[str, Any]:
    digest = hashlib.sha256()
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            still_wanted()
            digest.update(chunk)
            total += len(chunk)
        if flush:
            os.fsync(file.fileno())
    return {"bytes": total, "sha256": digest.hexdigest()}


def _write(path: Path, value: Any) -> None:
    with path.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
