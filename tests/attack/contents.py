"""What a tenant's tables hold, read by COPY: it plans nothing, so that these tests run no code of the tenant."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from sandbox.postgres.server import Cluster

_TABLES: Final = """
    SELECT n.nspname, c.relname,
           ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                 ORDER BY a.attname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                      WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
                        AND e.deptype = 'e' AND e.refobjid IN (SELECT oid FROM pg_catalog.pg_extension
                                                               WHERE extname = 'unaccent'))
"""


async def contents(cluster: Cluster, database: str) -> dict[str, str]:
    """Table -> digest of its rows in any order; members of extensions too."""
    connection = await _connect(cluster, database)
    try:
        return {
            f"{schema}.{table}": await _digest(connection, schema, table, columns)
            for schema, table, columns in await connection.fetch(_TABLES)
        }
    finally:
        await connection.close(timeout=10)


async def _digest(
    connection: asyncpg.Connection[asyncpg.Record], schema: str, table: str, columns: list[str]
) -> str:
    read = bytearray()

    async def keep(data: bytes) -> None:
        read.extend(data)

    await connection.copy_from_table(table, schema_name=schema, columns=columns or None, output=keep)
    return hashlib.sha256(b"\n".join(sorted(read.splitlines()))).hexdigest()


async def _connect(cluster: Cluster, database: str) -> asyncpg.Connection[asyncpg.Record]:
    """As the administrator, without those settings of the tenant's that have an effect here."""
    return await asyncpg.connect(
        cluster.dsn(database),
        timeout=10,
        server_settings={
            "search_path": "pg_catalog",
            "role": "none",
            "row_security": "off",
            "statement_timeout": "0",
            "default_transaction_read_only": "on",
        },
    )
