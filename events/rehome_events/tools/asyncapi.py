"""The contract as an AsyncAPI 3 document, made from the catalogue, for tools, portals and generators."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import orjson

from rehome_events.catalog import CATALOG, EventType, all_in_use, in_use
from rehome_events.envelope import CONTENT_TYPE
from rehome_events.tools.schema import golden, load, self_contained, type_name

Document = dict[str, Any]

FILE: Final = Path(str(files("rehome_events") / "asyncapi.yaml"))
_BINDING: Final = "0.3.0"
_DESCRIPTION: Final = (
    "Events around moving a hosted Odoo's PostgreSQL database from a shared pool to a dedicated server. "
    "CloudEvents 1.0 in structured mode on RabbitMQ: two topic exchanges, the routing key is the event's type. "
    "Deliveries may repeat: the same event has the same id. A subscriber ignores types, versions and fields that "
    "it does not know. No event holds a secret."
)


def generate(*, bundled: bool = False) -> Document:
    """Make the document: one channel per type, from rehome's view: it sends ``migration.*``.

    Args:
        bundled: The schemas are in the document itself; otherwise it names the files beside it.
    """
    entries = CATALOG.values()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:rehome:events",
        "info": {
            "title": "rehome events",
            "version": "1.0.0",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "rabbitmq": {
                "host": "{host}",
                "pathname": "/migration",
                "protocol": "amqps",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ 3.10 or later.",
                "variables": {
                    "host": {"default": "rabbitmq:5671", "description": "Name and port of the broker."}
                },
                "security": [{"$ref": "#/components/securitySchemes/user"}],
            }
        },
        "channels": {entry.type: _channel(entry) for entry in entries},
        "operations": {_operation_name(entry): _operation(entry) for entry in entries},
        "components": {
            "securitySchemes": {
                "user": {
                    "type": "userPassword",
                    "description": "A user of the broker, with topic permissions; see x-published-by and x-readers.",
                }
            },
            "messages": {_message_name(entry): _message(entry, bundled=bundled) for entry in all_in_use()},
        },
    }


def _channel(entry: EventType) -> Document:
    return {
        "address": entry.type,
        "title": entry.type,
        "summary": entry.summary,
        "messages": {
            name: {"$ref": f"#/components/messages/{name}"} for name in map(_message_name, in_use(entry.type))
        },
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": entry.exchange,
                    "type": "topic",
                    "durable": True,
                    "autoDelete": False,
                    "vhost": "migration",
                },
                "bindingVersion": _BINDING,
            }
        },
        "x-published-by": entry.published_by,
        "x-readers": list(entry.readers),
        **({"x-next-handler": entry.next} if entry.next else {}),
    }


def _message_name(entry: EventType) -> str:
    return f"{entry.type}.v{entry.version}"


def _operation_name(entry: EventType) -> str:
    return f"{_action(entry)}.{entry.type}"


def _action(entry: EventType) -> str:
    return "send" if entry.published_by == "rehome" else "receive"


def _operation(entry: EventType) -> Document:
    sends = {"deliveryMode": 2, "mandatory": entry.next is not None, "timestamp": True}
    return {
        "action": _action(entry),
        "channel": {"$ref": f"#/channels/{entry.type}"},
        "summary": entry.summary,
        "messages": [
            {"$ref": f"#/channels/{entry.type}/messages/{name}"}
            for name in map(_message_name, in_use(entry.type))
        ],
        "bindings": {
            "amqp": {**(sends if _action(entry) == "send" else {"ack": True}), "bindingVersion": _BINDING}
        },
    }


def _message(entry: EventType, *, bundled: bool) -> Document:
    file = {"$ref": f"./schemas/{entry.type}/v{entry.version}.json"}
    examples = golden(entry.type, entry.version, "valid")
    return {
        "name": entry.type,
        "title": type_name(entry),
        "summary": entry.summary,
        "contentType": CONTENT_TYPE,
        "correlationId": {
            "description": "The migration that the event belongs to.",
            "location": "$message.payload#/migrationid",
        },
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": self_contained(load(entry.type, entry.version)) if bundled else file,
        },
        "bindings": {"amqp": {"messageType": entry.type, "bindingVersion": _BINDING}},
        "examples": [{"name": name, "payload": examples[name]} for name in ("full", "minimal")],
    }


def render(document: Document) -> str:
    """The document as YAML; texts are quoted as in JSON, which YAML reads too."""
    return "\n".join(["# Generated: python -m rehome_events asyncapi --write", *_lines(document, ""), ""])


def _lines(value: Any, indent: str) -> list[str]:
    found = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        head = f"{indent}{_key(key)}:" if isinstance(value, dict) else f"{indent}-"
        if item and isinstance(item, dict | list):
            below = _lines(item, indent + "  ")
            if isinstance(value, list):
                found.append(f"{head} {below[0].lstrip()}")
                below = below[1:]
            else:
                found.append(head)
            found += below
        else:
            found.append(f"{head} {orjson.dumps(item).decode()}")
    return found


def _key(name: object) -> str:
    key = str(name)
    return key if key.replace("_", "").replace("-", "").isalnum() else orjson.dumps(key).decode()
