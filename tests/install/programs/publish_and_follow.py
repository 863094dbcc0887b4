"""Billing publishes an upgrade; another team follows a made-up migration."""

import asyncio
import os
from typing import Any
from uuid import uuid4

from rehome_events.client import Publisher, Subscriber, plan_upgraded
from rehome_events.envelope import CloudEvent
from rehome_events.migration import MigrationCompleted
from rehome_events.testing import Story
from rehome_events.tools.mock import play

LIMIT = 30.0


async def publish(url: str) -> None:
    """As billing does."""
    event = plan_upgraded(
        instance_id=uuid4(),
        customer_id=uuid4(),
        subscription_id=uuid4(),
        from_plan="standard-monthly",
        to_plan="premium-monthly",
        plan_tier="premium",
        entitlements={"cpu_limit": "4.0", "db_type": "dedicated"},
    )
    async with Publisher(url) as publisher:
        await publisher.publish(event)
    print("published")  # noqa: T201 - this is what it is for


async def follow(url: str, player_url: str) -> None:
    """As any team does."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handle(event: CloudEvent[Any]) -> None:
        match event.data:
            case MigrationCompleted(downtime_seconds=seconds) if seconds > 0:
                ended.set_result(event.type)

    async with Subscriber(url, handle, team="crm", name="install", types=[MigrationCompleted]) as subscriber:
        running = asyncio.create_task(subscriber.run())
        async for _ in play(player_url, Story("completed"), force=True):
            pass
        print(await asyncio.wait_for(ended, LIMIT))  # noqa: T201 - this is what it is for
        subscriber.stop()
        await asyncio.wait_for(running, LIMIT)


async def main() -> None:
    """Both."""
    await publish(os.environ["BILLING_AMQP_URL"])
    await follow(os.environ["CRM_AMQP_URL"], os.environ["EVENTS_AMQP_URL"])


if __name__ == "__main__":
    asyncio.run(main())
