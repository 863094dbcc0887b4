"""How a running broker's topology differs from the saga's, in whatever form its version exports it."""

from __future__ import annotations

import re
from typing import Any, Final

from rehome_consumer.rabbitmq.topology import VHOST

# Keys of a queue or exchange that change what it does, with the value that is meant where they are left out.
_COMPARED: Final[dict[str, dict[str, Any]]] = {
    "queues": {"durable": True, "auto_delete": False},
    "exchanges": {"type": "", "durable": True, "auto_delete": False, "internal": False},
}

_LOSING: Final = ("expires", "max-length", "max-length-bytes", "message-ttl")
"""Keys of a policy by which events would vanish from a queue; what else a policy may set, the queue's own
arguments overrule, or it changes only where a queue is placed."""


def differences(wanted: dict[str, Any], there: Any) -> list[str]:
    """What a broker's exported definitions lack or have otherwise, one line each; empty when all is there.

    Args:
        wanted: `topology.definitions()`.
        there: the broker's, of the virtual host or of the whole node. What is not ours is not looked at, but for
            bindings that lead into our queues and exchanges, and policies that make our queues lose events.
    """
    if not isinstance(there, dict) or not isinstance(there.get("queues"), list):
        return ["these are not a broker's definitions: they are no JSON object with a list of queues"]
    found: list[str] = []
    for kind in ("exchanges", "queues"):
        have = {str(one.get("name")): one for one in _ours(there, kind)}
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
        # Some versions tell the type beside the arguments; none told is the classic one.
        there_too.setdefault("x-queue-type", _plain(have.get("type", "classic")))
    return lines + [
        f"argument {name} is {there_too.get(name, 'missing')}, wanted {arguments.get(name, 'none')}"
        for name in sorted(arguments.keys() | there_too.keys())
        if arguments.get(name) != there_too.get(name)
    ]


def _bindings(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    ours = {("queue", one["name"]) for one in wanted["queues"]}
    ours |= {("exchange", one["name"]) for one in wanted["exchanges"]}
    bound = {_key(one) for one in wanted["bindings"]}
    have = {_key(one) for one in _ours(there, "bindings") if one.get("source")}
    lines = [f"binding {_shown(key)} is missing" for key in sorted(bound - have)]
    return lines + [
        f"binding {_shown(key)} is not of the saga" for key in sorted(have - bound) if key[1:3] in ours
    ]


def _policies(wanted: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Of several policies that match a queue, the broker applies the one with the highest priority."""
    policies = [one for one in _ours(there, "policies") if one.get("apply-to") != "exchanges"]
    policies.sort(key=_priority, reverse=True)
    lines = []
    for queue in wanted["queues"]:
        policy = next((one for one in policies if _matches(str(one.get("pattern")), queue["name"])), {})
        if losing := [key for key in _LOSING if key in _mapping(policy.get("definition"))]:
            lines.append(
                f"queue {queue['name']}: policy {policy.get('name')} sets {', '.join(losing)}: events would vanish"
            )
    return lines


def _priority(policy: dict[str, Any]) -> float:
    """Of a policy; what is no number counts as RabbitMQ's own default."""
    try:
        return float(policy.get("priority") or 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern is found in a name; one that only Erlang understands counts as found."""
    try:
        return re.search(pattern, name) is not None
    except (re.error, RecursionError, OverflowError):
        return True


def _ours(there: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """What is in our virtual host; an export of that host alone does not name it."""
    found = there.get(kind)
    listed = found if isinstance(found, list) else []
    return [one for one in listed if isinstance(one, dict) and one.get("vhost", VHOST) == VHOST]


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping; some exports write an empty one as a list."""
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    """One form for what versions write as a number, as text or as true: 5, 5.0 and "5" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key(binding: dict[str, Any]) -> tuple[str, str, str, str]:
    kind = str(binding.get("destination_type") or "queue")
    return str(binding.get("source")), kind, str(binding.get("destination")), str(binding.get("routing_key"))


def _shown(key: tuple[str, str, str, str]) -> str:
    return f"{key[0]} -> {key[1]} {key[2]} with key {key[3]!r}"
