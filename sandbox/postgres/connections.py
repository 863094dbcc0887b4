"""Connections to PostgreSQL that are closed even when their opening is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


async def open_connection(dsn: str | None = None, **options: Any) -> Connection:
    """As `asyncpg.connect`, which leaks a connection that is made at the moment of a cancellation.

    Raises:
        Exception: whatever `asyncpg.connect` raises.
    """
    opening = asyncio.ensure_future(asyncpg.connect(dsn, **options))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unused)
        raise


def _close_unused(opening: asyncio.Future[Connection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()
