"""Which server an instance's data is on, and the two servers' counts when that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from rehome_consumer.errors import Incompatible, NotFound
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import asyncpg

    from rehome_consumer.adapters.common.postgres_session import Connection
    from rehome_consumer.model import Server

SQL: Final = load("platform")


async def homes(
    connection: Connection, server_id: UUID | None, host: str | None, port: int | None
) -> Sequence[asyncpg.Record]:
    """The servers that may hold an instance's data: the one named, else all at its address."""
    if server_id is not None:
        row = await connection.fetchrow(SQL["server"], server_id)
        if row is not None:
            return [row]
    if host is None:
        return []
    return await connection.fetch(SQL["servers_at"], host, port)


async def count(
    connection: Connection,
    instance_id: UUID,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    room_on: Server | None,
) -> None:
    """Move one instance from the count of its old home to that of its new one, if they differ.

    For a home that is unknown or ambiguous no count changes.

    Args:
        connection: in a transaction that holds the instance's row.
        instance_id: whose home it is.
        before: the instance's record, as the query `record` gives it.
        after: the record that is about to be written.
        room_on: a server that must have room; without one a full server's count stays as it is.

    Raises:
        NotFound: `room_on` is not registered.
        Incompatible: it has no room.
    """
    old, new = [await _only_home(connection, record) for record in (before, after)]
    if old == new:
        return
    rows = await connection.fetch(SQL["lock_servers"], [home for home in (old, new) if home])
    if room_on is not None:
        _check_room(rows, room_on, instance_id)
    await connection.execute(SQL["count_out"], old)
    await connection.execute(SQL["count_in"], new)


def _check_room(rows: Sequence[asyncpg.Record], server: Server, instance_id: UUID) -> None:
    row = next((row for row in rows if row["id"] == server.id), None)
    if row is None:
        raise NotFound(f"server {server.name} ({server.id}) is not in the platform's table db_servers")
    if row["current_instances"] < row["max_instances"]:
        return
    # A server made for this instance may count it from the beginning.
    if row["dedicated_to_instance_id"] != instance_id:
        raise Incompatible(
            f"server {row['name']} is full: {row['current_instances']} of {row['max_instances']} instances"
        )


async def _only_home(connection: Connection, record: Mapping[str, Any]) -> UUID | None:
    named = record["db_server_id"]
    rows = await homes(connection, UUID(named) if named else None, record["db_host"], record["db_port"])
    return rows[0]["id"] if len(rows) == 1 else None
