"""The application: routes, headers of every answer, errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.datastructures import MutableHeaders

from rehome_consumer.console import api, pages, problems
from rehome_consumer.console.context import Reads, Use
from rehome_consumer.console.documents import Part, Ready
from rehome_consumer.errors import RehomeError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rehome_consumer.console.context import Console

log = logging.getLogger(__name__)

LARGEST: Final = 64 * 1024
"""Bytes of a request's body."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def application(console: Console | None) -> FastAPI:
    """The application of a console; None only describes it (`scripts/openapi.py`)."""
    app = FastAPI(
        title="rehome console", version="1", docs_url=None, redoc_url=None, openapi_url=None,
        generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    app.state.console = console
    app.include_router(api.router)
    app.include_router(pages.router, include_in_schema=False)
    app.mount("/static", pages.static(), name="static")
    problems.handle(app, pages.error_page)
    app.add_middleware(_Guard)

    @app.get("/api/v1/openapi.json", include_in_schema=False)
    async def openapi(_: Reads) -> JSONResponse:
        return JSONResponse(description(app))

    @app.api_route("/healthz", methods=["GET", "HEAD"], include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        """The process lives, and its event loop turns."""
        return PlainTextResponse("ok\n")

    @app.api_route("/readyz", methods=["GET", "HEAD"], include_in_schema=False)
    async def readyz(console: Use) -> Response:
        ready = await readiness(console)
        return Response(ready.model_dump_json(), 200 if ready.ready else 503, media_type="application/json")

    @app.get("/metrics", include_in_schema=False)
    async def metrics(console: Use, _: Reads) -> Response:
        return Response(await console.metrics(), media_type=METRICS_TYPE)

    @app.get("/live", include_in_schema=False)
    async def live(console: Use, _: Reads) -> Response:
        if console.live.is_full:
            return PlainTextResponse("too many browsers are connected\n", 503, {"Retry-After": "60"})
        return StreamingResponse(
            console.live.changes(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    return app


def description(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    document = get_openapi(
        title=app.title, version=app.version, description=api.DESCRIPTION, routes=app.routes
    )
    return api.described(document)


async def readiness(console: Console) -> Ready:
    """Whether state database and broker answer; without a broker the console shows what the journal has."""
    parts = []
    try:
        await console.reader.changes()
        parts.append(Part(part="journal", error=None))
    except RehomeError as error:
        parts.append(Part(part="journal", error=str(error)))
    if console.broker.used:
        parts.append(Part(part="broker", error=console.broker.trouble()))
    return Ready(ready=all(part.error is None for part in parts), parts=parts)


class _Guard:
    """Before all: limits of the request, whose Host it may name, the headers of every answer, and defects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken, begun = 0, False

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST:
                raise problems.TooLarge
            return message

        async def headed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope)
        console: Console = scope["app"].state.console
        if not console.access.is_host(request):
            text = (
                "this console has no tokens, so that it answers only to http://localhost and http://127.0.0.1; "
                "for other names set REHOME_CONSOLE_TOKENS_FILE\n"
            )
            await PlainTextResponse(text, 421)(scope, receive, headed)
            return
        try:
            await self._app(scope, limited, headed)
        except Exception as error:
            log.exception("console.defect")
            if begun:
                raise
            await problems.answer(request, error, pages.error_page)(scope, receive, headed)
