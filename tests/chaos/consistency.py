"""The instance is up, on the database that its record, its odoo.conf and its environment all name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from sandbox.odoo.conf import ConfError, DatabaseOptions, read_conf
from sandbox.system.http import plain_http
from tests.support.at_rest import wrong_counts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.platform.local import Site
    from tests.chaos.arena import Arena

ENVIRONMENT = {
    "host": "ODOO_DATABASE_HOST",
    "port": "ODOO_DATABASE_PORT_NUMBER",
    "user": "ODOO_DATABASE_USER",
    "password": "ODOO_DATABASE_PASSWORD",
}


async def inconsistencies(arena: Arena, site: Site) -> AsyncIterator[str]:
    """What disagrees, each in a sentence."""
    record = await record_of(arena, site)
    if (record["status"], record["error_message"]) != ("running", None):
        yield f"the record says {record['status']}, {record['error_message']}"
    try:
        conf = read_conf(site.conf)
    except ConfError as error:
        yield str(error)
        return
    named = (record["db_host"], record["db_port"], record["db_user"])
    if (conf.host, conf.port, conf.user) != named:
        yield f"odoo.conf names {conf.host}:{conf.port} as {conf.user}, the record {named}"
    async for breach in _environment(arena, site, conf):
        yield breach
    async for breach in _servers(arena, record):
        yield breach
    async for breach in _instance(arena, site, named):
        yield breach


async def record_of(arena: Arena, site: Site) -> dict[str, Any]:
    """The instance's row, without its times."""
    row = await arena.local.platform.fetch_instance(site.id)
    return {name: value for name, value in row.items() if name not in {"updated_at", "started_at"}}


async def _environment(arena: Arena, site: Site, conf: DatabaseOptions) -> AsyncIterator[str]:
    env = await arena.service_environment(site)
    wrong = [name for key, name in ENVIRONMENT.items() if env[name] != str(getattr(conf, key))]
    if wrong:
        yield f"the environment disagrees with odoo.conf in {', '.join(wrong)}"


async def _servers(arena: Arena, record: dict[str, Any]) -> AsyncIterator[str]:
    async with arena.platform() as platform:
        server = await platform.fetchrow("SELECT * FROM db_servers WHERE id = $1", record["db_server_id"])
        for count in await wrong_counts(platform):
            yield count
    if server is None or (server["host"], server["port"]) != (record["db_host"], record["db_port"]):
        yield "db_server_id and db_host, db_port of the record name different servers"
    elif server["server_type"] != record["db_type"]:
        yield f"the record says {record['db_type']}, its server is {server['server_type']}"


async def _instance(arena: Arena, site: Site, named: tuple[Any, ...]) -> AsyncIterator[str]:
    try:
        async with plain_http(timeout=10) as http:
            facts = (await http.get(f"{site.url}/facts")).raise_for_status().json()
    except httpx.HTTPError as error:
        yield f"the instance does not answer: {type(error).__name__}; {await arena.describe_tasks(site)}"
        return
    host, *rest = named
    if facts["db_host"] not in await arena.addresses(host) or [facts["db_port"], facts["db_user"]] != rest:
        yield f"the instance is on {facts['db_host']}:{facts['db_port']}, the record says {named}"
    if facts["database_uuid"] != site.tenant.uuid:
        yield "database.uuid is another"
