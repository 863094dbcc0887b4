"""The root file system of the sandbox's images, copied from this machine: no registry is used.

It holds Python with the consumer's libraries, this project, PostgreSQL's server and client programs, and the
shared libraries of all of them, each at the path that it has here. One root is enough for the Odoo-like
instance, for a PostgreSQL server and for the consumer.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.postgres.server import programs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROJECT = "/opt/rehome"
LIBRARIES = "/opt/libraries"
PYTHON = "/usr/local/bin/python3"

_HERE = Path(__file__).parent.parent.parent
_PACKAGES = {  # name in the image -> here
    "rehome_consumer": _HERE / "consumer" / "rehome_consumer",
    "rehome_events": _HERE / "events" / "rehome_events",
    "sandbox": _HERE / "sandbox",
    "rabbitmq": _HERE / "rabbitmq",
}
_DISTRIBUTIONS = ("rehome-consumer", "rehome-events")  # this project's: their code is in _PACKAGES
_LDD_LIMIT_SECONDS = 60
_LDD_FILES = 200  # by one call
_LIBRARY = re.compile(r"(?:=>\s+|^\s+)(/\S+)", re.MULTILINE)

# Where Debian has merged /bin and /lib into /usr, as every release since 12 has.
_MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

# Not used by any program of the sandbox; tests and headers of Python alone are half of it.
_UNUSED = frozenset(
    {"bitcode", "ensurepip", "idlelib", "lib2to3", "pgxs", "site-packages", "test", "tkinter"}
)
_UNUSED_FILES = ("_tkinter.", "llvmjit", "libpython3.11.a")
_POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_dump", "pg_isready", "pg_restore", "psql", "vacuumdb")
_SYSTEM = ("/usr/bin/dash", "/usr/bin/setpriv", "/usr/bin/env", "/usr/bin/sleep", "/usr/lib/locale/C.utf8")
_ZONES = ("UTC", "GMT", "Etc/UTC", "Europe/Paris")  # the last is in the settings of a tiny tenant

_FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"
    "rehome:x:10001:10001::/opt/rehome:/bin/sh\n",
    "etc/group": "root:x:0:\npostgres:x:999:\nrehome:x:10001:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_SCRIPTS = {
    "usr/local/bin/rehome": f"#!{PYTHON}\nimport sys\n\n"
    "from rehome_consumer.__main__ import main\n\nsys.exit(main())\n",
}
_DIRECTORIES = {
    "proc": 0o755,
    "sys": 0o755,
    "dev": 0o755,
    "run": 0o755,
    "tmp": 0o1777,
    "root": 0o711,  # Python may live below it, and PostgreSQL's user must get there
    "var/lib/postgresql": 0o777,
}


def write_root(archive: Path) -> None:
    """Write the root as an uncompressed tar file, for `docker import`.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
        PackageNotFoundError: this project is not installed in the Python that runs.
    """
    files = dict(_machine())
    for library in libraries_of(files.values()):
        files[str(library)] = library
    with tarfile.open(archive, "w") as tar:
        for name, mode in _DIRECTORIES.items():
            _add_directory(tar, name, mode)
        for name, target in _MERGED.items():
            _add_link(tar, name, target)
        _add_link(tar, "usr/bin/sh", "dash")
        for name in (PYTHON, "/usr/local/bin/python"):
            _add_link(tar, name.lstrip("/"), os.path.realpath(sys.executable))
        for name, text in _FILES.items():
            _add_text(tar, name, text, 0o644)
        for name, text in _SCRIPTS.items():
            _add_text(tar, name, text, 0o755)
        for name, source in sorted({**files, **dict(_python_libraries()), **dict(_project())}.items()):
            _add_file(tar, _merged(name), source)


def _machine() -> Iterator[tuple[str, Path]]:
    """Python, PostgreSQL and a few programs: name in the image, and where it is here."""
    binaries = programs()
    server = binaries.parent
    share = Path("/usr/share/postgresql") / server.name
    folders = [Path(sysconfig.get_path("stdlib")), server / "lib", share, Path("/usr/lib/locale/C.utf8")]
    single = [Path(os.path.realpath(sys.executable)), *(binaries / name for name in _POSTGRES_PROGRAMS)]
    single += [Path(name) for name in _SYSTEM if Path(name).is_file()]
    single += [Path("/usr/share/zoneinfo") / zone for zone in _ZONES]
    for path in single:
        yield str(path), path
    for folder in folders:
        for path in _below(folder):
            yield str(path), path


def _project() -> Iterator[tuple[str, Path]]:
    for name, package in _PACKAGES.items():
        for path in _below(package):
            if "data" not in path.relative_to(package).parts:
                yield f"{PROJECT}/{name}/{path.relative_to(package)}", path


def _python_libraries() -> Iterator[tuple[str, Path]]:
    """Files of every distribution that the consumer needs, directly or not."""
    wanted, done = list(_DISTRIBUTIONS), set[str]()
    while wanted:
        name = wanted.pop()
        if name in done:
            continue
        done.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if name in _DISTRIBUTIONS:
                raise
            continue  # needed elsewhere: on another system or an older Python
        wanted += _needs(found)
        if name in _DISTRIBUTIONS:
            continue
        for file in found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." not in file.parts and not _UNUSED.intersection(file.parts) and source.is_file():
                yield f"{LIBRARIES}/{file}", source


def _needs(found: Distribution) -> Iterator[str]:
    for requirement in found.requires or ():
        if "extra ==" not in requirement:
            yield re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _UNUSED and not name.startswith("config-")]
        for name in names:
            if not name.startswith(_UNUSED_FILES):
                yield Path(where) / name


def libraries_of(files: Iterable[Path]) -> set[Path]:
    """Shared libraries that programs and modules load, by the paths that they load."""
    loading = [path for path in files if path.is_file() and (".so" in path.name or os.access(path, os.X_OK))]
    loading += [path for _, path in _python_libraries() if ".so" in path.name]
    output = ""
    for start in range(0, len(loading), _LDD_FILES):
        output += subprocess.run(
            ["ldd", *loading[start : start + _LDD_FILES]],
            capture_output=True,
            check=False,  # a script is no program that loads libraries: 1
            text=True,
            timeout=_LDD_LIMIT_SECONDS,
        ).stdout
    return {Path(name) for name in _LIBRARY.findall(output)}


def _merged(name: str) -> str:
    """The name without links such as `/lib` to `/usr/lib`, which a path in a tar cannot contain."""
    first, _, rest = name.lstrip("/").partition("/")
    return f"{_MERGED.get(first, first)}/{rest}"


def _add_directory(tar: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _add_text(tar: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), mode
    tar.addfile(entry, io.BytesIO(text.encode()))


def _add_file(tar: tarfile.TarFile, name: str, source: Path) -> None:
    """The file's content, mode and time (compiled Python names its source's); a link is followed."""
    with source.open("rb") as content:
        status = os.fstat(content.fileno())
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = status.st_size, status.st_mode & 0o755 | 0o444
        entry.mtime = int(status.st_mtime)
        tar.addfile(entry, content)
