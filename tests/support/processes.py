"""Facts about processes from the kernel, and processes that lose their parent, for tests."""

import asyncio
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

from sandbox.system.processes import ended

_SCRIPT = """
import asyncio, os
from pathlib import Path
{imports}

async def main():
    directory = Path({directory!r})
{body}
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def orphan_of(body: str, *, directory: Path, imports: str = "", limit: float = 90) -> list[int]:
    """Run a script as a process of its own until it prints a line of numbers, then kill it (SIGKILL).

    Args:
        body: statements of an async function.
        directory: what ``directory`` is in them.
        imports: import statements.
        limit: seconds until the line must have been printed.

    Returns:
        The numbers.
    """
    script = _SCRIPT.format(
        imports=imports, directory=str(directory), body=textwrap.indent(textwrap.dedent(body).strip(), "    ")
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), limit)
    finally:
        process.kill()
        await process.wait()
    return [int(number) for number in line.split()]


def have_ended(*pids: int) -> Callable[[], Awaitable[bool]]:
    """A condition for `wait_until`: whether all these processes have ended."""

    async def ask() -> bool:
        return all(ended(pid) for pid in pids)

    return ask


def owner(pid: int) -> int:
    """The user id that a process runs as."""
    return Path(f"/proc/{pid}").stat().st_uid


def command_line(pid: int) -> str:
    """A process's program and arguments, as every user of the machine can read them."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
