"""What operators' tools see of the fakes: servers and a backup place of a `World`, and the journal's tables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from rehome_consumer.adapters.backup.inventory import read
from rehome_consumer.adapters.postgres.sessions import APPLICATION_PREFIX
from rehome_consumer.errors import Refused
from rehome_consumer.facts import SOURCE, RecordedFacts
from rehome_consumer.ports.engine import UNMOVED
from rehome_consumer.ports.operators import (
    BackupEntry,
    ClaimHolder,
    DatabaseState,
    DeadLetterRecord,
    FollowedSlot,
    Inventory,
    MigrationSessions,
    MigrationView,
    QueueStatus,
    TaggedDatabase,
    UnsentEvents,
    waiting_view,
)
from tests.fakes.world import ADMIN, SHORT_LIVED

if TYPE_CHECKING:
    from collections.abc import Collection

    from rehome_consumer.model import Pause, Server
    from rehome_consumer.ports.engine import MigrationRow
    from tests.fakes.broker import FakeBroker
    from tests.fakes.claims import FakeClaims
    from tests.fakes.journal import FakeJournal
    from tests.fakes.world import FakeServer, World

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
_SHORT_LIVED = re.compile(r"rehome_([0-9a-f]{32})(_[a-z]+)?")
_MAKING = "rehome_making_"
FOLLOWING = ("_sync", "_apply")


@dataclass(frozen=True)
class FakeInspector:
    """Port `Inspector` on a `World`."""

    world: World

    async def database_state(self, server: Server, database: str, role: str) -> DatabaseState:
        there = self.world.at(server)
        target, tenant = there.databases.get(database), there.roles.get(role)
        return DatabaseState(
            database=database,
            role=role,
            connection_limit=target.connection_limit if target else None,
            can_login=tenant.can_login if tenant else None,
            closed=bool(target and (target.closed or target.connection_limit == 0)),
            bytes=target.bytes if target else None,
            sessions=len(there.tenants(database, role)),
            tag=target.label.tag if target and target.label else None,
        )

    async def inventory(self, server: Server) -> Inventory:
        there = self.world.at(server)
        databases = [
            TaggedDatabase(one.name, tag=one.label.tag)
            if one.label
            else TaggedDatabase(one.name, maker=UUID(one.name.removeprefix(_MAKING)))
            for one in there.databases.values()
            if server.kind != "shared" and (one.label or one.name.startswith(_MAKING))
        ]
        names = [
            one.application.removeprefix(APPLICATION_PREFIX)
            for one in there.sessions
            if one.user == ADMIN and one.application.startswith(APPLICATION_PREFIX)
        ]
        roles = [_SHORT_LIVED.fullmatch(name) for name in there.roles]
        return Inventory(
            databases=tuple(databases),
            sessions=tuple(
                MigrationSessions(UUID(one), names.count(one), WHEN) for one in sorted({*names} - {"-"})
            ),
            short_lived=tuple(
                sorted({UUID(match[1]) for match in roles if match and match[2] not in FOLLOWING})
            ),
            followed=tuple(
                sorted(_followed(there, [match[1] for match in roles if match and match[2] in FOLLOWING]))
            ),
            slots=tuple(
                FollowedSlot(UUID(name[7:39]), slot.kept, None if name.endswith("_witness") else 0)
                for name, slot in sorted(there.slots.items())
            ),
            rehearsals=tuple(role.mark for role in there.roles.values() if role.mark),
        )

    async def database_sizes(self, server: Server, databases: Collection[str]) -> dict[str, int]:
        there = self.world.at(server).databases
        return {name: there[name].bytes for name in databases if name in there}

    async def active_sessions(self, server: Server) -> int:
        there = self.world.at(server)
        own = [one for one in there.sessions if SHORT_LIVED.fullmatch(one.user)]
        own += [
            one
            for one in there.sessions
            if one.user == ADMIN and one.application.startswith(APPLICATION_PREFIX)
        ]
        return sum(one.running and one not in own for one in there.sessions)


def _followed(there: FakeServer, roles: list[str]) -> set[UUID]:
    """Migrations with a role, a slot or a subscription by which a copy follows."""
    names = [*there.slots, *(one.follows.name for one in there.databases.values() if one.follows)]
    return {
        UUID(one)
        for one in (*roles, *(name.removeprefix("rehome_").removesuffix("_witness") for name in names))
    }


@dataclass(frozen=True)
class FakeBackupInventory:
    """Port `BackupInventory`: names and when they were changed."""

    names: dict[str, datetime] = field(default_factory=dict)

    async def entries(self) -> list[BackupEntry]:
        found = [(name, changed, read(name)) for name, changed in self.names.items()]
        return [BackupEntry(name, of[0], changed, of[1], of[2]) for name, changed, of in found if of]

    async def remove(self, name: str) -> None:
        if read(name) is None:
            raise Refused(f"{name!r} is no name of ours")
        self.names.pop(name, None)


class FakeViews:
    """Port `JournalViews` on the fake journal; `noted` are the lines that operators' tools wrote."""

    def __init__(self, journal: FakeJournal, claims: FakeClaims) -> None:
        self.journal = journal
        self.claims = claims
        self.noted: list[tuple[UUID, str, str]] = []

    async def migrations(
        self, wanted: UUID | None = None, limit: int = 50, *, ended: bool = True
    ) -> list[MigrationView]:
        rows = [
            row
            for row in self.journal.migrations.values()
            if wanted in (None, row.id, row.instance_id) and (ended or not row.ended)
        ]
        rows.sort(key=lambda row: row.created_at, reverse=True)
        return [self._view(row) for row in rows[:limit]]

    async def waiting(self, wanted: UUID | None = None) -> list[MigrationView]:
        rows = [
            row
            for row in self.journal.waiting.values()
            if wanted in (None, row.migration_id, row.instance_id, row.behind)
        ]
        rows.sort(key=lambda row: row.since)
        return [
            waiting_view(
                id=row.migration_id,
                instance_id=row.instance_id,
                to_plan=row.to_plan,
                created_at=row.since,
                updated_at=row.updated_at,
                next_try_at=row.next_try_at,
                behind=row.behind,
                behind_state=self.journal.migrations[row.behind].state,
                behind_over=self.journal.migrations[row.behind].ended,
            )
            for row in rows
        ]

    async def dead_letters(self) -> list[DeadLetterRecord]:
        migrations = self.journal.migrations
        return [
            dead_letter
            for (migration_id, attempt, _), dead_letter in self.journal.dead_letters.items()
            if not migrations[migration_id].ended and migrations[migration_id].attempt == attempt
        ]

    async def by_ids(self, ids: Collection[UUID]) -> list[MigrationView]:
        return [one for one in await self.migrations(limit=len(self.journal.migrations)) if one.id in ids]

    async def newest_moves(self, instance_id: UUID | None = None) -> list[MigrationView]:
        found: dict[UUID, MigrationView] = {}
        for one in await self.migrations(instance_id, len(self.journal.migrations)):
            if one.state not in UNMOVED:
                found.setdefault(one.instance_id, one)
        return list(found.values())

    async def moves_from(self, server_id: UUID, instances: Collection[UUID]) -> list[MigrationView]:
        ids = [one.id for instance in instances for one in await self.newest_moves(instance)]
        ids += [
            one.id
            for one in await self.migrations(limit=len(self.journal.migrations), ended=False)
            if (await self.facts(one.id, one.attempt)).get(SOURCE) == server_id
        ]
        return await self.by_ids(set(ids))

    async def steps(self, migration_id: UUID) -> list[dict[str, Any]]:
        return [
            {
                "attempt": row.attempt,
                "step": row.step,
                "state": row.state,
                "tries": row.tries,
                "error": row.error,
            }
            for row in self.journal.steps.values()
            if row.migration_id == migration_id
        ]

    async def facts(self, migration_id: UUID, attempt: int) -> RecordedFacts:
        return RecordedFacts(
            {
                key[2]: orjson.loads(value) if isinstance(value, bytes) else None
                for key, value in self.journal.stored_facts.items()
                if key[:2] == (migration_id, attempt)
            }
        )

    async def holders(self, instances: Collection[UUID]) -> dict[UUID, ClaimHolder]:
        return {one: ClaimHolder(one, 1, "local", WHEN) for one in instances if one in self.claims.held}

    async def discarded(self, message_ids: Collection[str]) -> frozenset[str]:
        return frozenset(self.journal.discarded & set(message_ids))

    async def paused(self) -> Pause | None:
        return self.journal.pause

    async def unsent(self) -> list[UnsentEvents]:
        waiting = [one for one in self.journal.outbox if one.sent is None]
        found: dict[UUID, UnsentEvents] = {}
        for one in waiting:
            row = one.row
            count = sum(other.row.migration_id == row.migration_id for other in waiting)
            instance = self.journal.migrations[row.migration_id].instance_id
            unsent = UnsentEvents(row.migration_id, instance, count, one.put, row.routing_key)
            found.setdefault(row.migration_id, unsent)
        return list(found.values())

    async def outbox_body(self, event_id: UUID) -> bytes | None:
        return next((one.row.message.body for one in self.journal.outbox if one.event_id == event_id), None)

    async def add_to_history(self, migration_id: UUID, what: str, detail: str) -> None:
        self.noted.append((migration_id, what, detail))

    def _view(self, row: MigrationRow) -> MigrationView:
        steps = [one for key, one in self.journal.steps.items() if key[:2] == (row.id, row.attempt)]
        last = max(steps, key=lambda one: self.journal.times(one).tried, default=None)
        times = self.journal.times(last) if last else None
        line = self.journal.in_line()
        mine = next((one for one in line if one.migration_id == row.id), None)
        beside = [one.migration_id for one in line if mine and [*one.wanted][-1] == [*mine.wanted][-1]]
        return MigrationView(
            id=row.id,
            instance_id=row.instance_id,
            attempt=row.attempt,
            state=row.state,
            past_pivot=row.past_pivot,
            to_plan=orjson.loads(row.trigger)["data"]["to_plan"],
            reason=row.reason,
            created_at=row.created_at,
            updated_at=row.updated_at,
            ended_at=row.ended_at,
            step=last.step if last else None,
            step_state=last.state if last else None,
            tries=last.tries if last else None,
            error=last.error if last else None,
            next_try_at=times.next_try if times else None,
            started_at=times.started if times else None,
            tried_at=times.tried if times else None,
            priority=None if row.ended else self.journal.priorities[row.id],
            place_in_line=beside.index(row.id) + 1 if mine else None,
            length_of_line=len(beside) if mine else None,
        )


class FakeQueueInspector:
    """Port `QueueInspector` on the fake broker. A test that takes deliveries by `get` is no reader."""

    def __init__(self, node: FakeBroker) -> None:
        self.node = node

    async def queues(self, names: Collection[str]) -> dict[str, QueueStatus]:
        return {
            name: QueueStatus(len(self.node.queues[name].ready), self.node.queues[name].readers)
            for name in names
            if name in self.node.queues
        }

    async def missing_exchanges(self, names: Collection[str]) -> list[str]:
        return [name for name in names if name not in self.node.exchanges]
