"""Repairs: what is safe to do about a finding, done while no consumer works on the instance.

Each takes the instance's claim, and does nothing if the migration has changed since the snapshot. Where an
instance's own database or files are changed, a new snapshot is taken first, with the claim held.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid5

from rehome_consumer import saga
from rehome_consumer.context import current_migration
from rehome_consumer.doctor import instances
from rehome_consumer.engine.replay import REPLAYS, again
from rehome_consumer.errors import Conflict, NotFound, NotOurs, Transient
from rehome_consumer.facts import FENCE
from rehome_consumer.model import rehearsal_role
from rehome_consumer.ports.engine import Message
from rehome_consumer.ports.operators import REPAIRED, signed
from rehome_consumer.rabbitmq.topology import HANDLER
from rehome_events.envelope import decode, event_id

if TYPE_CHECKING:
    from rehome_consumer.doctor.finding import Action, Clearing, Finding
    from rehome_consumer.doctor.observer import Observer
    from rehome_consumer.ports.engine import Broker, Claims, Journal, MigrationRow
    from rehome_consumer.ports.steps import Databases, Replicator

    class Sender(Protocol):
        """Sends what waits in the outbox."""

        async def send(self, migration_id: UUID) -> None:
            """See `Relay.send`."""
            ...


@dataclass(frozen=True, slots=True)
class Repairs:
    """What repairs are done with; `by` is who asked for them, for the journal."""

    observer: Observer
    journal: Journal
    claims: Claims
    broker: Broker
    relay: Sender
    databases: Databases
    replicator: Replicator
    by: str = ""

    async def repair(self, finding: Finding) -> None:
        """Do what `finding.repair` says.

        Raises:
            Conflict: a consumer works on the instance, or something has changed since the snapshot.
            RehomeError: it could not be done.
        """
        if finding.clearing is not None:
            await self._clear(finding.clearing)
            return
        action = finding.action
        if action is None:
            raise Conflict(f"{finding.kind} of {finding.where} is not safe to repair")
        if action.repair_kind == "send_events":
            await self.relay.send(action.migration.id)
            return
        if action.repair_kind in ("resend_event", "run_again"):
            # The claim is released first: the handler that gets the event needs it.
            async with self.claims.claim(action.migration.instance_id) as claim:
                row = await self._unchanged(action, held=claim is not None)
            await self._resend(action, row)
            return
        async with self.claims.claim(action.migration.instance_id) as claim:
            await self._unchanged(action, held=claim is not None)
            token = current_migration.set(action.migration.id)
            try:
                await self._act(finding, action)
            finally:
                current_migration.reset(token)
            what = f"{finding.what}: {finding.repair}"
            await self.observer.views.add_to_history(
                action.migration.id, REPAIRED, signed(self.by, what=what)
            )

    async def _clear(self, action: Clearing) -> None:
        """Remove what a rehearsal left, unless it is at work after all: then it has sessions."""
        if action.server is None:
            await self.observer.inventory.remove(action.thing)
            return
        server, rehearsal, mark = action.server, action.rehearsal, action.mark
        inventory = await self.observer.inspector.inventory(server)
        if any(one.migration_id == rehearsal for one in inventory.sessions):
            raise Conflict(f"rehearsal {rehearsal} is at work on {server.name}: nothing was removed")
        token = current_migration.set(rehearsal)
        try:
            await self.databases.end_sessions(server, rehearsal)  # and drop its short-lived roles
            if mark is not None:
                await self.databases.drop(server, mark.database, rehearsal)
                for role in mark.roles:
                    with suppress(NotOurs, Transient):  # by now another migration needs it, or it may log in
                        await self.databases.drop_role(
                            server, role, counted_on=role != rehearsal_role(rehearsal)
                        )
                await self.databases.unmark_rehearsal(server, rehearsal)
        finally:
            current_migration.reset(token)

    async def _unchanged(self, action: Action, *, held: bool) -> MigrationRow:
        """The migration's row, if nothing happened to it since the snapshot."""
        view = action.migration
        row = await self.journal.migration(view.id)
        if not held:
            raise Conflict(f"a consumer works on instance {view.instance_id}: nothing was repaired")
        if row is None or (row.state, row.attempt, row.updated_at) != (
            view.state,
            view.attempt,
            view.updated_at,
        ):
            raise Conflict(f"migration {view.id} has changed since it was checked: run rehome doctor again")
        return row

    async def _act(self, finding: Finding, action: Action) -> None:
        view, server, thing = action.migration, action.server, action.thing
        match action.repair_kind:
            case "remove_backup":
                await self.observer.inventory.remove(thing)
            case "remove_conf_backup" | "unfence" | "close_role":
                await self._on_instance(finding, action)
            case "drop_database" if server:
                await self.databases.drop(server, thing, view.id)
            case "end_sessions" if server:
                await self.databases.end_sessions(server, view.id)
            case "remove_sync" if server:
                await self.replicator.remove(server, view.id)
            case _:
                raise Conflict(f"there is no repair {action.repair_kind}")

    async def _on_instance(self, finding: Finding, action: Action) -> None:
        """Check again, and only then act."""
        view = action.migration
        snapshot = replace(
            await self.observer.instance(view.instance_id), holder=None
        )  # this process holds it
        found = {one.key: one for one in instances.findings(snapshot, self.observer.clock.now())}
        if snapshot.instance is None or (finding.key in found and found[finding.key].action is None):
            raise Conflict(
                f"{finding.where} has changed since it was checked, and the repair is no longer safe: "
                "run rehome doctor again"
            )
        if finding.key not in found:  # repaired meanwhile, perhaps by the repair before this one
            return
        if action.repair_kind == "remove_conf_backup":
            await self.observer.conf.remove_backup(snapshot.instance, action.thing)
        elif action.server and action.repair_kind == "close_role":
            await self.databases.close_role(action.server, action.thing)
        elif action.server and snapshot.source_state and (before := snapshot.facts.get(FENCE)):
            source = snapshot.source_state
            await self.databases.unfence(action.server, source.database, source.role, before)

    async def _resend(self, action: Action, row: MigrationRow) -> None:
        """Publish the event that starts a step again, to its handler only."""
        step = saga.named(action.thing)
        if step is None:
            raise NotFound(f"there is no step {action.thing}")
        body: bytes | None = row.trigger
        if step is not saga.MIGRATION[0]:
            body = await self.observer.views.outbox_body(event_id(row.id, row.attempt, step.on.TYPE))
        if body is None:
            raise NotFound(f"{step.on.TYPE} of migration {row.id} is no longer in the outbox; roll it back")
        message = Message.of_event(body)
        if action.repair_kind == "run_again":
            key = f"doctor {row.id} {row.attempt} {step.name} {row.token}"
            message = again(decode(body), uuid5(REPLAYS, key))
        await self.broker.publish(HANDLER, step.name, message, mandatory=True)
        await self.observer.views.add_to_history(
            row.id, REPAIRED, signed(self.by, what=f"sent the event of step {step.name} again")
        )
