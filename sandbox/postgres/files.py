"""What a private PostgreSQL server is made of: its programs, its data directory, its settings."""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sandbox.system.accounts import give
from sandbox.system.net import LOOPBACK
from sandbox.system.processes import run

SUPERUSER = "postgres"

INSTALLED = Path("/usr/lib/postgresql")
_ROOT = Path(__file__).parents[2]

# What every server of the sandbox has unless the caller says otherwise.
_DEFAULTS: Mapping[str, str] = {
    # A sandbox's data need not survive a power cut.
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "1GB",
    # A pool that is prepared for warm moves.
    "wal_level": "logical",
    "max_slot_wal_keep_size": "4GB",
    # A statement that failed may hold a password: the log gets the error, never the statement.
    "log_min_error_statement": "panic",
    # Shared memory in the data directory, where nothing is left over when the server is killed.
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
}


@cache
def programs() -> Path:
    """The directory of the newest PostgreSQL programs installed here.

    Raises:
        FileNotFoundError: no server is installed.
    """
    versions = [path for path in INSTALLED.glob("*/bin") if (path / "initdb").exists()]
    if not versions:
        raise FileNotFoundError(f"no PostgreSQL server under {INSTALLED}: install one (make setup)")
    return max(versions, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])


def extracted() -> list[Path]:
    """Where `scripts/setup-postgresql` puts programs of other versions."""
    if chosen := os.environ.get("REHOME_POSTGRESQL"):
        return [Path(chosen).absolute()]
    return [Path("/var/lib/rehome/postgresql"), _ROOT / "build" / "postgresql"]


def programs_since(major: int) -> Path | None:
    """The directory of the oldest programs of this version or a newer one; None where this machine has none."""
    found: dict[int, Path] = {}
    for place in (INSTALLED, *extracted()):
        for file in place.glob("**/[0-9]*/bin/postgres"):
            found.setdefault(int(file.parts[-3]), file.parent)
    new_enough = [version for version in found if version >= major]
    return found[min(new_enough)] if new_enough else None


async def initialise(directory: Path, password: str, account: str | None, where: Path) -> None:
    """Make the data directory of a new server that reads its settings from ``sandbox.conf`` above it.

    Args:
        directory: the server's place; ``data`` is made in it.
        password: the superuser's.
        account: user to run as; None is the current one.
        where: the programs' directory.

    Raises:
        CommandFailedError: initdb did not succeed.
    """
    secret = directory / "initdb.password"
    secret.touch(mode=0o600)
    secret.write_text(password + "\n")
    give(secret, account)
    try:
        await run(
            [
                where / "initdb",
                f"--pgdata={directory / 'data'}",
                f"--username={SUPERUSER}",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "--no-instructions",
            ],
            limit=60,
            account=account,
        )
    finally:
        secret.unlink()
    with (directory / "data" / "postgresql.conf").open("a") as file:
        file.write("include '../sandbox.conf'\n")


def write_settings(directory: Path, port: int, settings: Mapping[str, str], account: str | None) -> None:
    """Write ``sandbox.conf``: the sandbox's defaults, then the caller's settings, then where it listens."""
    fixed = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
    lines = []
    for name, value in {**_DEFAULTS, **settings, **fixed}.items():
        quoted = value.replace("'", "''")
        lines.append(f"{name} = '{quoted}'\n")
    file = directory / "sandbox.conf"
    file.write_text("".join(lines))
    give(file, account)


def is_ready(data: Path, pid: int) -> bool:
    """Whether the server with this pid takes connections, as it says itself in ``postmaster.pid``.

    Line 1 is the pid, line 8 the state (PostgreSQL's ``miscadmin.h``, ``LOCK_FILE_LINE_*``).
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return lines[:1] == [str(pid)] and lines[7:8] == ["ready   "]
