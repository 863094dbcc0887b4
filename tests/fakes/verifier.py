"""Fingerprints of databases that are only remembered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.fingerprint import LARGE_OBJECTS, TENANT
from consumer.model import Fingerprint

if TYPE_CHECKING:
    from consumer.model import Server
    from tests.fakes.world import Row, World


@dataclass(frozen=True)
class FakeVerifier:
    """Port `Verifier` on a `World`."""

    world: World

    async def row_counts(self, server: Server, database: str, role: str) -> dict[str, int]:
        async with (
            self.world.lent(server, "verifier.row_counts", role, "read") as user,
            self.world.visit(server, "verifier.row_counts", database, user) as visit,
        ):
            tables = visit.session.database.tables
            return {name: len(rows) for name, rows in tables.items() if name != LARGE_OBJECTS}

    async def fingerprint(self, server: Server, database: str, role: str) -> Fingerprint:
        async with (
            self.world.lent(server, "verifier.fingerprint", role, "read") as user,
            self.world.visit(server, "verifier.fingerprint", database, user) as visit,
        ):
            found = visit.session.database
            tenant = {role}
            objects = {kind: dict(names) for kind, names in found.objects.items()}
            objects["extension"] = dict(found.extensions)
            objects["setting"] = {
                f"{TENANT if whose in tenant else whose or 'all'}.{text.partition('=')[0]}": text
                for whose, text in found.settings
            }
            objects["owner"] = {
                name: TENANT if owner in tenant else owner for name, owner in objects.get("owner", {}).items()
            }
            return Fingerprint(
                tables={name: (len(rows), _checksum(rows)) for name, rows in found.tables.items()},
                sequences=dict(found.sequences),
                objects=objects,
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


def _checksum(rows: list[Row]) -> str:
    total = sum(int.from_bytes(hashlib.sha256(repr(row).encode()).digest()[:8], "big") for row in rows)
    return f"{total:032x}"
