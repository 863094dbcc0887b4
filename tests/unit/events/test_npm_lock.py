"""The npm packages of `make contract`: pinned, with checksums, and from whichever registry a machine uses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NODE = Path(__file__).parents[2] / "clients" / "node"


@pytest.fixture(scope="module")
def locked() -> dict[str, Any]:
    packages: dict[str, Any] = json.loads((NODE / "package-lock.json").read_text())["packages"]
    return packages


def test_every_package_has_a_checksum_and_none_an_address(locked: dict[str, Any]) -> None:
    for name, package in locked.items():
        told = {key: value for key, value in package.items() if key != "funding"}
        assert "://" not in json.dumps(told), name
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


def test_what_is_asked_for_is_pinned_and_is_what_is_locked(locked: dict[str, Any]) -> None:
    listed = json.loads((NODE / "package.json").read_text())
    for name, version in {
        **listed["dependencies"],
        **listed["devDependencies"],
        **listed["overrides"],
    }.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert locked[f"node_modules/{name}"]["version"] == version
    assert {key: listed[key] for key in ("dependencies", "devDependencies")}.items() <= locked[""].items()


def test_no_script_of_a_package_is_run() -> None:
    script = (NODE.parents[2] / "scripts" / "setup-node").read_text()
    assert "npm ci" in script
    assert "--ignore-scripts" in script
