"""The state of the platform at one moment, observed from outside the consumer: before and after a move."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import asyncpg
import httpx

from sandbox.system.http import plain_http

if TYPE_CHECKING:
    from sandbox.platform.local import LocalPlatform, Site
    from sandbox.swarm.platform import SwarmPlatform

RECORD = (
    "db_host", "db_port", "db_name", "db_user", "db_type", "db_server_id", "plan_tier",
    "cpu_limit", "memory_limit", "storage_limit", "status", "error_message",
)  # fmt: skip
PASSWORD = re.compile(r"^(\s*db_password\s*[=:]\s*).*$", re.IGNORECASE)
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
SERVER = "SELECT * FROM db_servers WHERE dedicated_to_instance_id = $1"
SECONDS = 10.0


@dataclass(frozen=True)
class Observation:
    """One instance at one moment.

    Attributes:
        on_pool, on_dedicated: connections of its role on either server, its LISTEN on `postgres` included.
        users, partners, uuid: from its database, through the instance itself; None while it is down.
        record: the columns of its row that a move may change.
        conf: its odoo.conf, byte for byte.
        counts: `current_instances` of each server, by name.
    """

    on_pool: int
    on_dedicated: int
    users: int | None
    partners: int | None
    uuid: str | None
    record: dict[str, Any]
    conf: bytes
    counts: dict[str, int]


async def observe(local: LocalPlatform | SwarmPlatform, site: Site) -> Observation:
    """Observe an instance now."""
    row = await local.platform.fetch_instance(site.id)
    facts = await _facts(site)
    async with local.platform.cluster.connect(local.platform.instance_database) as platform:
        server = await platform.fetchrow(SERVER, site.id)
        counts = await platform.fetch("SELECT name, current_instances FROM db_servers ORDER BY name")
    return Observation(
        on_pool=await _sessions(local.pool.dsn(), site),
        on_dedicated=await _sessions(_dsn(local, server), site) if server else 0,
        users=facts.get("users"),
        partners=facts.get("partners"),
        uuid=facts.get("database_uuid"),
        record={name: row[name] for name in RECORD},
        conf=site.conf.read_bytes(),
        counts={count["name"]: count["current_instances"] for count in counts},
    )


async def database_dsn(local: LocalPlatform | SwarmPlatform, site: Site) -> str:
    """The database that the instance's record names, as the administrator of its server."""
    row = await local.platform.fetch_instance(site.id)
    if row["db_server_id"] == local.pool_id:
        return local.pool.dsn(site.tenant.database)
    async with local.platform.cluster.connect(local.platform.instance_database) as platform:
        server = await platform.fetchrow("SELECT * FROM db_servers WHERE id = $1", row["db_server_id"])
    return _dsn(local, server, site.tenant.database)


async def dedicated_dsn(local: LocalPlatform | SwarmPlatform, site: Site) -> str:
    """The maintenance database of the instance's dedicated server, as its administrator."""
    async with local.platform.cluster.connect(local.platform.instance_database) as platform:
        return _dsn(local, await platform.fetchrow(SERVER, site.id))


def conf_diff(before: bytes, after: bytes) -> list[str]:
    """The changed lines of odoo.conf, `-` old and `+` new, the password masked."""
    lines = difflib.ndiff(before.decode().splitlines(), after.decode().splitlines())
    return [f"{line[0]} {_masked(line[2:])}" for line in lines if line[:1] in "+-"]


def _masked(line: str) -> str:
    return PASSWORD.sub(r"\1***", line)


async def _facts(site: Site) -> dict[str, Any]:
    try:
        async with plain_http(timeout=SECONDS) as http:
            answer = await http.get(f"{site.url}/facts")
            found: dict[str, Any] = answer.raise_for_status().json()
    except httpx.HTTPError:
        return {}
    return found


async def _sessions(dsn: str, site: Site) -> int:
    connection = await asyncpg.connect(dsn, timeout=SECONDS)
    try:
        return int(await connection.fetchval(SESSIONS, site.tenant.role))
    finally:
        await connection.close(timeout=SECONDS)


def _dsn(local: LocalPlatform | SwarmPlatform, server: Any, database: str = "postgres") -> str:
    host, port = local.resolve(server["host"], server["port"])
    login = f"{quote(server['admin_user'], safe='')}:{quote(server['admin_password'], safe='')}"
    return f"postgresql://{login}@{host}:{port}/{quote(database, safe='')}"
