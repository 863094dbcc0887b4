"""What other teams do with the installed contract."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from rehome_consumer.rabbitmq.permissions import READABLE, rights
from rehome_events.catalog import KNOWN
from rehome_events.testing import DISORDERS, OUTCOMES
from rehome_events.tools.schema import golden
from sandbox.rabbitmq.files import GUEST, BrokerUser
from sandbox.rabbitmq.node import BrokerNode
from tests.install.environment import LIMIT, require

if TYPE_CHECKING:
    from rehome_consumer.rabbitmq.permissions import Role
    from tests.install.environment import Environment

PROGRAMS: Final = Path(__file__).parent / "programs"
SOURCE_TREE_ONLY: Final = "this is for a source tree"


def every_module_is_imported(environment: Environment) -> None:
    """Also without pytest; only the plugin needs that."""
    told = environment.run(str(PROGRAMS / "import_everything.py"), at=environment.directory).stdout
    require(told.startswith(str(environment.packages)), f"events was imported from elsewhere: {told}")


def nothing_of_the_consumer_is_there(environment: Environment) -> None:
    """The base install is the contract's."""
    beyond = environment.asked("rehome", "consumer") - environment.asked("rehome")
    require(beyond, "extra consumer asks for nothing")
    found = sorted(beyond & set(environment.distributions()))
    require(not found, f"the base install brings {', '.join(found)}")


def the_command_line_judges_the_examples(environment: Environment, directory: Path) -> None:
    """Golden examples, valid and invalid, and what is committed beside them."""
    valid = sorted(environment.packages.glob("events/rehome_events/schemas/*/valid/*.json"))
    told = environment.run(
        "-m", "rehome_events", "validate", *map(str, valid), at=directory
    ).stdout.splitlines()
    require(len(valid) == len(told) and all(": valid " in line for line in told), f"valid examples: {told}")
    wrong = [
        example["event"] for kind, version in KNOWN for example in golden(kind, version, "invalid").values()
    ]
    files = [directory / f"wrong-{number}.json" for number in range(len(wrong))]
    for file, event in zip(files, wrong, strict=True):
        file.write_bytes(orjson.dumps(event))
    told = environment.run(
        "-m", "rehome_events", "validate", *map(str, files), at=directory, code=1
    ).stdout.splitlines()
    require(
        len(files) == len(told) and all(": not valid: " in line for line in told), f"invalid examples: {told}"
    )
    for command in ("schema", "asyncapi"):
        environment.run("-m", "rehome_events", command, "--check", at=directory)
    refused = environment.run("-m", "rehome_events", "page", "--check", at=directory, code=1)
    require(SOURCE_TREE_ONLY in refused.stderr, f"page --check says {refused.stderr!r}")


def the_console_script_says_what_is_missing(environment: Environment) -> None:
    """`rehome` is installed with the base, and of no use without its extra."""
    told = environment.run(
        str(environment.python.parent / "rehome"), "status", at=environment.directory, code=2
    )
    require("pip install 'rehome[consumer]'" in told.stderr, f"rehome says {told.stderr!r}")
    require(len(told.stderr.splitlines()) == 1, f"rehome says {told.stderr!r}")


async def events_are_published_and_followed(environment: Environment, directory: Path, root: Path) -> None:
    """On a private broker with our topology, by users with no more than their rights."""
    node = await BrokerNode.create(
        directory / "broker",
        definitions=root / "rabbitmq" / "definitions.json",
        conf=root / "rabbitmq" / "rabbitmq.conf",
        name="install",
        users=(GUEST, _user("billing", "billing"), _user("crm", "subscriber")),
    )
    try:
        await node.start()
        urls = {f"{name.upper()}_URL": node.url(name) for name in ("billing", "crm", "guest")}
        told = environment.run(str(PROGRAMS / "publish_and_follow.py"), at=directory, variables=urls).stdout
    finally:
        await node.destroy()
    require(told == "published\nmigration.completed\n", f"publisher and subscriber say {told!r}")


def types_are_checked(environment: Environment, directory: Path, root: Path) -> None:
    """The documents' examples and a tiny consumer pass mypy's strictest."""
    place = directory / "typed"
    place.mkdir()
    (place / "publish_and_follow.py").write_bytes((PROGRAMS / "publish_and_follow.py").read_bytes())
    for page in ("publishing", "subscribing"):
        text = (root / "docs" / f"{page}.md").read_text()
        for number, (before, block) in enumerate(
            re.findall(r"([^\n]*)\n+```python\n(.*?)```", text, re.DOTALL)
        ):
            named = re.search(r"as `(\w+)\.py`", before)  # where the page says how to save it
            if "import asyncpg" not in block and "def test_" not in block:
                (place / f"{named[1] if named else f'{page}_{number}'}.py").write_text(block)
    command = ["-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(directory / "mypy")]
    checked = subprocess.run(
        [sys.executable, *command, "--python-executable", str(environment.python), "."],
        cwd=place, env=environment.environ({}), capture_output=True, text=True, timeout=3 * LIMIT, check=False,
    )  # fmt: skip
    require(checked.returncode == 0, f"mypy --strict:\n{checked.stdout}{checked.stderr}")


def the_plugin_serves_a_project(environment: Environment, directory: Path) -> None:
    """Its fixtures are there without a word of configuration, once pytest is."""
    environment.add("pytest")
    project = directory / "project"
    project.mkdir()
    text = (PROGRAMS / "project_tests.txt").read_text()
    (project / "test_upgrades.py").write_text(text)
    ran = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", at=project).stdout
    expected = f"{len(OUTCOMES) * len(DISORDERS) * 2 + 1} passed"
    require(expected in ran, f"not {expected}:\n{ran}")


def _user(name: str, role: Role) -> BrokerUser:
    granted = rights(role, name, READABLE if role == "subscriber" else ())
    return BrokerUser(name, f"password of {name}", *granted.triple, granted.topics)
