"""The command line as operators run it, each command a process of its own, from a server that starts them fast."""

import asyncio
import atexit
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from sandbox.system.net import wait_until
from sandbox.system.processes import Child
from sandbox.system.scratch import remove_scratch_directory, scratch_directory

if TYPE_CHECKING:
    from tests.support.command_server import Order

ROOT = Path(__file__).parents[2]
UP_SECONDS = 60


class Answer(NamedTuple):
    """What a run of the command line printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


async def command(
    *arguments: object, environment: Mapping[str, str], stdin: str = "", limit: int = 60
) -> Answer:
    """Run `rehome` with these arguments and this environment.

    Args:
        arguments: of the command line, as texts.
        environment: the whole.
        stdin: its standard input.
        limit: seconds; then it is ended, and its exit code is -14 (SIGALRM).
    """
    order: Order = {
        "arguments": [str(argument) for argument in arguments],
        "environment": dict(environment),
        "stdin": stdin,
        "limit": limit,
    }
    reader, writer = await asyncio.open_unix_connection(await _server())
    try:
        async with asyncio.timeout(limit + 10):
            writer.write(orjson.dumps(order) + b"\n")
            return Answer(**orjson.loads(await reader.read()))
    finally:
        writer.close()


async def _server() -> Path:
    """The socket of this process's server, which ends with it."""
    async with _starting():
        if _running is None or not _running.alive:
            await _start()
    return _directory() / "commands"


_running: Child | None = None


@cache
def _starting() -> asyncio.Lock:
    return asyncio.Lock()


@cache
def _directory() -> Path:
    directory = scratch_directory("rehome-commands")
    atexit.register(remove_scratch_directory, directory)
    return directory


async def _start() -> None:
    global _running  # noqa: PLW0603 - one for all tests of this process
    path = _directory() / "commands"
    path.unlink(missing_ok=True)
    module = [sys.executable, "-m", "tests.support.command_server", str(path)]
    child = await Child.start("commands", module, log=path.with_suffix(".log"), directory=ROOT)

    async def up() -> bool:
        child.require_alive()
        return path.exists()

    await wait_until(up, what="the command line's server", limit=UP_SECONDS)
    _running = child
