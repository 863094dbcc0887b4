"""A service's output, followed into a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.swarm.api import EngineApi

_HEADER = 8  # bytes before each entry: stream, three zeros, length (source: engine API, attach)


async def follow(engine: EngineApi, service: str, log: Path) -> None:
    """Append a service's output to a file as it comes, until cancelled or the service is removed."""
    params = {"stdout": "1", "stderr": "1", "follow": "1"}
    with log.open("wb", buffering=0) as file:
        async with engine.http.stream(
            "GET", f"/services/{service}/logs", params=params, timeout=None
        ) as answer:
            async for entry in entries(answer.aiter_bytes()):
                file.write(entry)


async def entries(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The entries of a log, without their headers; the pieces may be split anywhere."""
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        while len(buffer) >= _HEADER:
            end = _HEADER + int.from_bytes(buffer[4:_HEADER], "big")
            if len(buffer) < end:
                break
            yield bytes(buffer[_HEADER:end])
            del buffer[:end]
