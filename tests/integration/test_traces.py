"""Traces as a collector gets them, and what a collector that is away costs."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rehome_consumer.bootstrap import tracing
from rehome_consumer.errors import SettingsError
from rehome_consumer.ports.tracing import NoTracing
from sandbox.system.net import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@asynccontextmanager
async def collector(port: int, *, silent: bool = False) -> AsyncIterator[list[ExportTraceServiceRequest]]:
    """Takes spans by OTLP over HTTP, as a collector does; a silent one never answers."""
    over = asyncio.Event()
    taken: list[ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        taken.append(ExportTraceServiceRequest.FromString(await request.read()))
        if silent:
            await over.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    try:
        yield taken
    finally:
        over.set()
        await runner.cleanup()


async def test_spans_reach_a_collector_with_the_service_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    port, trace = free_port(), uuid4()
    monkeypatch.setenv(ENDPOINT, f"http://{LOOPBACK}:{port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "rehome-eu")
    async with collector(port) as taken, tracing("otlp") as made:
        with made.step("step stop", parent=None, trace=trace, attributes={"rehome.try": 1}) as span:
            with made.call("runtime.stop"):
                pass
            span.mark(outcome="stopped")
    (request,) = taken
    (resource,) = request.resource_spans
    assert "rehome-eu" in {
        one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
    }
    spans = {one.name: one for scope in resource.scope_spans for one in scope.spans}
    assert {one.trace_id for one in spans.values()} == {trace.bytes}
    assert spans["runtime.stop"].parent_span_id == spans["step stop"].span_id
    assert {one.key for one in spans["step stop"].attributes} == {"rehome.try", "rehome.outcome"}


@pytest.mark.parametrize("silent", [False, True], ids=["nobody listens", "no answer"])
async def test_a_collector_that_is_away_costs_no_step_time_and_the_end_seconds(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    port = free_port()
    monkeypatch.setenv(ENDPOINT, f"http://{LOOPBACK}:{port}")

    async def trace() -> tuple[float, float]:
        async with tracing("otlp") as made:
            began = time.monotonic()
            for _ in range(3000):  # more than wait at most
                with (
                    made.step("step stop", parent=None, trace=uuid4(), attributes={}),
                    made.call("runtime.stop"),
                ):
                    pass
            worked = time.monotonic()
        return worked - began, time.monotonic() - worked

    if silent:
        async with collector(port, silent=True):
            working, ending = await trace()
    else:
        working, ending = await trace()
    # Limits that a wait for the collector would pass, not a measure of speed.
    assert working < 15
    assert ending < 15


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"REHOME_TRACES: .*/none/traces cannot be written: No such file"):
        async with tracing(str(tmp_path / "none" / "traces")):
            pass


async def test_a_library_that_is_not_there_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("rehome_consumer.adapters.tracing.spans", raising=False)
    monkeypatch.setitem(sys.modules, "rehome_consumer.adapters.tracing.spans", None)
    with pytest.raises(
        SettingsError, match=r"REHOME_TRACES=otlp: .*it comes with the extra rehome-consumer\[traces\]"
    ):
        async with tracing("otlp"):
            pass


async def test_off_needs_nothing() -> None:
    async with tracing("off") as made:
        assert isinstance(made, NoTracing)
