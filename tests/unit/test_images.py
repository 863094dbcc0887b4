"""Images are built from pinned bases and packages, without development tools."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PINNED = re.compile(r"[a-z]+:[0-9][\w.-]*@sha256:[0-9a-f]{64}")
LOCK = (ROOT / "requirements.lock").read_text()
TOOLS = {
    "pytest",
    "mypy",
    "ruff",
    "hypothesis",
    "import-linter",
    "build",
    "hatchling",
    "editables",
    "jsonschema",
}


def versions(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def locked(*parts: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "locked.py"), *parts]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def needs(project: str) -> set[str]:
    """Other distributions that a project needs directly."""
    found = tomllib.loads((ROOT / project / "pyproject.toml").read_text())["project"]["dependencies"]
    return {re.split(r"[<>=~\[]", one)[0] for one in found} - {"rehome-events"}


def stages() -> dict[str, str]:
    """Each stage's instructions, by its name."""
    found = re.split(r"^FROM \S+ AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_base_images_are_pinned_by_digest() -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - stages().keys()
    assert bases == {"${PYTHON_IMAGE}"}
    assert PINNED.fullmatch(arguments["PYTHON_IMAGE"])


def test_images_of_compose_are_pinned_by_digest() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    images = [service["image"] for service in services.values() if "image" in service]
    assert images
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_one_tag_has_one_digest() -> None:
    found = set(PINNED.findall(DOCKERFILE + (ROOT / "compose.yaml").read_text()))
    assert len({image.partition("@")[0] for image in found}) == len(found)


def test_entries_are_locked_by_hash_and_name_no_index() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|^--(index|extra-index|find-links)", LOCK, re.MULTILINE)


def test_a_part_of_the_lock_holds_all_that_it_needs() -> None:
    assert needs("events") <= versions(locked("rehome-events")).keys()
    assert needs("events") | needs("consumer") <= versions(locked("rehome-consumer")).keys()
    assert {"pamqp", "yarl", "pydantic-core"} <= versions(locked("rehome-events")).keys()
    everything = locked("dev", "beside", "fuzz", "attack", "browser", "contract")
    assert versions(everything) == versions(LOCK)
    assert not [
        part
        for part in ("fuzz", "beside", "attack", "browser", "contract")
        if versions(locked(part)).keys() <= versions(locked("dev")).keys()
    ]


def test_no_tool_is_in_the_images_part_of_the_lock() -> None:
    assert not TOOLS & versions(locked("rehome-consumer")).keys()


def test_an_unknown_part_is_refused_by_name() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "locked.py"), "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "no part 'nobody'; there are rehome-events, rehome-consumer, build, dev" in done.stderr


@pytest.mark.parametrize("project", ["events", "consumer"])
def test_the_build_backend_is_in_its_part(project: str) -> None:
    wanted = tomllib.loads((ROOT / project / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=~\[]", one)[0] for one in wanted} <= versions(locked("build")).keys()


@pytest.mark.parametrize("project", ["events", "consumer"])
def test_both_distributions_carry_the_licence(project: str) -> None:
    assert (ROOT / project / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_images_hold_locked_packages_and_no_build_tools() -> None:
    made = stages()
    assert "locked.py build > build.txt" in (wheel := made.pop("wheel"))
    assert "locked.py rehome-consumer traces > runtime.txt" in wheel
    assert "--requirement runtime.txt" in made["base"]
    assert not [name for name, text in made.items() if re.search(r"build\.txt|pip wheel", text)]
    installs = [line for text in stages().values() for line in text.splitlines() if "pip install" in line]
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
