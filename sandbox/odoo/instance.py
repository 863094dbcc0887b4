"""An Odoo-like instance: what matters of Odoo when its database is moved, without Odoo.

    python -m sandbox.odoo.instance [--directory DIR]

The instance directory is what the hosted image mounts at `/bitnami/odoo` (argument, else `INSTANCE_DIR`).
On a first boot `conf/odoo.conf` is written from `ODOO_DATABASE_*`; with `ODOO_SKIP_BOOTSTRAP=yes` that file
is the only source and the environment's database settings are ignored, as measured on the hosted image.
Three connections stay open: two on the instance's database, one on `postgres`, where Odoo's bus listens.

Served on `ODOO_HTTP_ADDRESS` (127.0.0.1), port `ODOO_HTTP_PORT` (two tasks may share it for a moment, as two
containers share a service's name), every answer with the header `X-Boot-Id`, which identifies the process:
`GET /web/health`, `GET /web/login`, `POST /partners` {name, token}, `GET /partners?prefix=`, `GET /facts`.

Faults, by environment: `ODOO_FAULT_SLOW_START` (seconds), `ODOO_FAULT_SLOW_STOP` (seconds without taking requests,
its connections open), `ODOO_FAULT_NEVER_HEALTHY=1`, `ODOO_FAULT_EXIT_AFTER` (seconds) with `ODOO_FAULT_EXIT_CODE`,
`ODOO_FAULT_IGNORE_SIGTERM=1`.

Exit codes: 0 after SIGTERM, 255 without a usable odoo.conf, 1 without its database.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sandbox.odoo.conf import ConfError, bootstrap_conf, read_conf
from sandbox.odoo.database import DATABASE_ERRORS, DatabaseUnreachableError, OdooDatabase
from sandbox.system.net import LOOPBACK
from sandbox.system.serving import serving, until_stopped

BOOT_ID_HEADER = "X-Boot-Id"
ANSWER_LIMIT_SECONDS = 5.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Settings:
    """The instance's settings from the environment; times in seconds."""

    directory: Path
    http_address: str
    http_port: int
    skip_bootstrap: bool
    slow_start: float
    slow_stop: float
    never_healthy: bool
    exit_after: float | None
    exit_code: int
    ignore_sigterm: bool

    @classmethod
    def read(cls, environment: Mapping[str, str], directory: Path | None) -> Settings:
        """Read the settings; a missing `ODOO_HTTP_PORT` or directory raises `ConfError`."""
        where = directory or environment.get("INSTANCE_DIR")
        if not where:
            raise ConfError("no instance directory: pass --directory or set INSTANCE_DIR")
        if not environment.get("ODOO_HTTP_PORT", "").isdigit():
            raise ConfError("ODOO_HTTP_PORT is missing or no number")
        exit_after = environment.get("ODOO_FAULT_EXIT_AFTER")
        return cls(
            directory=Path(where),
            http_address=environment.get("ODOO_HTTP_ADDRESS", LOOPBACK),
            http_port=int(environment["ODOO_HTTP_PORT"]),
            skip_bootstrap=_is_yes(environment.get("ODOO_SKIP_BOOTSTRAP")),
            slow_start=float(environment.get("ODOO_FAULT_SLOW_START", "0")),
            slow_stop=float(environment.get("ODOO_FAULT_SLOW_STOP", "0")),
            never_healthy=_is_yes(environment.get("ODOO_FAULT_NEVER_HEALTHY")),
            exit_after=float(exit_after) if exit_after else None,
            exit_code=int(environment.get("ODOO_FAULT_EXIT_CODE", "1")),
            ignore_sigterm=_is_yes(environment.get("ODOO_FAULT_IGNORE_SIGTERM")),
        )


def _is_yes(value: str | None) -> bool:
    return (value or "").lower() in {"yes", "true", "1"}


class OdooServer:
    """The HTTP interface of one instance process."""

    def __init__(self, database: OdooDatabase, *, never_healthy: bool) -> None:
        self._database = database
        self._never_healthy = never_healthy
        self._boot_id = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def application(self) -> web.Application:
        """The routes, with the boot id on every answer and database errors as status 500."""
        application = web.Application(middlewares=[self._report_database_errors])
        application.on_response_prepare.append(self._sign)
        application.router.add_get("/web/health", self.health)
        application.router.add_get("/web/login", self.login)
        application.router.add_post("/partners", self.create_partner)
        application.router.add_get("/partners", self.count_partners)
        application.router.add_get("/facts", self.facts)
        return application

    async def health(self, _request: web.Request) -> web.Response:
        """200 when the database answers, else 503."""
        try:
            if not self._never_healthy:
                async with asyncio.timeout(ANSWER_LIMIT_SECONDS):
                    await self._database.ping()
                return web.json_response({"status": "pass"})
        except DATABASE_ERRORS as error:
            return web.json_response({"status": "fail", "error": _describe_error(error)}, status=503)
        return web.json_response({"status": "fail", "error": "never healthy, on purpose"}, status=503)

    async def login(self, _request: web.Request) -> web.Response:
        """The login page; like Odoo's it needs the database."""
        if self._never_healthy:
            return web.Response(status=503, text="never healthy, on purpose")
        await self._database.ping()
        return web.Response(text="<!DOCTYPE html><title>Odoo</title>", content_type="text/html")

    async def create_partner(self, request: web.Request) -> web.Response:
        """Insert a partner and answer 201 with its id and the caller's token, after the COMMIT."""
        body = await request.json()
        name, token = body.get("name"), body.get("token")
        if not (isinstance(name, str) and name and isinstance(token, str) and token):
            return web.json_response({"error": "name and token must be texts"}, status=400)
        partner_id = await self._database.create_partner(name=name, token=token)
        return web.json_response({"id": partner_id, "token": token}, status=201)

    async def count_partners(self, request: web.Request) -> web.Response:
        """How many partners have a name with this prefix."""
        count = await self._database.count_partners(prefix=request.query.get("prefix", ""))
        return web.json_response({"count": count})

    async def facts(self, _request: web.Request) -> web.Response:
        """What a migration must not change, and the server as the instance's own connection reports it."""
        return web.json_response(await self._database.facts())

    async def _sign(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers[BOOT_ID_HEADER] = self._boot_id

    @web.middleware
    async def _report_database_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(ANSWER_LIMIT_SECONDS):
                return await handler(request)
        except DATABASE_ERRORS as error:
            return web.json_response({"error": _describe_error(error)}, status=500)


def _describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def serve(settings: Settings) -> None:
    """Run the instance until SIGTERM.

    Raises:
        ConfError: odoo.conf is missing or unusable.
        DatabaseUnreachableError: no connection to the database after a few tries.
    """
    loop = asyncio.get_running_loop()
    if settings.exit_after is not None:
        loop.call_later(settings.exit_after, os._exit, settings.exit_code)
    if settings.slow_start:
        print(f"odoo: starting slowly, {settings.slow_start} s, on purpose", flush=True)
        await asyncio.sleep(settings.slow_start)
    conf = settings.directory / "conf" / "odoo.conf"
    if not settings.skip_bootstrap:
        bootstrap_conf(conf, os.environ)
    database = await OdooDatabase.connect(read_conf(conf))
    server = OdooServer(database, never_healthy=settings.never_healthy)
    try:
        application = server.application()
        async with serving(application, settings.http_port, share_port=True, address=settings.http_address):
            print(f"odoo: HTTP service running on port {settings.http_port}", flush=True)
            await (asyncio.Event().wait() if settings.ignore_sigterm else until_stopped())
            print("odoo: asked to stop, finishing running requests", flush=True)
        await asyncio.sleep(settings.slow_stop)
    finally:
        await database.close()


def main() -> int:
    """Run one instance; the exit code says why it ended."""
    parser = argparse.ArgumentParser(prog="sandbox.odoo.instance", description="An Odoo-like instance.")
    parser.add_argument("--directory", type=Path, help="instance directory (default: $INSTANCE_DIR)")
    try:
        settings = Settings.read(os.environ, parser.parse_args().directory)
        if settings.ignore_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        asyncio.run(serve(settings))
    except ConfError as error:
        print(f"odoo: {error}", file=sys.stderr)
        return 255
    except DatabaseUnreachableError as error:
        print(f"odoo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
