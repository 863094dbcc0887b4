"""`rehome demo` that is told to end leaves nothing of its platform behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

PLATFORM_LIMIT = 120


def _of(directory: Path) -> list[str]:
    """Command lines of the processes that work below this directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.mark.long
async def test_sigterm_to_the_command_removes_the_platform(scratch: Path) -> None:
    place = scratch / "demo-ended"
    place.mkdir(mode=0o711)
    demo = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).parent / "rehome", "demo"),
        env={**os.environ, "TMPDIR": str(place)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert demo.stdout
    printed = b""
    try:
        async with asyncio.timeout(PLATFORM_LIMIT):
            while b"the platform is up" not in printed and (line := await demo.stdout.readline()):
                printed += line
        assert b"the platform is up" in printed, printed.decode()
        assert _of(place)
        demo.send_signal(signal.SIGTERM)
        rest, _ = await asyncio.wait_for(demo.communicate(), PLATFORM_LIMIT)
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()
    assert demo.returncode == 130, (printed + rest).decode()
    assert os.listdir(place) == []  # noqa: PTH208 - nothing is waited for
    assert _of(place) == []
