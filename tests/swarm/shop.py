"""An Odoo-like instance as a service, with an odoo.conf, and databases that name the server they are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.postgres.databases import create_database, create_role
from sandbox.swarm.definitions import HEALTH_CHECK, odoo
from sandbox.system.http import plain_http
from tests.contract.runtime_stages import new_instance

if TYPE_CHECKING:
    from pathlib import Path

    from rehome_consumer.model import Instance
    from sandbox.postgres.server import Cluster
    from tests.swarm.stage import SwarmStage

ROLE, PASSWORD, DATABASE = "shop", "s3cret%$'", "shop"
POOL, DEDICATED = "postgres-pool-2", "postgres-dedicated-7d9f2a54"

# Only those of Odoo's tables that the instance's /facts reads; `database.uuid` names the server.
_TABLES = """
    CREATE TABLE IF NOT EXISTS res_users (id int);
    CREATE TABLE IF NOT EXISTS res_partner (id int);
    CREATE TABLE IF NOT EXISTS ir_config_parameter (key text, value text);
"""
_CONF = "[options]\ndb_host = {}\ndb_port = 5432\ndb_name = {}\ndb_user = {}\ndb_password = {}\n"


async def fill(server: Cluster, name: str) -> None:
    """Make the shop's role and database on a server."""
    await create_role(server, ROLE, PASSWORD)
    await create_database(server, DATABASE, owner=ROLE)
    async with server.connect(DATABASE, user=ROLE, password=PASSWORD) as connection:
        await connection.execute(_TABLES)
        await connection.execute("INSERT INTO ir_config_parameter VALUES ('database.uuid', $1)", name)


def environment(host: str) -> dict[str, str]:
    """As the rewrite of a move sets it."""
    return {
        "ODOO_DATABASE_HOST": host,
        "ODOO_DATABASE_PORT_NUMBER": "5432",
        "ODOO_DATABASE_NAME": DATABASE,
        "ODOO_DATABASE_USER": ROLE,
        "ODOO_DATABASE_PASSWORD": PASSWORD,
    }


@dataclass
class Shop:
    """One instance."""

    stage: SwarmStage
    instance: Instance
    directory: Path

    @classmethod
    async def open(
        cls, stage: SwarmStage, *, health_check: bool = False, env: dict[str, str] | None = None
    ) -> Shop:
        """A new instance on the pool; returns without waiting for it."""
        instance = new_instance()
        shop = cls(stage, instance, stage.directory / instance.directory)
        shop.conf.parent.mkdir(parents=True)
        shop.write_conf(POOL)
        made = odoo(
            instance.service,
            stage.network,
            directory=shop.directory,
            env={**environment(POOL), **(env or {})},
            instance_id=instance.id,
        )
        if health_check:
            made["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = HEALTH_CHECK
        await stage.create(made)
        return shop

    @property
    def conf(self) -> Path:
        return self.directory / "conf" / "odoo.conf"

    def write_conf(self, host: str) -> None:
        self.conf.write_text(_CONF.format(host, DATABASE, ROLE, PASSWORD))

    async def facts(self) -> dict[str, Any]:
        """The instance's answer to /facts."""
        host, port = self.stage.forwards.resolve(self.instance.service, 8069)
        async with plain_http(timeout=10) as http:
            facts: dict[str, Any] = (await http.get(f"http://{host}:{port}/facts")).json()
        return facts
