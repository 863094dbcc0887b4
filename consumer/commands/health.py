"""`/health` and `/metrics` of a running consumer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from consumer.errors import RehomeError, SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer.bootstrap import Consumer
    from consumer.doctor.rounds import Rounds
    from consumer.settings import Settings

UNSENT_TOO_LONG = 60.0  # seconds an event may wait in the outbox before this consumer calls itself unwell


@asynccontextmanager
async def served(settings: Settings, consumer: Consumer, rounds: Rounds | None = None) -> AsyncIterator[None]:
    """Serve them on REHOME_HTTP_PORT, if it is set; with what the reconciler's `rounds` found last.

    Raises:
        SettingsError: the port is taken.
    """
    if settings.http_port is None:
        yield
        return
    registry = CollectorRegistry()
    oldest = Gauge(
        "rehome_outbox_oldest_unsent_seconds", "Age of the oldest unsent event.", registry=registry
    )
    handling = Gauge(
        "rehome_deliveries_in_hand", "Deliveries being handled by this consumer.", registry=registry
    )

    findings = Gauge(
        "rehome_findings", "What the reconciler found last.", ["kind", "severity"], registry=registry
    )
    letters = Gauge("rehome_dead_letters", "Dead letters that wait for an operator.", registry=registry)
    letters.set(float("nan"))
    looked = Gauge(
        "rehome_doctor_looked_timestamp_seconds",
        "When the reconciler's last look ended; 0 before the first.",
        registry=registry,
    )

    async def health(_request: web.Request) -> web.Response:
        try:
            waits = await consumer.journal.oldest_unsent()
        except RehomeError as error:
            return web.json_response({"ok": False, "why": str(error)}, status=503)
        connected = consumer.connection.connected.is_set()
        ok = connected and waits < UNSENT_TOO_LONG
        body = {"ok": ok, "broker": connected, "oldest_unsent_seconds": waits}
        return web.json_response(body, status=200 if ok else 503)

    async def metrics(_request: web.Request) -> web.Response:
        try:
            oldest.set(await consumer.journal.oldest_unsent())
        except RehomeError:
            oldest.set(float("nan"))
        handling.set(consumer.worker.in_hand)
        if rounds is not None:
            findings.clear()
            for (kind, severity), number in rounds.counts.items():
                findings.labels(kind, severity).set(number)
            looked.set(rounds.looked_at.timestamp() if rounds.looked_at else 0)
            letters.set(float("nan") if rounds.dead_letters is None else rounds.dead_letters)
        return web.Response(body=generate_latest(registry), content_type="text/plain")

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.http_host, settings.http_port).start()
        except OSError as error:
            raise SettingsError(
                f"REHOME_HTTP_PORT={settings.http_port}: {error.strerror or error}"
            ) from error
        yield
    finally:
        await runner.cleanup()
