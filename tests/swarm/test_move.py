"""A whole move on a swarm: the demo with every part a service, and all that it checks from outside."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

LIMIT_SECONDS = 540


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [((), "moved"), (("--fail", "start"), "rolled back after step start failed")],
    ids=["moved", "rolled back"],
)
async def test_a_move_between_services_holds_all_that_the_demo_checks(
    arguments: tuple[str, ...], outcome: str
) -> None:
    command = ("-m", "sandbox.demo", "--runtime", "swarm", "--json", *arguments)
    demo = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, told = await asyncio.wait_for(demo.communicate(), LIMIT_SECONDS)
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()
    assert said, told.decode()
    story = json.loads(said)
    assert [check for check in story["checks"] if not check["holds"]] == []
    assert (story["outcome"], story["ok"], demo.returncode) == (outcome, True, 0)
