"""From the outbox to the broker: committed events are published, in order per migration.

The consumer that commits an event publishes it at once, from what it has in hand (`publish`). That the broker confirmed
it is recorded with the next transaction that begins a step, whichever that is, or soon by itself (`flush`). What a
crash, or a broker that does not answer, leaves behind, every relay finds in the outbox (`sweep`): such an event may be
published twice, with the same id.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rehome_consumer import saga
from rehome_consumer.errors import RehomeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from rehome_consumer.ports.engine import Broker, Journal, OutboxRow

log = logging.getLogger(__name__)

HANDLED = frozenset(step.on.TYPE for step in saga.MIGRATION)
"""Events that must reach a handler's queue; others may have no subscriber."""


RECORD_WITHIN = 0.5
"""Seconds after which a confirm is recorded by itself when no transaction took it along."""


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
        self._must_look = True
        self._confirmed: list[OutboxRow] = []
        self._is_due_soon = False
        self._held_up: set[UUID] = set()

    async def publish(self, rows: Sequence[OutboxRow]) -> None:
        """Publish events that this consumer has just committed and that are left to it, in order.

        Raises:
            RehomeError: the broker did not take one; it and the later ones stay in the outbox.
        """
        for row in rows:
            await self._publish(row)
            self._confirmed.append(row)
            if not self._is_due_soon:
                self._is_due_soon = True
                asyncio.get_running_loop().call_later(RECORD_WITHIN, self._due)

    async def send(self, migration_id: UUID) -> None:
        """Publish this migration's unsent events. Nothing while another relay publishes them.

        Raises:
            RehomeError: the broker did not take one; it and the later ones stay in the outbox.
        """
        await self.flush()
        failure: RehomeError | None = None
        async with self._journal.sending(migration_id) as sending:
            for row in sending.rows:
                try:
                    await self._publish(row)
                except RehomeError as error:
                    failure = error
                    break
                sending.confirmed.append(row.seq)
        if failure is not None:
            raise failure

    async def _publish(self, row: OutboxRow) -> None:
        await self._probe(f"publish.{row.routing_key}.before")
        mandatory = row.routing_key in HANDLED
        await self._broker.publish(row.exchange, row.routing_key, row.message, mandatory=mandatory)
        await self._probe(f"publish.{row.routing_key}.confirmed")
        log.info("event.published type=%s migration=%s", row.routing_key, row.migration_id)

    def _due(self) -> None:
        self._is_due_soon = False
        if self._confirmed:
            self._wake.set()

    def take_confirmed(self) -> list[OutboxRow]:
        """Events whose confirm is not recorded yet: the caller records them, or gives them back."""
        taken, self._confirmed = self._confirmed, []
        return taken

    def give_back(self, rows: Sequence[OutboxRow]) -> None:
        """They could not be recorded."""
        self._confirmed[:0] = rows

    async def flush(self) -> None:
        """Record the confirms that no other transaction has recorded."""
        rows = self.take_confirmed()
        if not rows:
            return
        try:
            await self._journal.sent(rows)
        except BaseException:
            self.give_back(rows)
            raise

    def wake(self, migration_id: UUID | None = None) -> None:
        """Make `run` sweep now: there is something to send, of this migration even if it is left to this consumer."""
        if migration_id is not None:
            self._held_up.add(migration_id)
        self._must_look = True
        self._wake.set()

    async def sweep(self) -> int:
        """Publish everything that is unsent and that no consumer has in hand.

        Returns:
            For how many migrations that failed.
        """
        await self.flush()
        failed = 0
        for migration_id in dict.fromkeys((*self._held_up, *await self._journal.unsent())):
            try:
                await self.send(migration_id)
                self._held_up.discard(migration_id)
            except RehomeError as error:
                failed += 1
                log.warning("relay.held_up migration=%s error=%s", migration_id, error)
        return failed

    async def run(self, every: float = 5.0) -> None:
        """Sweep when woken, and every so many seconds in any case; record confirms soon. Never ends."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            try:
                if self._must_look or clock() >= due:
                    self._must_look, due = False, clock() + every
                    await self.sweep()
                else:
                    await self.flush()
            except RehomeError as error:
                log.warning("relay.no_journal error=%s", error)
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
