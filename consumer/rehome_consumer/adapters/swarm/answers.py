"""Limits of size for the engine's answers, so that no server at its address can fill the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp

from rehome_consumer.errors import Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGEST_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of one answer; the definition of a service has a few thousand."""

LARGEST_LOG: Final = 1024 * 1024
"""Bytes of the last lines of a task's log."""

LONGEST_LOG_LINE: Final = 400
"""Characters that are read of a line of a log."""

LONGEST_EVENT: Final = 64 * 1024
"""Bytes of one event; a container's has about a thousand."""

# Bytes before each piece of a log: stream, three zeros, length (source: engine API, attach).
_HEADER: Final = 8


class BoundedAnswer(aiohttp.ClientResponse):
    """An answer of which `read`, and so all that `aiodocker` reads, takes no more than `LARGEST_ANSWER`."""

    async def read(self) -> bytes:
        """The complete body. Raises Transient when it is larger."""
        if self._body is None:
            self._body = await read_up_to(self, LARGEST_ANSWER)
        return self._body


async def read_up_to(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer.

    Raises:
        Transient: it has more than `limit` bytes; no more of it is read, and the connection is closed.
    """
    body = bytearray()
    try:
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > limit:
                break
    except BaseException:
        answer.close()
        raise
    if len(body) > limit:
        answer.close()
        raise Transient(f"{_request(answer)}: the answer has more than {limit} bytes")
    return bytes(body)


async def events(stream: aiohttp.ClientResponse) -> AsyncIterator[None]:
    """Once for each piece of the stream in which an event ends.

    Raises:
        Transient: an event has more than `LONGEST_EVENT` bytes.
    """
    length = 0
    async for piece in stream.content.iter_any():
        _, end, rest = piece.rpartition(b"\n")
        length = len(rest) if end else length + len(rest)
        if end:
            yield
        if length > LONGEST_EVENT:
            raise Transient(f"{_request(stream)}: an event has more than {LONGEST_EVENT} bytes")


def log_text(raw: bytes) -> str:
    """The text of a log that comes in pieces, each with a header of 8 bytes."""
    pieces, at = [], 0
    while at + _HEADER <= len(raw):
        length = int.from_bytes(raw[at + 4 : at + _HEADER], "big")
        pieces.append(raw[at + _HEADER : at + _HEADER + length])
        at += _HEADER + length
    return b"".join(pieces).decode(errors="replace")


def _request(answer: aiohttp.ClientResponse) -> str:
    return f"Docker engine, {answer.method} {answer.url.path}"
