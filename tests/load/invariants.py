"""What must hold after a burst; each breach is a sentence."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from tests.fakes.site import NO_CONF
from tests.load.shared_fakes import REHEARSAL
from tests.support.at_rest import leftovers, wrong_counts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from tests.load.burst import Burst, Memory

ROLLED_BACK_SHARE: Final = 0.01
"""Share of the upgrades that may have been in a consumer's hands at four kills in a row; those are rolled back."""
GROWTH_MIB: Final = 25.0
"""How much a consumer's memory may grow between the first fifth of its life and its end."""
SETTLED_SAMPLES: Final = 10
"""Seconds of life below which growth means nothing."""

ROLLED_BACK: Final = "migration.rolled_back"
JOURNAL: Final = """
    SELECT 'a migration is in state ' || state FROM rehome.migrations WHERE ended_at IS NULL
    UNION ALL SELECT 'an instance has ' || count(*) || ' migrations' FROM rehome.migrations
        GROUP BY instance_id HAVING count(*) > 1
"""


def rolled_back(burst: Burst) -> set[UUID]:
    """Migrations that were rolled back, without the poison."""
    return {
        migration
        for migration, event in burst.upgrades.items()
        if migration != burst.poison
        and ROLLED_BACK in burst.outcomes.get(event.data.instance_id, {}).values()
    }


async def breaches(burst: Burst) -> AsyncIterator[str]:
    """All of them."""
    for migration, event in burst.upgrades.items():
        for breach in _outcome(burst, migration, event.data.instance_id):
            yield breach
    async for breach in _records(burst):
        yield breach
    if len(rolled_back(burst)) > burst.size.upgrades * ROLLED_BACK_SHARE:
        yield f"{len(rolled_back(burst))} migrations were rolled back because consumers died"
    for failure in burst.failures:
        if "the consumer died in step" not in failure:
            yield f"a migration failed: {failure}"
    for breach in (*_limits(burst), *_memory(burst)):
        yield breach


async def _records(burst: Burst) -> AsyncIterator[str]:
    """The journal and the platform's tables."""
    async with burst.platform.cluster.connect(burst.platform.instance_database) as platform:
        for row in await platform.fetch(JOURNAL):
            yield row[0]
        for leftover in await leftovers(platform):
            yield f"left over: {leftover}"
        for count in await wrong_counts(platform):
            yield count
        moved = await platform.fetchval("SELECT count(*) FROM instances WHERE db_type = 'dedicated'")
    expected = burst.size.upgrades - len(rolled_back(burst))
    if moved != expected:
        yield f"{moved} records say dedicated, {expected} should"


def _outcome(burst: Burst, migration: UUID, instance: UUID) -> Iterator[str]:
    """Exactly one, and the platform agrees with it."""
    outcomes = list(burst.outcomes.get(instance, {}).values())
    undone = outcomes == [ROLLED_BACK]
    if outcomes not in ([ROLLED_BACK], ["migration.completed"]):
        yield f"{migration} has the outcomes {outcomes}, not one"
    if migration == burst.poison and not undone:
        yield f"the poison ended {outcomes}"
    site = burst.sites.get(migration)
    site.reconcile()
    home = site.pool.host if undone else f"postgres-dedicated-{instance.hex[:8]}"
    if site.writable(instance) != [home]:
        yield f"{migration} is writable on {site.writable(instance)}, not on {home} alone"
    if site.database_service.calls > 1 or (not undone and not site.database_service.calls):
        yield f"{migration} had {site.database_service.calls} servers made"
    (service,) = site.runtime.services.values()
    if len(service.running) != 1 or any(task.exit_code == NO_CONF for task in service.tasks):
        yield f"{migration}: {len(service.running)} tasks of the instance run"
    rows = {
        host: there.databases[name].tables
        for (host, _), there in site.world.servers.items()
        for name in there.databases
        if name != "postgres"
    }
    if any(tables != rows[site.pool.host] for tables in rows.values()):
        yield f"{migration}: the two databases differ"


def _limits(burst: Burst) -> Iterator[str]:
    for pool, most in most_at_once(burst).items():
        if most > burst.size.dumps:
            yield f"{most} instances of {pool} were down for a dump at once, {burst.size.dumps} may be"
    for pool, most in most_rehearsals(burst).items():
        if most > burst.size.rehearsals:
            yield f"{most} rehearsals read {pool} at once, {burst.size.rehearsals} may"


def most_at_once(burst: Burst) -> dict[str, int]:
    """By server: how many instances were between the beginning of their stop and their sealed backup at once."""
    down: defaultdict[str, set[str]] = defaultdict(set)
    done = {
        str(migration) for migration in rolled_back(burst)
    }  # when these released their slot is not recorded
    most: dict[str, int] = {}
    for _, _, edge, call, pool, migration in burst.sites.calls():
        if edge == "begin" and call == "runtime.begin_stop" and migration not in done:
            down[pool].add(migration)
        elif edge == "end" and call == "copier.seal" and migration in down[pool]:  # not a rehearsal's
            done.add(migration)
            down[pool].discard(migration)
        most[pool] = max(most.get(pool, 0), len(down[pool]))
    return most


def most_rehearsals(burst: Burst) -> dict[str, int]:
    """By server: how many rehearsals read it at once; one that was killed reads until its next try has ended."""
    undone = {str(migration) for migration in rolled_back(burst)}
    reading: defaultdict[str, set[str]] = defaultdict(set)
    most: dict[str, int] = {}
    for _, _, edge, call, pool, migration in burst.sites.calls():
        if call == REHEARSAL and migration not in undone:
            (reading[pool].add if edge == "begin" else reading[pool].discard)(migration)
            most[pool] = max(most.get(pool, 0), len(reading[pool]))
    return most


def idle_seconds(burst: Burst) -> list[float]:
    """How long each server waited for its next rehearsal after one had ended, while none was under way; sorted."""
    reading: defaultdict[str, set[str]] = defaultdict(set)
    since: dict[str, float] = {}
    idle: list[float] = []
    for at, _, edge, call, pool, migration in burst.sites.calls():
        if call != REHEARSAL:
            continue
        if edge == "begin":
            if not reading[pool] and pool in since:
                idle.append(at - since.pop(pool))
            reading[pool].add(migration)
        else:
            reading[pool].discard(migration)
            since[pool] = at
    return sorted(idle)


def longest_running(burst: Burst) -> Memory:
    """The consumer that ran for the longest time."""
    return max(burst.memory, key=lambda memory: len(memory.samples))


def _memory(burst: Burst) -> Iterator[str]:
    memory = longest_running(burst)
    if len(memory.samples) < SETTLED_SAMPLES:
        return
    settled = max(memory.samples[: max(3, len(memory.samples) // 5)])
    if memory.samples[-1] > settled + GROWTH_MIB:
        yield f"{memory.name} grew from {settled:.0f} to {memory.samples[-1]:.0f} MiB"
