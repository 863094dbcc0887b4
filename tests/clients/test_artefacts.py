"""The schemas, the AsyncAPI document and the types for TypeScript, as other languages' tools judge them."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rehome_events.catalog import CATALOG, KNOWN, all_in_use
from rehome_events.tools import asyncapi, typescript
from rehome_events.tools.schema import golden, load, type_name
from tests.clients.node import run
from tests.clients.pages import LIMIT, NODE

if TYPE_CHECKING:
    from pathlib import Path


def test_ajv_strict_judges_every_example_as_the_contract_does() -> None:
    schemas = {type_name(entry): load(entry.type, entry.version) for entry in KNOWN.values()}
    judged = []
    for entry in KNOWN.values():
        for name, event in golden(entry.type, entry.version, "valid").items():
            given = {key: value for key, value in event.items() if value is not None}
            judged.append((f"{entry.type} {name}", type_name(entry), given, True))
        for name, wrong in golden(entry.type, entry.version, "invalid").items():
            expected = bool(wrong.get("beyond_schema"))
            judged.append((f"{entry.type} {name}", type_name(entry), wrong["event"], expected))
    events = [{"schema": schema, "event": event} for _, schema, event, _ in judged]
    answers = json.loads(run("ajv.mjs", {"schemas": schemas, "events": events}))
    assert dict(zip([label for label, *_ in judged], answers, strict=True)) == {
        label: expected for label, *_, expected in judged
    }


def test_ajv_is_strict() -> None:
    with pytest.raises(AssertionError, match='unknown keyword: "mistake"'):
        run("ajv.mjs", {"schemas": {"x": {"mistake": 1}}, "events": []})


@pytest.mark.parametrize("bundled", [True, False])
def test_asyncapis_parser_finds_nothing_wrong(bundled: bool) -> None:
    text = asyncapi.render(asyncapi.generate(bundled=bundled))
    parsed = json.loads(run("asyncapi.mjs", text, *([] if bundled else [str(asyncapi.FILE)])))
    assert [one for one in parsed["said"] if one["severity"] <= 1] == []
    assert set(parsed["channels"]) == set(CATALOG)


def test_asyncapis_parser_notices_a_mistake() -> None:
    text = asyncapi.render(asyncapi.generate(bundled=True))
    wrong = text.replace('action: "send"', 'action: "shout"', 1)
    assert wrong != text
    parsed = json.loads(run("asyncapi.mjs", wrong))
    assert [one for one in parsed["said"] if one["severity"] == 0]


def compiled(directory: Path, program: str) -> str:
    """What tsc --strict says of a program beside the types; empty where it finds nothing."""
    (directory / "events.d.ts").write_text(typescript.FILE.read_text())
    (directory / "program.ts").write_text(program)
    ran = subprocess.run(
        [NODE / "node_modules" / ".bin" / "tsc", "--strict", "--noEmit", "--target", "es2022", "--module", "nodenext",
         "--exactOptionalPropertyTypes", "program.ts", "events.d.ts"],
        cwd=directory, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    return ran.stdout + ran.stderr


def imports() -> str:
    return f"import type {{ RehomeEvent, {', '.join(map(type_name, all_in_use()))} }} from './events.js';\n"


def test_every_valid_example_has_its_type(tmp_path: Path) -> None:
    lines = [imports()]
    for entry in all_in_use():
        for name, event in golden(entry.type, entry.version, "valid").items():
            if name not in {"later-fields", "unknown-fields"}:  # a literal with more is refused, see below
                label = f"{type_name(entry)}_{re.sub(r'[^a-z]', '_', name)}"
                lines.append(f"export const {label}: {type_name(entry)} = {json.dumps(event)};")
                lines.append(f"export const {label}_any: RehomeEvent = {label};")
    assert compiled(tmp_path, "\n".join(lines)) == ""


READER = """
export function inform(event: RehomeEvent): string {
  switch (event.type) {
    case "migration.completed":
      return `${event.data.customer_id}: moved, ${event.data.downtime_seconds.toFixed(0)} s of downtime`;
    case "migration.rolled_back":
      return `${event.data.instance_id}: still on the shared pool: ${event.data.reason}`;
    default:
      return event.id;
  }
}
"""


def test_the_type_of_an_event_leads_to_the_type_of_its_data(tmp_path: Path) -> None:
    assert compiled(tmp_path, imports() + READER) == ""
    wrong = READER.replace('"migration.rolled_back"', '"migration.failed"')
    assert "Property 'reason' does not exist" in compiled(tmp_path, imports() + wrong)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"plan_teir": "premium"}, "'\"plan_teir\"' does not exist"),
        ({"to_plan": 5}, "Type 'number' is not assignable to type 'string'"),
        ({"entitlements": {"db_type": "private"}}, 'not assignable to type \'"shared" | "dedicated"'),
    ],
)
def test_a_publishers_mistake_does_not_compile(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    event = golden("plan.upgraded", 1, "valid")["full"]
    event = {**event, "data": {**event["data"], **change}}
    assert says in compiled(tmp_path, f"{imports()}export const x: PlanUpgradedV1 = {json.dumps(event)};")
