"""The queue of dead letters, as a tool reads it: look at all, take out those that were dealt with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiormq.exceptions

from consumer.adapters.broker import LOST, AmqpDelivery
from consumer.errors import Refused, TimedOut, Unreachable
from consumer.topology import DEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractRobustConnection


class DeadLetters:
    """The dead letters. Nothing leaves the queue without an acknowledgement, also if the tool dies."""

    def __init__(self, connection: AbstractRobustConnection, *, within: float = 30.0) -> None:
        """Take an open connection, and how long (seconds) reading may take."""
        self._connection = connection
        self._within = within

    @asynccontextmanager
    async def held(self) -> AsyncIterator[list[AmqpDelivery]]:
        """All letters, held back from other tools; those not acknowledged return at the end.

        Raises:
            Unreachable: the connection was lost.
            TimedOut: reading them took too long.
            Refused: there is no such queue, or this user may not read it.
        """
        channel = await self._connection.channel()
        try:
            queue = await channel.get_queue(DEAD, ensure=False)
            letters: list[AmqpDelivery] = []
            async with asyncio.timeout(self._within):
                while (message := await queue.get(fail=False)) is not None:
                    letters.append(AmqpDelivery(message))
            yield letters
        except TimeoutError:
            raise TimedOut(f"reading queue {DEAD} took longer than {self._within:g} s") from None
        except (aiormq.exceptions.ChannelNotFoundEntity, aiormq.exceptions.ChannelAccessRefused) as error:
            raise Refused(f"queue {DEAD}: {error}") from error
        except LOST as error:
            raise Unreachable(f"queue {DEAD}: {error or type(error).__name__}") from error
        finally:
            if not channel.is_closed:
                await channel.close()
