"""Billing, as far as a move sees it: publishes a paid upgrade, and may have written to the records before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from rehome_events.client.publisher import Publisher, plan_upgraded

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_events.billing import PlanUpgraded
    from rehome_events.envelope import CloudEvent

CONNECT_LIMIT_SECONDS = 10.0

ENTITLEMENTS = """
    SELECT cpu_limit::float, memory_limit, storage_limit, db_type FROM plan_entitlements
     WHERE plan_name = $1 AND effective_date <= now() ORDER BY effective_date DESC LIMIT 1
"""
WRITE_AHEAD = """
    UPDATE instances SET db_type = $2, cpu_limit = $3, memory_limit = $4, storage_limit = $5 WHERE id = $1
"""


class Billing:
    """The billing service of a sandbox.

    Args:
        amqp_url: a broker's, as a user who may publish to exchange `billing`.
        instance_dsn: of the platform's database `instance`.
        billing_dsn: of the platform's database `billing`.
    """

    def __init__(self, amqp_url: str, instance_dsn: str, billing_dsn: str) -> None:
        self._amqp_url = amqp_url
        self._instance_dsn = instance_dsn
        self._billing_dsn = billing_dsn

    async def upgrade(
        self, instance_id: UUID, to_plan: str, *, with_entitlements: bool = True, write_ahead: bool = False
    ) -> CloudEvent[PlanUpgraded]:
        """A customer has paid: publish `plan.upgraded` and return it once the broker has confirmed.

        Args:
            instance_id: the customer's instance.
            to_plan: a plan of `plan_entitlements`, such as `premium-monthly`.
            with_entitlements: whether the event says what the plan grants; if not, the consumer looks it up.
            write_ahead: write limits and `db_type` into the instance's record first, as the real one may.

        Raises:
            LookupError: no such instance or plan.
            EventError: the event could not be published (`rehome_events.errors`).
        """
        instance = await _row(self._instance_dsn, "SELECT * FROM instances WHERE id = $1", instance_id)
        granted = await _row(self._billing_dsn, ENTITLEMENTS, to_plan)
        event = plan_upgraded(
            instance_id=instance_id,
            customer_id=instance["customer_id"],
            subscription_id=instance["subscription_id"],
            from_plan=f"{instance['plan_tier']}-monthly",
            to_plan=to_plan,
            plan_tier=to_plan.partition("-")[0],
            entitlements=granted if with_entitlements else None,
        )
        if write_ahead:
            limits = (granted["cpu_limit"], granted["memory_limit"], granted["storage_limit"])
            connection = await asyncpg.connect(self._instance_dsn, timeout=CONNECT_LIMIT_SECONDS)
            try:
                await connection.execute(WRITE_AHEAD, instance_id, granted["db_type"], *limits)
            finally:
                await connection.close(timeout=CONNECT_LIMIT_SECONDS)
        await self.publish(event)
        return event

    async def publish(self, event: CloudEvent[PlanUpgraded]) -> None:
        """Publish an event, for instance the same one again."""
        async with Publisher(self._amqp_url, name="sandbox.platform.billing") as publisher:
            await publisher.publish(event)


async def _row(dsn: str, query: str, key: object) -> dict[str, Any]:
    connection = await asyncpg.connect(dsn, timeout=CONNECT_LIMIT_SECONDS)
    try:
        row = await connection.fetchrow(query, key)
    finally:
        await connection.close(timeout=CONNECT_LIMIT_SECONDS)
    if row is None:
        raise LookupError(f"billing finds no row for {key}")
    return dict(row)
