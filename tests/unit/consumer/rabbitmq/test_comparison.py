"""The comparison of topologies: forms in which broker versions export them are equal, differences are reported."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.rabbitmq import topology
from rehome_consumer.rabbitmq.comparison import differences

if TYPE_CHECKING:
    from collections.abc import Callable

WANTED = topology.definitions()
ACCEPT = "migration.h.accept"


def of_one_host(there: dict[str, Any]) -> None:
    """The management API exports a virtual host without naming it in each entry."""
    for kind in ("exchanges", "queues", "bindings"):
        for one in there[kind]:
            del one["vhost"]


def with_numbers_as_text(there: dict[str, Any]) -> None:
    for queue in there["queues"]:
        queue["arguments"] = {name: str(value) for name, value in queue["arguments"].items()}


def with_decimal_numbers(there: dict[str, Any]) -> None:
    for queue in there["queues"]:
        queue["arguments"] = {
            name: float(value) if isinstance(value, int) else value
            for name, value in queue["arguments"].items()
        }


def with_the_type_beside_the_arguments(there: dict[str, Any]) -> None:
    for queue in there["queues"]:
        queue["type"] = queue["arguments"].pop("x-queue-type")


def with_the_type_in_both_places(there: dict[str, Any]) -> None:
    for queue in there["queues"]:
        queue["type"] = "quorum"


def with_fields_of_policies(there: dict[str, Any]) -> None:
    for one in there["queues"] + there["exchanges"]:
        one |= {"policy": None, "operator_policy": None, "effective_policy_definition": {}}
    there["policies"] = []
    there["parameters"] = None


def without_defaults(there: dict[str, Any]) -> None:
    for one in there["queues"] + there["exchanges"]:
        one.pop("auto_delete")
        one.pop("internal", None)
    for exchange in there["exchanges"]:
        exchange["arguments"] = []


def with_true_as_text(there: dict[str, Any]) -> None:
    for one in there["queues"] + there["exchanges"]:
        one |= {"durable": "true", "auto_delete": "false"}


def with_the_default_exchanges_bindings(there: dict[str, Any]) -> None:
    there["bindings"] += [
        {"source": "", "vhost": "migration", "destination": queue["name"], "routing_key": queue["name"]}
        for queue in there["queues"]
    ]


def with_another_hosts_objects(there: dict[str, Any]) -> None:
    there["queues"].append({"name": ACCEPT, "vhost": "/", "durable": False, "arguments": {}})
    there["policies"] = [
        {"vhost": "/", "name": "all", "pattern": ".*", "apply-to": "all", "definition": {"expires": 1}}
    ]


def with_an_overruled_policy(there: dict[str, Any]) -> None:
    host = {"vhost": "migration", "apply-to": "all", "pattern": ".*"}
    there["policies"] = [
        {**host, "name": "low", "priority": 0, "definition": {"expires": 1}},
        {**host, "name": "high", "priority": 5, "definition": {"queue-leader-locator": "balanced"}},
    ]


@pytest.mark.parametrize(
    "edit",
    [
        of_one_host,
        with_numbers_as_text,
        with_decimal_numbers,
        with_the_type_beside_the_arguments,
        with_the_type_in_both_places,
        with_fields_of_policies,
        without_defaults,
        with_true_as_text,
        with_the_default_exchanges_bindings,
        with_another_hosts_objects,
        with_an_overruled_policy,
    ],
)
def test_the_form_of_an_export_is_not_a_difference(edit: Callable[[dict[str, Any]], None]) -> None:
    there = copy.deepcopy(WANTED)
    edit(there)
    assert differences(WANTED, there) == []


def set_argument(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(there: dict[str, Any]) -> None:
        queue_of_accept(there)["arguments"][name] = value

    return edit


def set_field(kind: str, place: int, name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(there: dict[str, Any]) -> None:
        there[kind][place][name] = value

    return edit


def set_policy(**policy: object) -> Callable[[dict[str, Any]], None]:
    def edit(there: dict[str, Any]) -> None:
        there["policies"] = [{"vhost": "migration", "name": "p", "apply-to": "queues", **policy}]

    return edit


def queue_of_accept(there: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(queue for queue in there["queues"] if queue["name"] == ACCEPT)
    return found


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (set_argument("x-delivery-limit", 6), f"queue {ACCEPT}: argument x-delivery-limit is 6, wanted 5"),
        (set_argument("x-max-length", 9), f"queue {ACCEPT}: argument x-max-length is 9, wanted none"),
        (
            set_argument("x-queue-type", "classic"),
            f"queue {ACCEPT}: argument x-queue-type is classic, wanted quorum",
        ),
        (
            lambda there: queue_of_accept(there)["arguments"].pop("x-queue-type"),
            f"queue {ACCEPT}: argument x-queue-type is classic, wanted quorum",
        ),
        (
            lambda there: queue_of_accept(there)["arguments"].pop("x-overflow"),
            f"queue {ACCEPT}: argument x-overflow is missing, wanted reject-publish",
        ),
        (set_field("queues", 0, "durable", False), f"queue {ACCEPT}: durable is false, wanted true"),
        (set_field("exchanges", 0, "type", "direct"), "exchange billing: type is direct, wanted topic"),
        (set_field("exchanges", 0, "internal", True), "exchange billing: internal is true, wanted false"),
        (
            set_field("exchanges", 0, "arguments", {"alternate-exchange": "x"}),
            "exchange billing: argument alternate-exchange is x, wanted none",
        ),
        (
            set_policy(pattern="accept$", definition={"max-length": 5, "ha-mode": "all"}),
            f"queue {ACCEPT}: policy p sets max-length: events would be lost",
        ),
    ],
)
def test_a_difference_is_reported(edit: Callable[[dict[str, Any]], None], line: str) -> None:
    there = copy.deepcopy(WANTED)
    edit(there)
    assert differences(WANTED, there) == [line]


def test_a_pattern_that_only_erlang_understands_counts_as_matching() -> None:
    there = copy.deepcopy(WANTED)
    set_policy(pattern="(?|a|b)", definition={"expires": 5})(there)
    assert len(differences(WANTED, there)) == len(WANTED["queues"])


@pytest.mark.parametrize("there", [None, [], "text", {}, {"queues": {}}])
def test_anything_but_definitions_is_reported(there: object) -> None:
    (line,) = differences(WANTED, there)
    assert line.startswith("these are not a broker's definitions")
