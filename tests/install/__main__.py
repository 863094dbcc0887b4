"""Do both distributions install, and work where other teams use them? `make install-check`.

Wheels and source distributions are built and compared. New environments get one or both distributions, from wheels
and from the checkout, with what they need and nothing else; no package index is used. There run the command lines, a
publisher and a subscriber on a private broker, the pytest plugin, and a type checker on other teams' code; also beside
opensearch-py and in a project that has modules of similar names; and last the documents' first ten minutes.
"""

import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox.system.scratch import remove_scratch_directory, scratch_directory
from tests.install import distributions, documents, environment, first_minutes, in_use, neighbours
from tests.install.environment import Environment, FailedError

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "build" / "wheels" / "beside"


def check(directory: Path) -> None:
    """Everything, in an order in which the first failure says most.

    Raises:
        FailedError: something is not as it should be; the text says what.
    """
    documents.name_what_can_be_installed(ROOT)
    report("the documents name distributions that can be installed")
    place = neighbours.project(directory / "project")
    with ThreadPoolExecutor() as threads:
        installing = threads.submit(_install_alone, directory)
        with first_minutes.broker(directory, ROOT) as urls:
            wheel, alone = installing.result()
            _contract_works(alone, directory, place, urls)
            index = first_minutes.packages(alone, directory / "beside")
            first = threads.submit(first_minutes.work, alone, directory / "first", ROOT, {**urls, **index})
            neighbours.opensearch_is_installed_before_and_after(alone, wheel, WHEELS)
            report(
                "it works beside opensearch-py, whichever is installed first, and when the other is removed"
            )
            _both_work(directory, place, alone.build_tools)
            report(f"the documents' first ten minutes work as written: {', '.join(first.result())}")


def _install_alone(directory: Path) -> tuple[Path, Environment]:
    """The wheel of rehome-events, and an environment with it."""
    wheel, _ = (
        distributions.build(project, ROOT, directory / "dist" / project.folder)
        for project in (distributions.EVENTS, distributions.CONSUMER)
    )
    report("each source distribution makes the same wheel, which holds its package and nothing else")
    alone = Environment.create(directory / "alone", environment.build_tools(directory / "build_tools"))
    alone.install(str(wheel))
    report(f"rehome-events installs alone: {', '.join(alone.distributions())}")
    return wheel, alone


def _contract_works(alone: Environment, directory: Path, place: Path, urls: Mapping[str, str]) -> None:
    in_use.every_module_is_imported(alone, "rehome_events", alone.packages)
    in_use.nothing_of_the_consumer_is_there(alone)
    report("every module is imported, and nothing of the consumer's packages is installed")
    in_use.the_command_line_validates_the_examples(alone, directory)
    report("the command line works")
    in_use.events_are_published_and_followed(alone, directory, urls)
    report("events are published and followed on a broker")
    in_use.types_are_checked(alone, directory, ROOT)
    report("a strict type checker accepts its users")
    neighbours.the_contract_works_in(place, alone)
    report("pytest and the command line work in a project with its own events, consumer and sandbox")


def _both_work(directory: Path, place: Path, build_tools: Path) -> None:
    both = Environment.create(directory / "both", build_tools)
    both.install("./events", "./consumer", at=ROOT)
    _are_used(both, place, both.packages, both.packages)
    report("pip install ./events ./consumer: both work")
    both.install("--editable", "./events", "--editable", "./consumer", at=ROOT)
    _are_used(both, place, ROOT / "events", ROOT / "consumer")
    in_use.the_extra_brings_traces(both)
    report("editable installs of both work")


def _are_used(both: Environment, place: Path, events: Path, consumer: Path) -> None:
    """In a project with its own events, consumer and sandbox; imported from these directories."""
    both.require_owners()
    in_use.every_module_is_imported(both, "rehome_events", events)
    in_use.every_module_is_imported(both, "rehome_consumer", consumer)
    neighbours.the_contract_works_in(place, both)
    neighbours.the_consumer_works_in(place, both, editable=consumer != both.packages)


def report(what: str) -> None:
    """Print one line of progress."""
    print(f"install-check: {what}", flush=True)


def main() -> int:
    """Run it; returns the exit code."""
    start = time.monotonic()
    directory = scratch_directory("rehome-install")
    try:
        check(directory)
    except FailedError as error:
        print(f"install-check: {error}", file=sys.stderr)
        return 1
    finally:
        remove_scratch_directory(directory)
    report(f"passed, {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
