"""Uses opensearch-py and the package `events` that it brings; prints where that one is."""

import importlib

opensearchpy, events = map(importlib.import_module, ("opensearchpy", "events"))
received: list[str] = []
hub = events.Events()
hub.on_change += received.append
hub.on_change("changed")
assert received == ["changed"]
assert opensearchpy.OpenSearch
print(events.__path__[0])  # noqa: T201 - the same
