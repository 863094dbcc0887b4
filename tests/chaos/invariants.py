"""What must hold after an experiment, whatever was done to the consumer: each breach is a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from rehome_events.envelope import encode
from sandbox.demo.observation import database_dsn
from tests.chaos.checksums import checksums
from tests.chaos.consistency import inconsistencies, record_of
from tests.chaos.leftovers import leftovers
from tests.support.at_rest import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path
    from uuid import UUID

    from sandbox.odoo.writers import Writers
    from sandbox.platform.local import Site
    from tests.chaos.arena import Arena
    from tests.chaos.watch import Watch

JOURNAL = """
    SELECT string_agg(line, E'\n') FROM (
        SELECT row_to_json(m)::text || convert_from(trigger, 'UTF8') FROM rehome.migrations m WHERE instance_id = $1
        UNION ALL SELECT row_to_json(s)::text FROM rehome.steps s WHERE migration_id IN (SELECT id FROM mine)
        UNION ALL SELECT row_to_json(h)::text FROM rehome.history h WHERE migration_id IN (SELECT id FROM mine)
        UNION ALL SELECT f.value::text FROM rehome.facts f WHERE migration_id IN (SELECT id FROM mine)
    ) AS lines (line)
"""
MINE = "WITH mine AS (SELECT id FROM rehome.migrations WHERE instance_id = $1)"
ACCESS = """
    SELECT rolcanlogin, datconnlimit, datdba = r.oid, EXISTS (
               SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) AS a
               WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')
    FROM pg_roles AS r, pg_database WHERE rolname = $1 AND datname = $2
"""
PARTNERS = "SELECT md5(res_partner::text) FROM res_partner"


@dataclass(frozen=True)
class Before:
    """What a rollback must restore, and what the source must still contain in any case.

    Attributes:
        checksums: one per table of the source; `partners`: rows of the table that customers write to.
    """

    record: dict[str, Any]
    conf: bytes
    spec: dict[str, Any]
    checksums: dict[str, str]
    partners: frozenset[str]

    @classmethod
    async def of(cls, arena: Arena, site: Site) -> Before:
        """As it is now."""
        async with arena.local.pool.connect(site.tenant.database) as source:
            tables, partners = await checksums(source), await source.fetch(PARTNERS)
        return cls(
            await record_of(arena, site),
            site.conf.read_bytes(),
            await arena.definition(site),
            tables,
            frozenset(row[0] for row in partners),
        )


async def breaches(
    arena: Arena,
    site: Site,
    before: Before,
    watch: Watch,
    writers: Writers,
    *,
    logged: int = 0,
    replayed: bool = False,
) -> list[str]:
    """Everything that does not hold now, with the platform at rest.

    Args:
        arena: the platform.
        site: the customer that was moved, or was to be.
        before: its state before.
        watch: what was observed from the beginning to the end.
        writers: the customer's users, who have stopped by now.
        logged: bytes of the consumers' log that are older than the experiment.
        replayed: the only dead letter was replayed.
    """
    types = arena.subscriber.types(site.id)
    ends = [kind for kind in types if kind in OUTCOMES]
    outcome = ends[0] if ends else "none"
    found = [breach async for breach in _history(arena, site, ends)]
    dead_letters = await _dead_letters(arena, site.id)
    if bool(dead_letters) != ("migration.failed" in types and not replayed):
        found.append(f"{len(dead_letters)} dead letters, and these events: {', '.join(types)}")
    if watch.both_open or watch.both_in_use:
        found.append(
            f"two writable databases in {watch.both_open}, both in use in {watch.both_in_use} "
            f"of {watch.observations} observations"
        )
    writes = await writers.verify_writes(await database_dsn(arena.local, site))
    if not writes.ok:
        found.append(
            f"of {writes.acknowledged} acknowledged writes {len(writes.missing)} are missing, "
            f"{len(writes.repeated)} repeated"
        )
    found += [breach async for breach in inconsistencies(arena, site)]
    found += [breach async for breach in _source(arena, site, before, outcome)]
    if outcome == "migration.rolled_back":
        found += [breach async for breach in _restored(arena, site, before)]
    found += [breach async for breach in leftovers(arena, site, outcome)]
    found += [breach async for breach in _secrets(arena, site, watch, dead_letters, logged)]
    return found


def repeats(arena: Arena, site: Site) -> int:
    """How many more copies of events than events an independent subscriber got."""
    return sum(event.subject == str(site.id) for event in arena.subscriber.deliveries) - len(
        arena.subscriber.types(site.id)
    )


async def _history(arena: Arena, site: Site, ends: list[str]) -> AsyncIterator[str]:
    """One outcome, each event under one id, and no migration is open."""
    if len(ends) != 1:
        yield f"the migration has {len(ends)} outcomes: {', '.join(ends) or 'none'}"
    types = arena.subscriber.types(site.id)
    for kind in {kind for kind in types if types.count(kind) > 1}:
        yield f"{kind} was published under {types.count(kind)} ids"
    if arena.subscriber.undecodable:
        yield f"a subscriber could not read: {arena.subscriber.undecodable[-1]}"
    async with arena.platform() as platform:
        for row in await platform.fetch(
            "SELECT state FROM rehome.migrations WHERE instance_id = $1 AND ended_at IS NULL", site.id
        ):
            yield f"a migration is still in state {row['state']}"


async def _source(arena: Arena, site: Site, before: Before, outcome: str) -> AsyncIterator[str]:
    """Unchanged but for the fence, which is there after a move and not after a rollback."""
    tenant = site.tenant
    async with arena.local.pool.connect() as pool:
        access = await pool.fetchrow(ACCESS, tenant.role, tenant.database)
    if access is None:
        yield "the source database is missing"
        return
    expected = (False, 0, False, False) if outcome == "migration.completed" else (True, -1, True, True)
    if tuple(access) != expected:
        yield f"after {outcome} the source has login, connection limit, its owner, PUBLIC's CONNECT: {tuple(access)}"
    async with arena.local.pool.connect(tenant.database) as source:
        now = await checksums(source)
        old = {row[0] for row in await source.fetch(PARTNERS)}
    changed = [name for name, checksum in before.checksums.items() if now.get(name) != checksum]
    if changed or not before.partners <= old:
        yield f"the source was changed in {', '.join(changed) or 'rows of res_partner'}"
    if outcome != "migration.completed":
        return
    new = await _rows(await database_dsn(arena.local, site))
    if not old <= new:
        yield f"{len(old - new)} rows of the source are not in the new database"


async def _restored(arena: Arena, site: Site, before: Before) -> AsyncIterator[str]:
    """Record, odoo.conf and service are as before."""
    now = await Before.of(arena, site)
    changed = [name for name, value in before.record.items() if now.record[name] != value]
    if changed:
        yield f"the rollback left the record changed in {', '.join(changed)}"
    if now.conf != before.conf:
        yield "the rollback left odoo.conf changed"
    if now.spec != before.spec:
        names = [name for name, value in before.spec.items() if now.spec.get(name) != value]
        yield f"the rollback left the service changed in {', '.join(names)}"


async def _secrets(
    arena: Arena, site: Site, watch: Watch, dead_letters: list[bytes], logged: int
) -> AsyncIterator[str]:
    """None in any event, log, process argument or readable row of the journal."""
    for name in sorted(watch.in_arguments):
        yield f"a process showed {name} in its arguments"
    events = (event for event in arena.subscriber.deliveries if event.subject == str(site.id))
    async with arena.platform() as platform:
        journal = await platform.fetchval(MINE + JOURNAL, site.id) or ""
    texts: Mapping[str, bytes] = {
        "an event": b"\n".join(encode(event) for event in events),
        "a dead letter": b"\n".join(dead_letters),
        "a log line": _since(arena.log, logged),
        "the journal": journal.encode(),
        "a server's log": await arena.server_log(),
    }
    for where, text in texts.items():
        for name, secret in watch.secrets.items():
            if secret.encode() in text:
                yield f"{name} is in {where}"


async def _dead_letters(arena: Arena, instance: UUID) -> list[bytes]:
    """Bodies and headers of the dead letters about an instance."""
    dead_letters = await arena.dead_letters()
    return [
        dead_letter.body + orjson.dumps(dict(dead_letter.headers), default=str)
        for dead_letter in dead_letters
        if str(instance).encode() in dead_letter.body
    ]


def _since(log: Path, start: int) -> bytes:
    with log.open("rb") as file:
        file.seek(start)
        return file.read()


async def _rows(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return {row[0] for row in await connection.fetch(PARTNERS)}
    finally:
        await connection.close(timeout=10)
