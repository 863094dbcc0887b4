"""Celery: chains of nine tasks that do nothing; quorum queue, acks late, confirms. See `__init__.py`."""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from celery import Celery, chain
from kombu import Queue

STEPS = 9
LIMIT = 120.0
url = os.environ.get("PEER_URL") or sys.argv[1]
times = Path(os.environ.get("PEER_TIMES") or tempfile.mkstemp(prefix="celery-times-")[1])

app = Celery("celery_steps", broker=url)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    task_default_queue="peer_celery",
    task_queues=[Queue("peer_celery", queue_arguments={"x-queue-type": "quorum"})],
    worker_detect_quorum_queues=True,
    broker_transport_options={"confirm_publish": True},
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def step(move: str, number: int) -> None:
    """Nothing but its time, as one line of a file that all processes append to."""
    line = f"{move} {number} {time.perf_counter()}\n".encode()
    descriptor = os.open(times, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, line)
    os.close(descriptor)


def seen(move: str) -> list[float]:
    """When its steps ran, in order."""
    lines = (line.split() for line in times.read_text().splitlines())
    return [float(at) for of, _, at in lines if of == move]


def played(names: list[str]) -> list[list[float]]:
    """These moves, started at once."""
    for name in names:
        chain(*(step.si(name, number) for number in range(STEPS))).apply_async()
    began = time.perf_counter()
    while any(len(seen(name)) < STEPS for name in (names[-1], *names)):
        if time.perf_counter() - began > LIMIT:
            raise TimeoutError("the chains did not end")
        time.sleep(0.02)
    return [sorted(seen(name)) for name in names]


def main() -> None:
    """Start a worker, measure, end it."""
    moves, at_once = int(sys.argv[3]), int(sys.argv[4])
    environment = {
        **os.environ,
        "PEER_URL": url,
        "PEER_TIMES": str(times),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = ["-m", "celery", "-A", "celery_steps", "worker", "-c", "4", "-l", "error", "--without-gossip"]
    worker = subprocess.Popen(
        [sys.executable, *command, "--without-mingle"], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        played(["warm_up_1", "warm_up_2"])
        seconds: list[float] = []
        for number in range(moves):
            (one,) = played([f"one_{number}"])
            seconds += [after - before for before, after in pairwise(one)]
        began = time.perf_counter()
        last = max(one[-1] for one in played([f"many_{number}" for number in range(at_once)]))
        each = (last - began) / (at_once * STEPS)
    finally:
        worker.terminate()
        worker.wait(timeout=30)
        times.unlink()
    sys.stdout.write(f"\n{json.dumps({'seconds': seconds, 'each': each})}\n")


if __name__ == "__main__":
    main()
