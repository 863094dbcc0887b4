"""Declares exchanges, queues and bindings on a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiormq.exceptions
from aio_pika import ExchangeType

from rehome_consumer.adapters.rabbitmq.connection import LOST
from rehome_consumer.errors import Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aio_pika.abc import AbstractRobustConnection


async def declare(connection: AbstractRobustConnection, wanted: Mapping[str, Any]) -> None:
    """Declare everything in a definitions document, in order; what exists already stays.

    Raises:
        Refused: something exists with other arguments, or the user may not configure; names it.
        Unreachable: the connection was lost.
    """
    at = ""
    try:
        channel = await connection.channel()
        for exchange in wanted["exchanges"]:
            at = f"exchange {exchange['name']}"
            await channel.declare_exchange(exchange["name"], ExchangeType(exchange["type"]), durable=True)
        for queue in wanted["queues"]:
            at = f"queue {queue['name']}"
            await channel.declare_queue(queue["name"], durable=True, arguments=queue["arguments"])
        for binding in wanted["bindings"]:
            at = f"binding {binding['source']} -> {binding['destination']} ({binding['routing_key']})"
            queue = await channel.get_queue(binding["destination"], ensure=False)
            await queue.bind(binding["source"], routing_key=binding["routing_key"])
        await channel.close()
    except (
        aiormq.exceptions.ChannelPreconditionFailed,
        aiormq.exceptions.ChannelAccessRefused,
        aiormq.exceptions.ChannelNotFoundEntity,
    ) as error:
        raise Refused(f"{at}: {error}") from error
    except LOST as error:
        raise Unreachable(f"{at}: {error or type(error).__name__}") from error
