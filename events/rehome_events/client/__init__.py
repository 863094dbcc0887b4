"""Publishing and following events on RabbitMQ: `Publisher` for billing, `Subscriber` for everybody else."""

from rehome_events.client.dedup import Dedup, RecentEvents
from rehome_events.client.publisher import Publisher, plan_upgraded
from rehome_events.client.subscriber import Handler, Reject, Subscriber
from rehome_events.errors import BrokerError, EventError, NotRouted, PublishTimeout, Refused, Unreachable

__all__ = [
    "BrokerError",
    "Dedup",
    "EventError",
    "Handler",
    "NotRouted",
    "PublishTimeout",
    "Publisher",
    "RecentEvents",
    "Refused",
    "Reject",
    "Subscriber",
    "Unreachable",
    "plan_upgraded",
]
