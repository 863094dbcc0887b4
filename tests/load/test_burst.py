"""A small burst, so that a change which loses, repeats or wrongly fails a migration is noticed at once."""

from pathlib import Path

import pytest

from sandbox.platform.local import ROOT
from tests.load.burst import MALLOC, Size, burst
from tests.load.invariants import breaches, most_at_once, most_rehearsals

SMALL = Size(upgrades=40, dumps=1, rehearsals=2, limit=600.0)


@pytest.mark.timeout(900)  # a machine that does other work
async def test_every_upgrade_of_a_burst_ends_once_though_consumers_are_killed_and_one_event_is_poison(
    scratch: Path,
) -> None:
    directory = scratch / "load"
    directory.mkdir(mode=0o711)
    async with burst(directory, SMALL) as played:
        await played.play()
        found = [breach async for breach in breaches(played)]
        dead_letters = await played.dead_letters()
    assert found == []
    assert dead_letters == [("accept", "undecodable"), ("prepare", "failed")]
    assert played.killed > 1
    assert played.poisoned >= 1
    # and the limits were reached, or they would not have been tested
    assert set(most_at_once(played).values()) == {SMALL.dumps}
    assert set(most_rehearsals(played).values()) == {SMALL.rehearsals}


def test_consumers_have_the_memory_settings_of_the_image() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert all(f"{name}={value}" in dockerfile for name, value in MALLOC.items())
