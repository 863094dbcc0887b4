"""Which nodes a definition may run on, and what the engine's version says."""

from __future__ import annotations

from typing import Any

import pytest

from rehome_consumer.adapters.swarm import fitting, versions
from rehome_consumer.adapters.swarm.nodes import SwarmNode, admits
from rehome_consumer.errors import Incompatible, Transient

CORE = 1_000_000_000


def node(name: str = "one", **parts: Any) -> SwarmNode:
    answer: dict[str, Any] = {
        "ID": f"id-of-{name}",
        "Spec": {"Role": "worker", "Availability": "active", "Labels": {"zone": "a"}},
        "Description": {
            "Hostname": name,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 4 * CORE, "MemoryBytes": 8 * 1024**3},
            "Engine": {"Labels": {"disk": "ssd"}},
        },
        "Status": {"State": "ready", "Addr": "192.0.2.7"},
    }
    return SwarmNode.read({**answer, **parts})


def sized(name: str, cpus: int) -> SwarmNode:
    about = {"Hostname": name, "Resources": {"NanoCPUs": cpus * CORE, "MemoryBytes": 8 * 1024**3}}
    return node(name, Description=about)


def spec(replicas: int = 1, **template: Any) -> dict[str, Any]:
    return {
        "Name": "odoo",
        "Mode": {"Replicated": {"Replicas": replicas}},
        "TaskTemplate": {"ContainerSpec": {"Image": "odoo"}, **template},
    }


def limited(cpus: float, reserved: float = 0, memory: int = 0) -> dict[str, Any]:
    limits = {"NanoCPUs": int(cpus * CORE), "MemoryBytes": memory}
    return spec(Resources={"Limits": limits, "Reservations": {"NanoCPUs": int(reserved * CORE)}})


@pytest.mark.parametrize(
    ("constraint", "fulfilled"),
    [
        ("node.labels.zone==a", True),
        ("node.labels.zone == A", True),
        ("node.labels.zone!=a", False),
        ("node.labels.Zone==a", False),  # a label's own name is case-sensitive
        ("node.labels.none!=x", True),
        ("engine.labels.disk==ssd", True),
        ("NODE.ROLE==Worker", True),
        ("node.role==manager", False),
        ("node.id==id-of-one", True),
        ("node.hostname!=one", False),
        ("node.platform.arch==x86_64", True),
        ("node.ip==192.0.2.0/24", True),
        ("node.ip!=192.0.2.7", False),
        ("node.ip==192.0.2.8", False),
        ("node.of.tomorrow==1", True),  # what is not known refuses nothing
        ("nonsense", True),
    ],
)
def test_a_constraint_is_judged_as_swarm_judges_it(constraint: str, fulfilled: bool) -> None:
    assert admits(spec(Placement={"Constraints": [constraint]}), node()) is fulfilled


@pytest.mark.parametrize(
    ("platform", "fulfilled"),
    [
        ({"OS": "linux", "Architecture": "amd64"}, True),
        ({"OS": "linux", "Architecture": "x86_64"}, True),
        ({"OS": "linux"}, True),
        ({}, True),
        ({"OS": "linux", "Architecture": "arm64"}, False),
        ({"OS": "windows", "Architecture": "amd64"}, False),
    ],
)
def test_a_platform_has_several_names(platform: dict[str, str], fulfilled: bool) -> None:
    assert admits(spec(Placement={"Platforms": [platform]}), node()) is fulfilled


def test_the_largest_node_decides_and_smaller_ones_that_swarm_may_choose_are_warned_of() -> None:
    nodes = [sized("small", 2), sized("large", 8)]
    wanted = limited(4.0)
    assert fitting.able("odoo", wanted, nodes) == [nodes[1]]
    (warning,) = fitting.too_small("odoo", wanted, nodes)
    assert warning.startswith("small has 2 CPUs, fewer than service odoo is limited to")
    assert fitting.too_small("odoo", limited(4.0, reserved=4.0), nodes) == []
    with pytest.raises(Incompatible, match=r"with 9 CPUs: on large, the largest .* only 8 CPUs available"):
        fitting.able("odoo", limited(9.0), nodes)


def test_a_large_node_where_it_may_not_run_does_not_count() -> None:
    large = node("large", Description={"Hostname": "large", "Resources": {"NanoCPUs": 64 * CORE}})
    wanted = limited(8.0)
    wanted["TaskTemplate"]["Placement"] = {"Constraints": ["node.hostname!=large"]}
    with pytest.raises(Incompatible, match=r"on one, the largest node that it may run on, .* only 4 CPUs"):
        fitting.able("odoo", wanted, [node(), large])


def test_many_nodes_are_not_all_named() -> None:
    nodes = [node(f"n{number}") for number in range(9)]
    wanted = spec(Placement={"Constraints": ["node.labels.zone==b"]})
    with pytest.raises(Incompatible, match=r"nodes: n0, n1, n2, n3, n4 and 4 more\)"):
        fitting.able("odoo", wanted, nodes)


def test_a_node_says_why_it_accepts_no_tasks() -> None:
    drained = node(Spec={"Role": "worker", "Availability": "drain"})
    down = node(Status={"State": "down"})
    assert [one.accepts_tasks for one in (node(), drained, down)] == [True, False, False]
    assert (drained.describe(), down.describe()) == ("one is set to drain", "one is down")


def test_what_is_no_node_is_named() -> None:
    with pytest.raises(Transient, match="not as its API says, in: ID"):
        SwarmNode.read({"Spec": {}})


@pytest.mark.parametrize("version", ["1.41", "1.44", "1.52", "2.0"])
def test_the_newest_version_is_agreed(version: str) -> None:
    assert versions.agreed({"ApiVersion": version, "Version": "1"}) == f"v{version}"


@pytest.mark.parametrize("version", ["1.40", "1.9", "0.99"])
def test_an_engine_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(Incompatible, match=rf"Docker engine 19\.03 has the API up to version {version};"):
        versions.agreed({"ApiVersion": version, "Version": "19.03"})


@pytest.mark.parametrize("answer", [None, {}, {"ApiVersion": 1.41}, {"ApiVersion": "new"}, ["1.41"]])
def test_what_is_no_version_is_named(answer: Any) -> None:
    with pytest.raises(Transient, match="not as its API says"):
        versions.agreed(answer)
