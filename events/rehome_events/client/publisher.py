"""Publish events so that none is lost: confirmed, routed, within a time limit, retried under the same id.

What aio-pika leaves to its caller, as measured on RabbitMQ 3.10 to 4.3: an event that no queue gets is dropped
silently unless it is mandatory on a channel that raises returns; a publish on a frozen broker waits for minutes;
a refused publish closes the channel. A retry may deliver twice: readers drop an id that they have handled.
"""

import asyncio
import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID, uuid4

from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import DeliveryError, PublishError
from pydantic import ValidationError

from rehome_events.billing import PlanUpgraded
from rehome_events.catalog import EventType, lookup
from rehome_events.client.arguments import require_count, require_seconds, require_text
from rehome_events.client.connection import TROUBLE, Address, close, limited, reason, refusals
from rehome_events.envelope import CloudEvent, new_event, to_message
from rehome_events.errors import BrokerError, EventError, NotRouted, PublishTimeout, Refused, Unreachable
from rehome_events.parts import Entitlements
from rehome_events.wire import complaint

_log = logging.getLogger(__name__)
_FIRST_DELAY: Final = 0.2
_LONGEST_DELAY: Final = 5.0


def plan_upgraded(
    *,
    instance_id: UUID | str,
    customer_id: UUID | str,
    subscription_id: UUID | str,
    from_plan: str,
    to_plan: str,
    plan_tier: str,
    entitlements: Entitlements | dict[str, Any] | None = None,
    not_before: datetime | None = None,
    priority: int | None = None,
    id: UUID | None = None,  # noqa: A002 - the attribute's name in CloudEvents
    time: datetime | None = None,
    source: str = "/billing",
    traceparent: str | None = None,
) -> CloudEvent[PlanUpgraded]:
    """Build the event that billing publishes when a paid upgrade took effect.

    Args:
        instance_id: The hosted Odoo instance, and so for the other ids.
        customer_id: Who owns it.
        subscription_id: What was upgraded.
        from_plan: Name of the plan until now.
        to_plan: Name of the plan from now on.
        plan_tier: Tier of the new plan, such as ``premium``.
        entitlements: What the new plan grants; None lets it be looked up by the plan's name.
        not_before: Before which the instance must not be stopped, with a time zone; None for no wish of its own.
        priority: 0 to 9; higher goes first among moves that wait for the same place. None counts as 4, which is normal.
        id: Id of the event; None for a new one. Keep it with the upgrade where a crash could publish twice.
        time: When the upgrade took effect, with a time zone; None for now.
        source: Who publishes.
        traceparent: W3C trace context, if there is a trace.

    Raises:
        EventError: A field is wrong; all wrong fields are named.
    """
    fields = {
        "instance_id": instance_id,
        "customer_id": customer_id,
        "subscription_id": subscription_id,
        "from_plan": from_plan,
        "to_plan": to_plan,
        "plan_tier": plan_tier,
        "entitlements": entitlements,
        "not_before": not_before,
        "priority": priority,
    }
    try:
        data = PlanUpgraded.model_validate(fields)
    except ValidationError as error:
        raise EventError(f"{PlanUpgraded.TYPE}: {complaint(error)}") from None
    return new_event(
        data,
        subject=data.instance_id,
        id=id or uuid4(),
        time=time or datetime.now(UTC),
        source=source,
        traceparent=traceparent,
    )


class Publisher:
    """A connection that publishes events, one at a time, in the order of the calls.

    Use it as an asynchronous context manager; it reconnects by itself.

    Args:
        url: ``amqp://`` or ``amqps://user:password@host:port/vhost``.
        timeout: Limit of one try to connect or to publish, in seconds.
        tries: How often a publish is tried before it fails; delays between them grow up to 5 seconds.
        ca_file: Certificates of the authorities that sign the broker's (PEM), for ``amqps://``.
        ssl_context: Replaces the TLS context that would be made.
        name: Name of the connection in the broker's listings.

    Raises:
        EventError: The URL is malformed, or a number or the name is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        tries: int = 5,
        ca_file: Path | str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        name: str = "rehome_events.client.publisher",
    ) -> None:
        self._address = Address(url, ca_file=ca_file, ssl_context=ssl_context)
        self._timeout = require_seconds("timeout", timeout)
        self._tries = require_count("tries", tries)
        self._name = require_text("name", name)
        self._one_at_a_time = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Refused: Wrong user or password, or no access to the vhost.
            Unreachable: No connection in time.
        """
        async with self._one_at_a_time:
            try:
                await self._connected()
            except TROUBLE as error:
                await self._disconnect()
                raise Unreachable(f"no connection to {self._address}: {reason(error)}") from error
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._disconnect()

    async def publish(self, event: CloudEvent[Any]) -> None:
        """Publish an event; returns when the broker has stored it in every queue that gets it.

        Raises:
            EventError: The event is not valid; nothing was sent.
            NotRouted: No queue is bound for it. An event that wakes no handler may have no queue.
            Refused: The broker refused: permission, missing exchange, full queue.
            PublishTimeout: Not confirmed; publish the same event again later.
            Unreachable: No connection, after all tries.
        """
        message = to_message(event)
        entry = lookup(event.type)
        sent = False
        async with self._one_at_a_time:
            for number in range(1, self._tries + 1):
                try:
                    await self._try(message, entry)
                except NotRouted:
                    raise
                except BrokerError:
                    await self._disconnect()
                    raise
                except TROUBLE as error:
                    sent = sent or self._channel is not None
                    await self._disconnect()
                    if number == self._tries:
                        raise self._failure(error, event, sent=sent) from error
                    _log.warning("publish.retry id=%s try=%d error=%s", event.id, number, reason(error))
                    await asyncio.sleep(min(_FIRST_DELAY * 2 ** (number - 1), _LONGEST_DELAY))
                else:
                    return

    async def _try(self, message: Message, entry: EventType) -> None:
        channel = await self._connected()
        place = f"exchange {entry.exchange!r} of {self._address}"
        try:
            with refusals(f"take {entry.type} into {place}"):
                exchange = await limited(channel.get_exchange(entry.exchange, ensure=False), self._timeout)
                await limited(
                    exchange.publish(message, entry.type, mandatory=entry.next is not None), self._timeout
                )
        except PublishError as error:
            raise NotRouted(f"{entry.type} was returned: no queue is bound for it to {place}") from error

    def _failure(self, error: Exception, event: CloudEvent[Any], *, sent: bool) -> BrokerError:
        what = f"{event.type} {event.id}"
        if isinstance(error, DeliveryError):
            return Refused(f"{self._address} did not take {what}: a queue for it is full or failing")
        if sent:
            missing = f"{self._address} did not confirm {what} within {self._timeout} s, {self._tries} times"
            return PublishTimeout(f"{missing} ({reason(error)}): publish it again, with its id")
        return Unreachable(f"{what} was not published: no connection to {self._address}: {reason(error)}")

    async def _connected(self) -> AbstractChannel:
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        await self._disconnect()
        self._connection = await self._address.connect(self._name, self._timeout)
        opening = self._connection.channel(publisher_confirms=True, on_return_raises=True)
        await limited(opening.initialize(timeout=self._timeout), self._timeout)
        self._channel = opening
        return opening

    async def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await close(connection)
