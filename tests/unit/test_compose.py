"""compose.yaml agrees with the code: files, build stages, modules, volumes, settings. No image is built here."""

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehome_consumer.settings import PREFIX, Settings
from sandbox.supervisor.runtime import RUNTIME, SUPERVISOR_URL

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(source, target) for source, target, *_ in (one.split(":") for one in service.get("volumes", []))]


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_mounts_exists(name: str) -> None:
    for source, _ in mounts(SERVICES[name]):
        there = (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert there, source


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_waits_for_can_happen(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_a_service_with_a_build_is_a_stage_of_the_dockerfile_and_runs_an_existing_module(name: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert SERVICES[name]["build"]["target"] in stages
    if module := re.match(r"python -m (\S+)", SERVICES[name].get("command", "")):
        found = importlib.util.find_spec(module[1])
        assert found is not None
        assert not found.submodule_search_locations or importlib.util.find_spec(f"{module[1]}.__main__")


def test_the_consumer_has_known_settings_and_all_that_are_required() -> None:
    environment = SERVICES["consumer"]["environment"]
    given = {name.removeprefix(PREFIX).lower() for name in environment if name.startswith(PREFIX)}
    known = Settings.model_fields
    assert given <= known.keys()
    assert {name for name, field in known.items() if field.is_required()} <= given


def test_the_consumers_runtime_exists_and_is_given_its_address() -> None:
    environment = SERVICES["consumer"]["environment"]
    assert environment["REHOME_RUNTIME"] == RUNTIME
    module, _, function = RUNTIME.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    port = re.search(r"--port (\d+)", SERVICES["process-manager"]["command"])
    assert port is not None
    assert environment[SUPERVISOR_URL].endswith(f":{port[1]}")


def test_the_consumers_health_check_asks_at_its_own_port() -> None:
    port = SERVICES["consumer"]["environment"]["REHOME_HTTP_PORT"]
    assert f":{port}/startupz" in SERVICES["consumer"]["healthcheck"]["test"][-1]


def test_the_consumer_finds_its_directories_mounted() -> None:
    environment = SERVICES["consumer"]["environment"]
    targets = {target for _, target in mounts(SERVICES["consumer"])}
    assert {environment["REHOME_DATA_ROOT"], environment["REHOME_BACKUP_ROOT"]} <= targets


def test_the_broker_loads_the_topology() -> None:
    mounted = {source for source, _ in mounts(SERVICES["rabbitmq"])}
    assert {
        f"./rabbitmq/{name}" for name in ("rabbitmq.conf", "definitions.json", "enabled_plugins")
    } <= mounted
