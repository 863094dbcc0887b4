"""What a migration must not leave behind."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehome_consumer.adapters.backup.place import MARK
from sandbox.system.net import wait_until
from tests.chaos.watch import administrator
from tests.support import at_rest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.platform.local import Site
    from tests.chaos.arena import Arena

REST_SECONDS = 10.0  # dying subprocesses and cut connections may take so long to end
PROGRAMS = ("reaper.py", "pg_dump", "pg_restore", "vacuumdb")

OWN = """
    SELECT 'session ' || application_name || ' as ' || usename FROM pg_stat_activity
        WHERE application_name LIKE 'rehome%' AND pid <> pg_backend_pid()
    UNION ALL SELECT 'database ' || datname FROM pg_database WHERE datname LIKE '%rehome%'
    UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'rehome%'
    UNION ALL SELECT 'replication slot ' || slot_name FROM pg_replication_slots
    UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
    UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
"""
PUBLICATIONS = """
    SELECT 'publication ' || pubname FROM pg_publication
    UNION ALL SELECT 'temporary replica identity of ' || relname FROM pg_class WHERE relreplident = 'f' AND oid >= 16384
"""
OTHERS = """
    SELECT 'database ' || datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN ('postgres', $1)
    UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE NOT rolsuper AND rolname !~ '^pg_' AND rolname <> $2
"""


async def leftovers(arena: Arena, site: Site, outcome: str) -> AsyncIterator[str]:
    """What is still there after some seconds of rest."""
    left: list[str] = []

    async def none() -> bool:
        left[:] = [
            *await _in_journal_and_broker(arena),
            *await _on_servers(arena, site, outcome),
            *_in_directories(arena, site, outcome),
            *await _processes(arena, site),
        ]
        return not left

    with contextlib.suppress(TimeoutError):
        await wait_until(none, what="nothing to be left over", limit=REST_SECONDS, pause=0.2)
    for thing in left:
        yield f"left over: {thing}"


async def _in_journal_and_broker(arena: Arena) -> list[str]:
    async with arena.platform() as platform:
        return [*await at_rest.leftovers(platform), *await arena.waiting()]


async def _on_servers(arena: Arena, site: Site, outcome: str) -> list[str]:
    async with arena.local.pool.connect(site.tenant.database) as pool:
        found = [f"{row[0]} on the pool" for row in [*await pool.fetch(OWN), *await pool.fetch(PUBLICATIONS)]]
    server = await arena.dedicated(site)
    if server is None:
        return found
    if outcome != "migration.completed":
        return [*found, f"dedicated server {server['name']}"]
    role = (await arena.local.platform.fetch_instance(site.id))["db_user"]
    target = await administrator(server, site.tenant.database)
    try:
        rows = [
            *await target.fetch(OWN),
            *await target.fetch(PUBLICATIONS),
            *await target.fetch(OTHERS, site.tenant.database, role),
        ]
    finally:
        await target.close(timeout=10)
    return [*found, *(f"{row[0]} on the dedicated server" for row in rows)]


def _in_directories(arena: Arena, site: Site, outcome: str) -> list[str]:
    """No file beside odoo.conf; a completed move keeps its sealed backup, and no other backup stays."""
    found = [f"file {file.name}" for file in site.conf.parent.iterdir() if file.name != "odoo.conf"]
    backups = sorted(place.name for place in arena.local.backup_root.iterdir() if place.name != MARK)
    found += [f"unfinished backup {name}" for name in backups if name.startswith(".")]
    own = [name for name in backups if name.startswith(tuple(migrations_of(arena, site)))]
    if outcome == "migration.completed" and len(own) != 1:
        found.append(f"{len(own)} backups")
    if outcome != "migration.completed":
        found += [f"backup {name}" for name in own]
    return found


def migrations_of(arena: Arena, site: Site) -> set[str]:
    """Ids of the instance's migrations."""
    events = (event for event in arena.subscriber.events if event.subject == str(site.id))
    return {str(event.migrationid) for event in events if event.migrationid}


async def _processes(arena: Arena, site: Site) -> list[str]:
    """Client programs that work on the servers of this arena (others may be on the same machine)."""
    ports = {str(arena.local.pool.port)}
    server: Any = await arena.dedicated(site)
    if server is not None:
        ports.add(str(server["port"]))
    return [f"process {name} ({pid})" for pid, name, port in client_programs() if port in ports]


def client_programs() -> list[tuple[int, str, str]]:
    """PostgreSQL's client programs on this machine: pid, name, and the port of the server it works on."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            names = {Path(part.decode(errors="replace")).name for part in command[:7]} & set(PROGRAMS)
            env = (process / "environ").read_bytes().split(b"\0") if names else []
            ports = [entry.removeprefix(b"PGPORT=").decode() for entry in env if entry.startswith(b"PGPORT=")]
            found += [(int(process.name), ", ".join(sorted(names)), port) for port in ports]
    return found
