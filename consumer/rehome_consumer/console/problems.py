"""Errors as people and programs get them: a page, or application/problem+json under /api; each says what to do."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from rehome_consumer.console.documents import Problem
from rehome_consumer.errors import NotFound, Refused, RehomeError, SettingsError, Transient
from rehome_consumer.operators.reader import WrongParameter

if TYPE_CHECKING:
    from fastapi import FastAPI

MEDIA_TYPE: Final = "application/problem+json"
API: Final = "/api/"
SIGN_IN: Final = "sign in with a token (header `Authorization: Bearer TOKEN`, or the page /sign-in)"

NOTHING_THERE: Final = "there is nothing of that name here; /api/v1/openapi.json lists what is"
NO_SUCH_METHOD: Final = "this cannot be asked for so; /api/v1/openapi.json lists the methods"
DEFECT: Final = "a defect in the console; its log has it as console.defect. The moves go on: rehome status"


class NotSignedIn(Exception):
    """Nobody that is known asks."""

    def __str__(self) -> str:
        return SIGN_IN


class NotAllowed(Exception):
    """This person may not do that; the message says why."""


class TooLarge(Exception):
    """The request's body is longer than any that is wanted."""

    def __str__(self) -> str:
        return "the request is too large"


_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (NotSignedIn, 401),
    (NotAllowed, 403),
    (TooLarge, 413),
    (WrongParameter, 422),
    (NotFound, 404),
    (Refused, 409),
    (Transient, 503),
    (SettingsError, 503),
    (RehomeError, 500),
)
"""In this order: the first that fits decides."""


def problem_of(error: Exception) -> Problem:
    """What an error means for whoever asked."""
    if isinstance(error, RequestValidationError):
        wrong = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return _problem(422, "; ".join(wrong), wrong)
    if isinstance(error, HTTPException):
        said = error.detail if error.detail != _title(error.status_code) else ""
        return _problem(
            error.status_code,
            said or "there is nothing of that name here; /api/v1/openapi.json lists what is",
        )
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
    return _problem(500, DEFECT) if status is None else _problem(status, str(error))


Page = Callable[[Request, Problem], Response]


def handle(app: FastAPI, page: Page) -> None:
    """Answer all errors of an application so; `page` makes the page of one."""

    async def handler(request: Request, error: Exception) -> Response:
        return answer(request, error, page)

    for kind in (NotSignedIn, NotAllowed, TooLarge, RequestValidationError, HTTPException, RehomeError):
        app.add_exception_handler(kind, handler)


def answer(request: Request, error: Exception, page: Page) -> Response:
    """The answer to a request that ended with this error."""
    problem = problem_of(error)
    if request.url.path.startswith(API):
        headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, NotSignedIn) else {}
        return Response(problem.model_dump_json(), problem.status, headers, MEDIA_TYPE)
    if isinstance(error, NotSignedIn) and request.method == "GET" and request.url.path != "/live":
        return RedirectResponse("/sign-in", 303)
    return page(request, problem)


def _problem(status: int, detail: str, errors: list[str] | None = None) -> Problem:
    return Problem(title=_title(status), status=status, detail=detail, errors=errors or [])


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
