"""An open connection to RabbitMQ, and the errors by which it is lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aio_pika
import aiormq.exceptions
from aio_pika.exceptions import AMQPError
from yarl import URL

from rehome_consumer.errors import Unreachable
from rehome_consumer.network.tls import explained
from rehome_events.amqp_properties import read_any_message
from rehome_events.client.connection import ClosedIfUnopened

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractRobustConnection

log = logging.getLogger(__name__)

HEARTBEAT: Final = 30  # seconds
RECONNECT_AFTER: Final = 1  # seconds
LOST: Final = (
    AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    ConnectionError,
    RuntimeError,  # "Connection was not opened", "Writer is None": aiormq just after a loss
)


class _Connection(ClosedIfUnopened, aio_pika.RobustConnection):
    """A robust connection that is closed when it could not be opened."""


@asynccontextmanager
async def connected(
    url: str, *, name: str, tls: ssl.SSLContext | None = None, within: float = 30.0
) -> AsyncIterator[AbstractRobustConnection]:
    """An open robust connection with a heartbeat.

    Args:
        url: amqp:// or amqps:// with the virtual host.
        name: shown in the broker's list of connections.
        tls: for amqps://, from `tls.broker_context`.
        within: seconds the first connection may take.

    Raises:
        Unreachable: no broker there, or it refuses the login; the text never holds the password.
    """
    read_any_message()
    address = URL(url).update_query(heartbeat=str(HEARTBEAT))
    port = address.port or (5671 if address.scheme == "amqps" else 5672)
    shown = f"{address.host}:{port}{address.path}"
    try:
        async with asyncio.timeout(within):
            connection = await aio_pika.connect_robust(
                address,
                client_properties={"connection_name": name},
                reconnect_interval=RECONNECT_AFTER,
                ssl_context=tls,
                connection_class=_Connection,
            )
    except TimeoutError:
        raise Unreachable(f"RabbitMQ at {shown} did not answer within {within:g} s") from None
    except (*LOST, OSError) as error:
        raise Unreachable(f"RabbitMQ at {shown}: {explained(error) or _at_once(error, address)}") from error
    try:
        yield connection
    finally:
        await close(connection)


def _at_once(error: BaseException, address: URL) -> str:
    """Why there was no connection; a broker that hangs up at once gives no reason, so the usual cause is added."""
    text = str(error) or type(error).__name__
    if not isinstance(error.__cause__, ConnectionResetError):
        return text
    usual = "was the client certificate refused?" if address.scheme == "amqps" else "does it need amqps://?"
    return f"{text}; {usual}"


async def close(thing: Any) -> None:
    """Close a channel or connection, whatever state it is in, within five seconds."""
    try:
        async with asyncio.timeout(5):
            await thing.close()
    except (*LOST, OSError, TimeoutError) as error:
        log.debug("close.failed error=%s", error)
