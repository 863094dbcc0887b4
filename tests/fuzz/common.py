"""What the checks share."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
from hypothesis import HealthCheck, settings

from rehome_consumer.errors import RehomeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

LONGEST_ERROR: Final = 10_000
"""Characters. An error is read by people and stored in rows; it must not repeat a large input."""

PROPERTIES: Final = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
"""How hypothesis runs here: the same inputs each time, no database, no deadline."""


@dataclass(frozen=True)
class Parser:
    """A parser's check, and inputs to begin with.

    Attributes:
        check: takes any bytes; raises any error when a promise is broken.
        seeds: good inputs, with which a fuzzer begins.
        words: pieces that the parser knows.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()


def finished(work: Awaitable[Any]) -> Any:
    """The result of something asynchronous, run on a loop of its own."""

    async def run() -> Any:
        return await work

    return asyncio.run(run())


def refused(work: Callable[[], Any], *kinds: type[Exception]) -> str | None:
    """Do it; the text of the documented error that it raised, or None. Any other error is raised."""
    documented = kinds or (RehomeError,)
    try:
        work()
    except documented as error:
        text = str(error)
        assert text, "an error says what is wrong"
        assert len(text) <= LONGEST_ERROR, f"an error of {len(text)} characters"
        return text
    return None


def lines_and_rest(data: bytes, count: int) -> tuple[list[str], bytes]:
    """The first lines as text, and the bytes after them."""
    *lines, rest = [*data.split(b"\n", count), *([b""] * count)][: count + 1]
    return [line.decode(errors="replace") for line in lines], rest


def as_json(data: bytes) -> Any:
    """A JSON value, or None."""
    with suppress(ValueError, RecursionError):
        return json.loads(data)
    return None


def answering(status: int, body: bytes) -> httpx.AsyncClient:
    """A client whose every request gets this answer."""

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=pieces())

    return httpx.AsyncClient(base_url="http://service:8080", transport=httpx.MockTransport(answer))
