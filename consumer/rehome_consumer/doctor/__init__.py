"""The reconciler: compares what is claimed with what is, and repairs what is safe to repair.

`look` sees everything and changes nothing; `migrations`, `instances` and `servers` are pure: what was seen in,
findings out; `repair` acts on findings, with the instance's claim held; `rounds` looks every few minutes inside
the consumer and only tells. `forecast` says what a replay or a rollback would do, from what was seen.
"""
