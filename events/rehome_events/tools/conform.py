"""Check a publisher in any language: a program that is run, and whose event is looked at on a broker."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Any, Final

from rehome_events.client.arguments import require_seconds
from rehome_events.envelope import CloudEvent
from rehome_events.errors import EventError
from rehome_events.testing.conformance import check_returned

_LAST_LINES: Final = 5
_LONGEST_LINE: Final = 300
_ENDING: Final = 2.0


async def conform(
    url: str,
    program: Sequence[str],
    *,
    type: str = "plan.upgraded",  # noqa: A002 - the attribute's name in CloudEvents
    timeout: float = 30.0,
) -> CloudEvent[Any]:
    """Run a program that publishes one event, twice with a queue for it and twice without.

    The program's environment has the URL as ``EVENTS_AMQP_URL``. Exit code 0 says that the event is published.

    Args:
        url: A broker for tests; no queue may be bound for the type in its vhost.
        program: The program and its arguments.
        type: Type of the event that it publishes.
        timeout: Limit of each run, in seconds.

    Returns:
        The event that it published.

    Raises:
        AssertionError: It cannot be started, or does not meet the contract; everything wrong is named.
        EventError: The type or the time limit is wrong.
        BrokerError: The broker cannot be reached with this URL, or refused.
    """
    require_seconds("timeout", timeout)

    async def publish() -> None:
        await _run(program, {**os.environ, "EVENTS_AMQP_URL": url})

    return await check_returned(url, publish, type=type, timeout=timeout)


async def _run(program: Sequence[str], environment: dict[str, str]) -> None:
    """Run it to its end.

    Raises:
        RuntimeError: Its exit code is not 0; the text has its last lines.
        EventError: There is no such program.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *program,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise EventError(f"{program[0]} cannot be started: {error.strerror}") from None
    try:
        output, _ = await child.communicate()
    except asyncio.CancelledError:
        await _end(child)
        raise
    if child.returncode:
        lines = [
            line[:_LONGEST_LINE] for line in output.decode(errors="replace").splitlines() if line.strip()
        ]
        raise RuntimeError(" | ".join([f"exit code {child.returncode}", *lines[-_LAST_LINES:]]))


async def _end(child: asyncio.subprocess.Process) -> None:
    """End it with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ENDING):
            await child.wait()
