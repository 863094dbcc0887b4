"""Images are made of what was looked at: bases by digest, packages by hash, and no tools of development."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PINNED = re.compile(r"[a-z]+:[0-9][\w.-]*@sha256:[0-9a-f]{64}")
LOCKS = ("requirements.lock", "requirements-runtime.lock", "requirements-build.lock")
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


def versions(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE))


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


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_locked_is_locked_by_hash_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|^--(index|extra-index|find-links)", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_images_have_the_versions_that_are_tested(lock: str) -> None:
    tested = versions("requirements.lock")
    assert {name: tested.get(name) for name in versions(lock)} == versions(lock)


def test_what_the_consumer_needs_is_in_its_lock_and_no_tool_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["consumer"]
    locked = versions("requirements-runtime.lock").keys()
    assert {re.split(r"[<>=~\[]", one)[0] for one in needed} <= locked
    assert not TOOLS & locked


def test_what_builds_our_wheel_is_in_its_lock() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=~\[]", one)[0] for one in wanted} <= versions("requirements-build.lock").keys()


def test_images_are_made_of_the_locks_and_what_builds_stays_behind() -> None:
    made = stages()
    assert "requirements-build.lock" in made.pop("wheel")
    assert "--requirement requirements-runtime.lock" in made["base"]
    assert not [
        name for name, text in made.items() if re.search(r"requirements(-build)?\.lock|pip wheel", text)
    ]
    installs = [line for text in stages().values() for line in text.splitlines() if "pip install" in line]
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
