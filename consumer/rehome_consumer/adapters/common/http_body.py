"""Bodies that come over HTTP, read up to a limit: whoever answers, our memory stays ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx

UNCOMPRESSED: Final = {"Accept-Encoding": "identity"}
"""Headers of a request: what is not compressed cannot grow in our memory."""


async def read(response: httpx.Response, limit: int) -> bytes:
    """The body of a streamed answer as it came. One that has more than `limit` bytes is cut off behind them."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > limit:
            break
    return bytes(body)
