"""Client programs: run by argument list, with limits, killed with their workers; errors hold no data or secrets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.common import server_words
from rehome_consumer.errors import ChildFailed, NotReady, TimedOut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

KEPT_OUTPUT: Final = 1024 * 1024
"""Bytes that are kept of what a program prints."""

KEPT_LINES: Final = 12
"""Last lines that are kept of its standard error."""

KEPT_LINE: Final = 400
"""Characters that are kept of one of these."""

_ADDED: Final = ("DETAIL: ", "HINT: ")
_REAPER: Final = Path(__file__).with_name("reaper.py")
_READ_BYTES = 64 * 1024
_WATCH_SECONDS = 1.0
_END_SECONDS = 10.0  # the reaper needs GRACE_SECONDS and KILL_SECONDS


async def run(
    command: Sequence[str | Path], *, env: Mapping[str, str], limit: float, what: str, nice: int = 0
) -> str:
    """Run a program to its end and return what it printed (at most 1 MiB).

    It is ended, with every process it started, when the limit passes, when this task is cancelled, and when
    this process dies, however it dies.

    Args:
        command: program and arguments; no secrets, all users of the machine see them.
        env: its complete environment; secrets go here.
        limit: seconds.
        what: what is being done, such as "dumping acme": errors start with it.
        nice: 0 to 19; how much it gives way to other processes, added to this one's niceness.

    Raises:
        NotReady: there is no such program.
        ChildFailed: it ended with an error; holds what it printed, without data of the tenant.
        TimedOut: the limit passed.
    """
    program = Path(command[0])
    if not os.access(program, os.X_OK):
        raise NotReady(f"{what}: there is no program {program}; set REHOME_PG_BIN")
    complete = {"LC_ALL": "C", "PATH": os.defpath, **env}
    async with started(command, env=complete, stdin=asyncio.subprocess.DEVNULL, nice=nice) as process:
        try:
            async with asyncio.timeout(limit):
                output, errors, code = await asyncio.gather(
                    _output(process.stdout), _errors(process.stderr, program.name), process.wait()
                )
        except TimeoutError:
            raise TimedOut(f"{what}: {program.name} did not end within {limit:g} s") from None
    if code != 0:
        raise ChildFailed(
            f"{what}: {program.name} ended with exit code {code}: {errors or 'it printed nothing'}"
        )
    return output


@asynccontextmanager
async def started(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None, stdin: int, nice: int = 0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that is ended on leaving, with every process it started; also when this process dies.

    Args:
        command: an existing program, and its arguments.
        env: its complete environment; None passes on this process's.
        stdin: DEVNULL or PIPE, as for asyncio's subprocesses. Its standard output and error are pipes.
        nice: as for `run`.
    """
    reaper = [sys.executable, "-I", "-S", str(_REAPER), str(os.getpid()), str(nice)]
    process = await asyncio.create_subprocess_exec(
        *reaper,
        *(str(part) for part in command),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    watching = asyncio.create_task(_watch(process))
    try:
        yield process
    finally:
        watching.cancel()
        await _end(process)


async def _watch(process: asyncio.subprocess.Process) -> None:
    """End what a killed reaper leaves behind: it would hold the streams open, and their readers would wait."""
    while process.returncode is None:  # noqa: ASYNC110 - its event waits for the streams to be closed
        await asyncio.sleep(_WATCH_SECONDS)
    if process.returncode < 0:
        _kill_group(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let the reaper end what it started; end its process group from here if it does not, or has died."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await _ended(process)
    if process.returncode is None or process.returncode < 0:
        _kill_group(process)
        await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for its end, with a limit. What is left in its pipes would delay that, and is read and ignored."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await asyncio.gather(_ignore(process.stdout), _ignore(process.stderr), process.wait())


async def _ignore(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(_READ_BYTES):
        pass


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _output(stream: asyncio.StreamReader | None) -> str:
    """What was printed; what exceeds the limit is read and thrown away."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(_READ_BYTES)):
        kept += chunk[: KEPT_OUTPUT - len(kept)]
    return kept.decode(errors="replace")


async def _errors(stream: asyncio.StreamReader | None, program: str) -> str:
    """The last lines of standard error that are the program's own, and the server's DETAIL and HINT without data.

    The server's CONTEXT and the failed command follow on lines of their own, without the program's name in front;
    they can show the tenant's rows, so only the server's log has them.
    """
    own: deque[str] = deque(maxlen=KEPT_LINES)
    other: deque[str] = deque(maxlen=KEPT_LINES)
    rest = b""
    while stream is not None and (chunk := await stream.read(_READ_BYTES)):
        *lines, rest = (rest[-_READ_BYTES:] + chunk).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip()[:KEPT_LINE]
            added = server_words.detail(text) if text.startswith(_ADDED) else ""
            if own and added:
                own.append(added)
            else:
                (own if text.startswith(f"{program}: ") else other).append(text)
    return " | ".join(_without_data(line) for line in own) or " | ".join(filter(None, other))


# A value that the server quotes, as in: ERROR:  invalid input syntax for type integer: "secret".
_QUOTED_VALUE: Final = re.compile(r"""(ERROR: [^"]*: )".*""")


def _without_data(line: str) -> str:
    return _QUOTED_VALUE.sub(r"\1...", line)
