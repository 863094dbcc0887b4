"""What must hold after a burst; each breach is a sentence."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from tests.fakes.site import NO_CONF

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from tests.load.burst import Burst, Memory

GROWTH_MIB: Final = 25.0
"""What a consumer's memory may grow by between the first fifth of its life and its end."""
SETTLED_SAMPLES: Final = 10
"""Seconds of life below which growth says nothing."""

COUNTS: Final = """
    SELECT name, current_instances AS told, (SELECT count(*) FROM instances WHERE db_server_id = s.id) AS there
    FROM db_servers AS s
"""
JOURNAL: Final = """
    SELECT 'a migration is in state ' || state FROM rehome.migrations WHERE ended_at IS NULL
    UNION ALL SELECT 'an instance has ' || count(*) || ' migrations' FROM rehome.migrations
        GROUP BY instance_id HAVING count(*) > 1
    UNION ALL SELECT 'a turn is still taken: ' || resource FROM rehome.turns t
        JOIN rehome.migrations m ON m.id = t.migration_id WHERE m.ended_at IS NULL
    UNION ALL SELECT 'an event is unsent: ' || routing_key FROM rehome.outbox WHERE sent_at IS NULL
    UNION ALL SELECT 'an advisory lock is held' FROM pg_locks WHERE locktype = 'advisory'
"""


async def breaches(burst: Burst) -> AsyncIterator[str]:
    """All of them."""
    for migration, event in burst.upgrades.items():
        for breach in _outcome(burst, migration, event.data.instance_id):
            yield breach
    async with burst.platform.cluster.connect(burst.platform.instance_database) as platform:
        for row in await platform.fetch(JOURNAL):
            yield row[0]
        for row in await platform.fetch(COUNTS):
            if row["told"] != row["there"]:
                yield f"{row['name']} counts {row['told']} instances, {row['there']} are there"
        moved = await platform.fetchval("SELECT count(*) FROM instances WHERE db_type = 'dedicated'")
    if moved != burst.size.upgrades:
        yield f"{moved} records say dedicated, {burst.size.upgrades} should"
    for failure in burst.failures:
        if "died in step prepare" not in failure:
            yield f"a migration failed: {failure}"
    for breach in (*_limits(burst), *_memory(burst)):
        yield breach


def _outcome(burst: Burst, migration: UUID, instance: UUID) -> Iterator[str]:
    """Exactly one, and the platform is as it says."""
    told = list(burst.outcomes.get(instance, {}).values())
    wanted = "migration.rolled_back" if migration == burst.poison else "migration.completed"
    if told != [wanted]:
        yield f"{migration} has the outcomes {told}, not one {wanted}"
    site = burst.places.get(migration)
    site.reconcile()
    home = site.pool.host if migration == burst.poison else f"postgres-dedicated-{instance.hex[:8]}"
    if site.writable(instance) != [home]:
        yield f"{migration} is writable on {site.writable(instance)}, not on {home} alone"
    if site.database_service.calls != (migration != burst.poison):
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
        yield f"{migration}: what is in the two databases differs"


def _limits(burst: Burst) -> Iterator[str]:
    for pool, most in most_at_once(burst).items():
        if most > burst.size.dumps:
            yield f"{most} instances of {pool} were down for a dump at once, {burst.size.dumps} may be"


def most_at_once(burst: Burst) -> dict[str, int]:
    """By server: how many instances were between the beginning of their stop and their sealed backup at once."""
    down: defaultdict[str, set[str]] = defaultdict(set)
    done: set[str] = set()
    most: dict[str, int] = {}
    for _, _, edge, call, pool, migration in burst.places.calls():
        if edge == "begin" and call == "runtime.stop" and migration not in done:
            down[pool].add(migration)
        elif edge == "end" and call == "copier.seal":
            done.add(migration)
            down[pool].discard(migration)
        most[pool] = max(most.get(pool, 0), len(down[pool]))
    return most


def longest_lived(burst: Burst) -> Memory:
    """The consumer that was watched for the longest time."""
    return max(burst.memory, key=lambda memory: len(memory.samples))


def _memory(burst: Burst) -> Iterator[str]:
    memory = longest_lived(burst)
    if len(memory.samples) < SETTLED_SAMPLES:
        return
    settled = max(memory.samples[: max(3, len(memory.samples) // 5)])
    if memory.samples[-1] > settled + GROWTH_MIB:
        yield f"{memory.name} grew from {settled:.0f} to {memory.samples[-1]:.0f} MiB"
