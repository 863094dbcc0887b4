"""Two servers of the versions that `--postgresql` names, and tenants on their way between them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.postgres.databases import create_role, major_version, quoted
from sandbox.postgres.tenants import nasty_password
from tests.support.staged import move, stage

if TYPE_CHECKING:
    from sandbox.postgres.server import Cluster
    from sandbox.postgres.tenants import Tenant

__all__ = ["add_newer_objects", "move", "stage"]

_SQL = Path(__file__).parent / "sql"
_SINCE = (17, 18)


async def add_newer_objects(cluster: Cluster, tenant: Tenant) -> str:
    """Create what only the newer versions have, as far as this server has it; the name of a role that it mentions."""
    other = f"auditor_{secrets.token_hex(4)}"
    await create_role(cluster, other, nasty_password())
    major = int(await major_version(cluster))
    async with cluster.connect(tenant.database, user=tenant.role, password=tenant.password) as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
        for since in _SINCE:
            if since <= major:
                script = (_SQL / f"since_{since}.sql").read_text()
                await connection.execute(script.replace("{other}", quoted(other)))
    return other
