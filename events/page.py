"""The contract as a page to read, docs/events.md: made from the catalogue, the schemas and the golden examples."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import orjson

from events.catalog import CATALOG, EventType
from events.schema import Schema, golden, load

FILE: Final = Path(str(files("events"))).parent / "docs" / "events.md"

_INTRODUCTION: Final = """\
<!-- Generated: python -m events page --write -->
# The events

What happens to an instance is told as events on RabbitMQ, so that anybody may follow a migration without asking us.
Billing publishes `plan.upgraded` on the topic exchange `billing`; we publish everything else on the topic exchange
`migration`. The routing key is the event's type.

- To publish `plan.upgraded`: [publishing.md](publishing.md).
- To follow migrations: [subscribing.md](subscribing.md).
- For tools: [asyncapi.yaml](../events/asyncapi.yaml) and one [JSON Schema](../events/schemas) per type and version.

## Rules
- CloudEvents 1.0, structured mode: the whole event is the JSON body; content type
  `application/cloudevents+json; charset=utf-8`. Binary mode is read too.
- A delivery may repeat, and may come late. The same event has the same `id`: drop an id that you have seen.
  Do not rely on the order across instances.
- Ignore types, versions, attributes and fields that you do not know. A value that is not known is left out, never null.
- Within a version only optional fields are added. A change that could break a reader is a new version, `v2`, published
  beside `v1` for a while, with the same `id`.
- `message_id`, `type`, `correlation_id` (the migration), `timestamp` and `app_id` of the message mirror the event.
- No event holds a password, a token or a connection string with one.
"""

_FLOW: Final = """\
## How they follow each other
A box is an event, an arrow the handler that goes on from it.
"""


def render() -> str:
    """Make the page."""
    parts = [_INTRODUCTION, _FLOW, _diagram(), _catalogue(), _attributes()]
    parts += [_section(entry) for entry in CATALOG.values()]
    return "\n".join(parts)


def _diagram() -> str:
    chain = [entry for entry in CATALOG.values() if entry.next and entry.next != "roll_back"]
    then = [*chain[1:], CATALOG["migration.completed"]]
    arrows = [(this.type, this.next, following.type) for this, following in zip(chain, then, strict=True)]
    arrows += [
        ("plan.upgraded", "accept", "instance.resized"),
        ("plan.upgraded", "accept", "migration.rejected"),
        ("migration.failed", "roll_back", "migration.rolled_back"),
    ]
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {_node(entry.type)}["{entry.type}"]' for entry in CATALOG.values()]
    lines += [f"    {_node(before)} -- {handler} --> {_node(after)}" for before, handler, after in arrows]
    lines += [f"    {_node(entry.type)} -. fails .-> migration_failed" for entry in chain[1:]]
    return "\n".join([*lines, "```", ""])


def _node(kind: str) -> str:
    return kind.replace(".", "_")


def _catalogue() -> str:
    lines = ["## Catalogue", "| event | says | published by | read by | next |", "|---|---|---|---|---|"]
    for entry in CATALOG.values():
        link = f"[`{entry.type}`](#{entry.type.replace('.', '')}-v{entry.version})"
        handler = f"`{entry.next}`" if entry.next else "-"
        cells = (link, entry.summary, entry.published_by, ", ".join(entry.readers), handler)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _attributes() -> str:
    entry = CATALOG["migration.completed"]
    schema = load(entry.type, entry.version)
    envelope = {**schema, "properties": {k: v for k, v in schema["properties"].items() if k != "data"}}
    always = "`migrationid` and `attempt` are always there in what belongs to a migration."
    return f"## Attributes of every event\n{always}\n\n{_table(envelope, schema)}"


def _section(entry: EventType) -> str:
    schema = load(entry.type, entry.version)
    data = schema["$defs"][schema["properties"]["data"]["$ref"].rpartition("/")[2]]
    example = orjson.dumps(golden(entry.type, entry.version, "valid")["full"], option=orjson.OPT_INDENT_2)
    return "\n".join(
        [
            f"## {entry.type} v{entry.version}",
            data["description"],
            "",
            _table(data, schema),
            "<details><summary>Example</summary>",
            "",
            "```json",
            example.decode(),
            "```",
            "</details>",
            "",
        ]
    )


def _table(owner: Schema, root: Schema) -> str:
    lines = ["| field | type | always | says | example |", "|---|---|---|---|---|"]
    lines += [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        for row in _rows(owner, root, "")
    ]
    return "\n".join([*lines, ""])


def _rows(owner: Schema, root: Schema, prefix: str) -> Iterator[tuple[str, ...]]:
    for name, field in owner["properties"].items():
        inner = _referred(field, root)
        always = "yes" if name in owner.get("required", ()) else ""
        shown = "" if inner else _example(field)
        yield f"`{prefix}{name}`", _kind(field), always, field["description"], shown
        if inner:
            yield from _rows(inner, root, f"{prefix}{name}.")


def _referred(field: Schema, root: Schema) -> Schema | None:
    for node in (field, *field.get("anyOf", ())):
        if "$ref" in node:
            found: Schema = root["$defs"][node["$ref"].rpartition("/")[2]]
            return found
    return None


def _kind(field: Schema) -> str:
    if "$ref" in field:
        return "object"
    if "anyOf" in field:
        return " or ".join(_kind(branch) for branch in field["anyOf"])
    if "const" in field or "enum" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"list of {_kind(field['items'])}"
    if "additionalProperties" in field:
        return f"object of {_kind(field['additionalProperties'])} by name"
    return {"uuid": "UUID", "date-time": "time"}.get(field.get("format", ""), str(field["type"]))


def _example(field: Schema) -> str:
    example: Any = field["examples"][0]
    text = example if isinstance(example, str) else orjson.dumps(example).decode()
    return f"`{text}`"
