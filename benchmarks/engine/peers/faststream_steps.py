"""FastStream: nine handlers that do nothing but publish the next message, with confirms. See `__init__.py`."""

import asyncio
import json
import sys
import time
from collections import defaultdict
from itertools import pairwise
from typing import Any

from faststream.rabbit import QueueType, RabbitBroker, RabbitQueue

STEPS = 9
_, url, _dsn, moves, at_once = sys.argv
broker = RabbitBroker(url, log_level=50)
times: dict[str, list[float]] = defaultdict(list)
ended: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
QUEUES = [
    RabbitQueue(f"peer_faststream_{number}", queue_type=QueueType.QUORUM, durable=True)
    for number in range(STEPS)
]


def handler(number: int) -> Any:
    """Of one step."""

    async def handle(move: str) -> None:
        times[move].append(time.perf_counter())
        if number + 1 < STEPS:
            await broker.publish(move, QUEUES[number + 1], persist=True)
        else:
            ended[move].set()

    return handle


for place, queue in enumerate(QUEUES):
    broker.subscriber(queue)(handler(place))


async def played(names: list[str]) -> list[list[float]]:
    """These moves, started at once."""
    for name in names:
        times[name].append(time.perf_counter())
        await broker.publish(name, QUEUES[0], persist=True)
    async with asyncio.timeout(120):
        for name in names:
            await ended[name].wait()
    return [times[name] for name in names]


async def main() -> None:
    """Measure."""
    async with broker:
        await broker.start()
        await played(["warm up"])
        seconds: list[float] = []
        for number in range(int(moves)):
            (one,) = await played([f"one {number}"])
            seconds += [after - before for before, after in pairwise(one)]
        many = await played([f"many {number}" for number in range(int(at_once))])
        each = (max(one[-1] for one in many) - min(one[0] for one in many)) / (int(at_once) * STEPS)
    sys.stdout.write(f"\n{json.dumps({'seconds': seconds, 'each': each})}\n")


asyncio.run(main())
