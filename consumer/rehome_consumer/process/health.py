"""`/healthz`, `/startupz`, `/readyz` and `/metrics` of a consumer, from its start on.

`/healthz` says that the process lives and its event loop turns. The loop that carries the moves answers, so that a
stuck one answers nothing, and whoever asks gets a time-out; a thread of its own would answer all the same. It asks
nothing else: a restart cures no broker and no database, and would interrupt what runs. `/startupz` says whether it was
ready since its start, which a rolling update waits for; one that was not is not to be replaced while it has a step in
hand, which needs less than everything. `/readyz` says whether it takes deliveries now.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from rehome_consumer.errors import RehomeError, SettingsError, Unreachable
from rehome_consumer.network.http_server import Shared, listening
from rehome_consumer.ports.readiness import EVERYTHING, Cause
from rehome_consumer.process.readiness import NOT_YET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from rehome_consumer.bootstrap import Consumer
    from rehome_consumer.doctor.periodic import PeriodicDiagnosis
    from rehome_consumer.settings import Settings

START_SECONDS: Final = 1800.0
"""How long one may take to get ready: the start period of the image's health check."""


@dataclass(slots=True)
class Status:
    """What is known of this process.

    Attributes:
        consumer: None until it is connected.
        starting: why it is not, when something does not answer.
        diagnosis: the reconciler, for its last findings.
        since: when it began, by the monotonic clock.
    """

    consumer: Consumer | None = None
    starting: Cause | None = None
    diagnosis: PeriodicDiagnosis | None = None
    since: float = field(default_factory=time.monotonic)


def served_when_connected(
    settings: Settings, consumer: Consumer, diagnosis: PeriodicDiagnosis | None = None
) -> AbstractAsyncContextManager[None]:
    """As `served`, for a consumer that is connected already."""
    return served(settings, Status(consumer, diagnosis=diagnosis))


@asynccontextmanager
async def served(settings: Settings, status: Status) -> AsyncIterator[None]:
    """Serve them on REHOME_HTTP_PORT, if it is set; `status` may change meanwhile.

    Raises:
        SettingsError: the port is taken, or REHOME_HTTP_HOST is not an address of this machine.
    """
    if settings.http_port is None:
        yield
        return
    state = _State(status)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(listening(state.answer, settings.http_host, settings.http_port))
        except OSError as error:
            where = f"REHOME_HTTP_HOST={settings.http_host} REHOME_HTTP_PORT={settings.http_port}"
            raise SettingsError(f"{where}: {error.strerror or error}") from error
        yield


class _State:
    """The state of this consumer; the state database is queried at most once a second."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._oldest_unsent = Shared(self._asked)
        self._metrics = Shared(self._measured)
        self._registry = registry = CollectorRegistry()
        self._oldest = Gauge(
            "rehome_outbox_oldest_unsent_seconds", "Age of the oldest unsent event.", registry=registry
        )
        self._handling = Gauge(
            "rehome_deliveries_in_progress", "Deliveries being handled by this consumer.", registry=registry
        )
        self._missing = Gauge(
            "rehome_not_ready",
            "Parts that this consumer needs and does not have; 0 while it takes deliveries.",
            registry=registry,
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
        self._retained = Gauge(
            "rehome_retained_wal_bytes",
            "WAL that a server keeps for a copy that follows it: the most at the reconciler's last check.",
            ["server"],
            registry=registry,
        )
        self._behind = Gauge(
            "rehome_replication_lag_bytes",
            "WAL that a copy that follows has not confirmed: the most of a server at the reconciler's last check.",
            ["server"],
            registry=registry,
        )
        self._last_check = Gauge(
            "rehome_doctor_last_check_timestamp_seconds",
            "When the reconciler last finished a check; 0 before the first.",
            registry=registry,
        )

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.method not in ("GET", "HEAD"):
            response = web.Response(status=405)
        elif request.path == "/healthz":
            response = web.Response(text="ok\n")
        elif request.path == "/startupz":
            response = self._ready(since_start=True)
        elif request.path == "/readyz":
            response = self._ready()
        elif request.path == "/metrics":
            response = web.Response(body=await self._metrics(), content_type="text/plain")
        else:
            response = web.Response(status=404)
        response.force_close()
        return response

    async def _asked(self) -> float:
        """Seconds that the oldest unsent event has waited."""
        consumer = self._status.consumer
        if consumer is None:
            raise Unreachable(str(self._status.starting or "it is being connected"))
        return await consumer.journal.oldest_unsent()

    def _causes(self) -> tuple[Cause, ...]:
        """What it lacks; all parts, while nothing was looked at."""
        if self._status.consumer is not None:
            return self._status.consumer.readiness.missing
        if self._status.starting is not None:
            return (self._status.starting,)
        return tuple(Cause(part, NOT_YET) for part in sorted(EVERYTHING))

    def _ready(self, *, since_start: bool = False) -> web.Response:
        causes = self._causes()
        consumer = self._status.consumer
        if (
            since_start
            and consumer is not None
            and (consumer.readiness.was_ready or self._is_needed(consumer))
        ):
            causes = ()
        body = {"ready": not causes, "causes": [{"cause": one.part, "error": one.message} for one in causes]}
        return web.json_response(body, status=503 if causes else 200)

    def _is_needed(self, consumer: Consumer) -> bool:
        """Whether it would be replaced now, and has a step in hand, which would be interrupted again and again."""
        return consumer.worker.in_hand > 0 and time.monotonic() - self._status.since >= START_SECONDS

    async def _measured(self) -> bytes:
        try:
            self._oldest.set(await self._oldest_unsent())
        except RehomeError:
            self._oldest.set(float("nan"))
        consumer, diagnosis = self._status.consumer, self._status.diagnosis
        self._handling.set(consumer.worker.in_hand if consumer is not None else 0)
        self._missing.set(len(self._causes()))
        if diagnosis is not None:
            self._findings.clear()
            for (kind, severity), number in diagnosis.counts.items():
                self._findings.labels(kind, severity).set(number)
            self._retained.clear()
            self._behind.clear()
            for server, (retained, behind) in diagnosis.slots.items():
                self._retained.labels(server).set(retained)
                self._behind.labels(server).set(behind)
            self._last_check.set(diagnosis.checked_at.timestamp() if diagnosis.checked_at else 0)
            dead = diagnosis.dead_letters
            self._dead_letters.set(float("nan") if dead is None else dead)
        return generate_latest(self._registry)
