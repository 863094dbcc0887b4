"""The operators' command line, whatever it exits with, and what it shows of control characters."""

from __future__ import annotations

import asyncio
import os
import sys
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.platform.local import ROOT

if TYPE_CHECKING:
    from tests.attack.place import Place

LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    code: int
    text: str

    @property
    def raw(self) -> list[str]:
        """Characters that a terminal obeys instead of showing them, by name."""
        bad = {
            dead_letter
            for dead_letter in self.text
            if dead_letter != "\n" and unicodedata.category(dead_letter) in ("Cc", "Cf")
        }
        return sorted(f"U+{ord(dead_letter):04X}" for dead_letter in bad)


async def rehome(place: Place, *words: object) -> Said:
    """Run `rehome`; both of its outputs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "rehome_consumer",
        *map(str, words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, **place.consumer_environment(), **place.settings},
        cwd=ROOT,
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        out, _ = await process.communicate()
    return Said(process.returncode or 0, out.decode(errors="backslashreplace"))
