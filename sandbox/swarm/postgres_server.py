"""A PostgreSQL server as the only program of a container.

    python -m sandbox.swarm.postgres_server DIRECTORY

DIRECTORY holds the file `password` (the superuser's) and the server's data, which are made on the first start
unless they were unpacked there. As in the official image every role may log in with its password, from anywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sandbox.postgres.server import SUPERUSER, programs

ACCOUNT = 999  # of user postgres in the image
PORT = 5432
SANDBOX_CONF = "sandbox.conf"  # included by the configuration of unpacked data
PASSWORD_FILE = "password"  # noqa: S105, a file's name

_SETTINGS = {
    "listen_addresses": "*",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "logical",
    "log_min_error_statement": "panic",  # a statement that failed may hold a password
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
}


def main(directory: Path) -> None:
    """Make the data if there is none, then become the server."""
    data, password = directory / "data", directory / PASSWORD_FILE
    for path in (directory, *directory.rglob("*")):
        os.chown(path, ACCOUNT, ACCOUNT)
    os.setgroups([])
    os.setgid(ACCOUNT)
    os.setuid(ACCOUNT)
    if not (data / "PG_VERSION").exists():
        options = [f"--username={SUPERUSER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        subprocess.run([programs() / "initdb", f"--pgdata={data}", *options], check=True, timeout=120)
    (data / "pg_hba.conf").write_text("host all all all scram-sha-256\n")
    (directory / SANDBOX_CONF).touch()
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    program = str(programs() / "postgres")
    os.execv(program, [program, "-D", str(data), f"--port={PORT}", *settings])  # noqa: S606, no shell is meant


if __name__ == "__main__":
    main(Path(sys.argv[1]))
