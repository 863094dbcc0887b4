"""As PostgreSQL's official image, as far as compose.yaml uses it: run inside a container, as its only program.

POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB; on the first start the files of /docker-entrypoint-initdb.d.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ACCOUNT = 999  # of user postgres in the sandbox's image
DATA = Path("/var/lib/postgresql/data")
FIRST = Path("/docker-entrypoint-initdb.d")
SOCKETS = Path("/tmp")
LIMIT = 120


def main() -> None:
    """Make the data if there is none, then become the server."""
    user = os.environ["POSTGRES_USER"]
    database = os.environ.get("POSTGRES_DB", user)
    shutil.chown(DATA, ACCOUNT, ACCOUNT)
    DATA.chmod(0o700)
    os.setgroups([])
    os.setgid(ACCOUNT)
    os.setuid(ACCOUNT)
    options = [
        "postgres",
        "-D",
        str(DATA),
        f"--unix_socket_directories={SOCKETS}",
        "--dynamic_shared_memory_type=mmap",
    ]
    if not (DATA / "PG_VERSION").exists():
        secret = SOCKETS / "password"
        secret.write_text(os.environ["POSTGRES_PASSWORD"])
        made = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}", f"--username={user}"]
        _run("initdb", f"--pgdata={DATA}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", *made)
        secret.unlink()
        (DATA / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
        with subprocess.Popen([*options, "--listen_addresses="]) as server:
            psql = [
                "psql",
                "--no-psqlrc",
                "--quiet",
                f"--host={SOCKETS}",
                f"--username={user}",
                "--set=ON_ERROR_STOP=1",
            ]
            _run(*("pg_isready", f"--host={SOCKETS}", "--timeout=60"), patience=60)
            if database != user:
                _run(*psql, "--dbname=postgres", f'--command=CREATE DATABASE "{database}"')
            for file in sorted(FIRST.glob("*.sql")):
                _run(*psql, f"--dbname={database}", f"--file={file}")
            server.terminate()
    os.execvp(options[0], [*options, "--listen_addresses=*"])  # noqa: S606 - no shell is meant


def _run(*command: str, patience: int = 1) -> None:
    """Run a program, as often as that until it says 0."""
    for _ in range(patience - 1):
        if (
            subprocess.run(["sleep", "0.5"], check=True, timeout=LIMIT)
            and not subprocess.run(command, check=False, timeout=LIMIT, stdout=subprocess.DEVNULL).returncode
        ):
            return
    subprocess.run(command, check=True, timeout=LIMIT)


if __name__ == "__main__":
    main()
