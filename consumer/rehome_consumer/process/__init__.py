"""The consumer as a process: the worker, its logs, its health, and the watchdog of a freeze."""
