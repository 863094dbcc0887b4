"""database-service over HTTP: asks for dedicated PostgreSQL servers, and gives them back where that is possible."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import httpx
import orjson
from pydantic import BaseModel, BeforeValidator, Field, SecretStr, TypeAdapter, ValidationError

from rehome_consumer.adapters.common import http_body
from rehome_consumer.errors import NotFound, Refused, TimedOut, Transient, Unreachable
from rehome_consumer.model import Provisioned, Secret
from rehome_events.data import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGEST_ANSWER: Final = 64 * 1024
"""Bytes that are read of an answer; a real one has a few hundred."""

_SETTING: Final = "check REHOME_DATABASE_SERVICE_URL"
_MAY_HAVE_DONE_IT: Final = "it may have made the server all the same: look in db_servers before asking again"
_MAY_PASS: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_GATEWAY: Final = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
_PRESENCE: Final = "/health"
"""Asked to see whether it is there. Where it has no such page it says 404, which is an answer, too."""
_PRESENCE_SECONDS: Final = 10.0
_CANNOT: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})

_WITHOUT_SECRETS: Final = TypeAdapter[str](Message)
_EmptyIsNone = BeforeValidator(lambda value: None if value == "" else value)


class _Answer(BaseModel):
    """What a success must contain. Both forms are in use: with and without port and login."""

    status: str = "provisioned"
    db_server_id: UUID
    db_host: str = Field(pattern=r"^[^\s\x00-\x1f\x7f]{1,255}$")
    db_port: int | None = Field(default=None, ge=1, le=65535, strict=True)
    db_user: Annotated[str | None, _EmptyIsNone] = Field(default=None, max_length=63)
    db_password: Annotated[SecretStr | None, _EmptyIsNone] = None


class HttpDatabaseService:
    """Port `DatabaseService`.

    It does not retry: a call that seems to have failed may have made a server, and then a second one answers
    500. The caller looks in `db_servers` before it tries again.
    """

    def __init__(self, client: httpx.AsyncClient, *, limit: float | None = None) -> None:
        """Use this client; opening and closing it is the caller's.

        Args:
            client: its base URL is the service's.
            limit: seconds to wait for a complete answer, by default the client's read time-out; making a server
                takes two to three minutes.
        """
        self._client = client
        self._limit = limit or client.timeout.read or 600.0

    async def require_ready(self) -> None:
        """Return when it answers, whatever it says, but for a gateway's word that it does not.

        Raises:
            Unreachable, TimedOut: no answer of its own.
            Refused: REHOME_DATABASE_SERVICE_URL is no address.
        """
        what = "asking database-service whether it is there"
        async with self._exchange(what, "GET", _PRESENCE, limit=_PRESENCE_SECONDS) as (status, _):
            if status in _GATEWAY:
                raise Unreachable(f"{what}: HTTP {status}; {_SETTING}")

    async def provision(self, instance_id: UUID, customer_id: UUID, plan_tier: str) -> Provisioned:
        """Ask for a dedicated server; blocks for minutes.

        Raises:
            Refused: 400, 422, another 4xx or a redirect, with the service's words.
            Transient: 5xx, or a success with an unusable answer.
            Unreachable: no connection, or it broke.
            TimedOut: no answer within the limit, which does not mean that it failed.
        """
        what = f"asking database-service for a dedicated server for instance {instance_id}"
        body = {"instance_id": str(instance_id), "customer_id": str(customer_id), "plan_tier": plan_tier}
        async with self._exchange(what, "POST", "/api/database/provision-dedicated", body) as (
            status,
            answer,
        ):
            if status not in {HTTPStatus.OK, HTTPStatus.CREATED}:
                raise _refusal(what, status, answer)
            return _provisioned(what, answer)

    async def give_back(self, server_id: UUID) -> bool:
        """Remove a server. False where the service cannot (404 or 405): it is a leftover to report then.

        Raises:
            Refused, Transient, Unreachable, TimedOut: as `provision`.
        """
        what = f"asking database-service to take back server {server_id}"
        async with self._exchange(what, "DELETE", f"/api/database/servers/{server_id}") as (status, answer):
            if status in _CANNOT:
                return False
            if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                raise _refusal(what, status, answer)
            return True

    @asynccontextmanager
    async def _exchange(
        self,
        what: str,
        method: str,
        path: str,
        body: dict[str, str] | None = None,
        limit: float | None = None,
    ) -> AsyncIterator[tuple[int, bytes]]:
        """One request and its answer: status and body, the latter cut off at `LARGEST_ANSWER`."""
        limit = limit or self._limit
        may_act = "" if method == "GET" else f"; {_MAY_HAVE_DONE_IT}"
        try:
            async with (
                asyncio.timeout(limit),
                self._client.stream(
                    method,
                    path,
                    json=body,
                    headers={"Accept": "application/json", **http_body.UNCOMPRESSED},
                    timeout=httpx.Timeout(limit, connect=min(limit, 10.0)),
                    follow_redirects=False,
                ) as response,
            ):
                answer = response.status_code, await http_body.read(response, LARGEST_ANSWER)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            raise TimedOut(f"{what}: no answer in {limit:g} s{may_act}") from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            place = self._client.base_url.netloc.decode()  # without a login that the URL may hold
            raise Unreachable(f"{what}: {place} does not answer ({_problem(error)})") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Refused(f"{what}: {error}; {_SETTING}") from error
        except httpx.HTTPError as error:
            raise Unreachable(f"{what}: the connection broke ({_problem(error)}){may_act}") from error
        yield answer


def _problem(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _provisioned(what: str, answer: bytes) -> Provisioned:
    """Read a success. Errors name fields, never values: one of them is a password."""
    if len(answer) > LARGEST_ANSWER:
        raise Transient(f"{what}: the answer has more than {LARGEST_ANSWER} bytes; {_MAY_HAVE_DONE_IT}")
    try:
        parsed = _Answer.model_validate(orjson.loads(answer))
    except orjson.JSONDecodeError:
        raise Transient(f"{what}: the answer is not JSON; {_MAY_HAVE_DONE_IT}") from None
    except ValidationError as error:
        wrong = ", ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'answer'} ({problem['type']})"
            for problem in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise Transient(f"{what}: the answer is not as documented: {wrong}; {_MAY_HAVE_DONE_IT}") from None
    if parsed.status != "provisioned":
        raise Transient(f"{what}: it is not provisioned yet; {_MAY_HAVE_DONE_IT}")
    password = Secret(parsed.db_password.get_secret_value()) if parsed.db_password else None
    return Provisioned(parsed.db_server_id, parsed.db_host, parsed.db_port, parsed.db_user, password)


def _refusal(what: str, status: int, answer: bytes) -> Refused | Transient:
    message = f"{what}: HTTP {status}, {_words(answer)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _MAY_PASS:
        return Transient(f"{message}; {_MAY_HAVE_DONE_IT}")
    if status in _CANNOT:
        return NotFound(f"{message}; {_SETTING}")
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return Refused(message)
    return Refused(f"{message}; {_SETTING}")


def _words(answer: bytes) -> str:
    """The service's own words (`detail`), short and without what may be a secret."""
    try:
        body = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return "without an explanation"
    detail: Any = body.get("detail") if isinstance(body, dict) else None
    if isinstance(detail, list):  # FastAPI's form; its `input` repeats the request and is left out
        detail = "; ".join(
            f"{_place(problem.get('loc'))}: {problem.get('msg', '')}"
            for problem in detail
            if isinstance(problem, dict)
        )
    if not isinstance(detail, str) or not detail.strip():
        return "without an explanation"
    # PostgreSQL's DETAIL, on the second line, can show a complete row of db_servers.
    first = detail.strip().splitlines()[0][:300]
    return _WITHOUT_SECRETS.validate_python(first)


def _place(path: Any) -> str:
    return ".".join(map(str, path)) if isinstance(path, list) else str(path)
