"""How a running broker's topology differs from the saga's, whatever the form in which its version exports it."""

from __future__ import annotations

import re
from typing import Any, Final

from rehome_consumer.rabbitmq.topology import VHOST

# Keys of a queue or exchange that change its behaviour, with the default where they are left out.
_COMPARED: Final[dict[str, dict[str, Any]]] = {
    "queues": {"durable": True, "auto_delete": False},
    "exchanges": {"type": "", "durable": True, "auto_delete": False, "internal": False},
}

_LOSING: Final = ("expires", "max-length", "max-length-bytes", "message-ttl")
"""Keys of a policy by which a queue would lose events. The queue's own arguments overrule all other keys, or those
only change where a queue is placed."""


def differences(wanted: dict[str, Any], there: Any) -> list[str]:
    """What is missing or different in a broker's exported definitions, one line each; empty when nothing is.

    Args:
        wanted: `topology.definitions()`.
        there: the broker's, of the virtual host or of the complete node. Other applications' things are ignored,
            except bindings that lead into the saga's queues and exchanges, and policies that make its queues
            lose events.
    """
    if not isinstance(there, dict) or not isinstance(there.get("queues"), list):
        return ["these are not a broker's definitions: not a JSON object with a list of queues"]
    found: list[str] = []
    for kind in ("exchanges", "queues"):
        have = {str(one.get("name")): one for one in _in_vhost(there, kind)}
        for one in wanted[kind]:
            what = f"{kind[:-1]} {one['name']}"
            if one["name"] in have:
                found += [f"{what}: {line}" for line in _changed(kind, one, have[one["name"]])]
            else:
                found.append(f"{what} is missing")
    return found + _bindings(wanted, there) + _policies(wanted, there)


def _changed(kind: str, wanted: dict[str, Any], have: dict[str, Any]) -> list[str]:
    lines = []
    for key, default in _COMPARED[kind].items():
        there = _plain(have.get(key, default))
        if there != _plain(wanted.get(key, default)):
            lines.append(f"{key} is {there}, wanted {_plain(wanted.get(key, default))}")
    arguments = {name: _plain(value) for name, value in wanted["arguments"].items()}
    there_too = {name: _plain(value) for name, value in _mapping(have.get("arguments")).items()}
    if kind == "queues":
        # Some versions export the type beside the arguments; without any it is a classic queue.
        there_too.setdefault("x-queue-type", _plain(have.get("type", "classic")))
    return lines + [
        f"argument {name} is {there_too.get(name, 'missing')}, wanted {arguments.get(name, 'none')}"
        for name in sorted(arguments.keys() | there_too.keys())
        if arguments.get(name) != there_too.get(name)
    ]


def _bindings(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    own = {("queue", one["name"]) for one in wanted["queues"]}
    own |= {("exchange", one["name"]) for one in wanted["exchanges"]}
    bound = {_key(one) for one in wanted["bindings"]}
    have = {_key(one) for one in _in_vhost(there, "bindings") if one.get("source")}
    lines = [f"binding {_shown(key)} is missing" for key in sorted(bound - have)]
    return lines + [
        f"binding {_shown(key)} does not belong to the saga"
        for key in sorted(have - bound)
        if key[1:3] in own
    ]


def _policies(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Of several policies that match a queue, the broker applies the one with the highest priority."""
    policies = [one for one in _in_vhost(there, "policies") if one.get("apply-to") != "exchanges"]
    policies.sort(key=_priority, reverse=True)
    lines = []
    for queue in wanted["queues"]:
        policy = next((one for one in policies if _matches(str(one.get("pattern")), queue["name"])), {})
        if losing := [key for key in _LOSING if key in _mapping(policy.get("definition"))]:
            lines.append(
                f"queue {queue['name']}: policy {policy.get('name')} sets {', '.join(losing)}: events would be lost"
            )
    return lines


def _priority(policy: dict[str, Any]) -> float:
    """The priority of a policy; anything but a number counts as RabbitMQ's default."""
    try:
        return float(policy.get("priority") or 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a name; one that only Erlang understands counts as a match."""
    try:
        return re.search(pattern, name) is not None
    except (re.error, RecursionError, OverflowError):
        return True


def _in_vhost(there: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Everything of a kind in the virtual host `migration`; an export of that host alone does not name it."""
    found = there.get(kind)
    listed = found if isinstance(found, list) else []
    return [one for one in listed if isinstance(one, dict) and one.get("vhost", VHOST) == VHOST]


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping; some exports write an empty one as a list."""
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    """One form for what versions write as number, text or boolean: 5, 5.0 and "5" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key(binding: dict[str, Any]) -> tuple[str, str, str, str]:
    kind = str(binding.get("destination_type") or "queue")
    return str(binding.get("source")), kind, str(binding.get("destination")), str(binding.get("routing_key"))


def _shown(key: tuple[str, str, str, str]) -> str:
    return f"{key[0]} -> {key[1]} {key[2]} with key {key[3]!r}"
