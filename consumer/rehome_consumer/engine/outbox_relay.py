"""From the outbox to the broker: committed events are published, in order per migration."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rehome_consumer import saga
from rehome_consumer.errors import RehomeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from rehome_consumer.ports.engine import Broker, Journal

log = logging.getLogger(__name__)

HANDLED = frozenset(step.on.TYPE for step in saga.MIGRATION)
"""Events that must reach a handler's queue; others may have no subscriber."""


async def nothing(boundary: str) -> None:
    """The default of `probe`."""


class Relay:
    """Publishes what is in the outbox; a repeat carries the same message id."""

    def __init__(
        self, journal: Journal, broker: Broker, *, probe: Callable[[str], Awaitable[None]] = nothing
    ) -> None:
        """Take the journal and the broker; `probe` is called at each boundary (for crash tests)."""
        self._journal = journal
        self._broker = broker
        self._probe = probe
        self._wake = asyncio.Event()

    async def send(self, migration_id: UUID) -> None:
        """Publish this migration's unsent events. Nothing while another relay publishes them.

        Raises:
            RehomeError: the broker did not take one; it and the later ones stay in the outbox.
        """
        failure: RehomeError | None = None
        async with self._journal.sending(migration_id) as sending:
            for row in sending.rows:
                try:
                    await self._probe(f"publish.{row.routing_key}.before")
                    await self._broker.publish(
                        row.exchange, row.routing_key, row.message, mandatory=row.routing_key in HANDLED
                    )
                except RehomeError as error:
                    failure = error
                    break
                await self._probe(f"publish.{row.routing_key}.confirmed")
                sending.confirmed.append(row.seq)
                log.info("event.published type=%s migration=%s", row.routing_key, migration_id)
        if failure is not None:
            raise failure

    def wake(self) -> None:
        """Make `run` sweep now: there is something to send."""
        self._wake.set()

    async def sweep(self) -> int:
        """Publish everything that is unsent; returns for how many migrations that failed."""
        failed = 0
        for migration_id in await self._journal.unsent():
            try:
                await self.send(migration_id)
            except RehomeError as error:
                failed += 1
                log.warning("relay.held_up migration=%s error=%s", migration_id, error)
        return failed

    async def run(self, every: float = 5.0) -> None:
        """Sweep when woken, and every so many seconds in any case; never ends."""
        while True:
            try:
                await self.sweep()
            except RehomeError as error:
                log.warning("relay.no_journal error=%s", error)
            try:
                async with asyncio.timeout(every):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
