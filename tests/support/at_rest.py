"""What broker, journal and platform look like when nothing is under way; asked without the consumer's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aio_pika

from rehome_consumer import saga
from rehome_consumer.rabbitmq.topology import DEAD, queue_of, retry_exchange
from sandbox.platform.subscriber import ENDS

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

OUTCOMES: Final = (*ENDS, "instance.resized")
"""One of these is the last event of every upgrade."""
QUEUES: Final = (
    *(queue_of(step.name) for step in saga.MIGRATION),
    *(retry_exchange(tier) for tier in saga.TIERS),  # a delay's queue has its exchange's name
)
UNDER_WAY: Final = """
    SELECT 'unsent ' || routing_key FROM rehome.outbox WHERE sent_at IS NULL
    UNION ALL
    SELECT s.step || ' is ' || s.state FROM rehome.steps s JOIN rehome.migrations m ON m.id = s.migration_id
    WHERE m.ended_at IS NULL AND m.state <> 'failed' AND s.state IN ('running', 'waiting')
"""
LEFTOVERS: Final = """
    SELECT 'unsent event ' || routing_key FROM rehome.outbox WHERE sent_at IS NULL
    UNION ALL SELECT 'claim held' FROM pg_stat_activity WHERE application_name = 'rehome claim'
        AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')
    UNION ALL SELECT 'transaction of ' || application_name || ' open since ' || xact_start FROM pg_stat_activity
        WHERE application_name LIKE 'rehome%' AND state LIKE 'idle in transaction%'
    UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory'
    UNION ALL SELECT 'slot ' || resource || ' after the backup' FROM rehome.slots
        JOIN rehome.steps USING (migration_id, attempt) WHERE step = 'back_up' AND steps.state = 'done'
"""
COUNTS: Final = """
    SELECT s.name || ' counts ' || s.current_instances || ' instances, ' || count(i.id) || ' are there'
    FROM db_servers AS s LEFT JOIN instances AS i ON i.db_server_id = s.id
    GROUP BY s.id HAVING s.current_instances <> count(i.id)
"""


async def waiting_messages(broker_url: str) -> dict[str, int]:
    """Messages in the queues of steps and delays, of those that have any."""
    counts: dict[str, int] = {}
    async with await aio_pika.connect(broker_url, timeout=10) as connection, connection.channel() as channel:
        for name in QUEUES:
            queue = await channel.declare_queue(name, passive=True)
            counts[name] = queue.declaration_result.message_count or 0
    return {name: count for name, count in counts.items() if count}


async def take_dead_letters(broker_url: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Take all dead letters from their queue."""
    found = []
    async with await aio_pika.connect(broker_url, timeout=10) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(DEAD, passive=True)
        while (dead_letter := await queue.get(no_ack=True, fail=False, timeout=10)) is not None:
            found.append(dead_letter)
    return found


async def under_way(journal: Connection) -> list[str]:
    """Steps that run or wait for a retry, and unsent events."""
    return [row[0] for row in await journal.fetch(UNDER_WAY)]


async def leftovers(journal: Connection) -> list[str]:
    """What must not be in the journal and on its server: unsent events, claims, transactions, locks, slots."""
    return [row[0] for row in await journal.fetch(LEFTOVERS)]


async def wrong_counts(platform: Connection) -> list[str]:
    """Servers of the platform's records that count other instances than they have, each in a sentence."""
    return [row[0] for row in await platform.fetch(COUNTS)]
