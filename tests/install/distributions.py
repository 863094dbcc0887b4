"""The wheel and the source distribution: built, and looked into."""

import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

from tests.install.environment import FailedError, require

PACKAGES = ("consumer", "events")
NEEDED = (
    "events/rehome_events/asyncapi.yaml",
    "events/rehome_events/py.typed",
    "consumer/rehome_consumer/py.typed",
    "consumer/rehome_consumer/sql/schema.sql",
)
BUILD_LIMIT = 300.0


def build(root: Path, directory: Path) -> Path:
    """Build both, and the wheel once more from the source distribution; returns the wheel.

    Raises:
        FailedError: they differ, something is missing, or something is there that should not be.
    """
    direct = _build(root, directory / "direct", "--wheel")
    source = _build(root, directory, "--sdist")
    unpacked = directory / "unpacked"
    with tarfile.open(source) as archive:
        archive.extractall(unpacked, filter="data")
    (tree,) = unpacked.iterdir()
    wheel = _build(tree, directory, "--wheel")
    require(_contents(direct) == _contents(wheel), "the source distribution makes another wheel")
    _look_into(wheel, root)
    return wheel


def _build(root: Path, directory: Path, kind: str) -> Path:
    before = set(directory.glob("*")) if directory.exists() else set()
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(directory), str(root)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT, check=False)
    if built.returncode:
        raise FailedError(f"{' '.join(command[1:])} failed:\n{built.stdout}\n{built.stderr}")
    (made,) = set(directory.iterdir()) - before
    return made


def _contents(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def _look_into(wheel: Path, root: Path) -> None:
    names = set(_contents(wheel))
    tops = {name.partition("/")[0] for name in names}
    others = sorted(top for top in tops if top not in PACKAGES and not top.endswith(".dist-info"))
    require(not others, f"the wheel has {', '.join(others)} in it")
    schemas = {str(file.relative_to(root)) for file in (root / "events" / "schemas").rglob("*.json")}
    lost = sorted((schemas | set(NEEDED) | {"events/rehome_events/schemas/LOCK"}) - names)
    require(not lost, f"not in the wheel: {', '.join(lost)}")
