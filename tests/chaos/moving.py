"""One customer's move in a test: where it is held up, what is done to the world, and how it must end."""

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


@dataclass
class Move:
    """Used in this order: `begin`, `at` or `during`, whatever the test does, `ends`."""

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
            odoo: with Odoo's whole demonstration database, so that copies take seconds.
            order: for the consumer.
            publish: the upgrade; else `publish` does it later.
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

    async def there(self) -> None:
        """Return when the order was obeyed."""

        async def obeyed() -> bool:
            return self.arena.orders.obeyed

        await wait_until(obeyed, what="the consumer to get there", limit=PLACE_SECONDS, pause=0.005)

    def go_on(self) -> None:
        """Release what is held."""
        self.arena.orders.release()

    async def ends(self, kind: str, *, limit: float = END_SECONDS) -> CloudEvent[Any]:
        """Wait for this end and for rest, and require that everything holds; the last event."""
        assert self._writers is not None
        assert self._watch is not None
        assert self._before is not None
        last = await self.arena.subscriber.wait_for(kind, instance_id=self.site.id, limit=limit)
        await self.arena.wait_until_quiet(limit=limit)
        await self._writers.wait_acknowledged(2)
        await self._stack.aclose()
        found = await breaches(
            self.arena, self.site, self._before, self._watch, self._writers, logged=self._logged
        )
        assert found == []
        return last

    async def history(self) -> str:
        """What the journal tells an operator, as text."""
        async with self.arena.platform() as platform:
            rows = await platform.fetch(
                "SELECT what, detail FROM rehome.history h JOIN rehome.migrations m ON m.id = migration_id "
                "WHERE instance_id = $1 ORDER BY seq",
                self.site.id,
            )
        return "\n".join(f"{row['what']}: {row['detail']}" for row in rows)

    async def waited(self, words: str, *, limit: float = 180.0) -> None:
        """Return when the journal tells an operator these words."""

        async def there() -> bool:
            return words in await self.history()

        await wait_until(there, what=f"the history to say {words!r}", limit=limit, pause=0.2)

    async def failed(self, *, limit: float = END_SECONDS) -> str:
        """The message of the `migration.failed` that comes."""
        event = await self.arena.subscriber.wait_for(
            "migration.failed", instance_id=self.site.id, limit=limit
        )
        return f"{event.data.step}: {event.data.message}"

    async def said(self, words: str, *, limit: float = 180.0) -> None:
        """Return when a consumer has said this in its log."""

        async def there() -> bool:
            return words in self.log()

        await wait_until(there, what=f"a consumer to say {words!r}", limit=limit, pause=0.1)

    def log(self) -> str:
        """What consumers have said since `begin`."""
        return self.arena.log.read_bytes()[self._logged :].decode(errors="replace")

    async def dedicated_cluster(self) -> Cluster:
        """The server that database-service made for this customer."""
        server = await self.arena.dedicated(self.site)
        assert server is not None
        return self.arena.local.database_service.cluster(server["id"])

    async def close(self) -> None:
        """Take the customer away."""
        await self._stack.aclose()
        await self.arena.stop_consumers()
        if self._site is not None:
            await self.arena.remove_site(self._site)


def hold(boundary: str, nth: int = 1) -> Order:
    """Let the consumer wait at this boundary until the test has done what it does."""
    return Order("hold", boundary, nth)


def shortly_after(boundary: str, seconds: float) -> Order:
    """Tell when the consumer is so far inside the call that begins at this boundary."""
    return Order("report", boundary, later=seconds)
