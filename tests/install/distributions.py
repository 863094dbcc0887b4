"""Both wheels and both source distributions: built, and their contents checked."""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.install.environment import FailedError, require

BUILD_LIMIT: Final = 300.0


@dataclass(frozen=True)
class Project:
    """One of the two distributions.

    Attributes:
        name: of the distribution.
        folder: of the checkout, which holds the package.
        package: that it installs.
        needed: files without which it would not work, besides its modules.
    """

    name: str
    folder: str
    package: str
    needed: tuple[str, ...]


EVENTS: Final = Project(
    "rehome-events", "events", "rehome_events", ("py.typed", "asyncapi.yaml", "schemas/LOCK")
)
CONSUMER: Final = Project("rehome-consumer", "consumer", "rehome_consumer", ("py.typed", "sql/schema.sql"))


def build(project: Project, root: Path, directory: Path) -> Path:
    """Build the source distribution, and the wheel both directly and from that; returns the wheel.

    Raises:
        FailedError: they differ, something is missing, or something is in them that should not be.
    """
    tree = root / project.folder
    direct = _build(tree, directory / "direct", "--wheel")
    source = _build(tree, directory, "--sdist")
    unpacked = directory / "unpacked"
    with tarfile.open(source) as archive:
        archive.extractall(unpacked, filter="data")
    (extracted,) = unpacked.iterdir()
    wheel = _build(extracted, directory, "--wheel")
    require(
        _contents(direct) == _contents(wheel), f"{project.name}: the source distribution makes another wheel"
    )
    _check_contents(wheel, project, tree)
    return wheel


def _build(tree: Path, directory: Path, kind: str) -> Path:
    before = set(directory.glob("*")) if directory.exists() else set()
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(directory), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT, check=False)
    if built.returncode:
        raise FailedError(f"{' '.join(command[1:])} failed:\n{built.stdout}\n{built.stderr}")
    (made,) = set(directory.iterdir()) - before
    return made


def _contents(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def _check_contents(wheel: Path, project: Project, tree: Path) -> None:
    """The wheel holds the files of the package and its own metadata, and nothing else."""
    name, version, *_ = wheel.name.split("-")
    metadata = f"{name}-{version}.dist-info/"
    contents = {file for file in _contents(wheel) if not file.startswith(metadata)}
    files = (file for file in (tree / project.package).rglob("*") if file.is_file())
    package = {str(file.relative_to(tree)) for file in files if "__pycache__" not in file.parts}
    needed = {f"{project.package}/{file}" for file in project.needed}
    others, missing = sorted(contents - package), sorted((package | needed) - contents)
    require(not others, f"{wheel.name} has {', '.join(others[:3])} in it")
    require(not missing, f"{wheel.name} has no {', '.join(missing[:3])}")
