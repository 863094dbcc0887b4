"""Failures on purpose, one for each step, so that a rollback, or a wait for a person, can be watched.

    python -m sandbox.demo.faults STEP        a consumer in which STEP always fails

Each fails late: after the step did its work for real, so that there is something to undo.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from rehome_consumer import bootstrap
from rehome_consumer.errors import CrashLoop, Refused, VerificationFailed
from rehome_consumer.process import health, logs
from rehome_consumer.process.worker import until_signalled
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rehome_consumer.model import Server
    from rehome_consumer.ports.steps import Ports

FAILING: Final = {
    "prepare": ("copier", "client_version"),
    "stop": ("databases", "fence"),
    "back_up": ("copier", "seal"),
    "provision": ("databases", "make_scratch"),
    "rewrite_conf": ("runtime", "configure"),
    "restore": ("copier", "restore"),
    "start": ("runtime", "start"),
}
"""Step -> the port and method that fails in it; each of them is rolled back."""
OF_A_COLD_MOVE: Final = frozenset({"back_up", "provision", "restore"})
"""In a warm move these steps find done what fails here."""
FOR_AN_OPERATOR: Final = {
    "accept": ("platform", "home"),
    "complete": ("databases", "connections"),
    "roll_back": ("databases", "unfence"),
}
"""The same for the steps that wait for a person when they fail."""
ALL: Final = FAILING | FOR_AN_OPERATOR
ERRORS: Final = {"restore": VerificationFailed, "start": CrashLoop}
"""With what a step fails, where that is not Refused."""


_RUNNING: ContextVar[str] = ContextVar("running", default="")


class Failing:
    """A port one of whose methods fails after (or instead of) its work."""

    def __init__(self, port: Any, method: str, replacement: Callable[..., Awaitable[Any]]) -> None:
        self._port = port
        self._method = method
        self._replacement = replacement

    def __getattr__(self, name: str) -> Any:
        return self._replacement if name == self._method else getattr(self._port, name)


def failing(step: str) -> Callable[[Ports], Ports]:
    """A change of the ports that makes `step` fail for good."""
    name, method = ALL[step]

    def wrap(ports: Ports) -> Ports:
        port = getattr(ports, name)
        real = getattr(port, method)
        replacement = only_in(step, real, _replacement(step, real))
        changed: dict[str, Any] = {name: Failing(port, method, replacement)}
        return dataclasses.replace(ports, **changed)

    return wrap


async def note_step(boundary: str) -> None:
    """For the consumer's `probe`: which step runs."""
    _RUNNING.set(boundary.partition(".")[0])


def only_in(
    step: str, real: Callable[..., Awaitable[Any]], replacement: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    """Other steps call the same method, such as the rehearsal."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await (replacement if _RUNNING.get() == step else real)(*args, **kwargs)

    return call


def _replacement(step: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def refused(*args: Any, **kwargs: Any) -> Any:
        await real(*args, **kwargs)
        raise Refused(f"step {step} was made to fail, after it had done its work")

    async def altered(server: Server, database: str, *args: Any, **kwargs: Any) -> None:
        await real(server, database, *args, **kwargs)
        await _alter_a_row(server, database)

    async def crashes_with_new_limits(instance: Any, replicas: int, limits: Any, **kwargs: Any) -> Any:
        if limits is None:  # the rollback's own start, which must succeed
            return await real(instance, replicas, limits, **kwargs)
        raise CrashLoop(
            f"the instance ended with exit code 255 each time; it was made to ({instance.service})"
        )

    special: dict[str, Callable[..., Awaitable[Any]]] = {
        "restore": altered,
        "start": crashes_with_new_limits,
    }
    return special.get(step, refused)


async def _alter_a_row(server: Server, database: str) -> None:
    """One character more in one row: the verification must find it."""
    connection = await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=server.admin.user,
        password=server.admin.password.reveal(),
        database=database,
        timeout=10,
    )
    try:
        await connection.execute("UPDATE res_partner SET name = name || '.' WHERE id = 1")
    finally:
        await connection.close(timeout=10)


async def run(step: str) -> None:
    """As `rehome run`, but for the failure."""
    settings = read_settings()
    if step in OF_A_COLD_MOVE:
        settings = settings.model_copy(update={"strategy": "cold"})
    logs.configure(settings.log_format, settings.log_level)
    async with (
        bootstrap.consumer(settings, wrap=failing(step), probe=note_step) as consumer,
        health.served_when_connected(settings, consumer),
    ):
        await until_signalled(consumer.worker, consumer.worker.run())


def main() -> int:
    """Read the step from the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo.faults", description=__doc__)
    parser.add_argument("step", choices=ALL, help="the step that fails")
    asyncio.run(run(parser.parse_args().step))
    return 0


if __name__ == "__main__":
    sys.exit(main())
