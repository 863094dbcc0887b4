"""Odoo-like instances as processes, for tests."""

import asyncio
import os
import sys
from pathlib import Path

from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant
from sandbox.system.http import plain_http
from sandbox.system.net import free_port, give_back_port, wait_until
from sandbox.system.processes import Child

LIMIT = 20


class OdooInstance:
    """An instance directory, and processes that serve it."""

    def __init__(self, directory: Path, pool: Cluster, tenant: Tenant) -> None:
        self.directory = directory
        self.conf = directory / "conf" / "odoo.conf"
        self.pool = pool
        self.tenant = tenant
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = plain_http(self.url, timeout=10)
        self.processes: list[Child] = []

    def write_conf(self, password: str | None = None) -> None:
        self.conf.parent.mkdir(exist_ok=True)
        self.conf.write_text(
            "; written by hand\n[options]\n"
            f"db_host = {self.pool.host}\ndb_port = {self.pool.port}\n"
            f"db_name = {self.tenant.database}\ndb_user = {self.tenant.role}\n"
            f"db_password = {password or self.tenant.password}\n"
        )

    async def launch(self, **environment: str) -> Child:
        env = {
            "PATH": os.environ["PATH"],
            "INSTANCE_DIR": str(self.directory),
            "ODOO_HTTP_PORT": str(self.port),
            "ODOO_SKIP_BOOTSTRAP": "yes",
            **environment,
        }
        command = [sys.executable, "-m", "sandbox.odoo.instance"]
        log = self.directory / f"odoo{len(self.processes)}.log"
        self.processes.append(await Child.start("odoo", command, log=log, env=env))
        return self.processes[-1]

    async def start(self, **environment: str) -> Child:
        process = await self.launch(**environment)

        async def serves() -> bool:
            process.require_alive()
            return "HTTP service running" in process.tail()

        await wait_until(serves, what="the instance to serve", limit=LIMIT)
        return process

    async def ends(self, **environment: str) -> tuple[int, str]:
        """Launch it, and return its exit code and what it printed."""
        process = await self.launch(**environment)
        code = await asyncio.wait_for(process.process.wait(), LIMIT)
        return code, process.tail()

    async def connections(self) -> list[str]:
        async with self.pool.connect() as connection:
            rows = await connection.fetch(
                "SELECT datname FROM pg_stat_activity WHERE usename = $1 ORDER BY datname", self.tenant.role
            )
        return [row["datname"] for row in rows]

    async def wait_connections(self, count: int) -> None:
        async def there() -> bool:
            return len(await self.connections()) == count

        await wait_until(there, what=f"{count} connections of {self.tenant.role}", limit=LIMIT)

    async def close(self) -> None:
        await self.http.aclose()
        for process in self.processes:
            await process.kill()
        await self.wait_connections(0)
        give_back_port(self.port)
