"""The steps of a migration, one module each. Their order stands in `rehome_consumer.saga` alone.

A step is `run(move) -> event data`: look, decide, act through ports in a way that may be repeated, and return what
the event says. `undo(move) -> leftovers` undoes what it changed and is safe to call when it changed nothing. No
acknowledgement, retry, publish, transaction or sleep stands in a step.
"""
