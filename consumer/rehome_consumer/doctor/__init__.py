"""The reconciler: compares what is recorded with what is really there, and repairs what is safe to repair.

`observer` reads everything into a `snapshot` and changes nothing; `migrations`, `instances` and `servers` are pure:
a snapshot in, findings out; `repair` acts on findings, with the instance's claim held; `periodic` checks every few
minutes inside the consumer and only reports. `forecast` says what a replay or a rollback would do, from a snapshot.
"""
