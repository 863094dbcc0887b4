"""The status of an HTTP answer and nothing else of it: a tenant controls what its instance answers."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx

_SECONDS: Final = 30.0
_SHOWN: Final = 300


async def failure(http: httpx.AsyncClient, url: str) -> str | None:
    """None when a GET answers 200, else what came instead.

    The body is not read, and the client's read time-out bounds the request as a whole: an answer that is
    endless or slow does not delay the caller longer.
    """
    limit = http.timeout.read or _SECONDS
    try:
        # A new connection each time: one that is kept open would lead to a task that is ending.
        async with asyncio.timeout(limit), http.stream("GET", url, headers={"Connection": "close"}) as answer:
            status = answer.status_code
    except TimeoutError:
        return f"no answer in {limit:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__} {error}".strip()[:_SHOWN]
    return None if status == httpx.codes.OK else f"HTTP {status}"
