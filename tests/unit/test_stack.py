"""stack.yaml agrees with the code, the image, compose.yaml and the documents; tests/swarm/test_stack.py deploys it."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehome_consumer.settings import IN_FILES, PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "stack.yaml").read_text()
STACK: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
PAGE = (ROOT / "docs" / "swarm.md").read_text()
OWN = ("consumer", "console")
"""Services of rehome's image."""

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> int:
    """A length of time as Docker writes it."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


def image_health_check() -> dict[str, str]:
    """Options of the image's health check."""
    (line,) = re.findall(r"^HEALTHCHECK (.*) \\$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return dict(re.findall(r"--([\w-]+)=(\S+)", line))


@pytest.mark.parametrize("name", OWN)
def test_settings_are_known_and_those_of_files_name_a_secret_of_the_service(name: str) -> None:
    service = SERVICES[name]
    for variable, value in service["environment"].items():
        assert variable == "DOCKER_HOST" or variable.removeprefix(PREFIX).lower() in Settings.model_fields
        if variable.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in service["secrets"]
    named = {value.removeprefix("/run/secrets/") for value in service["environment"].values()}
    assert set(service["secrets"]) <= named & STACK["secrets"].keys()


def test_the_consumer_has_all_settings_that_are_required() -> None:
    given = {name.removeprefix(PREFIX).lower() for name in SERVICES["consumer"]["environment"]}
    required = {name for name, field in Settings.model_fields.items() if field.is_required()}
    assert {f"{name}_file" if name in IN_FILES else name for name in required} <= given
    assert "secret_key_file" in given


def test_what_holds_a_password_is_a_secret() -> None:
    """And of all the secrets none is made from a file beside stack.yaml."""
    for name in OWN:
        given = {variable.removeprefix(PREFIX).lower() for variable in SERVICES[name]["environment"]}
        assert not given & {*IN_FILES, "secret_key", "console_tokens"}
    assert all(secret["external"] for secret in STACK["secrets"].values())
    used = {secret for name in OWN for secret in SERVICES[name]["secrets"]}
    assert used == STACK["secrets"].keys()


def test_directories_are_mounted_where_the_settings_say() -> None:
    consumer = SERVICES["consumer"]
    targets = {mount["target"] for mount in consumer["volumes"]}
    assert targets == {consumer["environment"][f"REHOME_{name}_ROOT"] for name in ("DATA", "BACKUP")}
    assert all(mount["source"] == mount["target"] for mount in consumer["volumes"])


@pytest.mark.parametrize(("services", "default"), [(SERVICES, None), (COMPOSE["services"], 20)])
def test_a_consumer_has_longer_to_end_than_its_steps(
    services: dict[str, dict[str, Any]], default: int | None
) -> None:
    consumer = services["consumer"]
    grace = float(consumer["environment"].get("REHOME_GRACE", default))
    assert seconds(consumer["stop_grace_period"]) >= grace + 15
    assert Settings.model_fields["grace"].default == 20


def test_health_checks_are_those_of_the_image_and_of_compose() -> None:
    assert "healthcheck" not in SERVICES["consumer"]
    image, compose = image_health_check(), COMPOSE["services"]["consumer"]["healthcheck"]
    assert {name: image[name.replace("_", "-")] for name in compose if name != "test"} == {
        name: str(value) for name, value in compose.items() if name != "test"
    }
    assert SERVICES["console"]["healthcheck"] == COMPOSE["services"]["console"]["healthcheck"]


def test_a_consumer_that_never_gets_ready_lives_long_enough_to_roll_back() -> None:
    patience = Settings.model_fields["not_ready_timeout"].default
    assert seconds(image_health_check()["start-period"]) > patience + timedelta(minutes=5).total_seconds()


@pytest.mark.parametrize("name", OWN)
def test_an_update_takes_one_after_the_other_and_is_undone_where_it_fails(name: str) -> None:
    deploy = SERVICES[name]["deploy"]
    update = deploy["update_config"]
    assert (update["order"], update["parallelism"], update["failure_action"]) == (
        "start-first",
        1,
        "rollback",
    )
    assert seconds(update["monitor"]) > seconds(update["delay"]) > 0
    assert deploy["rollback_config"]["failure_action"] == "pause"
    assert deploy["restart_policy"]["condition"] == "any"
    assert SERVICES["consumer"]["deploy"]["replicas"] > 1


def test_no_limit_slows_a_move_down() -> None:
    assert SERVICES["consumer"]["deploy"]["resources"]["limits"].keys() == {"memory"}


def test_the_socket_is_the_proxys_alone_on_a_manager_in_a_network_without_tenants() -> None:
    with_socket = [name for name, one in SERVICES.items() if "docker.sock" in str(one.get("volumes"))]
    assert with_socket == ["docker-proxy"]
    proxy = SERVICES["docker-proxy"]
    assert proxy["deploy"]["placement"]["constraints"] == ["node.role == manager"]
    assert proxy["networks"] == ["engine"]
    assert [name for name, one in SERVICES.items() if "engine" in one["networks"]] == [
        "consumer",
        "docker-proxy",
    ]
    assert STACK["networks"]["engine"]["internal"]
    assert STACK["networks"]["engine"]["driver_opts"] == {"encrypted": "true"}
    assert SERVICES["consumer"]["environment"]["DOCKER_HOST"] == "tcp://docker-proxy:2375"


def test_the_configs_name_changes_with_its_content() -> None:
    """A config of a swarm cannot be changed: a deployment of another content would fail."""
    for config in STACK["configs"].values():
        digest = hashlib.sha256((ROOT / config["file"]).read_bytes()).hexdigest()
        assert config["name"] == f"rehome-docker-proxy-{digest[:12]}"


@pytest.mark.parametrize(("name", "variable"), [("consumer", "HTTP"), ("console", "CONSOLE")])
def test_ports_are_open_on_loopback_and_to_operators_alone(name: str, variable: str) -> None:
    (subnet,) = STACK["networks"]["operators"]["ipam"]["config"]
    assert SERVICES[name]["environment"][f"REHOME_{variable}_HOST"] == f"127.0.0.1,{subnet['subnet']}"
    assert "operators" in SERVICES[name]["networks"]
    assert not any("ports" in one for one in SERVICES.values())


def test_prometheus_scrapes_what_the_stack_runs() -> None:
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load((ROOT / "docs/monitoring/prometheus.yaml").read_text())["scrape_configs"]
    }
    (consumers,) = jobs["rehome-consumer"]["dns_sd_configs"]
    assert consumers["names"] == ["tasks.rehome_consumer"]
    assert f"REHOME_HTTP_PORT={consumers['port']}" in (ROOT / "Dockerfile").read_text()
    (console,) = jobs["rehome-console"]["static_configs"]
    assert console["targets"] == ["console:{}".format(Settings.model_fields["console_port"].default)]


def test_the_page_names_every_secret_and_every_variable() -> None:
    variables = set(re.findall(r"\$\{(\w+)", TEXT))
    names = variables | STACK["secrets"].keys()
    assert {name for name in names if not re.search(rf"\b{name}\b", PAGE)} == set()
