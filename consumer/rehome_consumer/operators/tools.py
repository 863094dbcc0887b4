"""What operators' commands work with, built from the same parts as the consumer (`rehome_consumer.bootstrap`)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from platform import node
from typing import TYPE_CHECKING, Final

from rehome_consumer import bootstrap
from rehome_consumer.adapters.backup.inventory import FileBackupInventory
from rehome_consumer.adapters.odoo.conf import OdooConfFiles
from rehome_consumer.adapters.platform.instances import PostgresPlatform
from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.postgres.inspection import PostgresInspector
from rehome_consumer.adapters.postgres.replicator import PostgresReplicator
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.queues import AmqpQueueInspector
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.doctor.observer import Observer
from rehome_consumer.doctor.periodic import PeriodicDiagnosis
from rehome_consumer.doctor.repair import Repairs
from rehome_consumer.engine.outbox_relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractRobustConnection

    from rehome_consumer.adapters.state.claims import PostgresClaims
    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.ports.readiness import Readiness
    from rehome_consumer.ports.steps import Runtime
    from rehome_consumer.settings import Settings

JOURNAL: Final = frozenset({"state"})
"""Settings needed to read the journal."""
WORLD: Final = frozenset({"platform_dsn", "data_root", "backup_root"})
"""Settings needed to read servers, files and services; the runtime has settings of its own."""
EVERYTHING: Final = WORLD | {"amqp_url"}


@dataclass(frozen=True, slots=True)
class OperatorTools:
    """The tools. `observer` only reads; the adapters beside it can change things."""

    views: PostgresJournalViews
    journal: PostgresJournal
    claims: PostgresClaims
    observer: Observer
    records: PostgresPlatform
    databases: PostgresDatabases
    replicator: PostgresReplicator
    inspector: PostgresInspector
    conf: OdooConfFiles
    runtime: Runtime
    inventory: FileBackupInventory

    def repairs(self, connection: AbstractRobustConnection, by: str) -> Repairs:
        """Repairs, with this connection to the broker; `by` is who asked for them, for the journal."""
        broker = AmqpBroker(connection)
        relay = Relay(self.journal, broker)
        return Repairs(
            self.observer, self.journal, self.claims, broker, relay, self.databases, self.replicator, by
        )


@asynccontextmanager
async def operator_tools(
    settings: Settings,
    connection: AbstractRobustConnection | None = None,
    readiness: Readiness | None = None,
) -> AsyncIterator[OperatorTools]:
    """The tools, connected.

    Args:
        settings: with those of WORLD set.
        connection: to the broker, to read its queues; None leaves them out.
        readiness: of the consumer that the tools belong to, or of a consumer with these settings in this place.

    Raises:
        RehomeError: state database or platform database does not answer.
    """
    clock = bootstrap.SystemClock()
    sessions = bootstrap.sessions(settings)
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(bootstrap.state_pool(settings, 3))
        platform = await stack.enter_async_context(bootstrap.platform_pool(settings, 3))
        runtime = await stack.enter_async_context(bootstrap.runtime(settings, clock))
        views, records = PostgresJournalViews(state), PostgresPlatform(platform)
        inspector, inventory = PostgresInspector(sessions), FileBackupInventory(settings.backup_root)
        conf = OdooConfFiles(settings.data_root)
        queues = AmqpQueueInspector(connection) if connection else None
        yield OperatorTools(
            views=views,
            journal=bootstrap.journal(state, settings),
            claims=await stack.enter_async_context(bootstrap.claims(settings)),
            observer=Observer(
                clock, views, records, inspector, conf, runtime, inventory, queues, readiness, node()
            ),
            records=records,
            databases=PostgresDatabases(sessions),
            replicator=PostgresReplicator(sessions),
            inspector=inspector,
            conf=conf,
            runtime=runtime,
            inventory=inventory,
        )


@asynccontextmanager
async def periodic_diagnosis(
    settings: Settings, connection: AbstractRobustConnection, readiness: Readiness
) -> AsyncIterator[PeriodicDiagnosis]:
    """The reconciler's checks in the background, for the length of the block."""
    async with operator_tools(settings, connection, readiness) as tools:
        diagnosis = PeriodicDiagnosis(
            tools.observer,
            every=timedelta(seconds=settings.doctor_every),
            stuck_after=timedelta(seconds=settings.stuck_after),
        )
        running = asyncio.create_task(diagnosis.run(), name="doctor")
        try:
            yield diagnosis
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
