"""PostgreSQL's client programs: where they are, which version, and how they learn where to connect."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.common import server_words, subprocesses
from rehome_consumer.adapters.postgres.releases import require_patched_programs
from rehome_consumer.adapters.postgres.sessions import (
    KEEPALIVE_SETTINGS,
    TRANSACTION_TIMEOUT_SINCE,
    application_name,
)
from rehome_consumer.context import current_migration
from rehome_consumer.errors import ChildFailed, Incompatible, NotReady, TimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Credentials, Server

_INSTALLED: Final = Path("/usr/lib/postgresql")  # Debian's and the PostgreSQL project's packages
_WRAPPER: Final = "pg_wrapper"  # Debian's, which chooses a version by cluster; rehome chooses itself
PROGRAMS: Final = ("pg_dump", "pg_restore", "vacuumdb")
_VERSION_SECONDS: Final = 20.0
_VERSIONS: Final[dict[Path, tuple[tuple[int, ...], int]]] = {}
"""By program: its file as it was, and its version."""
_CONNECT_SECONDS: Final = 10
_CHECK_INTERVAL_SINCE: Final = 14
_COLUMN_NUMBER: Final = b"pg_attver"
_WHAT_TO_DO: Final = "Put right what it names in the tenant's database, then replay the upgrade"


async def run(
    command: Sequence[str | Path], *, env: Mapping[str, str], limit: float, what: str, nice: int = 0
) -> str:
    """As `subprocesses.run`, for a program that asks a server.

    Raises:
        Incompatible: there is no such program; or the server rejects a definition or data, which stays so.
        ChildFailed: it failed otherwise.
        TimedOut: the limit passed.
    """
    try:
        return await subprocesses.run(command, env=env, limit=limit, what=what, nice=nice)
    except ChildFailed as error:
        if server_words.is_final(str(error)):
            raise Incompatible(f"{error}. {_WHAT_TO_DO}") from None
        raise


def directory(pg_bin: Path | None) -> Path:
    """Where the programs are: as set, else those in the PATH, else the newest installed.

    Raises:
        NotReady: there are none.
    """
    if pg_bin is not None:
        return pg_bin
    found = shutil.which("pg_dump")
    if found is not None and Path(found).resolve().name != _WRAPPER:
        return Path(found).parent
    installed = [path.parent for path in _INSTALLED.glob("*/bin/pg_dump")]
    if not installed:
        raise NotReady("there is no pg_dump: install PostgreSQL's client programs or set REHOME_PG_BIN")
    return max(installed, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))


async def major_version(where: Path) -> int:
    """Major version of the programs there.

    Raises:
        NotReady: one is missing, does not run or is older than the releases that close known holes, or they are of
            different versions.
    """
    versions = {await _version(where / name) for name in PROGRAMS}
    if len(versions) != 1:
        raise NotReady(f"the client programs in {where} are of different versions: {sorted(versions)}")
    return versions.pop()


async def _version(program: Path) -> int:
    """The major version of one program; it is asked again when its file has changed."""
    identity = _identity(program)
    known = _VERSIONS.get(program)
    if known is None or known[0] != identity:
        try:
            output = await subprocesses.run(
                [program, "--version"],
                env={},
                limit=_VERSION_SECONDS,
                what=f"asking {program} for its version",
            )
            known = (identity, require_patched_programs(output, str(program)))
        except (ChildFailed, Incompatible, TimedOut) as error:
            raise NotReady(str(error)) from None
        _VERSIONS[program] = known
    return known[1]


def _identity(program: Path) -> tuple[int, ...]:
    """Changes whenever the program is replaced, or its mode. Raises NotReady when there is none."""
    try:
        there = program.stat()
    except OSError as error:
        raise NotReady(f"there is no program {program} ({error.strerror}); set REHOME_PG_BIN") from None
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns, there.st_mode


async def require_column_numbers_known(where: Path, server: str, major: int) -> None:
    """The programs leave out the numbers that a server keeps with each column.

    Releases of November 2026 (17.12, 15.20) store `pg_attver` among a column's options. Their pg_dump knows it; one
    that does not, such as that of 18.6, writes it as an option of the column's, which pg_restore fails on. Of a script,
    such as Debian's `/usr/bin/pg_dump`, it cannot be known which program it runs: that is left to the rehearsal.

    Args:
        where: the programs' directory.
        server: the server's name, for the error.
        major: its major version.

    Raises:
        Incompatible: pg_dump does not know them, or is missing.
    """
    program = where / "pg_dump"
    try:
        content = await asyncio.to_thread(program.read_bytes)
    except OSError as error:
        raise Incompatible(f"{program} cannot be read: {error.strerror}; set REHOME_PG_BIN") from None
    if _COLUMN_NUMBER not in content and not content.startswith(b"#!"):
        raise Incompatible(
            f"{server} keeps a number with each column (pg_attver, since its release of November 2026). {program} does "
            f"not know it, and would write a backup that cannot be restored: set REHOME_PG_BIN to the latest client "
            f"programs of PostgreSQL {major}, the server's own version"
        )


def environment(
    sessions: Sessions,
    server: Server,
    login: Credentials,
    *,
    server_major: int,
    settings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a client program: where it connects, as whom, under which name, with which settings.

    Args:
        sessions: knows where the server is reached.
        server: where.
        login: as whom; its password is in the environment, which only this process's user and root can read.
        server_major: the server's major version.
        settings: for the session.
    """
    host, port = sessions.address(server)
    options = {
        **KEEPALIVE_SETTINGS,
        "statement_timeout": "0",
        "default_transaction_read_only": "off",
        **(settings or {}),
    }
    if server_major >= _CHECK_INTERVAL_SINCE:
        # A server that is busy with a long statement notices within seconds that its client was killed.
        options["client_connection_check_interval"] = "5s"
    if server_major >= TRANSACTION_TIMEOUT_SINCE:
        options["transaction_timeout"] = "0"  # pg_dump and pg_restore set it themselves, vacuumdb does not
    return {
        "PGHOST": host,
        "PGPORT": str(port),
        "PGUSER": login.user,
        "PGPASSWORD": login.password.reveal(),
        # Neither clear text nor MD5 for whoever answers there, as scram_only.py does for rehome's own sessions.
        # Programs before version 16 do not know it, and ignore it.
        "PGREQUIREAUTH": "scram-sha-256",
        "PGAPPNAME": application_name(current_migration.get()),
        "PGCONNECT_TIMEOUT": str(_CONNECT_SECONDS),
        **sessions.tls.environment(),
        "PGOPTIONS": " ".join(f"-c {_option(f'{name}={value}')}" for name, value in options.items()),
    }


def _option(text: str) -> str:
    """One word of PGOPTIONS, whatever it contains (source: libpq's `options`)."""
    return re.sub(r"([\\\s])", r"\\\1", text)


def database_option(name: str) -> str:
    """`--dbname=` as a connection string, for any name: a bare name with `=` in it would be taken for one.

    A dead server is noticed within minutes, not hours.
    """
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"--dbname=dbname='{escaped}' keepalives_idle=30 keepalives_interval=10 keepalives_count=6"
