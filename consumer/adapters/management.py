"""The broker's management API: its definitions, and its users. Needs a login with tag `administrator`."""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
import orjson
from yarl import URL

from consumer.errors import Refused, SettingsError, Unreachable
from consumer.permissions import Access
from consumer.tls import explained
from consumer.topology import VHOST

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from consumer.permissions import Change

_SECONDS: Final = 10.0
_SALT: Final = 4  # bytes before the digest: RabbitMQ's guide "Credentials and Passwords"
_DIGESTS: Final = {
    "rabbit_password_hashing_sha256": hashlib.sha256,
    "rabbit_password_hashing_sha512": hashlib.sha512,
}


class Management:
    """Made by `managing`."""

    def __init__(self, base: str, http: httpx.AsyncClient) -> None:
        """Take the address, for errors, and a client that is logged in."""
        self._base = base
        self._http = http

    async def definitions(self) -> Any:
        """The definitions of our virtual host.

        Raises:
            Unreachable: no answer.
            Refused: an answer that is none.
        """
        return await self._get(f"definitions/{VHOST}")

    async def access(self) -> Access:
        """The users there are, and their rights in our virtual host. Raises as `definitions` does."""
        users = await self._get("users")
        permissions = await self._get(f"vhosts/{VHOST}/permissions")
        topics = await self._get(f"vhosts/{VHOST}/topic-permissions")
        return Access(
            {one["name"]: _tags(one["tags"]) for one in users},
            {one["user"]: (one["configure"], one["write"], one["read"]) for one in permissions},
            {(one["user"], one["exchange"]): (one["write"], one["read"]) for one in topics},
        )

    async def password_fits(self, user: str, password: str) -> bool:
        """Whether an existing user has this password. Raises as `definitions` does."""
        there = await self._get(f"users/{quote(user, safe='')}")
        digest = _DIGESTS.get(str(there.get("hashing_algorithm")))
        stored = base64.b64decode(str(there.get("password_hash", "")))
        if digest is None:
            return False
        salt = stored[:_SALT]
        return hmac.compare_digest(salt + digest(salt + password.encode()).digest(), stored)

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
            # A user is written whole: without its password it could not log in any more.
            await self._put(f"users/{name}", ("password", "tags"), (password, ""))

    async def _get(self, path: str) -> Any:
        answer = await self._ask("GET", path, None)
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise Refused(f"management API at {self._base} did not answer with JSON: {error}") from error

    async def _put(self, path: str, names: tuple[str, ...], values: tuple[str, ...]) -> None:
        await self._ask("PUT", path, dict(zip(names, values, strict=True)))

    async def _ask(self, method: str, path: str, body: dict[str, str] | None) -> httpx.Response:
        try:
            answer = await self._http.request(method, f"{self._base}/api/{path}", json=body)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"management API at {self._base}: {explained(error) or error or type(error).__name__}. "
                "Is it another address (--management-url)? rabbitmqctl does without it"
            ) from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Refused(
                f"management API at {self._base} refused {method} {path}: "
                "the login of REHOME_AMQP_URL is wrong, or has no tag `administrator`"
            )
        if not answer.is_success:
            raise Refused(
                f"management API at {self._base} answered {answer.status_code} to {method} {path}: "
                f"{answer.text[:200]}"
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
        SettingsError: the address is none, or holds a login.
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
            "--management-url holds a login, which everybody on this machine can see: leave it out; "
            "the login of REHOME_AMQP_URL is used"
        )
    if address.scheme not in ("http", "https") or not address.host:
        raise SettingsError("--management-url must look like http://host:15672 (or https://)")


def _tags(value: Any) -> tuple[str, ...]:
    """A list since 3.9, comma-separated text before."""
    listed = value.split(",") if isinstance(value, str) else value
    return tuple(str(tag) for tag in listed if tag)
