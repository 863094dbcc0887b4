"""The trace of a real move, as it is in a file, also where the consumer was killed on the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.acceptance.conftest import LIMIT, PLAN, MakeSite

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.platform.billing import Billing
    from sandbox.platform.local import LocalPlatform
    from sandbox.platform.subscriber import Subscriber


def spans_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_move_is_one_trace_though_its_consumer_was_killed(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, tmp_path: Path
) -> None:
    site = await make_site(odoo=False)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    async with local.consumer("traced-1", settings={"REHOME_TRACES": str(first)}) as consumer:
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.stopped", instance_id=site.id, limit=LIMIT)
        await consumer.kill()
    async with local.consumer("traced-2", settings={"REHOME_TRACES": str(second)}):
        completed = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    trace = completed.migrationid.hex if completed.migrationid else ""
    events = [event for event in subscriber.events if event.subject == str(site.id) and event.migrationid]
    assert {str(event.traceparent).split("-")[1] for event in events} == {trace}
    spans = spans_in(second)
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{trace}"}
    by_id = {span["context"]["span_id"].removeprefix("0x"): span for span in spans}
    assert by_id[str(completed.traceparent).split("-")[2]]["name"] == "step complete"
    assert {"step restore", "copier.restore", "runtime.start"} <= {span["name"] for span in spans}
    assert {span["resource"]["attributes"]["service.name"] for span in spans} == {"rehome"}
    # Nothing in it but who, where, when: no argument, no password.
    assert site.tenant.password not in second.read_text()
