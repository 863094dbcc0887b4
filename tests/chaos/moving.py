"""One customer's move in a test: where the consumer is held, what is broken meanwhile, and how it must end."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.demo.chaos import Order
from sandbox.odoo.writers import Writers
from sandbox.system.net import wait_until
from tests.chaos.arena import PLAN
from tests.chaos.invariants import Before, breaches
from tests.chaos.watch import Watch

if TYPE_CHECKING:
    from rehome_events.envelope import CloudEvent
    from sandbox.platform.local import Site
    from sandbox.postgres.server import Cluster
    from tests.chaos.arena import Arena
    from tests.chaos.consumers import Consumer

END_SECONDS = 300.0
PLACE_SECONDS = 180.0
LOG_END = 8000
"""Characters of a log that a failure shows."""


@dataclass
class Move:
    """Used in this order: `begin`, `until_reached`, what the test breaks, `release`, `must_end`."""

    arena: Arena
    _site: Site | None = None
    _before: Before | None = None
    _watch: Watch | None = None
    _writers: Writers | None = None
    _logged: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def site(self) -> Site:
        """The customer's instance."""
        assert self._site is not None
        return self._site

    async def begin(
        self, *, odoo: bool = False, order: Order | None = None, publish: bool = True, **settings: str
    ) -> Consumer:
        """Make the customer, start a consumer under this order, and publish the upgrade.

        Args:
            odoo: with Odoo's demonstration database, so that copies take seconds.
            order: for the consumer.
            publish: publish the upgrade now; else the test calls `publish`.
            settings: of the consumer, without the prefix REHOME_.
        """
        arena = self.arena
        self._site = await arena.make_site(odoo=odoo)
        self._before = await Before.of(arena, self.site)
        self._logged = arena.log.stat().st_size if arena.log.exists() else 0
        arena.orders.give(order)
        consumer = await arena.start_consumer(**{f"REHOME_{name}": value for name, value in settings.items()})
        self._watch = await self._stack.enter_async_context(Watch(arena, self.site))
        self._writers = await self._stack.enter_async_context(Writers(self.site.url))
        await self._writers.wait_acknowledged(2)
        if publish:
            await self.publish()
        return consumer

    async def publish(self) -> None:
        """The customer has paid."""
        await self.arena.billing.upgrade(self.site.id, PLAN)

    async def until_reached(self) -> None:
        """Return when the order was carried out."""

        async def obeyed() -> bool:
            return self.arena.orders.obeyed

        await wait_until(obeyed, what="the consumer to reach the boundary", limit=PLACE_SECONDS, pause=0.005)

    def release(self) -> None:
        """Let what is held continue."""
        self.arena.orders.release()

    async def must_end(self, kind: str, *, limit: float = END_SECONDS) -> CloudEvent[Any]:
        """Wait for this event and for rest, and require that everything holds; the event."""
        assert self._writers is not None
        assert self._watch is not None
        assert self._before is not None
        try:
            last = await self.arena.subscriber.wait_for(kind, instance_id=self.site.id, limit=limit)
            await self.arena.wait_until_quiet(limit=limit)
        except TimeoutError as error:
            error.add_note(
                f"its history:\n{await self.history()}\nthe end of the log:\n{self.log()[-LOG_END:]}"
            )
            raise
        await self._writers.wait_acknowledged(2)
        await self._stack.aclose()
        found = await breaches(
            self.arena, self.site, self._before, self._watch, self._writers, logged=self._logged
        )
        assert found == []
        return last

    async def history(self) -> str:
        """The history that an operator sees, as text."""
        async with self.arena.platform() as platform:
            rows = await platform.fetch(
                "SELECT what, detail FROM rehome.history h JOIN rehome.migrations m ON m.id = migration_id "
                "WHERE instance_id = $1 ORDER BY seq",
                self.site.id,
            )
        return "\n".join(f"{row['what']}: {row['detail']}" for row in rows)

    async def until_recorded(self, words: str, *, limit: float = 180.0) -> None:
        """Return when the history has these words."""

        async def recorded() -> bool:
            return words in await self.history()

        await wait_until(recorded, what=f"the history to have {words!r}", limit=limit, pause=0.2)

    async def failure(self, *, limit: float = END_SECONDS) -> str:
        """Step and message of the `migration.failed` that must come."""
        event = await self.arena.subscriber.wait_for(
            "migration.failed", instance_id=self.site.id, limit=limit
        )
        return f"{event.data.step}: {event.data.message}"

    async def until_logged(self, words: str, *, limit: float = 180.0) -> None:
        """Return when a consumer has logged these words."""

        async def logged() -> bool:
            return words in self.log()

        await wait_until(logged, what=f"a consumer to log {words!r}", limit=limit, pause=0.1)

    def log(self) -> str:
        """The consumers' log since `begin`."""
        return self.arena.log.read_bytes()[self._logged :].decode(errors="replace")

    async def dedicated_cluster(self) -> Cluster:
        """The server that database-service made for this customer."""
        server = await self.arena.dedicated(self.site)
        assert server is not None
        return self.arena.local.database_service.cluster(server["id"])

    async def close(self) -> None:
        """Remove the customer."""
        await self._stack.aclose()
        await self.arena.stop_consumers()
        if self._site is not None:
            await self.arena.remove_site(self._site)


def hold(boundary: str, nth: int = 1) -> Order:
    """Let the consumer wait at this boundary until the test releases it."""
    return Order("hold", boundary, nth)


def shortly_after(boundary: str, seconds: float) -> Order:
    """Carried out so many seconds after this boundary: the consumer is inside the call that begins there."""
    return Order("report", boundary, later=seconds)
