"""A consumer that kills or freezes itself at a named boundary, once, when ordered to.

    CHAOS_DIRECTORY=DIR python -m sandbox.demo.chaos        as `rehome run`, but follows the orders in DIR

The boundaries are the engine's own (its `probe`): before and after every call of a port, and around every
commit, publish and acknowledgement. Each one reached is a line in DIR/reached. `Orders` writes to DIR; orders
can change while the consumer runs, so one consumer serves many experiments.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import bootstrap
from rehome_consumer.operators.tools import periodic_diagnosis
from rehome_consumer.process import freeze_watchdog, health, logs
from rehome_consumer.process.worker import until_signalled
from rehome_consumer.settings import read_settings
from sandbox.demo.faults import ALL, failing, note_step
from sandbox.system.net import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.ports.steps import Ports

DIRECTORY: Final = "CHAOS_DIRECTORY"
NO_WATCHDOG: Final = "CHAOS_NO_WATCHDOG"
"""Set: the consumer does not notice that it was frozen, as when the complete machine was."""
SIGNALS: Final = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
HELD_SECONDS: Final = 120.0
"""The longest time that `hold` lasts."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do, and where.

    Attributes:
        action: `kill` (SIGKILL) or `freeze` (SIGSTOP): the consumer does it to itself; `hold`: what arrives
            there waits until `Orders.release`, everything else goes on; `report`: only record the arrival.
        boundary: where, such as `stop.databases.fence.after`.
        nth: at which passage of the boundary since the order was given, from 1.
        later: seconds after that passage; 0 is at once, before anything else happens.
        id: distinguishes it from an equal order that was given before.
    """

    action: str
    boundary: str
    nth: int = 1
    later: float = 0.0
    id: str = field(default_factory=lambda: secrets.token_hex(4))

    def text(self) -> str:
        """As a line."""
        return f"{self.action} {self.boundary} {self.nth} {self.later!r} {self.id}"

    @classmethod
    def parse(cls, line: str) -> Order:
        """What `text` wrote."""
        action, boundary, nth, later, order_id = line.split()
        return cls(action, boundary, int(nth), float(later), order_id)


@dataclass(frozen=True, slots=True)
class Orders:
    """The directory through which a consumer gets its orders."""

    directory: Path

    @property
    def reached(self) -> Path:
        """Every boundary reached: a line `<monotonic seconds> <pid> <boundary>` each."""
        return self.directory / "reached"

    def give(self, order: Order | None, *, fail: Sequence[str] = ()) -> None:
        """One order, followed once by the consumer that gets there first; and steps that fail from now on."""
        self.release()
        self._put("fail", " ".join(fail) or None)
        self.reached.write_text("")
        self._put("order", order.text() if order else None)

    def pending(self) -> Order | None:
        """The order that was not carried out yet."""
        line = self._get("order")
        return Order.parse(line) if line else None

    @property
    def obeyed(self) -> bool:
        """Whether the last order given was carried out."""
        return not (self.directory / "order").exists()

    def fails(self) -> Sequence[str]:
        """The steps that fail."""
        return (self._get("fail") or "").split()

    def fix(self) -> None:
        """Nothing fails from now on."""
        self._put("fail", None)

    def take(self) -> bool:
        """Take the order; True: this process carries it out, and no other will."""
        try:
            (self.directory / "order").rename(self.directory / "obeyed")
        except FileNotFoundError:
            return False
        return True

    @property
    def holding(self) -> bool:
        """Whether something is still held."""
        return (self.directory / "obeyed").exists()

    def release(self) -> None:
        """Let what is held continue."""
        (self.directory / "obeyed").unlink(missing_ok=True)

    def passages(self) -> list[tuple[float, int, str]]:
        """What was reached since the last order, in order: (monotonic seconds, pid, boundary)."""
        lines = (line.split() for line in self.reached.read_text().splitlines())
        return [(float(at), int(pid), boundary) for at, pid, boundary in lines]

    def _put(self, name: str, text: str | None) -> None:
        """Atomically: the consumer may read at any moment."""
        if text is None:
            (self.directory / name).unlink(missing_ok=True)
            return
        new = self.directory / f"{name}.new"
        new.write_text(text)
        new.rename(self.directory / name)

    def _get(self, name: str) -> str | None:
        try:
            return (self.directory / name).read_text() or None
        except FileNotFoundError:
            return None


class Probe:
    """Called at every boundary: records it, and carries out the order."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._order: Order | None = None
        self._passed: Counter[str] = Counter()

    async def __call__(self, boundary: str) -> None:
        """One passage."""
        await note_step(boundary)
        with self._orders.reached.open("a") as file:
            file.write(f"{time.monotonic()} {os.getpid()} {boundary}\n")
        order = self._orders.pending()
        if order != self._order:
            self._order = order
            self._passed.clear()
        self._passed[boundary] += 1
        if order is None or (boundary, self._passed[boundary]) != (order.boundary, order.nth):
            return
        if order.action == "hold" and self._orders.take():
            await self._hold()
        elif order.later:
            threading.Timer(order.later, self._carry_out, (order,)).start()
        else:
            self._carry_out(order)

    async def _hold(self) -> None:
        async def released() -> bool:
            return not self._orders.holding

        await wait_until(released, what="the release of what is held", limit=HELD_SECONDS)

    def _carry_out(self, order: Order) -> None:
        if self._orders.take() and order.action in SIGNALS:
            os.kill(os.getpid(), SIGNALS[order.action])


class _Switch:
    """A port that is replaced by a failing one while the orders let a certain step fail."""

    def __init__(self, port: Any, orders: Orders, failing: dict[str, Any]) -> None:
        self._port = port
        self._orders = orders
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        steps = (step for step in self._orders.fails() if step in self._failing)
        return getattr(next((self._failing[step] for step in steps), self._port), name)


def failing_on_order(ports: Ports, orders: Orders) -> Ports:
    """The same ports, but the steps that the orders name fail (see `sandbox.demo.faults`)."""
    failing_in = {step: failing(step)(ports) for step in ALL}
    switches: dict[str, Any] = {
        name: _Switch(
            getattr(ports, name),
            orders,
            {step: getattr(failing_in[step], name) for step in ALL if ALL[step][0] == name},
        )
        for name in {name for name, _ in ALL.values()}
    }
    return dataclasses.replace(ports, **switches)


async def run() -> None:
    """As `rehome run`, but following orders."""
    orders = Orders(Path(os.environ[DIRECTORY]))
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    async with (
        bootstrap.consumer(
            settings, wrap=lambda ports: failing_on_order(ports, orders), probe=Probe(orders)
        ) as consumer,
        periodic_diagnosis(settings, consumer.connection, consumer.readiness) as diagnosis,
        health.served_when_connected(settings, consumer, diagnosis),
        contextlib.nullcontext() if NO_WATCHDOG in os.environ else freeze_watchdog.watched(),
    ):
        await until_signalled(consumer.worker, consumer.worker.run())


def main() -> int:
    """Follow the orders in the directory that the environment names; 2 when it names none."""
    if DIRECTORY not in os.environ:
        print(f"sandbox.demo.chaos: set {DIRECTORY}", file=sys.stderr)
        return 2
    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
