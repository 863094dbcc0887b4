"""The composition root: the only file that builds adapters and connects everything."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx

from rehome_consumer.adapters.backup.filestore import FilestoreArchive
from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.common.postgres_session import KeptConnections
from rehome_consumer.adapters.odoo.conf import OdooConfFiles
from rehome_consumer.adapters.platform.database_service import HttpDatabaseService
from rehome_consumer.adapters.platform.instances import PostgresPlatform
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.postgres.replicator import PostgresReplicator
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.adapters.rabbitmq import connection as amqp_adapter
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.management import managing
from rehome_consumer.adapters.rabbitmq.queues import AmqpQueueInspector
from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.adapters.state.command_slots import CommandFacts
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.facts import APPLICATION, MemoryFacts
from rehome_consumer.adapters.state.journal import PostgresJournal
from rehome_consumer.adapters.state.log_lines import PostgresLogLines
from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.outbox_relay import Relay, nothing
from rehome_consumer.errors import SettingsError, TimedOut, Unreachable
from rehome_consumer.network.hosts import resolver
from rehome_consumer.network.tls import authorities, broker_context, parsed
from rehome_consumer.ports.steps import Ports
from rehome_consumer.ports.tracing import NoTracing
from rehome_consumer.process.checks import checks_of, require_topology
from rehome_consumer.process.log_lines import LogLines
from rehome_consumer.process.readiness import Readiness
from rehome_consumer.process.worker import Worker
from rehome_consumer.settings import SWARM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from aio_pika.abc import AbstractRobustConnection

    from rehome_consumer.ports.readiness import Part
    from rehome_consumer.ports.steps import Facts, Runtime
    from rehome_consumer.ports.tracing import Tracing
    from rehome_consumer.process.readiness import Check
    from rehome_consumer.settings import Settings

    Pool = asyncpg.Pool[asyncpg.Record]

CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 10.0  # of an instance that is asked whether it serves
STATE_CONNECTIONS = 16
PLATFORM_CONNECTIONS = 6
KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan"}
"""The journal's statements find rows by their keys: a plan for each execution would be the same, and costs more."""
# A frozen consumer's connections stay open. Its transactions must not: their locks would block the others (and
# the platform) for as long. Inside a transaction a broker's confirm is waited for, 15 s at most.
ABANDONED = {"idle_in_transaction_session_timeout": "30s"}


class SystemClock:
    """The time of this machine."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)


async def as_it_is(_connection: object) -> None:
    """Leave a connection that goes back to its pool as it is; asyncpg's default costs a round trip."""


@asynccontextmanager
async def pool(
    dsn: str,
    what: str,
    size: int,
    *,
    reset: Callable[[Any], Awaitable[None]] | None = None,
    settings: dict[str, str] | None = None,
) -> AsyncIterator[Pool]:
    """A pool of connections to one database.

    Args:
        dsn: of the database.
        what: the setting that names it.
        size: connections at most.
        reset: what is done instead of asyncpg's reset before a connection is used again.
        settings: more of the server's settings for its sessions.

    Raises:
        Unreachable, TimedOut: it does not answer; `what` is the setting to look at.
    """
    with translated(what):
        made = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=CONNECT_SECONDS,
            command_timeout=60,
            reset=reset,
            server_settings={"application_name": APPLICATION, **KEEPALIVE, **ABANDONED, **(settings or {})},
        )
    try:
        yield made
    finally:
        made.terminate()


def state_pool(settings: Settings, size: int = 2) -> Any:
    """A pool of the state database, on which nothing outlives a statement or a transaction: no reset is needed."""
    what = "state database (REHOME_STATE_DSN or REHOME_PLATFORM_DSN)"
    return pool(settings.state, what, size, reset=as_it_is, settings=PLANNED_ONCE)


def platform_pool(settings: Settings, size: int = 2) -> Any:
    """A pool of the platform's database."""
    return pool(settings.platform_dsn.get_secret_value(), "platform database (REHOME_PLATFORM_DSN)", size)


@asynccontextmanager
async def billing_pool(settings: Settings) -> AsyncIterator[Pool | None]:
    """A pool of billing's database, or None where there is no setting for it."""
    if settings.billing_dsn is None:
        yield None
        return
    dsn = settings.billing_dsn.get_secret_value()
    async with pool(dsn, "billing database (REHOME_BILLING_DSN)", 2) as made:
        yield made


def amqp(settings: Settings, name: str) -> Any:
    """An open connection to the broker, which shows it under `name`."""
    url = settings.amqp_url.get_secret_value()
    context = broker_context(
        url,
        ca_file=settings.amqp_ca_file,
        cert_file=settings.amqp_cert_file,
        key_file=settings.amqp_key_file,
    )
    return amqp_adapter.connected(url, name=name, tls=context)


def management(settings: Settings, given: str | None) -> Any:
    """The broker's management API, at the address given or beside the broker."""
    address = parsed(settings.amqp_url.get_secret_value())
    return managing(address, given, authorities(settings.amqp_ca_file, "REHOME_AMQP_CA_FILE"))


@asynccontextmanager
async def broker(settings: Settings, name: str) -> AsyncIterator[AmqpBroker]:
    """The broker port on a connection of its own."""
    async with amqp(settings, name) as connection:
        yield AmqpBroker(connection)


def journal(state: Pool, settings: Settings) -> PostgresJournal:
    """The journal. Without a key (the tools need none) it cannot decrypt secrets."""
    return PostgresJournal(state, SecretCipher(settings.key() if settings.has_key else None))


def _own_session(
    settings: Settings, name: str
) -> Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]:
    """Opens a session of the state database whose advisory locks last as long as it does."""

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            settings.state,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": name, **KEEPALIVE, **PLANNED_ONCE},
        )

    return connect


@asynccontextmanager
async def claims(settings: Settings) -> AsyncIterator[PostgresClaims]:
    """Claims, all on one connection to the state database, which is opened when the first is asked for."""
    async with aclosing(PostgresClaims(_own_session(settings, "rehome claim"))) as made:
        yield made


@asynccontextmanager
async def command_facts(settings: Settings) -> AsyncIterator[CommandFacts]:
    """Facts of a command; its slots are held by a session that is opened when the first is asked for."""
    async with aclosing(CommandFacts(_own_session(settings, "rehome slot"))) as made:
        yield made


async def owner_of(platform: Pool, instance_id: UUID) -> tuple[UUID, UUID | None] | None:
    """Customer and subscription of an instance, as the platform has them; None: no such instance."""
    return await PostgresPlatform(platform).owner(instance_id)


def sessions(settings: Settings) -> Sessions:
    """How tenants' servers are reached."""
    return Sessions(resolve=resolver(settings.host_map), tls=settings.pg_tls)


@asynccontextmanager
async def ports(settings: Settings, facts: Facts) -> AsyncIterator[Ports]:
    """Every port with its real adapter; the engine binds `facts` again for every run of a step."""
    clock = SystemClock()
    servers = sessions(settings)
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(platform_pool(settings, PLATFORM_CONNECTIONS))
        billing = await stack.enter_async_context(billing_pool(settings))
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=settings.database_service_url,
                timeout=httpx.Timeout(settings.provision_timeout, connect=CONNECT_SECONDS),
                verify=ssl.create_default_context(),
                trust_env=False,  # database-service is inside the platform: no proxy is in between
            )
        )
        yield Ports(
            policy=settings.policy(),
            clock=clock,
            facts=facts,
            platform=PostgresPlatform(platform, billing),
            database_service=HttpDatabaseService(http),
            databases=PostgresDatabases(servers),
            replicator=PostgresReplicator(servers),
            copier=PgCopier(
                BackupPlace(settings.backup_root, threads=settings.jobs),
                settings.pg_bin,
                sessions=servers,
                jobs=settings.jobs,
            ),
            verifier=PostgresVerifier(servers, jobs=settings.jobs),
            odoo_conf=OdooConfFiles(settings.data_root),
            runtime=await stack.enter_async_context(runtime(settings, clock)),
            filestore=FilestoreArchive(
                settings.data_root, settings.backup_root, enabled=settings.backup_filestore
            ),
        )


@asynccontextmanager
async def runtime(settings: Settings, clock: SystemClock) -> AsyncIterator[Runtime]:
    """What runs the instances: Docker Swarm, or the runtime that REHOME_RUNTIME names.

    Raises:
        SettingsError: there is no such module or function.
    """
    if settings.runtime != SWARM:
        async with _plugged_in(settings.runtime)(settings, clock) as other:
            yield other
        return
    # Not above: its library takes as long to import as half of everything else, and most commands reach no runtime.
    from rehome_consumer.adapters import swarm  # noqa: PLC0415

    async with (
        swarm.connected(settings.docker_host) as docker,
        httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http,
    ):
        yield swarm.SwarmRuntime(
            docker,
            http,
            clock,
            settings.data_root,
            resolve=resolver(settings.host_map),
            health_limit=timedelta(seconds=settings.start_timeout),
            stop_margin=timedelta(seconds=settings.stop_margin),
        )


def _plugged_in(name: str) -> Callable[[Settings, SystemClock], AbstractAsyncContextManager[Runtime]]:
    """The function `module:function`: given settings and clock, it returns a context manager with the runtime."""
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"REHOME_RUNTIME: {name} cannot be imported: {error}") from None
    return found  # type: ignore[no-any-return] # an object of the operator's: its type is not known here


@asynccontextmanager
async def tracing(traces: str) -> AsyncIterator[Tracing]:
    """Where traces go: `off`, `otlp`, or the path of a file (REHOME_TRACES).

    Raises:
        SettingsError: OpenTelemetry is not installed, or the file cannot be written.
    """
    if traces == "off":
        yield NoTracing()
        return
    try:
        # Not above: it takes a quarter of a second to import, and is not there where nobody asked for it.
        from rehome_consumer.adapters.tracing import spans  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            f"REHOME_TRACES={traces}: {error}; it comes with the extra rehome-consumer[traces]"
        ) from None
    async with spans.to_collector() if traces == "otlp" else spans.to_file(Path(traces)) as made:
        yield made


def checks(
    settings: Settings,
    ports: Ports,
    journal: PostgresJournal,
    connection: AbstractRobustConnection | None,
    *,
    only_look: bool = False,
) -> dict[Part, Check]:
    """What a consumer looks at before it works (see `process.checks`); what has no setting here is left out."""
    every = checks_of(ports, journal, only_look=only_look)
    if connection is not None:
        inspector = AmqpQueueInspector(connection)
        every["broker"] = lambda: require_topology(inspector, connected=connection.connected.is_set())
    if not settings.has_key:
        del every["journal"]
    if settings.is_left_out("database_service_url"):
        del every["database_service"]
    return every


class NotConnected(Unreachable):
    """A server does not answer at the start; `part` is whose."""

    def __init__(self, part: Part, message: str) -> None:
        """Take both."""
        super().__init__(message)
        self.part = part


@contextmanager
def blaming(part: Part) -> Iterator[None]:
    """Let errors that may pass by themselves say which part they are about."""
    try:
        yield
    except (Unreachable, TimedOut) as error:
        raise NotConnected(part, str(error)) from error


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer that can be run."""

    worker: Worker
    engine: Engine
    relay: Relay
    journal: PostgresJournal
    connection: AbstractRobustConnection
    readiness: Readiness


@asynccontextmanager
async def consumer(
    settings: Settings,
    *,
    wrap: Callable[[Ports], Ports] = lambda given: given,
    probe: Callable[[str], Awaitable[None]] = nothing,
    checked: bool = True,
) -> AsyncIterator[Consumer]:
    """Everything that `rehome run` runs.

    Args:
        settings: of this deployment.
        wrap: replaces ports (for demonstrations of failures).
        probe: called at every boundary of the engine (for crash tests).
        checked: whether it works only while it has everything that it needs (False where ports are replaced).

    Raises:
        NotConnected: a server is not reachable now.
        RehomeError: a setting is wrong, or something else that waiting does not change.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        cipher = SecretCipher(settings.key())
        with blaming("journal"):
            state = await enter(state_pool(settings, STATE_CONNECTIONS))
            kept = await enter(aclosing(KeptConnections(state, STATE_CONNECTIONS // 2)))
            journal = PostgresJournal(state, cipher, kept=kept)
            await journal.make_schema()
        with blaming("broker"):
            connection = await enter(amqp(settings, "rehome consumer"))
        broker = AmqpBroker(connection)
        relay = Relay(journal, broker, probe=probe)
        with blaming("journal"):
            await enter(journal.listening(relay.wake))
        with blaming("platform"):
            real = await enter(ports(settings, MemoryFacts()))
        readiness = Readiness(
            checks(settings, real, journal, connection) if checked else {},
            queues=AmqpQueueInspector(connection),
            patience=settings.not_ready_timeout,
        )
        engine = Engine(
            journal=journal,
            claims=await enter(claims(settings)),
            broker=broker,
            relay=relay,
            ports=wrap(real),
            longest_retry=settings.longest_retry,
            readiness=readiness,
            tracing=await enter(tracing(settings.traces)),
            probe=probe,
        )
        worker = Worker(
            engine=engine,
            broker=broker,
            relay=relay,
            journal=journal,
            workers=settings.workers,
            grace=settings.grace,
            readiness=readiness,
            log_lines=LogLines(PostgresLogLines(state, settings.log_days), keeps=bool(settings.log_days)),
        )
        yield Consumer(worker, engine, relay, journal, connection, readiness)
