"""What other teams do with the installed contract."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from rehome_events.catalog import KNOWN
from rehome_events.testing import DISORDERS, OUTCOMES
from rehome_events.tools.schema import golden
from tests.install.environment import LIMIT, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.install.environment import Environment

PROGRAMS: Final = Path(__file__).parent / "programs"
NEEDS: Final = {"aio-pika", "orjson", "pydantic"}
TRACES: Final = "rehome_consumer.adapters.tracing.spans"
PLUGIN: Final = "rehome_events.testing.plugin"
SOURCE_TREE_ONLY: Final = "this works in a source tree only"


def every_module_is_imported(environment: Environment, package: str, place: Path) -> None:
    """All modules of a package, from this directory; also without pytest and OpenTelemetry, which only some need."""
    program = str(PROGRAMS / "import_everything.py")
    found = environment.run(program, package, PLUGIN, TRACES, at=environment.directory).stdout.strip()
    require(found == str(place / package), f"{package} was imported from {found}, not {place}")


def the_extra_brings_traces(environment: Environment) -> None:
    """What the extra names is all that traces need."""
    environment.add(
        *(environment.needs("rehome-consumer", extra="traces") - environment.needs("rehome-consumer"))
    )
    environment.run("-c", f"import {TRACES}", at=environment.directory)


def nothing_of_the_consumer_is_there(environment: Environment) -> None:
    """The contract needs what the documents say, and nothing that only the consumer needs."""
    needs = environment.needs("rehome-events")
    require(needs == NEEDS, f"rehome-events needs {', '.join(sorted(needs))}")
    of_the_consumer = {"rehome-consumer", *environment.needs("rehome-consumer")} - {"rehome-events", *NEEDS}
    found = sorted(of_the_consumer & set(environment.distributions()))
    require(not found, f"the base install brings {', '.join(found)}")
    environment.run("-c", "import rehome_consumer", at=environment.directory, code=1)


def the_command_line_validates_the_examples(environment: Environment, directory: Path) -> None:
    """Golden examples, valid and invalid, and the committed files beside them."""
    valid = sorted(environment.packages.glob("rehome_events/schemas/*/valid/*.json"))
    printed = environment.run(
        "-m", "rehome_events", "validate", *map(str, valid), at=directory
    ).stdout.splitlines()
    require(
        valid and len(valid) == len(printed) and all(": valid " in line for line in printed),
        f"valid examples: {printed}",
    )
    wrong = [
        example["event"] for kind, version in KNOWN for example in golden(kind, version, "invalid").values()
    ]
    files = [directory / f"wrong-{number}.json" for number in range(len(wrong))]
    for file, event in zip(files, wrong, strict=True):
        file.write_bytes(orjson.dumps(event))
    printed = environment.run(
        "-m", "rehome_events", "validate", *map(str, files), at=directory, code=1
    ).stdout.splitlines()
    require(
        len(files) == len(printed) and all(": not valid: " in line for line in printed),
        f"invalid examples: {printed}",
    )
    for command in ("schema", "asyncapi"):
        environment.run("-m", "rehome_events", command, "--check", at=directory)
    refused = environment.run("-m", "rehome_events", "page", "--check", at=directory, code=1)
    require(SOURCE_TREE_ONLY in refused.stderr, f"page --check prints {refused.stderr!r}")


def events_are_published_and_followed(
    environment: Environment, directory: Path, urls: Mapping[str, str]
) -> None:
    """On the broker of `make broker`, by users with no more than their rights."""
    printed = environment.run(str(PROGRAMS / "publish_and_follow.py"), at=directory, variables=urls).stdout
    require(printed == "published\nmigration.completed\n", f"publisher and subscriber print {printed!r}")


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


def the_plugin_serves(environment: Environment, project: Path) -> None:
    """Its fixtures are found without any configuration, once pytest is installed."""
    environment.add("pytest")
    found = environment.entry_points("pytest11").get("rehome_events")
    require(found == PLUGIN, f"the plugin's entry point is {found}")
    (project / "test_upgrades.py").write_text((PROGRAMS / "project_tests.txt").read_text())
    ran = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_upgrades.py", at=project)
    expected = f"{len(OUTCOMES) * len(DISORDERS) * 2 + 1} passed"
    require(expected in ran.stdout, f"not {expected}:\n{ran.stdout}")
