"""One trace for each migration, from billing's event to its end, whatever happens on the way."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from rehome_consumer import saga
from rehome_consumer.adapters.tracing.spans import exported
from rehome_consumer.errors import Refused, Transient
from rehome_consumer.model import Pause
from rehome_consumer.process.logs import formatter
from tests.fakes.site import PASSWORD
from tests.support.events import migration_of, replay_of, upgrade
from tests.support.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

    from rehome_events.envelope import CloudEvent

BILLINGS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = f"{BILLINGS[:-2]}00"


async def traced(rig: Rig, event: CloudEvent[Any]) -> list[ReadableSpan]:
    """Publish it, and let all that follows happen; the spans in the order of their ends."""
    exporter = InMemorySpanExporter()
    async with exported(exporter) as tracing:
        rig.engine = rig.new_engine(tracing=tracing)
        rig.publish(event)
        await rig.run()
    return list(exporter.get_finished_spans())


def new_upgrade(rig: Rig, traceparent: str | None = BILLINGS) -> CloudEvent[Any]:
    return upgrade(rig.site.add_tenant("acme")).model_copy(update={"traceparent": traceparent})


def steps_of(spans: list[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.kind is SpanKind.CONSUMER]


def context_of(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found
    return found


def attributes(span: ReadableSpan) -> Mapping[str, object]:
    return span.attributes or {}


def span_id(span: ReadableSpan) -> str:
    return format_span_id(context_of(span).span_id)


def parent_id(span: ReadableSpan) -> str | None:
    return format_span_id(span.parent.span_id) if span.parent else None


async def test_each_step_is_a_child_of_the_step_before_and_the_first_one_of_billings_span() -> None:
    rig = Rig()
    event = new_upgrade(rig)
    spans = await traced(rig, event)
    assert {format_trace_id(context_of(span).trace_id) for span in spans} == {BILLINGS.split("-")[1]}
    steps = steps_of(spans)
    assert [span.name for span in steps] == [f"step {step.name}" for step in saga.MIGRATION[:-1]]
    assert [parent_id(span) for span in steps] == [BILLINGS.split("-")[2], *map(span_id, steps[:-1])]
    completed = rig.events("migration.completed")[0]
    assert completed.traceparent == f"00-{BILLINGS.split('-')[1]}-{span_id(steps[-1])}-01"
    assert attributes(steps[3])["rehome.migration"] == str(migration_of(event))
    assert [attributes(span)["rehome.outcome"] for span in steps[-2:]] == ["started", "completed"]


async def test_calls_of_ports_are_spans_within_their_step() -> None:
    rig = Rig()
    spans = await traced(rig, new_upgrade(rig))
    calls = [span for span in spans if span.kind is SpanKind.CLIENT]
    names = {span_id(span): span.name for span in spans}
    found = {(names[str(parent_id(span))], span.name) for span in calls}
    assert {("step back_up", "copier.dump"), ("step start", "runtime.start")} <= found
    assert all(not span.attributes for span in calls)  # nothing of a customer's, and no argument


async def test_without_billings_trace_the_migration_is_the_trace_of_all_its_tries() -> None:
    rig = Rig()
    rig.fail("accept.ran", Transient("not now"))
    event = new_upgrade(rig, None)
    spans = await traced(rig, event)
    assert {context_of(span).trace_id for span in spans} == {migration_of(event).int}
    assert [span.name for span in steps_of(spans) if span.parent is None] == ["step accept"] * 2
    assert rig.events("migration.completed")[0].traceparent is not None


async def test_each_try_is_a_span_of_its_own_under_the_same_event() -> None:
    rig = Rig()
    rig.fail("restore.copier.restore.before", Transient(f"password={PASSWORD}"))
    spans = steps_of(await traced(rig, new_upgrade(rig)))
    first, second = [span for span in spans if span.name == "step restore"]
    assert parent_id(first) == parent_id(second)
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert [attributes(span)["rehome.try"] for span in (first, second)] == [1, 2]
    assert [attributes(span)["rehome.outcome"] for span in (first, second)] == ["retry", "restored"]
    assert PASSWORD not in str(first.status.description)


async def test_a_move_that_waits_for_its_turn_has_not_failed() -> None:
    rig = Rig()
    rig.journal.pause = Pause(datetime(2026, 1, 1, tzinfo=UTC), "anna@host", "")
    exporter = InMemorySpanExporter()
    async with exported(exporter) as tracing:
        rig.engine = rig.new_engine(tracing=tracing)
        rig.publish(new_upgrade(rig))
        await rig.run(until="prepare")
        await rig.handle_next("prepare")
    (waits,) = [span for span in steps_of(list(exporter.get_finished_spans())) if span.name == "step prepare"]
    assert (attributes(waits)["rehome.outcome"], waits.status.status_code) == ("defer", StatusCode.UNSET)


async def test_failure_rollback_and_replay_are_in_the_same_trace() -> None:
    rig = Rig()
    event = new_upgrade(rig)
    rig.fail("start.runtime.start.before", Refused("no"))
    exporter = InMemorySpanExporter()
    async with exported(exporter) as tracing:
        rig.engine = rig.new_engine(tracing=tracing)
        rig.publish(event)
        await rig.run()
        assert rig.row(event).state == "rolled_back"
        rig.replay(replay_of(event), "accept")
        await rig.run()
    assert rig.row(event).state == "completed"
    spans = list(exporter.get_finished_spans())
    assert {format_trace_id(context_of(span).trace_id) for span in spans} == {BILLINGS.split("-")[1]}
    assert "step roll_back" in {span.name for span in spans}
    assert len([span for span in spans if span.name == "step accept"]) == 2


async def test_what_is_not_sampled_is_not_recorded_and_the_chain_says_so() -> None:
    rig = Rig()
    assert await traced(rig, new_upgrade(rig, UNSAMPLED)) == []
    last = str(rig.events("migration.completed")[0].traceparent)
    assert last.startswith(f"00-{UNSAMPLED.split('-')[1]}-")
    assert last.endswith("-00")


async def test_without_tracing_events_carry_on_what_billing_sent() -> None:
    rig = Rig()
    rig.publish(new_upgrade(rig))
    await rig.run()
    assert rig.events("migration.completed")[0].traceparent == BILLINGS


async def test_what_is_logged_in_a_step_says_whose_it_is() -> None:
    rig = Rig()
    lines: list[dict[str, object]] = []

    class Formatting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(formatter("json").format(record)))

    handler = Formatting()
    logging.getLogger().addHandler(handler)
    rig.at["start.runtime.start.before"] = [lambda: logging.getLogger("of.an.adapter").warning("odd.thing")]
    try:
        event = new_upgrade(rig)
        spans = steps_of(await traced(rig, event))
    finally:
        logging.getLogger().removeHandler(handler)
    (line,) = (one for one in lines if one["event"] == "odd.thing")
    assert {name: line[name] for name in ("migration", "instance", "step", "attempt", "try")} == {
        "migration": str(migration_of(event)),
        "instance": str(rig.instance(event)),
        "step": "start",
        "attempt": 1,
        "try": 1,
    }
    (start,) = (span for span in spans if span.name == "step start")
    assert (line["trace_id"], line["span_id"]) == (BILLINGS.split("-")[1], span_id(start))
