"""`rehome doctor --repair` in a schedule: the real command on fakes whose calls take time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer.adapters.backup.inventory import read
from rehome_consumer.doctor.diagnosis import diagnose
from rehome_consumer.doctor.observer import Observer
from rehome_consumer.doctor.repair import Repairs
from rehome_consumer.engine.dead_letter import read_dead_letter
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.errors import RehomeError
from rehome_consumer.ports.operators import BackupEntry, DeadLetterRecord
from rehome_consumer.rabbitmq.topology import DEAD
from tests.fakes.broker import FakeDelivery
from tests.fakes.inspection import WHEN, FakeInspector, FakeQueueInspector, FakeViews

if TYPE_CHECKING:
    from rehome_consumer.doctor.finding import Finding
    from tests.fakes.world import World
    from tests.simulation.schedule import Schedule

PAUSE = 0.05
"""Seconds that a call takes on average: meanwhile consumers work on."""


class Doctor:
    """The command on fakes.

    Attributes:
        repaired: kinds of findings that were repaired.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.repaired: list[str] = []
        site, journal = schedule.site, schedule.journal
        client = schedule.node.client()
        observer = Observer(
            clock=site.clock,
            views=self._slow(FakeViews(journal, schedule.claims), of_journal=True),
            records=self._slow(site.platform),
            inspector=self._slow(FakeInspector(site.world)),
            conf=self._slow(site.odoo_conf),
            runtime=self._slow(site.runtime),
            inventory=self._slow(WorldBackupInventory(site.world)),
            queues=self._slow(FakeQueueInspector(schedule.node)),
        )
        self._observer = observer
        self._repairs = Repairs(
            observer=observer,
            journal=self._slow(journal, of_journal=True),
            claims=schedule.claims,
            broker=client,
            relay=Relay(journal, client),
            databases=self._slow(site.databases),
            replicator=self._slow(site.replicator),
        )

    async def run_later(self, at: float) -> None:
        """`run`, after so many seconds."""
        await self._schedule.loop.sleep(at)
        await self.run()

    async def run(self) -> bool:
        """Check everything, and repair what is safe to repair; whether anything was repaired."""
        schedule = self._schedule
        try:
            snapshot = await self._observer.everything(None, self._dead_letters())
        except RehomeError as error:
            schedule.log("doctor", f"cannot check: {error}")
            return False
        found = [finding for finding in diagnose(snapshot) if finding.action is not None]
        return any([await self._repair(finding) for finding in found])

    async def _repair(self, finding: Finding) -> bool:
        try:
            await self._repairs.repair(finding)
        except RehomeError as error:
            self._schedule.log("doctor", f"{finding.kind} of {finding.where}: not repaired: {error}")
            return False
        self.repaired.append(finding.kind)
        self._schedule.log("doctor", f"{finding.kind} of {finding.where}: {finding.repair}")
        return True

    def _dead_letters(self) -> tuple[DeadLetterRecord, ...]:
        node = self._schedule.node
        dead_letters = [
            read_dead_letter(FakeDelivery(node, node.queues[DEAD], stored), place)
            for place, stored in enumerate(node.queues[DEAD].ready)
        ]
        return tuple(
            DeadLetterRecord(one.id, one.handler, one.reason, one.migration_id, one.failed_at)
            for one in dead_letters
        )

    def _slow(self, port: Any, *, of_journal: bool = False) -> Any:
        return Slow(self._schedule, port, of_journal=of_journal)


class Slow:
    """A port whose every call takes time, so that consumers act meanwhile."""

    def __init__(self, schedule: Schedule, port: Any, *, of_journal: bool) -> None:
        self._schedule = schedule
        self._port = port
        self._of_journal = of_journal

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._port, method)

        async def slowly(*arguments: Any, **named: Any) -> Any:
            await self._schedule.loop.sleep(self._schedule.random.expovariate(1 / PAUSE))
            if self._of_journal:
                self._schedule.faults.require_journal()
            return await call(*arguments, **named)

        return slowly


class WorldBackupInventory:
    """Port `BackupInventory` on the backups of a `World`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def entries(self) -> list[BackupEntry]:
        found = {
            name if backup.sealed else f".{name}.partial" for name, backup in self._world.backups.items()
        }
        read_ = [(name, of) for name in sorted(found) if (of := read(name))]
        return [BackupEntry(name, of[0], WHEN, of[1], of[2]) for name, of in read_]

    async def remove(self, name: str) -> None:
        self._world.backups.pop(name.removeprefix(".").removesuffix(".partial"), None)
