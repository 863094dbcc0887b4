"""What billing publishes."""

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from rehome_events.data import CustomerId, EventData, Utc, Word
from rehome_events.parts import Entitlements


class PlanUpgraded(EventData):
    """A customer's paid upgrade took effect: the instance is to get what the new plan grants."""

    TYPE: ClassVar[str] = "plan.upgraded"

    customer_id: CustomerId
    subscription_id: UUID = Field(
        description="The subscription that was upgraded.", examples=["5ab5c0de-1a2b-4c3d-9e4f-50617283940a"]
    )
    from_plan: Word = Field(description="Name of the plan until now.", examples=["standard-monthly"])
    to_plan: Word = Field(description="Name of the plan from now on.", examples=["premium-monthly"])
    plan_tier: Word = Field(
        description="Tier of the new plan; decides which dedicated server is made.", examples=["premium"]
    )
    entitlements: Entitlements | None = Field(
        default=None,
        description="What the new plan grants; when missing, it is looked up by the plan's name.",
        examples=[{"cpu_limit": 4.0, "memory_limit": "8G", "storage_limit": "50G", "db_type": "dedicated"}],
    )
    not_before: Utc | None = Field(
        default=None,
        description="The instance is not stopped before this moment, nor outside of the platform's maintenance window; "
        "limits that need no move are applied at once.",
        examples=["2026-09-30T22:00:00Z"],
    )
    priority: int | None = Field(
        default=None,
        ge=0,
        le=9,
        description="Among the moves that wait for the same place, those of higher priority go first; as in JMS and "
        "AMQP 1.0, 4 is normal, and what a missing one counts as. A level counts as much as half a day of waiting.",
        examples=[7],
    )
