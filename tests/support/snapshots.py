"""Snapshots in which everything is as it should be, for tests that change one thing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rehome_consumer import saga
from rehome_consumer.doctor.snapshot import InstanceSnapshot, ServerSnapshot, Snapshot
from rehome_consumer.facts import RecordedFacts
from rehome_consumer.model import Conf, Credentials, Instance, Secret, Server, Service, Task
from rehome_consumer.ports.operators import DatabaseState, Inventory, MigrationView, QueueStatus
from rehome_consumer.rabbitmq.topology import DEAD, queue_of

if TYPE_CHECKING:
    from rehome_consumer.doctor.finding import Finding

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
MIGRATION = UUID(int=0x11, version=4)
INSTANCE = UUID(int=0x22, version=4)
ADMIN = Credentials("postgres", Secret("secret"))
POOL = Server(UUID(int=1, version=4), "postgres-pool-1", "pool-1", 5432, "shared", "active", ADMIN)
DEDICATED = Server(
    UUID(int=2, version=4), "postgres-dedicated-1", "dedicated-1", 5432, "dedicated", "active", ADMIN,
    dedicated_to_instance_id=INSTANCE,
)  # fmt: skip
FENCED_BEFORE = RecordedFacts({"fence": {"connection_limit": -1, "can_login": True}})
CONF = Path("/srv/odoo_data_acme/conf/odoo.conf")
QUEUES = {queue_of(step.name): QueueStatus(ready=0, consumers=1) for step in saga.MIGRATION} | {
    DEAD: QueueStatus(ready=0, consumers=0)
}


def ago(**span: float) -> datetime:
    """This long before `NOW`."""
    return NOW - timedelta(**span)


def a_view(state: str, **columns: Any) -> MigrationView:
    """A migration that has not changed for an hour; over if its state says so."""
    over = state in ("completed", "rolled_back", "rejected")
    view = MigrationView(
        id=MIGRATION,
        instance_id=INSTANCE,
        attempt=1,
        state=state,
        past_pivot=state in ("started", "completed"),
        to_plan="premium-monthly",
        reason=None,
        created_at=ago(hours=2),
        updated_at=ago(hours=1),
        ended_at=ago(hours=1) if over else None,
    )
    return replace(view, **columns)


def an_instance(**columns: Any) -> Instance:
    """Of customer acme, on the pool."""
    on_pool = Instance(
        id=INSTANCE,
        customer_id=UUID(int=0x33, version=4),
        name="acme",
        status="running",
        database_name="acme",
        db_host=POOL.host,
        db_port=POOL.port,
        db_type="shared",
        db_server_id=POOL.id,
        service_name="odoo-acme",
    )
    return replace(on_pool, **columns)


def conf_of(server: Server) -> Conf:
    """An odoo.conf that names this server."""
    return Conf(CONF, server.host, server.port, Credentials("acme", Secret("secret")), "acme")


def service_of(server: Server, *, running: int = 1) -> Service:
    """A service whose environment names this server."""
    environment = {
        "ODOO_DATABASE_HOST": server.host,
        "ODOO_DATABASE_PORT_NUMBER": str(server.port),
        "ODOO_DATABASE_USER": "acme",
    }
    tasks = tuple(Task(f"task-{number}", running=True) for number in range(running))
    return Service("odoo-acme", "service-1", 1, tasks, environment, {})


def a_state(*, is_open: bool, sessions: int = 0, **more: Any) -> DatabaseState:
    """A database that its tenant can connect to, or one that is fenced."""
    state = DatabaseState(
        "acme",
        "acme",
        -1 if is_open else 0,
        is_open,
        closed=not is_open,
        bytes=54_000_000,
        sessions=sessions,
    )
    return replace(state, **more)


def on_pool(state: str | None = None, **changes: Any) -> InstanceSnapshot:
    """An instance whose database is on the pool: never moved, or with a migration in this state."""
    view = a_view(state) if state else None
    snapshot = InstanceSnapshot(
        INSTANCE,
        migration=view,
        facts=FENCED_BEFORE if view else RecordedFacts(),
        instance=an_instance(),
        home=POOL,
        source=POOL,
        source_state=a_state(is_open=True, sessions=3),
        conf=conf_of(POOL),
        service=service_of(POOL),
    )
    return replace(snapshot, **changes)


def moved(state: str = "completed", **changes: Any) -> InstanceSnapshot:
    """An instance whose database a migration moved to its dedicated server; the source is fenced."""
    snapshot = on_pool(
        state,
        instance=an_instance(
            db_host=DEDICATED.host, db_server_id=DEDICATED.id, db_type="dedicated", plan_tier="premium"
        ),
        home=DEDICATED,
        target=DEDICATED,
        source_state=a_state(is_open=False),
        target_state=a_state(is_open=True, sessions=3),
        conf=conf_of(DEDICATED),
        service=service_of(DEDICATED),
    )
    return replace(snapshot, **changes)


def a_snapshot(*instances: InstanceSnapshot, **changes: Any) -> Snapshot:
    """Of everything, with these instances and their migrations; consumers run, nothing is left over."""
    snapshot = Snapshot(
        now=NOW,
        instances=instances,
        servers=(ServerSnapshot(POOL, Inventory()),),
        migrations={one.migration.id: one.migration for one in instances if one.migration},
        dead_letters=(),
        queues=QUEUES,
    )
    return replace(snapshot, **changes)


def kinds(findings: list[Finding]) -> list[str]:
    """The kinds of these findings."""
    return [one.kind for one in findings]
