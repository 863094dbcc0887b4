"""The content of a database, as one checksum per table: independent of the product's own way to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

WRITTEN = "public.res_partner"
"""The table that customers write to all the time: its rows are compared one by one elsewhere."""

TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname NOT LIKE 'pg\\_t%'
    ORDER BY 1
"""
CHECKSUM = """
    SELECT '{literal}' AS name, md5(coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '')) AS checksum
    FROM ONLY {table} AS t
"""


async def checksums(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    """Table -> a checksum of its rows in any order; without the table that is written to."""
    tables = [row[0] for row in await connection.fetch(TABLES)]
    queries = [
        CHECKSUM.format(literal=table.replace("'", "''"), table=table) for table in tables if table != WRITTEN
    ]
    rows = await connection.fetch(" UNION ALL ".join(queries)) if queries else []
    return {row["name"]: row["checksum"] for row in rows}
