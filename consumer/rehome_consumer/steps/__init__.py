"""The steps of a migration, one module each. Their order stands in `rehome_consumer.saga` alone.

A step is `run(event, ports) -> event data`: look, decide, act through ports in a way that may be
repeated, tell. `undo(event, ports) -> leftovers` puts back what it changed and is safe to call when it
changed nothing. No acknowledgement, retry, publish, transaction or sleep stands in a step.
"""
