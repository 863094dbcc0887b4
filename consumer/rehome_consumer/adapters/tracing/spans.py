"""Port `Tracing` by OpenTelemetry's SDK, which `rehome-consumer[traces]` installs. Imported only where it is wanted."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from threading import Thread
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rehome_consumer.errors import SettingsError
from rehome_events.data import masked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from uuid import UUID

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 5
"""For what is not exported yet when the consumer ends."""
_WORDS: Final = 1000
_W3C: Final = TraceContextTextMapPropagator()
_wanted: ContextVar[UUID | None] = ContextVar("wanted_trace", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, but a trace that a migration begins has its id: each try and each replay are in the same one."""

    def generate_trace_id(self) -> int:
        wanted = _wanted.get()
        return super().generate_trace_id() if wanted is None else wanted.int


class _StepSpan:
    """A try of a step."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        self.traceparent: str | None = carrier.get("traceparent")

    def mark(self, **attributes: str | int) -> None:
        """See `Span.mark`."""
        self._span.set_attributes({f"rehome.{name}": value for name, value in attributes.items()})

    def failed(self, why: str) -> None:
        """See `Span.failed`."""
        self._span.set_status(Status(StatusCode.ERROR, masked(why)[:_WORDS]))


class OpenTelemetryTracing:
    """Spans of one provider."""

    def __init__(self, provider: TracerProvider) -> None:
        """Take the provider; whoever made it shuts it down."""
        self._tracer = provider.get_tracer("rehome")

    @contextmanager
    def step(
        self, name: str, *, parent: str | None, trace: UUID, attributes: dict[str, str | int]
    ) -> Iterator[_StepSpan]:
        """See `Tracing.step`."""
        context = _W3C.extract({"traceparent": parent} if parent else {}, Context())
        outside = _wanted.set(trace)
        try:
            with (
                self._tracer.start_as_current_span(
                    name,
                    context=context,
                    kind=SpanKind.CONSUMER,
                    attributes=attributes,
                    record_exception=False,
                    set_status_on_exception=False,
                ) as span,
                _failing(span),
            ):
                yield _StepSpan(span)
        finally:
            _wanted.reset(outside)

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """See `Tracing.call`."""
        with (
            self._tracer.start_as_current_span(
                name, kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
            ) as span,
            _failing(span),
        ):
            yield


@contextmanager
def _failing(span: OtelSpan) -> Iterator[None]:
    """What is raised marks the span as failed; a traceback, which may quote values, is not recorded."""
    try:
        yield
    except BaseException as error:
        words = f"{type(error).__name__}: {masked(str(error))}"[:_WORDS]
        span.set_status(Status(StatusCode.ERROR, words))
        raise


@asynccontextmanager
async def exported(exporter: SpanExporter) -> AsyncIterator[OpenTelemetryTracing]:
    """Tracing whose spans go to an exporter, in a thread of the SDK's; at the end what is left gets five seconds."""
    resource = Resource({"service.name": "rehome"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, id_generator=_Ids(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield OpenTelemetryTracing(provider)
    finally:
        await _shut_down(provider, exporter)


async def _shut_down(provider: TracerProvider, exporter: SpanExporter) -> None:
    """Export what is left, in a thread that the end of the process does not wait for: the SDK has no limit for it."""
    ending = Thread(target=provider.shutdown, name="traces", daemon=True)
    ending.start()
    await asyncio.to_thread(ending.join, FLUSH_SECONDS)
    if ending.is_alive():
        log.warning("traces.unsent error=the collector did not take them within %d s", FLUSH_SECONDS)
        exporter.shutdown()  # it tries no more


@asynccontextmanager
async def to_file(path: Path) -> AsyncIterator[OpenTelemetryTracing]:
    """Tracing into a file: one JSON document of OpenTelemetry's console exporter in each line.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"REHOME_TRACES: {path} cannot be written: {error.strerror}") from None
    with file:
        async with exported(ConsoleSpanExporter(out=file, formatter=_line)) as tracing:
            yield tracing


@asynccontextmanager
async def to_collector() -> AsyncIterator[OpenTelemetryTracing]:
    """Tracing to the collector that OpenTelemetry's own variables name, by OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    async with exported(OTLPSpanExporter()) as tracing:
        yield tracing


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
