"""Journals for the contract suite: the fake, and the real one on a database of its own."""

from __future__ import annotations

import secrets
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from rehome_consumer.adapters.common.postgres_session import KeptConnections
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.journal import PostgresJournal
from sandbox.postgres.databases import create_database, drop_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.postgres.server import Cluster

KEY = "a key of more than sixteen characters"


@asynccontextmanager
async def state_database(cluster: Cluster) -> AsyncIterator[str]:
    """An empty database, dropped at the end; yields its DSN."""
    name = f"state_{secrets.token_hex(4)}"
    await create_database(cluster, name)
    try:
        yield cluster.dsn(name)
    finally:
        await drop_database(cluster, name)


@asynccontextmanager
async def postgres_journal(dsn: str, *, limit: float = 30.0) -> AsyncIterator[PostgresJournal]:
    """A consumer's journal, with its tables."""
    async with (
        asyncpg.create_pool(dsn, min_size=0, max_size=8) as pool,
        aclosing(KeptConnections(pool, 2)) as kept,  # as a consumer's; more at a time are the pool's
    ):
        journal = PostgresJournal(pool, SecretCipher(KEY), kept=kept, limit=limit)
        await journal.make_schema()
        yield journal
