"""Edits of Swarm's definitions: only what was asked for changes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from rehome_consumer.adapters.swarm import resizing
from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.errors import Incompatible
from rehome_events.parts import Limits

GB = 1024**3

# A service as the engine reports it, with all that the platform uses, and with unknown fields.
FULL: dict[str, Any] = {
    "Name": "odoo-shop-7d9f2a54",
    "Labels": {"saasodoo.instance.id": "7d9f2a54-0000-4000-8000-000000000000", "traefik.enable": "true"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "bitnami/odoo:19@sha256:abc",
            "Labels": {"of": "the container"},
            "Args": ["odoo"],
            "Hostname": "shop",
            "Env": ["KEPT=a=b", "ODOO_DATABASE_HOST=pool", "INHERITED", "ODOO_SKIP_BOOTSTRAP=yes", "LAST=%1"],
            "User": "odoo",
            "Mounts": [{"Type": "bind", "Source": "/data/shop", "Target": "/bitnami/odoo"}],
            "StopGracePeriod": 30_000_000_000,
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
            "Secrets": [{"SecretID": "s1", "SecretName": "key", "File": {"Name": "key", "Mode": 292}}],
            "Init": False,
            "FutureOfContainers": [1, {"a": None}],
        },
        "Resources": {
            "Limits": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 4 * GB, "Pids": 100},
            "Reservations": {"NanoCPUs": 500_000_000, "MemoryBytes": 1 * GB},
        },
        "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000, "MaxAttempts": 0},
        "Placement": {"Constraints": ["node.labels.tier==odoo"], "MaxReplicas": 1},
        "Networks": [{"Target": "n1", "Aliases": ["shop"]}],
        "LogDriver": {"Name": "json-file"},
        "ForceUpdate": 3,
        "Runtime": "container",
        "FutureOfTasks": "kept",
    },
    "Mode": {"Replicated": {"Replicas": 1}},
    "UpdateConfig": {"Parallelism": 2, "FailureAction": "rollback", "Order": "stop-first", "Delay": 7},
    "RollbackConfig": {"Parallelism": 1, "Order": "stop-first"},
    "EndpointSpec": {"Mode": "dnsrr"},
    "FutureOfServices": {"kept": True},
}


def full(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FULL), **changes}


def path_set(spec: dict[str, Any], value: Any, *path: str) -> dict[str, Any]:
    """The definition with one value set: what an edit is expected to be."""
    changed = copy.deepcopy(spec)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return changed


ENV = ("TaskTemplate", "ContainerSpec", "Env")
LIMITS = ("TaskTemplate", "Resources", "Limits")


def test_replicas_are_set_and_nothing_else() -> None:
    assert edit.with_replicas(FULL, 0) == path_set(FULL, 0, "Mode", "Replicated", "Replicas")


def test_an_edit_leaves_the_definition_that_was_given_as_it_is() -> None:
    given = full()
    edit.with_env(given, {"A": "1"})
    resizing.started(given, Limits(cpu_limit=4.0))
    edit.with_replicas(given, 0)
    edit.forced(given)
    assert given == FULL


def test_a_service_without_a_number_of_replicas_asks_for_one() -> None:
    assert edit.replicas_of(full(Mode={"Replicated": {}})) == 1


@pytest.mark.parametrize("mode", [{"Global": {}}, {"ReplicatedJob": {"MaxConcurrent": 1}}])
def test_a_service_that_is_not_replicated_is_refused(mode: dict[str, Any]) -> None:
    with pytest.raises(Incompatible, match="odoo-shop-7d9f2a54 is not in replicated mode"):
        edit.with_replicas(full(Mode=mode), 0)


def test_variables_are_set_in_place_and_new_ones_at_the_end() -> None:
    changed = edit.with_env(FULL, {"ODOO_DATABASE_HOST": "dedicated", "NEW": "p%=$x"})
    assert changed == path_set(
        FULL,
        [
            "KEPT=a=b",
            "ODOO_DATABASE_HOST=dedicated",
            "INHERITED",
            "ODOO_SKIP_BOOTSTRAP=yes",
            "LAST=%1",
            "NEW=p%=$x",
        ],
        *ENV,
    )


def test_the_bootstrap_is_always_skipped() -> None:
    for entries in (["A=1"], ["A=1", "ODOO_SKIP_BOOTSTRAP=no"]):
        changed = edit.with_env(path_set(FULL, entries, *ENV), {})
        assert changed == path_set(FULL, ["A=1", "ODOO_SKIP_BOOTSTRAP=yes"], *ENV)


def test_a_variable_that_occurs_twice_is_set_once() -> None:
    twice = path_set(FULL, ["A=1", "B=2", "A=3", "ODOO_SKIP_BOOTSTRAP=yes"], *ENV)
    assert edit.env_of(twice)["A"] == "3"
    assert edit.with_env(twice, {"A": "4"}) == path_set(FULL, ["A=4", "B=2", "ODOO_SKIP_BOOTSTRAP=yes"], *ENV)


def test_a_service_without_environment_gets_one() -> None:
    bare = full()
    del bare["TaskTemplate"]["ContainerSpec"]["Env"]
    assert edit.env_of(edit.with_env(bare, {"A": "1"})) == {"A": "1", "ODOO_SKIP_BOOTSTRAP": "yes"}


def test_limits_are_set_and_other_limits_and_reservations_stay() -> None:
    changed = edit.with_limits(FULL, Limits(cpu_limit=4.0, memory_limit="8G", storage_limit="50G"))
    assert changed == path_set(FULL, {"NanoCPUs": 4_000_000_000, "MemoryBytes": 8 * GB, "Pids": 100}, *LIMITS)


@pytest.mark.parametrize("limits", [None, Limits(), Limits(storage_limit="50G")])
def test_limits_that_are_not_given_stay(limits: Limits | None) -> None:
    assert edit.with_limits(FULL, limits) == FULL


def test_a_reservation_above_its_new_limit_comes_down_to_it() -> None:
    changed = edit.with_limits(FULL, Limits(memory_limit="512M"))
    assert changed["TaskTemplate"]["Resources"]["Reservations"] == {
        "NanoCPUs": 500_000_000,
        "MemoryBytes": 512 * 1024**2,
    }


def test_a_service_without_resources_gets_limits() -> None:
    bare = full()
    del bare["TaskTemplate"]["Resources"]
    changed = edit.with_limits(bare, Limits(cpu_limit=0.5))
    assert edit.limits_of(bare) == Limits()
    assert changed == path_set(bare, {"Limits": {"NanoCPUs": 500_000_000}}, "TaskTemplate", "Resources")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2G", 2 * GB),
        ("512M", 512 * 1024**2),
        ("1.5g", 3 * GB // 2),
        ("64Ki", 65536),
        ("7", 7),
        ("1TB", 1024 * GB),
    ],
)
def test_amounts_are_powers_of_1024(text: str, size: int) -> None:
    assert edit.size_bytes(text) == size


def test_an_amount_is_written_in_the_largest_unit_without_a_fraction() -> None:
    assert [edit.size_text(size) for size in (2 * GB, 3 * GB // 2, 1000)] == ["2G", "1536M", "1000"]


@pytest.mark.parametrize("text", ["", "lots", "-1G", "2X", "1e9"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Incompatible, match="such as 2G"):
        edit.size_bytes(text)


def test_limits_are_read_as_the_platform_writes_them() -> None:
    assert edit.limits_of(FULL) == Limits(cpu_limit=2.0, memory_limit="4G")


def test_forcing_counts_up_and_nothing_else() -> None:
    assert edit.forced(FULL) == path_set(FULL, 4, "TaskTemplate", "ForceUpdate")


def test_a_restored_definition_is_the_original_but_stopped_and_with_the_present_name() -> None:
    now = edit.with_env(full(Name="renamed"), {"A": "1"})
    assert edit.restored(now, json.loads(json.dumps(FULL))) == {
        **edit.with_replicas(FULL, 0),
        "Name": "renamed",
    }


def test_a_resize_starts_the_new_task_first_whatever_the_services_own_order_is() -> None:
    changed = resizing.started(FULL, Limits(cpu_limit=4.0))
    assert changed["UpdateConfig"] == {
        "Parallelism": 2,
        "Delay": 7,
        "Order": "start-first",
        "FailureAction": "pause",
    }
    assert resizing.is_started(changed)
    assert edit.limits_of(changed).cpu_limit == 4.0


def test_a_resize_of_a_service_with_a_port_of_its_node_stops_the_old_task_first() -> None:
    ports = full(EndpointSpec={"Ports": [{"TargetPort": 8069, "PublishedPort": 80, "PublishMode": "host"}]})
    assert resizing.started(ports, Limits(cpu_limit=4.0))["UpdateConfig"]["Order"] == "stop-first"


def test_a_finished_resize_differs_from_before_in_the_limits_only() -> None:
    limits = Limits(cpu_limit=4.0, memory_limit="8G")
    assert resizing.finished(resizing.started(FULL, limits)) == edit.with_limits(FULL, limits)


def test_a_failed_resize_leaves_nothing_behind() -> None:
    assert resizing.undone(resizing.started(FULL, Limits(cpu_limit=4.0))) == FULL


def test_a_service_without_update_order_or_resources_has_none_after_a_resize_either() -> None:
    bare = full()
    del bare["UpdateConfig"], bare["TaskTemplate"]["Resources"], bare["Labels"]
    resized = resizing.started(bare, Limits(cpu_limit=4.0))
    assert resizing.undone(resized) == {**bare, "Labels": {}}
    assert "UpdateConfig" not in resizing.finished(resized)


def test_a_service_whose_labels_are_null_can_be_resized() -> None:
    bare = full(Labels=None)
    resized = resizing.started(bare, Limits(cpu_limit=4.0))
    assert resizing.is_started(resized)
    assert resizing.undone(resized) == {**bare, "Labels": {}}


def test_a_second_resize_before_the_first_was_finished_saves_what_was_before_both() -> None:
    twice = resizing.started(resizing.started(FULL, Limits(cpu_limit=4.0)), Limits(cpu_limit=8.0))
    assert edit.limits_of(twice).cpu_limit == 8.0
    assert resizing.undone(twice) == FULL


def test_a_resize_that_changes_nothing_leaves_no_trace() -> None:
    assert resizing.started(FULL, Limits(cpu_limit=2.0, memory_limit="4096M")) == FULL
    assert resizing.finished(FULL) == FULL


def test_a_health_check_counts_unless_it_is_none() -> None:
    assert edit.has_health_check(FULL)
    none: list[Any] = [None, {"Test": ["NONE"]}, {"Test": []}]
    for check in none:
        assert not edit.has_health_check(
            path_set(FULL, check, "TaskTemplate", "ContainerSpec", "Healthcheck")
        )


def test_the_stop_grace_is_the_services_own_or_swarms_default() -> None:
    bare = full()
    del bare["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"]
    assert (edit.stop_grace_seconds(FULL), edit.stop_grace_seconds(bare)) == (30.0, 10.0)


TRAEFIK = {
    "traefik.http.routers.shop.rule": "Host(`shop.example.com`) && PathPrefix(`/`)",
    "traefik.http.services.shop.loadbalancer.server.port": "8070",
}


@pytest.mark.parametrize(
    ("labels", "url"),
    [
        ({}, "http://shop.example.com"),
        ({"traefik.http.routers.shop.entrypoints": "web,websecure"}, "https://shop.example.com"),
        ({"traefik.http.routers.shop.tls": "true"}, "https://shop.example.com"),
        ({"traefik.http.routers.shop.tls.certresolver": "le"}, "https://shop.example.com"),
        ({"traefik.http.routers.shop.rule": "PathPrefix(`/shop`)"}, None),
    ],
)
def test_the_outer_address_is_what_traefik_routes(labels: dict[str, str], url: str | None) -> None:
    assert edit.external_url(full(Labels={**TRAEFIK, **labels})) == url


def test_the_port_is_the_one_in_traefiks_label_or_the_default() -> None:
    assert edit.http_port(full(Labels=TRAEFIK), 8069) == 8070
    assert edit.http_port(full(Labels={}), 8069) == 8069


def test_a_service_that_runs_no_containers_is_refused() -> None:
    plugin = full(TaskTemplate={"PluginSpec": {"Name": "p"}})
    with pytest.raises(Incompatible, match="runs no containers"):
        edit.env_of(plugin)
