"""Each of the broker's users may do what its role needs, and nothing else, on a real node."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from rehome_events.client.connection import ClosedIfUnopened
from sandbox.rabbitmq.node import BrokerNode
from tests.support.amqp import (
    Attempt,
    bind,
    bind_exchange,
    consume,
    declare,
    declare_exchange,
    delete,
    empty,
    publish,
    read,
    unbind,
)
from tests.support.broker_users import apply_users, password, write_users

# What is attempted: the user, the resource that is refused, the attempt.
# fmt: off
REFUSED: dict[str, tuple[str, str, Attempt]] = {
    "billing publishes migration.completed": (
        "billing", "exchange 'migration'", publish("migration", "migration.completed")),
    "billing publishes it on its own exchange": (
        "billing", "topic 'migration.completed'", publish("billing", "migration.completed")),
    "billing puts an event into a handler's queue": (
        "billing", "exchange 'amq.default'", publish("", "migration.h.restore")),
    "billing sends an event to a handler": (
        "billing", "exchange 'migration.handler'", publish("migration.handler", "restore")),
    "billing reads a handler's queue": ("billing", "queue 'migration.h.accept'", read("migration.h.accept")),
    "billing consumes from a handler's queue": (
        "billing", "queue 'migration.h.accept'", consume("migration.h.accept")),
    "billing reads the dead letters": ("billing", "queue 'migration.dead'", read("migration.dead")),
    "billing declares a queue": ("billing", "queue 'billing'", declare("billing")),
    "billing declares an exchange": ("billing", "exchange 'billing.more'", declare_exchange("billing.more")),
    "billing binds a queue": (
        "billing", "queue 'migration.h.accept'", bind("migration.h.accept", "billing", "#")),
    "a subscriber binds #": ("crm", "topic '#'", bind("sub_crm.own", "migration", "#")),
    "a subscriber binds a pattern": (
        "crm", "topic 'migration.*'", bind("sub_crm.own", "migration", "migration.*")),
    "a subscriber binds a key it may not see": (
        "crm", "topic 'migration.failed'", bind("sub_crm.own", "migration", "migration.failed")),
    "a subscriber binds an exchange to #": (
        "crm", "topic '#'", bind_exchange("sub_crm.own", "migration", "#")),
    "a subscriber binds to billing's exchange": (
        "crm", "exchange 'billing'", bind("sub_crm.own", "billing", "plan.upgraded")),
    "a subscriber binds to the dead letters": (
        "crm", "exchange 'migration.dead'", bind("sub_crm.own", "migration.dead", "")),
    "a subscriber reads another's queue": ("crm", "queue 'sub_shop.own'", read("sub_shop.own")),
    "a subscriber deletes another's queue": ("crm", "queue 'sub_shop.own'", delete("sub_shop.own")),
    "a subscriber binds another's queue": (
        "crm", "queue 'sub_shop.own'", bind("sub_shop.own", "sub_crm.own", "#")),
    "a subscriber reads a handler's queue": (
        "crm", "queue 'migration.h.restore'", read("migration.h.restore")),
    "a subscriber reads the dead letters": ("crm", "queue 'migration.dead'", read("migration.dead")),
    "a subscriber publishes an event of the migration": (
        "crm", "exchange 'migration'", publish("migration", "migration.completed")),
    "a subscriber publishes an upgrade": ("crm", "exchange 'billing'", publish("billing", "plan.upgraded")),
    "a subscriber sends to a handler": (
        "crm", "exchange 'migration.handler'", publish("migration.handler", "restore")),
    "a subscriber puts into a handler's queue": (
        "crm", "exchange 'amq.default'", publish("", "migration.h.restore")),
    "a subscriber declares under another name": ("crm", "queue 'crm'", declare("crm")),
    "a subscriber declares under the saga's name": ("crm", "queue 'migration.h.more'", declare("migration.h.more")),
    "a subscriber dead-letters into the handlers": (
        "crm", "exchange 'migration.handler'", declare("sub_crm.trap", dead_letter_exchange="migration.handler")),
    "a subscriber's exchange falls back to the migration's": (
        "crm", "exchange 'migration'", declare_exchange("sub_crm.trap", alternate_exchange="migration")),
    "a subscriber binds a handler's queue to its exchange": (
        "crm", "queue 'migration.h.restore'", bind("migration.h.restore", "sub_crm.own", "#")),
    "the consumer publishes for billing": (
        "migrator", "exchange 'billing'", publish("billing", "plan.upgraded")),
    "the consumer publishes a type that is not its own": (
        "migrator", "topic 'plan.upgraded'", publish("migration", "plan.upgraded")),
    "the consumer sends to a handler": (
        "migrator", "exchange 'migration.handler'", publish("migration.handler", "restore")),
    "the consumer puts into a queue": (
        "migrator", "exchange 'amq.default'", publish("", "migration.h.restore")),
    "the consumer declares a queue": ("migrator", "queue 'migration.h.more'", declare("migration.h.more")),
    "the consumer declares an exchange": (
        "migrator", "exchange 'migration.more'", declare_exchange("migration.more")),
    "the consumer deletes a queue": (
        "migrator", "queue 'migration.h.restore'", delete("migration.h.restore")),
    "the consumer reads the dead letters": ("migrator", "queue 'migration.dead'", read("migration.dead")),
    "the consumer reads a delay": ("migrator", "queue 'migration.retry.1s'", read("migration.retry.1s")),
    "the consumer binds a queue": (
        "migrator", "queue 'migration.h.restore'", bind("migration.h.restore", "migration", "#")),
    "an operator reads a handler's queue": (
        "operator", "queue 'migration.h.restore'", read("migration.h.restore")),
    "an operator consumes from a handler's queue": (
        "operator", "queue 'migration.h.restore'", consume("migration.h.restore")),
    "an operator empties a handler's queue": (
        "operator", "queue 'migration.h.restore'", empty("migration.h.restore")),
    "an operator reads a delay": ("operator", "queue 'migration.retry.1s'", read("migration.retry.1s")),
    "an operator publishes an event": (
        "operator", "exchange 'migration'", publish("migration", "migration.failed")),
    "an operator publishes an upgrade": (
        "operator", "exchange 'billing'", publish("billing", "plan.upgraded")),
    "an operator publishes a dead letter": (
        "operator", "exchange 'migration.dead'", publish("migration.dead", "restore")),
    "an operator unbinds the dead letters": (
        "operator", "queue 'migration.dead'", unbind("migration.dead", "migration.dead", "")),
    "an operator declares a queue": ("operator", "queue 'operator'", declare("operator")),
}
# fmt: on

ALLOWED: dict[str, tuple[str, Attempt]] = {
    "a subscriber binds a key it may see": ("crm", bind("sub_crm.own", "migration", "migration.rolled_back")),
    "a subscriber binds its exchange to such a key": (
        "crm",
        bind_exchange("sub_crm.own", "migration", "migration.completed"),
    ),
    "a subscriber publishes to its own exchange": ("crm", publish("sub_crm.own", "anything")),
    "a subscriber empties its own queue": ("crm", empty("sub_crm.own")),
    "an operator reads the dead letters": ("operator", read("migration.dead")),
}


@pytest.fixture(scope="module")
async def node(broker: BrokerNode, scratch: Path) -> AsyncIterator[BrokerNode]:
    """The node with users as the command line creates them; subscribers crm and shop have a queue each."""
    directory = scratch / "permissions"
    directory.mkdir()
    await apply_users(broker, write_users(directory))
    for team in ("crm", "shop"):
        async with await open_connection(broker, team) as connection:
            channel = await connection.channel()
            await channel.declare_queue(f"sub_{team}.own", durable=True)
            await declare_exchange(f"sub_{team}.own")(channel)
    yield broker
    async with await aio_pika.connect(
        broker.url(), timeout=10, connection_class=ClosedIfUnopened
    ) as connection:
        channel = await connection.channel()
        for team in ("crm", "shop"):
            await channel.queue_delete(f"sub_{team}.own")
            await channel.exchange_delete(f"sub_{team}.own")
        await (await channel.get_queue("migration.h.accept", ensure=False)).purge()


async def open_connection(node: BrokerNode, user: str) -> aio_pika.abc.AbstractConnection:
    return await aio_pika.connect(
        node.url(user, password=password(user)), timeout=10, connection_class=ClosedIfUnopened
    )


async def confirming(connection: aio_pika.abc.AbstractConnection) -> AbstractChannel:
    return await connection.channel(publisher_confirms=True, on_return_raises=True)


@pytest.mark.parametrize(("user", "what", "attempt"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_a_role_does_not_need_is_refused(
    node: BrokerNode, user: str, what: str, attempt: Attempt
) -> None:
    async with await open_connection(node, user) as connection:
        channel = await confirming(connection)
        refusal = rf"access to {re.escape(what)} .*refused for user '{user}'"
        with pytest.raises(ChannelAccessRefused, match=refusal):
            await attempt(channel)

        assert channel.is_closed
        assert not (await confirming(connection)).is_closed, "only the channel is lost, not the connection"


@pytest.mark.parametrize(("user", "attempt"), ALLOWED.values(), ids=ALLOWED.keys())
async def test_what_a_role_needs_is_allowed(node: BrokerNode, user: str, attempt: Attempt) -> None:
    async with await open_connection(node, user) as connection:
        channel = await connection.channel()
        await attempt(channel)

        assert not channel.is_closed


async def test_a_user_is_confined_to_the_virtual_host(node: BrokerNode) -> None:
    url = node.url("migrator", password=password("migrator"), vhost="/")
    with pytest.raises(aio_pika.exceptions.CONNECTION_EXCEPTIONS):
        await aio_pika.connect(url, timeout=10, connection_class=ClosedIfUnopened)


def test_the_document_says_how_many_things_are_refused() -> None:
    page = Path(__file__).parents[2] / "docs" / "security.md"
    assert f"tries {len(REFUSED)} things" in page.read_text()
