"""Bodies of HTTP answers, read up to a limit, so that no server can fill the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx

UNCOMPRESSED: Final = {"Accept-Encoding": "identity"}
"""Headers of a request: an uncompressed body cannot grow when it is read."""


async def read(response: httpx.Response, limit: int) -> bytes:
    """The body of a streamed answer as it came. One that has more than `limit` bytes is cut off after them."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > limit:
            break
    return bytes(body)
