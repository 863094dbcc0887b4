"""compose.yaml fits the code: files, build stages, modules, volumes, settings. (Engines and images are not at hand.)"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rehome_consumer.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(source, target) for source, target, *_ in (one.split(":") for one in service.get("volumes", []))]


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_mounts_is_there(name: str) -> None:
    for source, _ in mounts(SERVICES[name]):
        there = (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert there, source


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_waits_for_can_come(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_a_service_of_ours_is_a_stage_of_the_dockerfile_and_runs_a_module_that_is_there(name: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert SERVICES[name]["build"]["target"] in stages
    module = re.match(r"python -m (\S+)", SERVICES[name].get("command", ""))
    assert module is None or importlib.util.find_spec(module[1]) is not None


def test_the_consumer_gets_settings_that_it_knows_and_all_that_it_needs() -> None:
    environment = SERVICES["consumer"]["environment"]
    given = {name.removeprefix(PREFIX).lower() for name in environment if name.startswith(PREFIX)}
    known = Settings.model_fields
    assert given <= known.keys()
    assert {name for name, field in known.items() if field.is_required()} <= given


def test_the_consumer_finds_its_directories_mounted() -> None:
    environment = SERVICES["consumer"]["environment"]
    targets = {target for _, target in mounts(SERVICES["consumer"])}
    assert {environment["REHOME_DATA_ROOT"], environment["REHOME_BACKUP_ROOT"]} <= targets


def test_the_node_loads_our_topology() -> None:
    mounted = {source for source, _ in mounts(SERVICES["rabbitmq"])}
    assert {
        f"./rabbitmq/{name}" for name in ("rabbitmq.conf", "definitions.json", "enabled_plugins")
    } <= mounted
