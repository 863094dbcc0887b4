"""Publishing and following events on RabbitMQ: `Publisher` for billing, `Subscriber` for everybody else."""

from rehome_events.client.publisher import Publisher
from rehome_events.client.subscriber import Subscriber

__all__ = ["Publisher", "Subscriber"]
