"""The blocks of the page about the events."""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from rehome_events.catalog import CATALOG, EventType, all_in_use
from rehome_events.tools.page.blocks import Block, Bullets, Diagram, Example, Heading, Table, Text
from rehome_events.tools.schema import Schema, golden, load

_INTRODUCTION: Final[tuple[Block, ...]] = (
    Heading(1, "The events"),
    Text(
        "What happens to an instance is published as events on RabbitMQ, so that other services can follow a "
        "migration. Billing publishes `plan.upgraded` on the topic exchange `billing`; rehome publishes everything "
        "else on the topic exchange `migration`. The routing key is the event's type."
    ),
    Bullets(
        (
            "To publish `plan.upgraded`: [publishing.md](publishing.md).",
            "To follow migrations: [subscribing.md](subscribing.md).",
            "Either with a client of your own, in Node or Python: [other-clients.md](other-clients.md).",
            (
                "For tools: [asyncapi.yaml](../events/rehome_events/asyncapi.yaml), one "
                "[JSON Schema](../events/rehome_events/schemas) per type and version, and "
                "[types for TypeScript](../events/rehome_events/events.d.ts)."
            ),
        )
    ),
    Heading(2, "Rules"),
    Bullets(
        (
            (
                "CloudEvents 1.0, structured mode: the JSON body is the complete event; content type "
                "`application/cloudevents+json; charset=utf-8`. Binary mode is read too."
            ),
            (
                "A delivery may repeat, and may come late. The same event has the same `id`: drop an id that you have "
                "handled. Do not rely on the order of events of different instances."
            ),
            (
                "Ignore types, versions, attributes and fields that you do not know. An unknown value is left out, "
                "never null."
            ),
            (
                "Within a version only optional fields are added. A change that could break a reader is a "
                "[new version](#versions), published beside the old one for a while. What changed: "
                "[events-changes.md](events-changes.md)."
            ),
            (
                "`message_id`, `type`, `correlation_id` (the migration), `timestamp` and `app_id` of the message "
                "mirror the event."
            ),
            "No event holds a password, a token or a connection string with one.",
        )
    ),
)

_VERSIONS: Final[tuple[Block, ...]] = (
    Heading(2, "Versions"),
    Text(
        "The attribute `dataschema` ends with the version; without it, the version is 1. A new version of a type takes "
        "three releases of rehome, each of which reads what the one before and the one after it publish:"
    ),
    Table(
        ("release", "rehome reads", "rehome publishes", "a subscriber"),
        (
            ("announces v2", "v1, v2", "v1", "can read the schema of v2, and need not change yet"),
            (
                "publishes v2",
                "v1, v2",
                "v2, then v1 of the same event, with the same `id`",
                "changes to v2 when it suits",
            ),
            (
                "retires v1",
                "v1, v2",
                "v2",
                "has changed to v2; `Subscriber` refuses v1 with an error",
            ),
        ),
    ),
    Text(
        "With the package a subscriber gets version 1 of a type that it names, and another version where it gives "
        "the model: `types=[MigrationCompletedV2]`. With `types=[MigrationCompleted, MigrationCompletedV2]` it gets "
        "each event once, in the version that comes first; so it changes to v2 without missing an event that was "
        "published before. A newer package changes none of this. Without the package: handle the versions that you "
        "know, ignore the others, and only then drop repeated ids."
    ),
    Text("The steps in this project:"),
    Bullets(
        (
            (
                "Announce: write the model (`VERSION = 2`; the old one stays as it is) and a function that makes "
                "the old data of the new; put its line into `events/rehome_events/catalog.py` before that of v1, so "
                "that it is read and not yet published; let the handler that it wakes take either model; write golden "
                "examples `v2-*.json`; `python -m rehome_events schema --write`, then `--release`. Deploy everywhere."
            ),
            (
                "Publish: move the line behind that of v1 and add `older=` with the function; let the step emit the "
                "new model, also in `consumer/rehome_consumer/saga.py`. "
                "`python -m rehome_events asyncapi --write`, `page --write`. The outbox then gets both "
                "versions of each event; a handler that gets both runs its step once."
            ),
            (
                "Retire: once every subscriber with a file of expectations reads v2, remove `older=`. Model, line and "
                "examples of v1 are never removed: there may be old events in outboxes, queues and dead letters."
            ),
        ),
        numbered=True,
    ),
    Text(
        "A consumer that gets a version which it does not know (a release was skipped, or rolled back) lets it wait "
        "in the delay queues for a consumer that does, about three quarters of an hour, unless the same event came "
        "in a known version too; after that it is a dead letter, which can be replayed."
    ),
)


def blocks() -> list[Block]:
    """Everything on the page, from top to bottom."""
    return [
        *_INTRODUCTION,
        Heading(2, "How they follow each other"),
        Text(
            "A box is an event, an arrow the handler that it wakes. A failure before `migration.started` is rolled "
            "back; after that point of no return, a person has to look."
        ),
        _diagram(),
        *_catalogue(),
        *_attributes(),
        *_VERSIONS,
        *(block for entry in all_in_use() for block in _section(entry)),
    ]


def _diagram() -> Diagram:
    failed = CATALOG["migration.failed"]
    chain = [entry for entry in CATALOG.values() if entry.next and entry is not failed]
    return Diagram(
        chain=(*((entry.type, entry.next or "") for entry in chain), ("migration.completed", "")),
        branches=("instance.resized", "migration.rejected"),
        failure=(failed.type, failed.next or "", "migration.rolled_back"),
    )


def _title(entry: EventType) -> Heading:
    return Heading(2, f"{entry.type} v{entry.version}")


def _catalogue() -> Iterator[Block]:
    yield Heading(2, "Catalogue")
    rows = []
    for entry in all_in_use():
        version = "" if entry is CATALOG[entry.type] else f" v{entry.version}"
        link = f"[`{entry.type}`{version}](#{_title(entry).anchor})"
        handler = f"`{entry.next}`" if entry.next else ""
        rows.append((link, entry.summary, entry.published_by, ", ".join(entry.readers), handler))
    yield Table(("event", "meaning", "published by", "read by", "wakes"), tuple(rows))


def _attributes() -> Iterator[Block]:
    entry = CATALOG["migration.completed"]
    schema = load(entry.type, entry.version)
    envelope = {**schema, "properties": {k: v for k, v in schema["properties"].items() if k != "data"}}
    yield Heading(2, "Attributes of every event")
    yield Text(
        "As they are in `migration.completed`. Every event of a migration has `migrationid` and `attempt`."
    )
    yield _table(envelope, schema)


def _section(entry: EventType) -> Iterator[Block]:
    schema = load(entry.type, entry.version)
    data = schema["$defs"][schema["properties"]["data"]["$ref"].rpartition("/")[2]]
    example = orjson.dumps(golden(entry.type, entry.version, "valid")["full"], option=orjson.OPT_INDENT_2)
    file = f"../events/rehome_events/schemas/{entry.type}/v{entry.version}.json"
    yield _title(entry)
    yield Text(" ".join(data["description"].split()))
    yield Text(f"Fields of `data` ([JSON Schema of the complete event]({file})):")
    yield _table(data, schema)
    yield Example(example.decode())


def _table(owner: Schema, root: Schema) -> Table:
    return Table(("field", "type", "always", "meaning", "example"), tuple(_rows(owner, root, "")))


def _rows(owner: Schema, root: Schema, prefix: str) -> Iterator[tuple[str, ...]]:
    for name, field in owner["properties"].items():
        inner = _referred(field, root)
        always = "yes" if name in owner.get("required", ()) else ""
        example = "" if inner else _example(field)
        yield f"`{prefix}{name}`", _kind(field), always, field["description"], example
        if inner:
            below = f"{prefix}{name}[]." if "items" in field else f"{prefix}{name}."
            yield from _rows(inner, root, below)


def _referred(field: Schema, root: Schema) -> Schema | None:
    for node in (field, field.get("items", {}), *field.get("anyOf", ())):
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
