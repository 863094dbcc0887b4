"""The console's connection to the broker: it comes and goes, and nothing of the console waits for it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from rehome_consumer import bootstrap
from rehome_consumer.adapters.rabbitmq.queues import AmqpQueueInspector
from rehome_consumer.console.documents import Queue, Queues
from rehome_consumer.errors import RehomeError
from rehome_consumer.rabbitmq.topology import DEAD, definitions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractRobustConnection

    from rehome_consumer.settings import Settings

log = logging.getLogger(__name__)

PAUSE: Final = 5.0
"""Seconds between two attempts to connect."""
LIMIT: Final = 3.0
"""Seconds for a question about a queue."""
QUEUES: Final = tuple(queue["name"] for queue in definitions()["queues"])
NOT_SET: Final = "REHOME_AMQP_URL is not set: the console knows nothing of the broker, and replays nothing"


class BrokerLink:
    """The connection, once there is one, or why there is none."""

    def __init__(self, *, used: bool) -> None:
        """Without a setting for the broker it is not `used`."""
        self.used = used
        self.error: str | None = "it is being connected" if used else NOT_SET
        self._connection: AbstractRobustConnection | None = None

    def trouble(self) -> str | None:
        """Why the broker cannot be asked; None: it can."""
        connection = self._connection
        if connection is None:
            return self.error
        return (
            None
            if connection.connected.is_set()
            else "the connection to the broker is lost; it is opened again"
        )

    async def dead_letters(self) -> int | None:
        """How many messages are in the queue of dead letters; None: not known."""
        if self._connection is None or self.trouble() is not None:
            return None
        try:
            found = await AmqpQueueInspector(self._connection, within=LIMIT).queues([DEAD])
        except RehomeError:
            return None
        return found[DEAD].ready if DEAD in found else None

    async def queues(self) -> Queues:
        """All queues of the topology that are there, or why that is not known."""
        trouble = self.trouble()
        if self._connection is None or trouble is not None:
            return Queues(queues=[], trouble=trouble)
        try:
            found = await AmqpQueueInspector(self._connection, within=LIMIT).queues(QUEUES)
        except RehomeError as error:
            return Queues(queues=[], trouble=str(error))
        shown = [Queue(name=name, ready=one.ready, consumers=one.consumers) for name, one in found.items()]
        return Queues(queues=shown, trouble=None)

    async def keep(self, settings: Settings) -> None:
        """Connect, however often that fails, and hold the connection until cancelled."""
        while True:
            try:
                async with bootstrap.amqp(settings, "rehome console") as connection:
                    self._connection, self.error = connection, None
                    await asyncio.Event().wait()
            except RehomeError as error:
                if self.error != str(error):
                    log.warning("console.no_broker error=%s", error)
                self.error = str(error)
            finally:
                self._connection = None
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def linked(settings: Settings) -> AsyncIterator[BrokerLink]:
    """The link, for the length of the block."""
    link = BrokerLink(used=not settings.is_left_out("amqp_url"))
    keeping = asyncio.create_task(link.keep(settings), name="broker") if link.used else None
    try:
        yield link
    finally:
        if keeping is not None:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
