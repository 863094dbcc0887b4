"""Instances as Docker Swarm services: the port `Runtime` over the engine's API (version 1.41 and newer).

Read `runtime.py` first; `engine.py` is the only file that sends requests to the engine, `spec.py` and
`resizing.py` edit definitions, `foresight.py` (with `present.py`, `nodes.py`, `fitting.py`) finds out before a stop
whether a service could start again, `serving.py` waits for an instance to serve, `tasks.py` and `diagnosis.py` judge
what tasks did, `health.py` asks the instance, `quota.py` sets storage limits.
"""

from rehome_consumer.adapters.swarm.engine import connected
from rehome_consumer.adapters.swarm.runtime import SwarmRuntime

__all__ = ["SwarmRuntime", "connected"]
