"""Rows and checksums of all tables of a database, largest first, by several sessions at once.

A table's checksum is the sum of a 64-bit hash of each row's text. A sum does not depend on the order of rows
and, unlike exclusive or, does not lose rows that are there twice. Only some tables and columns are in memory
at a time, however many a tenant has made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from rehome_consumer.adapters.postgres.names import quoted, spelt
from rehome_consumer.sql import administrator, load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    import asyncpg

    from rehome_consumer.adapters.postgres.kinds import Administrator, TenantSession
    from rehome_consumer.model import Keys, Written

T = TypeVar("T")

_SQL: Final = load("verification")
_LARGE_OBJECTS: Final = administrator("large_objects")

_SPLIT_BLOCKS: Final = 32 * 1024  # 256 MB: larger tables are read by several sessions
_TID_RANGES_SINCE: Final = 14  # older servers would read the entire table for each range
_TABLES_AT_ONCE: Final = 500
_COLUMNS_AT_ONCE: Final = 4000


@dataclass
class _Table:
    """A table of which some pieces are not read yet."""

    name: str
    pieces: int = 0
    rows: int = 0
    total: int = 0


class _Piece(NamedTuple):
    """A table, or a range of its blocks, and the statement that reads it: `head` and `tail`, and its arguments."""

    table: _Table
    head: str
    tail: str
    arguments: tuple[list[str], ...] = ()


async def read_tables(
    readers: Sequence[TenantSession],
    report: Callable[[str, int, str], None],
    *,
    checksums: bool,
    wanted: Callable[[str], bool] = lambda _name: True,
    contents: Written | None = None,
    first: Callable[[TenantSession], Coroutine[Any, Any, object]] | None = None,
) -> None:
    """Report rows and checksum (hexadecimal) of each table, 'schema.table', as soon as it is read.

    Args:
        readers: sessions in a transaction each, on one snapshot. Ordinary roles that may read the tables.
        report: is called with name, rows, checksum.
        checksums: if false, only rows are counted.
        wanted: decides which tables are read.
        contents: the tables, and their rows, that are in checksums; of others only rows are counted. None: of all
            tables all rows.
        first: what the last session does before it helps.
    """
    queue = _Queue(readers[0], checksums=checksums, wanted=wanted, contents=contents)

    async def work(reader: TenantSession) -> None:
        while piece := await queue.next():
            async with queue.using(reader):
                row = await reader.fetchrow(piece.head + piece.tail, *piece.arguments)
            table = piece.table
            table.pieces -= 1
            if row is not None:
                table.rows += row["rows"]
                table.total += int(row["total"])
            if not table.pieces:
                report(table.name, table.rows, f"{table.total % 2**128:032x}")

    async def work_later(reader: TenantSession) -> None:
        if first is not None:
            async with queue.using(reader):
                await first(reader)
        await work(reader)

    *others, last = readers
    await run_together([*(work(reader) for reader in others), work_later(last)])


async def list_tables(reader: TenantSession, report: Callable[[str], None]) -> None:
    """Report the name of every table that `read_tables` would read."""
    async for tables in _listed(reader, asyncio.Lock()):
        for table in tables:
            report(spelt(table["name"]))


async def has_large_objects(reader: TenantSession) -> bool:
    """Whether `large_objects` would find any."""
    return bool(await reader.fetchval(_SQL["has_large_objects"]))


async def large_objects(session: Administrator) -> tuple[int, str] | None:
    """Number of large objects, and their checksum; None when there are none.

    Only catalogues are read, one of which only superusers may read; nothing of a tenant's runs.
    """
    row = await session.fetchrow(_LARGE_OBJECTS["large_objects"])
    if row is None or not row["rows"]:
        return None
    return row["rows"], f"{int(row['total']) % 2**128:032x}"


class _Queue:
    """Pieces to be read, largest first, only some in memory; the first session lists more of them meanwhile."""

    def __init__(
        self,
        lister: TenantSession,
        *,
        checksums: bool,
        wanted: Callable[[str], bool],
        contents: Written | None,
    ) -> None:
        self._lister = lister
        self._busy = asyncio.Lock()  # a session does one thing at a time
        self._taking = asyncio.Lock()
        self._pages = _pages(lister, self._busy, wanted, columns=checksums)
        self._todo: deque[_Piece] = deque()
        self._checksums = checksums
        self._contents = contents
        self._splits = lister.get_server_version().major >= _TID_RANGES_SINCE

    def using(self, reader: TenantSession) -> AbstractAsyncContextManager[object]:
        """The session for the length of a statement."""
        return self._busy if reader is self._lister else nullcontext()

    async def next(self) -> _Piece | None:
        """The next piece; None when all are taken."""
        async with self._taking:
            while not self._todo:
                page = await anext(self._pages, None)
                if page is None:
                    return None
                for table, columns in page:
                    self._todo.extend(self._pieces(table, columns))
            return self._todo.popleft()

    def _pieces(self, table: asyncpg.Record, columns: str) -> Iterable[_Piece]:
        checksums, name = self._checksums, spelt(table["name"])
        if checksums and self._contents is not None:
            if name not in self._contents:
                checksums = False
            elif (keys := self._contents[name]) is not None and not table["condition"]:
                return (_by_keys(table, columns, keys),)
        return _pieces(table, columns, checksums=checksums, splits=self._splits)


async def _listed(reader: TenantSession, busy: asyncio.Lock) -> AsyncIterator[list[asyncpg.Record]]:
    """All tables, largest first, some at a time, from a cursor: sizes may change between two queries."""
    async with busy:
        cursor = await reader.cursor(_SQL["tables"])
    while True:
        async with busy:
            page = await cursor.fetch(_TABLES_AT_ONCE)
        if not page:
            return
        yield page


async def _pages(
    reader: TenantSession, busy: asyncio.Lock, wanted: Callable[[str], bool], *, columns: bool
) -> AsyncIterator[list[tuple[asyncpg.Record, str]]]:
    """Tables, with their columns if wanted; only as many at a time as have not too many columns together."""
    page: list[asyncpg.Record] = []
    width = 0
    async for tables in _listed(reader, busy):
        for table in tables:
            if not wanted(spelt(table["name"])):
                continue
            page.append(table)
            width += 1 + table["width"]
            if width >= _COLUMNS_AT_ONCE or len(page) >= _TABLES_AT_ONCE:
                yield await _with_columns(reader, busy, page, columns=columns)
                page, width = [], 0
    if page:
        yield await _with_columns(reader, busy, page, columns=columns)


async def _with_columns(
    reader: TenantSession, busy: asyncio.Lock, page: Iterable[asyncpg.Record], *, columns: bool
) -> list[tuple[asyncpg.Record, str]]:
    if not columns:
        return [(table, "") for table in page]
    async with busy:
        rows = await reader.fetch(_SQL["columns"], [table["oid"] for table in page])
    found = {row["relation"]: row["columns"] for row in rows}
    return [(table, found.get(table["oid"], "")) for table in page]


def _pieces(found: asyncpg.Record, columns: str, *, checksums: bool, splits: bool) -> Iterator[_Piece]:
    """The table, or its ranges of blocks; all share the `head` of the statement."""
    table, blocks = _Table(spelt(found["name"])), found["blocks"]
    total = _total(columns) if checksums else "0"
    head = (
        f"SELECT pg_catalog.count(*) AS rows, coalesce({total}, 0) AS total "  # noqa: S608 - names quoted by the server
        f"FROM ONLY {found['quoted']} AS t "
    )
    in_one_piece = blocks <= _SPLIT_BLOCKS or not splits or not found["heap"] or found["condition"]
    firsts = [0] if in_one_piece else range(0, blocks, _SPLIT_BLOCKS)
    table.pieces = len(firsts)
    if in_one_piece:
        yield _Piece(table, head, found["condition"])
        return
    for first in firsts:
        after = first + _SPLIT_BLOCKS
        end = f" AND t.ctid < '({after},0)'" if after < blocks else ""  # the last one has no end: tables grow
        yield _Piece(table, head, f"WHERE t.ctid >= '({first},0)'{end}")


def _by_keys(found: asyncpg.Record, columns: str, keys: Keys) -> _Piece:
    """All rows counted, and those with these keys in the checksum."""
    values = ", ".join(
        f"pg_catalog.unnest(${place}::pg_catalog.text[]::pg_catalog.{kind}[])"
        for place, (_, kind) in enumerate(keys.columns, 1)
    )
    names = ", ".join(f"t.{quoted(name)}" for name, _ in keys.columns)
    places = ", ".join(f"c{place}" for place in range(len(keys.columns)))
    statement = (
        f"SELECT (SELECT pg_catalog.count(*) FROM ONLY {found['quoted']}) AS rows, "  # noqa: S608 - names are quoted
        f"coalesce({_total(columns)}, 0) AS total FROM ONLY {found['quoted']} AS t "
        f"WHERE ({names}) IN (SELECT {places} FROM ROWS FROM ({values}) AS k({places}))"
    )
    arguments = tuple([row[place] for row in keys.rows] for place in range(len(keys.columns)))
    return _Piece(_Table(spelt(found["name"]), pieces=1), statement, "", arguments)


def _total(columns: str) -> str:
    """The checksum of rows that have these columns."""
    return f'pg_catalog.sum(pg_catalog.hashtextextended(ROW({columns})::pg_catalog.text COLLATE pg_catalog."C", 0))'


async def run_together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all, and return what each returns; the first error cancels the others and is raised as it is."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
