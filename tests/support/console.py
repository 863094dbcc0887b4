"""A journal with something of everything for the console, and the console on it without a socket."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID, uuid4

import aio_pika
import asyncpg
import httpx
import orjson

from rehome_consumer.adapters.state.log_lines import PostgresLogLines
from rehome_consumer.console.access import Access
from rehome_consumer.console.app import application
from rehome_consumer.console.server import console_of
from rehome_consumer.engine import headers
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.ports.log_lines import LogLine
from rehome_consumer.rabbitmq.topology import DEAD
from rehome_consumer.settings import read_settings
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port, give_back_port, wait_until
from sandbox.system.processes import Child
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_events.envelope import CloudEvent
    from sandbox.rabbitmq.node import BrokerNode

READ = "read-token-of-twenty-characters"
ACT = "operator-token-of-twenty-characters"
TOKENS = f"read:grafana:{READ},operator:anna:{ACT}"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> \u202eevil\u2066 {{ 7*7 }} \x1b[2J"
STEPS = ("accept", "prepare", "stop", "back_up", "provision", "rewrite_conf", "restore", "start", "complete")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def console_on(dsn: str, **settings: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the console, without a socket."""
    given = {"REHOME_STATE_DSN": dsn, **{f"REHOME_{name.upper()}": value for name, value in settings.items()}}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REHOME_")}
    with mock.patch.dict(os.environ, {**kept, **given}, clear=True):
        made = read_settings(needed=JOURNAL)
        async with console_of(made, Access(made)) as console:
            transport = httpx.ASGITransport(application(console), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                yield client


def environment(dsn: str, port: int, **more: str) -> dict[str, str]:
    """Of a console process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REHOME_")}
    given = {"REHOME_STATE_DSN": dsn, "REHOME_CONSOLE_PORT": str(port), "REHOME_CONSOLE_TOKENS": TOKENS}
    return {**kept, **given, **more}


@asynccontextmanager
async def console_process(dsn: str, log: Path, **settings: str) -> AsyncIterator[tuple[Child, str]]:
    """`rehome console` as a process, when it answers; and its address. What is left of it is ended."""
    port = free_port()
    command = [sys.executable, "-m", "rehome_consumer", "console"]
    child = await Child.start("console", command, log=log, env=environment(dsn, port, **settings))
    address = f"http://{LOOPBACK}:{port}"

    async def up() -> bool:
        child.require_alive()
        try:
            async with plain_http(address) as client:
                return (await client.get("/healthz")).is_success
        except httpx.TransportError:
            return False

    await wait_until(up, what="the console", limit=30)
    yield child, address
    if child.process.returncode is None:
        await child.stop()
    give_back_port(port)


class Seeds:
    """Writes rows as the consumer does."""

    def __init__(self, db: asyncpg.Connection[Any], dsn: str) -> None:
        self._db = db
        self._dsn = dsn

    async def migration(
        self,
        state: str,
        *,
        step: str,
        step_state: str = "done",
        began: float = 3600,
        error: str | None = None,
        tries: int = 0,
        down: float | None = None,
        up: float | None = None,
        progress: tuple[int, int] | None = None,
        over: bool = False,
        to_plan: str = "premium-monthly",
        reason: str | None = None,
        next_try: float | None = None,
    ) -> UUID:
        """A migration at this step; `began`, `down` and `up` are seconds ago."""
        id_, instance, now = uuid4(), uuid4(), datetime.now(UTC)
        start = now - timedelta(seconds=began)
        ended = now - timedelta(seconds=min(began, up or began) / 2) if over else None
        await self._db.execute(
            "INSERT INTO rehome.migrations"
            " (id, instance_id, state, trigger, trigger_id, to_plan, reason, created_at, ended_at)"
            " VALUES ($1, $2, $3, '', $4, $5, $6, $7, $8)",
            *(id_, instance, state, uuid4(), to_plan, reason, start, ended),
        )
        done = STEPS[: STEPS.index(step)] if step in STEPS else STEPS[:6]
        length = (ended or now) - start
        each = length / (len(done) + 1.5)
        for place, name in enumerate((*done, step)):
            last = name == step
            at = start + place * each
            await self._db.execute(
                "INSERT INTO rehome.steps (migration_id, attempt, step, state, runs, tries, error, started_at,"
                " tried_at, done_at, next_try_at, progress_done, progress_total)"
                " VALUES ($1, 1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11)",
                *(
                    id_,
                    name,
                    step_state if last else "done",
                    tries if last else 0,
                    error if last else None,
                    at,
                ),
                *(
                    now - timedelta(seconds=40) if last and not over else at,
                    None if last and step_state != "done" else at + each,
                ),
                now + timedelta(seconds=next_try) if last and next_try is not None else None,
                *(progress if last and progress else (None, None)),
            )
            await self._line(
                id_,
                f"{name} {'done' if not last or step_state == 'done' else step_state}",
                error if last else None,
                at,
            )
        for place in range(tries):
            await self._line(id_, f"{step} waits", error, start + (len(done) + place / tries) * each)
        facts: dict[str, Any] = {
            "limits": {"cpu_limit": 4.0, "memory_limit": "8G"},
            "tenant_user": HOSTILE if error else "acme",
        }
        if state == "completed":
            facts["strategy"] = {"name": "cold", "why": "REHOME_STRATEGY is cold"}
            facts["rehearsal"] = {
                "mode": "full",
                "database_bytes": 10**9,
                "dump_seconds": 6.5,
                "restore_seconds": 21.0,
                "compare_seconds": 4.5,
            }
        if step in ("restore", "complete", "roll_back"):
            host = "postgres-dedicated-7d9f2a54"
            facts["conf_changes"] = [
                {"section": "options", "key": "db_host", "before": "postgres-pool-1", "after": host},
                {"section": "options", "key": "db_password", "before": "***", "after": "***"},
                {"section": "queue_job", "key": "jobrunner_db_host", "before": None, "after": host},
            ]
            if error == HOSTILE:
                theirs = {"section": "options", "key": "db_replica_host", "before": HOSTILE, "after": host}
                facts["conf_changes"].append(theirs)
        if error is not None:
            facts["compared"] = {"how": "everything", "why": HOSTILE}
        if down is not None:
            facts["stopped_at"] = (now - timedelta(seconds=down)).isoformat()
        if up is not None:
            facts["healthy_at" if state != "rolled_back" else "restarted_at"] = (
                now - timedelta(seconds=up)
            ).isoformat()
        for name, value in facts.items():
            await self._db.execute(
                "INSERT INTO rehome.facts VALUES ($1, 1, $2, $3, NULL)",
                id_,
                name,
                orjson.dumps(value).decode(),
            )
        await self._db.execute(
            "INSERT INTO rehome.facts VALUES ($1, 1, 'tenant_password', NULL, 'sealed')", id_
        )
        body = orjson.dumps({"data": {"instance_id": str(instance), "reason": HOSTILE.replace("\x1b", "")}})
        await self._db.execute(
            "INSERT INTO rehome.outbox (migration_id, event_id, exchange, routing_key, body, sent_at)"
            " VALUES ($1, $2, 'migration', 'migration.requested', $3, $4)",
            *(id_, uuid4(), body, None if state == "failed" else now),
        )
        return id_

    async def dead_letter(self, migration: UUID, step: str) -> str:
        id_ = str(uuid4())
        await self._db.execute(
            "INSERT INTO rehome.dead_letters (migration_id, attempt, step, message_id, reason)"
            " VALUES ($1, 1, $2, $3, 'failed')",
            *(migration, step, id_),
        )
        return id_

    async def waits(self, behind: UUID) -> None:
        await self._db.execute(
            "INSERT INTO rehome.waiting (migration_id, instance_id, event_id, to_plan, behind, next_try_at)"
            " SELECT $2, instance_id, $3, 'premium-yearly', id, now() + interval '40 s'"
            " FROM rehome.migrations WHERE id = $1",
            *(behind, uuid4(), uuid4()),
        )

    async def moves_on(self, migration: UUID, done: int) -> None:
        await self._db.execute(
            "UPDATE rehome.steps SET progress_done = $2 WHERE migration_id = $1 AND progress_total IS NOT NULL",
            *(migration, done),
        )

    async def allow_to_read(self, name: str, password: str) -> None:
        """As docs/console.md says."""
        await self._db.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        await self._db.execute(f"GRANT USAGE ON SCHEMA rehome TO {name}")
        await self._db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA rehome TO {name}")
        await self._db.execute(f"GRANT pg_read_all_stats TO {name}")

    async def drop_reader(self, name: str) -> None:
        await self._db.execute(f"DROP OWNED BY {name}")
        await self._db.execute(f"DROP ROLE {name}")

    async def hide(self) -> None:
        """The journal is not there, until `show`."""
        await self._db.execute("ALTER SCHEMA rehome RENAME TO hidden")

    async def show(self) -> None:
        await self._db.execute("ALTER SCHEMA hidden RENAME TO rehome")

    async def everything(self) -> dict[str, UUID]:
        """One of each kind."""
        found = {
            "running": await self.migration(
                "conf_rewritten", step="restore", step_state="running", began=900, down=75, progress=(450, 1000)
            ),
            "waiting": await self.migration(
                "requested", step="prepare", step_state="waiting", began=120, tries=2, next_try=10,
                error="asking database-service for a dedicated server: HTTP 503, no room",
            ),
            "failed": await self.migration(
                "failed", step="roll_back", step_state="failed", began=5000, tries=10, down=4000, error=HOSTILE,
                to_plan=HOSTILE.replace("\x1b", ""), reason="roll_back failed: " + "x" * 10_000,
            ),
            "completed": await self.migration(
                "completed", step="complete", began=90_000, down=80_000, up=79_991, over=True
            ),
            "rolled_back": await self.migration(
                "rolled_back", step="restore", step_state="failed", began=50_000, down=40_000, up=39_000, over=True,
                tries=5,
                error="the copy differs: table public.res_partner: as many rows (42), but not the same content",
                reason="restore: the copy differs",
            ),
            "rejected": await self.migration(
                "rejected", step="accept", began=3000, over=True, reason="terminated: the instance is terminated"
            ),
        }  # fmt: skip
        await self.dead_letter(found["failed"], "roll_back")
        await self.waits(found["running"])
        await self._db.execute(
            "INSERT INTO rehome.slot_waiters"
            " (migration_id, attempt, resources, places, since, looked_at, looks_within)"
            " VALUES ($1, 1, '{rehearsal pool}', '{1}', now(), now(), '10 s')",
            found["waiting"],
        )
        await self.logged(
            found["failed"],
            ("info", "step.started", {"try": 1}),
            ("warning", "undo.left", {"why": HOSTILE}),
            ("error", "step.failed", {"error": HOSTILE, "exception": "Traceback ...\n" + "x" * 10_000}),
        )
        return found

    async def logged(self, id_: UUID, *lines: tuple[str, str, dict[str, Any]]) -> None:
        """Lines of its log: level, event, fields."""
        now = datetime.now(UTC)
        given = [
            LogLine(
                id_,
                now,
                orjson.dumps(
                    {"event": event, "level": level, "migration": str(id_), "step": "roll_back", **fields}
                ).decode(),
            )
            for level, event, fields in lines
        ]
        async with asyncpg.create_pool(self._dsn, min_size=1, max_size=1) as pool:
            await PostgresLogLines(pool, 30).keep(given)

    async def _line(self, id_: UUID, what: str, detail: str | None, at: datetime) -> None:
        await self._db.execute(
            "INSERT INTO rehome.history (migration_id, attempt, at, what, detail) VALUES ($1, 1, $2, $3, $4)",
            *(id_, at, what, detail),
        )


@asynccontextmanager
async def seeds(dsn: str) -> AsyncIterator[Seeds]:
    """Seeds for the journal there."""
    db = await asyncpg.connect(dsn)
    try:
        yield Seeds(db, dsn)
    finally:
        await db.close()


async def opened(journal: PostgresJournal) -> CloudEvent[Any]:
    event = upgrade(uuid4())
    await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))
    return event


async def given_up(broker: BrokerNode, event: CloudEvent[Any]) -> str:
    """Put the event among the dead letters, as the engine does; returns its id."""
    async with await aio_pika.connect(broker.url(), timeout=30) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(
            body_of(event),
            message_id=str(event.id),
            type=event.type,
            content_type="application/cloudevents+json",
            headers={
                headers.REASON: "failed",
                headers.HANDLER: "accept",
                headers.ERROR: "<b>no</b>",
                headers.TRIES: 6,
            },
        )
        await channel.default_exchange.publish(message, routing_key=DEAD)
    return str(event.id)
