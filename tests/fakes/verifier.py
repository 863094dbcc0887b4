"""Fingerprints of databases that are only remembered."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rehome_consumer.adapters.postgres.replication_parts import sync_role
from rehome_consumer.context import current_migration
from rehome_consumer.fingerprint import (
    ADMINISTRATOR,
    COUNTED,
    DEFAULT_HOLDERS,
    HOLDERS,
    LARGE_OBJECTS,
    OUTSIDE,
    OWNED,
    PARTS,
    SEQUENCES,
    TABLE_PARTS,
    TABLES,
    TENANT,
    Fold,
    Shortlist,
)
from rehome_consumer.model import EVERYTHING, Fingerprint
from tests.fakes.world import ADMIN, copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from rehome_consumer.model import Named, Part, Scope, Server
    from tests.fakes.world import FakeDatabase, Row, Visit, World

T = TypeVar("T")


@dataclass(frozen=True)
class FakeVerifier:
    """Port `Verifier` on a `World`."""

    world: World

    async def row_counts(self, server: Server, database: str, role: str) -> dict[str, int]:
        async with self._reading(server, "verifier.row_counts", database, role) as visit:
            tables = visit.session.database.tables
            return {name: len(rows) for name, rows in tables.items() if name != LARGE_OBJECTS}

    async def with_snapshot(
        self, server: Server, database: str, role: str, work: Callable[[str], Awaitable[T]]
    ) -> T:
        what = "verifier.with_snapshot"
        async with (
            self.world.short_lived_role(server, what, role, "hold") as user,
            self.world.visit(server, what, database, user) as visit,
        ):
            snapshot = f"{visit.session.pid:08X}-1"
            self.world.snapshots[snapshot] = copied(visit.session.database)
            try:
                return await work(snapshot)
            finally:
                del self.world.snapshots[snapshot]

    async def signature(self, server: Server, database: str, snapshot: str | None = None) -> str:
        """Of definitions as they are: unlike a server's, it is the same again when they are put back."""
        async with self.world.visit(server, "verifier.signature", database) as visit:
            found = self.world.seen(visit, snapshot)
            objects = {kind: sorted(names.items()) for kind, names in found.objects.items() if names}
            made = (sorted(objects.items()), sorted(found.tables), sorted(found.sequences), found.extensions)
            identities = sorted(found.identities.items())
            return hashlib.sha256(repr((made, identities)).encode()).hexdigest()

    async def fingerprint(
        self, server: Server, database: str, role: str, scope: Scope = EVERYTHING
    ) -> Fingerprint:
        async with self._reading(server, "verifier.fingerprint", database, role) as visit:
            found = self.world.seen(visit, scope.snapshot)
            named = _named(found, role, scope, _lent(visit))
            large = found.tables.get(LARGE_OBJECTS) if scope.rows else None
            rows = {name: rows for name, rows in found.tables.items() if scope.rows and name != LARGE_OBJECTS}
            return Fingerprint(
                tables=folded(named.pop(TABLES), TABLE_PARTS),
                rows=sum(len(one) for one in rows.values()),
                large_objects=(len(large), _checksum(large)) if large else None,
                sequences=folded(named.pop(SEQUENCES)),
                objects={
                    kind: folded(names)
                    for kind, names in named.items()
                    if scope.definitions or kind in OUTSIDE
                },
                counts={kind: len(named.get(kind, {})) for kind in COUNTED},
                extensions=dict(found.extensions),
                database={
                    **dict(
                        zip(
                            ("encoding", "collation", "ctype", "provider"),
                            map(str, found.locale[:4]),
                            strict=True,
                        )
                    ),
                    "locale": found.locale[4] or "",
                    "major": str(visit.there.version // 10000),
                },
            )

    async def some(
        self,
        server: Server,
        database: str,
        role: str,
        kind: str,
        parts: Sequence[int],
        scope: Scope = EVERYTHING,
    ) -> Mapping[int, Sequence[Named]]:
        async with self._reading(server, "verifier.some", database, role) as visit:
            return first(
                _named(self.world.seen(visit, scope.snapshot), role, scope, _lent(visit)).get(kind, {}),
                kind,
                parts,
            )

    @asynccontextmanager
    async def _reading(self, server: Server, what: str, database: str, role: str) -> AsyncIterator[Visit]:
        """As a short-lived role with the tenant's rights."""
        async with (
            self.world.short_lived_role(server, what, role, "read") as user,
            self.world.visit(server, what, database, user) as visit,
        ):
            yield visit


def folded(names: Mapping[str, str], parts: int = PARTS) -> dict[int, Part]:
    """Names and values as the parts of a fingerprint."""
    fold = Fold(parts)
    for name, value in names.items():
        fold.add(name, value)
    return fold.parts()


def first(names: Mapping[str, str], kind: str, parts: Sequence[int]) -> dict[int, list[Named]]:
    """What a second look at some parts finds."""
    shortlist = Shortlist(parts, TABLE_PARTS if kind == TABLES else PARTS)
    for name, value in names.items():
        shortlist.add(name, value)
    return shortlist.found


def in_both_ways(objects: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Objects by name, those added that are compared in another way, too."""
    both = dict(objects)
    if "owner" in both:
        both[OWNED] = {
            name: TENANT
            if owner == ADMINISTRATOR and not name.startswith(("schema ", "extension "))
            else owner
            for name, owner in both["owner"].items()
        }
    if "grant" in both:
        both[HOLDERS] = {name: "" for name in both["grant"] if not name.startswith("schema public.")}
    if "default grant" in both:
        both[DEFAULT_HOLDERS] = dict.fromkeys(both["default grant"], "")
    return both


def _lent(visit: Visit) -> dict[str, str]:
    """Tables of the session's database to which this migration has lent a replica identity -> what they had before."""
    name = visit.session.database.name
    migration = current_migration.get()  # None: steps of one migration are tested without an engine
    own = [sync_role(migration)] if migration else list(visit.there.roles)
    roles = [visit.there.roles[one] for one in own if one in visit.there.roles]
    lent = {one: identity for role in roles for one, identity in role.lent.items()}
    return {table: identity for (database, table), identity in lent.items() if database == name}


def _named(
    found: FakeDatabase, role: str, scope: Scope, lent: Mapping[str, str]
) -> dict[str, Mapping[str, str]]:
    """All of it but the few extensions: kind -> name -> value."""
    objects = {kind: dict(names) for kind, names in found.objects.items()}
    if found.identities:
        objects["replica identity"] = {
            table: lent.get(table, now) if now == "f" else now for table, now in found.identities.items()
        }
    objects["setting"] = {
        f"{TENANT if whose == role else whose or 'all'}.{text.partition('=')[0]}": text
        for whose, text in found.settings
    }
    objects["owner"] = {
        name: {role: TENANT, ADMIN: ADMINISTRATOR}.get(owner, owner)
        for name, owner in objects.get("owner", {}).items()
    }
    tables = {
        name: f"{len(rows)} {_checksum(rows if scope.contents is None or name in scope.contents else [])}"
        for name, rows in found.tables.items()
        if scope.rows
    }
    tables.pop(LARGE_OBJECTS, None)
    return {
        **in_both_ways(objects),
        TABLES: {name: value for name, value in tables.items() if scope.has(TABLES, name)},
        SEQUENCES: {
            name: value if scope.positions else ""
            for name, value in found.sequences.items()
            if scope.has(SEQUENCES, name)
        },
    }


def _checksum(rows: list[Row]) -> str:
    total = sum(int.from_bytes(hashlib.sha256(repr(row).encode()).digest()[:8], "big") for row in rows)
    return f"{total:032x}"
