"""One event in several versions: what is published while readers move from one version to the next."""

from typing import Any

from rehome_events.catalog import lookup
from rehome_events.envelope import CloudEvent, schema_urn


def in_every_version(event: CloudEvent[Any]) -> tuple[CloudEvent[Any], ...]:
    """The event in every version in which it is published now, newest first.

    All have the same id: they say the same, and a reader that knows several needs only the first that comes.
    """
    found = [event]
    while (older := lookup(event.type, found[-1].data.VERSION).older) is not None:
        data = older(found[-1].data)
        changed = {"data": data, "dataschema": schema_urn(data.TYPE, data.VERSION)}
        found.append(found[-1].model_copy(update=changed))
    return tuple(found)
