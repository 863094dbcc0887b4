"""`/health` and `/metrics` of a running consumer."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from rehome_consumer.doctor.migrations import UNSENT_TOO_LONG
from rehome_consumer.errors import RehomeError, SettingsError
from rehome_consumer.network.http_server import Shared, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.bootstrap import Consumer
    from rehome_consumer.doctor.periodic import PeriodicDiagnosis
    from rehome_consumer.settings import Settings


@asynccontextmanager
async def served(
    settings: Settings, consumer: Consumer, diagnosis: PeriodicDiagnosis | None = None
) -> AsyncIterator[None]:
    """Serve them on REHOME_HTTP_PORT, if it is set; with the last findings of the reconciler.

    Raises:
        SettingsError: the port is taken, or REHOME_HTTP_HOST is not an address of this machine.
    """
    if settings.http_port is None:
        yield
        return
    state = _State(consumer, diagnosis)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(listening(state.answer, settings.http_host, settings.http_port))
        except OSError as error:
            where = f"REHOME_HTTP_HOST={settings.http_host} REHOME_HTTP_PORT={settings.http_port}"
            raise SettingsError(f"{where}: {error.strerror or error}") from error
        yield


class _State:
    """The state of this consumer; the state database is queried at most once a second."""

    def __init__(self, consumer: Consumer, diagnosis: PeriodicDiagnosis | None) -> None:
        self._consumer = consumer
        self._diagnosis = diagnosis
        self._oldest_unsent = Shared(consumer.journal.oldest_unsent)
        self._metrics = Shared(self._measured)
        self._registry = registry = CollectorRegistry()
        self._oldest = Gauge(
            "rehome_outbox_oldest_unsent_seconds", "Age of the oldest unsent event.", registry=registry
        )
        self._handling = Gauge(
            "rehome_deliveries_in_progress", "Deliveries being handled by this consumer.", registry=registry
        )
        self._findings = Gauge(
            "rehome_findings",
            "Findings of the reconciler's last check.",
            ["kind", "severity"],
            registry=registry,
        )
        self._dead_letters = Gauge(
            "rehome_dead_letters", "Dead letters that wait for an operator.", registry=registry
        )
        self._dead_letters.set(float("nan"))
        self._last_check = Gauge(
            "rehome_doctor_last_check_timestamp_seconds",
            "When the reconciler last finished a check; 0 before the first.",
            registry=registry,
        )

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.method not in ("GET", "HEAD"):
            response = web.Response(status=405)
        elif request.path == "/health":
            response = await self._health()
        elif request.path == "/metrics":
            response = web.Response(body=await self._metrics(), content_type="text/plain")
        else:
            response = web.Response(status=404)
        response.force_close()
        return response

    async def _health(self) -> web.Response:
        try:
            waits = await self._oldest_unsent()
        except RehomeError as error:
            return web.json_response({"ok": False, "error": str(error)}, status=503)
        connected = self._consumer.connection.connected.is_set()
        ok = connected and waits < UNSENT_TOO_LONG.total_seconds()
        body = {"ok": ok, "broker": connected, "oldest_unsent_seconds": waits}
        return web.json_response(body, status=200 if ok else 503)

    async def _measured(self) -> bytes:
        try:
            self._oldest.set(await self._oldest_unsent())
        except RehomeError:
            self._oldest.set(float("nan"))
        self._handling.set(self._consumer.worker.in_hand)
        if self._diagnosis is not None:
            self._findings.clear()
            for (kind, severity), number in self._diagnosis.counts.items():
                self._findings.labels(kind, severity).set(number)
            self._last_check.set(self._diagnosis.checked_at.timestamp() if self._diagnosis.checked_at else 0)
            dead = self._diagnosis.dead_letters
            self._dead_letters.set(float("nan") if dead is None else dead)
        return generate_latest(self._registry)
