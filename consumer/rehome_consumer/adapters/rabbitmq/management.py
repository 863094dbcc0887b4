"""The broker's management API: its definitions, and its users. Needs a login with tag `administrator`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
import orjson
from yarl import URL

from rehome_consumer.adapters.common import http_body
from rehome_consumer.errors import Refused, SettingsError, TimedOut, Unreachable
from rehome_consumer.network.tls import explained
from rehome_consumer.rabbitmq.topology import VHOST

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from rehome_consumer.rabbitmq.access import Change

LARGEST_ANSWER: Final = 16 * 1024 * 1024
"""Bytes that are read of an answer: enough for the definitions of a node with ten thousand queues."""

_SECONDS: Final = 10.0
_TOTAL_SECONDS: Final = 60.0
_SHOWN: Final = 200


class Management:
    """Made by `managing`."""

    def __init__(self, base: str, http: httpx.AsyncClient, *, limit: float = _TOTAL_SECONDS) -> None:
        """Take the address, for errors, a client with a login, and the seconds for a complete answer."""
        self._base = base
        self._http = http
        self._limit = limit

    async def definitions(self) -> Any:
        """The definitions of the complete node.

        Raises:
            Unreachable: no answer.
            TimedOut: the answer does not end.
            Refused: the answer is an error, not JSON, or too large.
        """
        answer = await self._ask("GET", "definitions", None)
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            raise Refused(f"management API at {self._base} did not answer with JSON: {error}") from error

    async def make(self, change: Change, password: str) -> None:
        """Make one change. Raises as `definitions` does."""
        name = quote(change.user, safe="")
        if change.command == "set_permissions":
            await self._put(f"permissions/{VHOST}/{name}", ("configure", "write", "read"), change.arguments)
        elif change.command == "set_topic_permissions":
            await self._put(
                f"topic-permissions/{VHOST}/{name}", ("exchange", "write", "read"), change.arguments
            )
        else:
            # PUT replaces the complete user: without its password it could not log in any more.
            await self._put(f"users/{name}", ("password", "tags"), (password, ""))

    async def _put(self, path: str, names: tuple[str, ...], values: tuple[str, ...]) -> None:
        await self._ask("PUT", path, dict(zip(names, values, strict=True)))

    async def _ask(self, method: str, path: str, body: dict[str, str] | None) -> bytes:
        """The body of a success."""
        url = f"{self._base}/api/{path}"
        try:
            async with (
                asyncio.timeout(self._limit),
                self._http.stream(method, url, json=body, headers=http_body.UNCOMPRESSED) as response,
            ):
                answer = await http_body.read(response, LARGEST_ANSWER)
        except TimeoutError:
            raise TimedOut(
                f"management API at {self._base}: the answer to {method} {path} did not end in {self._limit:g} s"
            ) from None
        except httpx.HTTPError as error:
            raise Unreachable(
                f"management API at {self._base}: {explained(error) or error or type(error).__name__}. "
                "Is it at another address (--management-url)? --rabbitmqctl does not need it"
            ) from error
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Refused(
                f"management API at {self._base} refused {method} {path}: "
                "the login of REHOME_AMQP_URL is wrong, or has no tag `administrator`"
            )
        if not response.is_success:
            raise Refused(
                f"management API at {self._base} answered {response.status_code} to {method} {path}: "
                f"{answer.decode(errors='replace').strip()[:_SHOWN]}"
            )
        if len(answer) > LARGEST_ANSWER:
            raise Refused(
                f"management API at {self._base}: the answer to {method} {path} has more than "
                f"{LARGEST_ANSWER} bytes"
            )
        return answer


@asynccontextmanager
async def managing(amqp_url: URL, given: str | None, context: ssl.SSLContext) -> AsyncIterator[Management]:
    """The management API beside a broker, with the login of its AMQP URL.

    Args:
        amqp_url: the broker's.
        given: the API's address; by default the broker's host, port 15672 (15671 over TLS).
        context: for https.

    Raises:
        SettingsError: the address is not valid, or holds a login.
    """
    tls = amqp_url.scheme == "amqps"
    base = given or f"{'https' if tls else 'http'}://{amqp_url.host}:{15671 if tls else 15672}"
    _check(base)
    login = (amqp_url.user or "guest", amqp_url.password or "guest")
    async with httpx.AsyncClient(timeout=_SECONDS, auth=login, verify=context, trust_env=False) as http:
        yield Management(base.rstrip("/"), http)


def _check(base: str) -> None:
    try:
        address = URL(base)
    except ValueError:
        raise SettingsError("--management-url must look like http://host:15672 (or https://)") from None
    if address.user or address.password:
        raise SettingsError(
            "--management-url holds a login, which every user of this machine can see: leave it out; "
            "the login of REHOME_AMQP_URL is used"
        )
    if address.scheme not in ("http", "https") or not address.host:
        raise SettingsError("--management-url must look like http://host:15672 (or https://)")
