"""The operators' command line, with any exit code, and which control characters it prints."""

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
class Output:
    """What a command printed."""

    code: int
    text: str

    @property
    def raw(self) -> list[str]:
        """Characters that a terminal obeys instead of showing them, by name."""
        bad = {
            character
            for character in self.text
            if character != "\n" and unicodedata.category(character) in ("Cc", "Cf")
        }
        return sorted(f"U+{ord(character):04X}" for character in bad)


async def rehome(place: Place, *words: object) -> Output:
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
    return Output(process.returncode or 0, out.decode(errors="backslashreplace"))
