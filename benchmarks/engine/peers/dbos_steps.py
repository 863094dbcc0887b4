"""DBOS: one workflow of nine steps that do nothing. See `__init__.py` for what is printed."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from dbos import DBOS, DBOSConfig

_, _url, dsn, moves, at_once = sys.argv
STEPS = 9
config: DBOSConfig = {
    "name": "peer",
    "system_database_url": dsn,
    "run_admin_server": False,
    "log_level": "ERROR",
}
DBOS(config=config)


@DBOS.step()
def step(number: int) -> float:
    """Nothing but its time."""
    return time.perf_counter() + 0 * number


@DBOS.workflow()
def move() -> list[float]:
    """Nine steps, one after the other."""
    return [time.perf_counter(), *(step(number) for number in range(STEPS))]


def played(_: int) -> list[float]:
    """One workflow, and the time of its end."""
    began = time.perf_counter()
    times = move()
    return [began, *times[2:], time.perf_counter()]


DBOS.launch()
for number in range(2):
    played(number)
seconds: list[float] = []
for number in range(int(moves)):
    times = played(number)
    seconds += [after - before for before, after in pairwise(times)]
with ThreadPoolExecutor(int(at_once)) as pool:
    began = time.perf_counter()
    list(pool.map(played, range(int(at_once))))
    each = (time.perf_counter() - began) / (int(at_once) * STEPS)
DBOS.destroy()
sys.stdout.write(f"\n{json.dumps({'seconds': seconds, 'each': each})}\n")
