"""Rows and checksums of all tables of a database, largest first, by several sessions at once.

A table's checksum is the sum of a 64-bit hash of each row's text. Sums do not depend on the order of rows
and, unlike exclusive or, do not lose rows that are there twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consumer.adapters.postgres.names import spelt
from consumer.fingerprint import LARGE_OBJECTS
from consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    import asyncpg

    from consumer.adapters.postgres.kinds import TenantSession

_SQL: Final = load("verification")

_SPLIT_BLOCKS: Final = 32 * 1024  # 256 MB: larger tables are read by several sessions
_TID_RANGES_SINCE: Final = 14  # older servers would read the whole table for each range


class _Piece(NamedTuple):
    """A table, or a range of its blocks, and the statement that sums it up."""

    name: str
    blocks: int
    query: str


async def sum_up(readers: Sequence[TenantSession], *, checksums: bool) -> dict[str, tuple[int, str]]:
    """Rows and checksum of each table, 'schema.table' -> (rows, hexadecimal).

    Args:
        readers: sessions on one snapshot.
        checksums: without, only rows are counted, and there are no large objects in the answer.
    """
    splits = readers[0].get_server_version().major >= _TID_RANGES_SINCE
    tables = await readers[0].fetch(_SQL["tables"])
    pieces = [piece for table in tables for piece in _pieces(table, checksums=checksums, splits=splits)]
    if checksums:
        pieces.append(_Piece(LARGE_OBJECTS, 0, _SQL["large_objects"]))
    totals = {piece.name: (0, 0) for piece in pieces}
    todo = deque(sorted(pieces, key=lambda piece: -piece.blocks))

    async def work(reader: TenantSession) -> None:
        while todo:
            piece = todo.popleft()
            row = await reader.fetchrow(piece.query)
            if row is not None:
                rows, total = totals[piece.name]
                totals[piece.name] = (rows + row["rows"], total + int(row["total"]))

    await _together([work(reader) for reader in readers])
    if totals.get(LARGE_OBJECTS) == (0, 0):
        del totals[LARGE_OBJECTS]
    return {name: (rows, f"{total % 2**128:032x}") for name, (rows, total) in sorted(totals.items())}


def _pieces(table: asyncpg.Record, *, checksums: bool, splits: bool) -> Iterator[_Piece]:
    name, blocks = spelt(table["name"]), table["blocks"]
    total = f'sum(hashtextextended(ROW({table["columns"]})::text COLLATE "C", 0))' if checksums else "0"
    query = f"SELECT count(*) AS rows, coalesce({total}, 0) AS total FROM ONLY {table['quoted']} AS t"  # noqa: S608 - names quoted by the server
    if blocks <= _SPLIT_BLOCKS or not splits or not table["heap"] or table["condition"]:
        yield _Piece(name, blocks, f"{query} {table['condition']}")
        return
    for first in range(0, blocks, _SPLIT_BLOCKS):
        after = first + _SPLIT_BLOCKS
        end = f" AND t.ctid < '({after},0)'" if after < blocks else ""  # the last one has no end: tables grow
        yield _Piece(name, _SPLIT_BLOCKS, f"{query} WHERE t.ctid >= '({first},0)'{end}")


async def _together(works: list[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first error ends the others and is raised as it is."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
