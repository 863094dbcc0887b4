"""Other packages and projects that have names which rehome's packages once had: events, consumer, sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.install.environment import require
from tests.install.in_use import PROGRAMS, every_module_is_imported, the_plugin_serves

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.environment import Environment

FILES: Final = {
    "events.py": 'OWNER = "the project"\n',
    "consumer/__init__.py": 'OWNER = "the project"\n',
    "sandbox.py": 'OWNER = "the project"\nprint("the project\'s sandbox runs")\n',
    "test_own.py": (
        "import consumer, events, sandbox\n\n\n"
        "def test_own_modules_are_imported():\n"
        '    assert {consumer.OWNER, events.OWNER, sandbox.OWNER} == {"the project"}\n'
    ),
}


def opensearch_is_installed_before_and_after(environment: Environment, wheel: Path, wheels: Path) -> None:
    """It brings PyPI's package `events`; each works, whichever came last, and without the other.

    Args:
        environment: where rehome-events is installed, and opensearch-py is not.
        wheel: of rehome-events.
        wheels: of opensearch-py and all that it needs.
    """
    opensearch = ("install", "--no-index", "--find-links", str(wheels), "opensearch-py")
    environment.pip(*opensearch)
    _both_work(environment)
    environment.pip("uninstall", "--yes", "rehome-events")
    _opensearch_works(environment)
    environment.install(str(wheel))
    _both_work(environment)
    environment.pip("uninstall", "--yes", "opensearch-py", "Events")
    every_module_is_imported(environment, "rehome_events", environment.packages)


def _both_work(environment: Environment) -> None:
    environment.require_owners()
    _opensearch_works(environment)
    every_module_is_imported(environment, "rehome_events", environment.packages)


def _opensearch_works(environment: Environment) -> None:
    found = environment.run(str(PROGRAMS / "use_opensearch.py"), at=environment.directory).stdout.strip()
    require(found == str(environment.packages / "events"), f"events was imported from {found}")


def project(directory: Path) -> Path:
    """A project directory with modules of these names."""
    for name, text in FILES.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


def the_contract_works_in(place: Path, environment: Environment) -> None:
    """The project's own tests, the plugin and the contract's command line."""
    the_plugin_serves(environment, place)
    environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own.py", at=place)
    listed = environment.run("-m", "rehome_events", "list", at=place).stdout
    require("migration.completed" in listed, f"python -m rehome_events list prints {listed!r}")


def the_consumer_works_in(place: Path, environment: Environment, *, editable: bool) -> None:
    """`rehome` answers, and its demo is not the project's sandbox but the checkout's, or says where that is."""
    found = environment.entry_points("console_scripts").get("rehome")
    require(found == "rehome_consumer.__main__:main", f"the console script rehome is {found}")
    script = environment.script("rehome")
    for command in ([script], ["-m", "rehome_consumer"]):
        printed = environment.run(*command, "--help", at=place).stdout
        require(printed.startswith("usage: rehome "), f"rehome --help prints {printed!r}")
    demo = environment.run(script, "demo", "--help", at=place, code=0 if editable else 2)
    expected = "usage: rehome demo " if editable else "rehome: the demo runs from a checkout of the project: "
    output = f"{demo.stdout}{demo.stderr}"
    require(output.startswith(expected), f"rehome demo --help prints {output!r}")
