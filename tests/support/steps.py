"""Steps run one by one on a platform of fakes, without the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer import saga
from rehome_consumer.model import NothingToDo
from rehome_consumer.move import Move
from rehome_events.migration import MigrationFailed
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.fakes.site import Site
from tests.support.events import body_of, emitted, migration_of, upgrade

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_events.data import EventData
    from rehome_events.envelope import CloudEvent
    from tests.fakes.journal import FakeFacts


class StepRig:
    """A tenant whose upgrade was published, and the facts of its migration."""

    def __init__(self, **tenant: Any) -> None:
        self.clock = FakeClock()
        self.site = Site(self.clock)
        self.journal = FakeJournal(self.clock)
        self.instance: UUID = self.site.add_tenant(**tenant)
        self.event: CloudEvent[Any] = upgrade(self.instance)

    async def opened(self, **fields: Any) -> None:
        """Open the migration; `fields` change the upgrade."""
        event = upgrade(self.instance, **fields)
        row = await self.journal.open(migration_of(event), self.instance, event, body_of(event))
        self.migration = row.id
        self.event = event.model_copy(update={"migrationid": row.id, "attempt": 1})

    async def facts(self, step: str = "accept") -> FakeFacts:
        """The facts, as a run of this step has them."""
        row = await self.journal.begin(self.journal.migrations[self.migration], step, replay=None)
        return self.journal.facts(row)

    async def move(self, step: str, event: CloudEvent[Any] | None = None) -> Move:
        """What the step is given."""
        return Move(event or self.event, self.site.ports(await self.facts(step)))

    async def run(self, step: str) -> EventData | NothingToDo:
        """Run one step on the event that wakes it; the event it emits wakes the next."""
        found = saga.named(step)
        assert found
        result = await found.run(await self.move(step))
        if not isinstance(result, NothingToDo):
            self.event = emitted(result, self.migration)
        return result

    async def until(self, step: str) -> None:
        """Run every step before this one."""
        await self.opened()
        for one in saga.MIGRATION:
            if one.name == step:
                return
            await self.run(one.name)

    async def undo(self, step: str) -> tuple[str, ...]:
        """Undo one step."""
        found = saga.named(step)
        assert found
        assert found.undo
        return await found.undo(await self.move("roll_back", self.failure(step)))

    def failure(self, step: str) -> CloudEvent[Any]:
        """The `migration.failed` of a step."""
        data = MigrationFailed(
            instance_id=self.instance, step=step, error="X", message="x", tries=1, next="roll_back"
        )
        return emitted(data, self.migration)

    async def roll_back(self, step: str) -> Any:
        """Run the step `roll_back` after a failure of `step`."""
        return await saga.ROLL_BACK.run(await self.move("roll_back", self.failure(step)))

    @property
    def record(self) -> dict[str, Any]:
        """The instance's row."""
        return self.site.platform.instances[self.instance]

    @property
    def target(self) -> Any:
        """The dedicated server itself."""
        (found,) = (there for (host, _), there in self.site.world.servers.items() if "dedicated" in host)
        return found

    @property
    def source(self) -> Any:
        """The pool itself."""
        return self.site.world.at(self.site.pool)

    @property
    def service(self) -> Any:
        """The instance's service."""
        return self.site.runtime.services["odoo-acme"]
