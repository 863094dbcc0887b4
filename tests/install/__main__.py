"""Does the contract install alone, and does everything in it work there? `make install-check`.

Built are the wheel and the source distribution. The wheel goes into a new environment that has what the base
install needs and nothing else; no package index is asked. There run the command line, a publisher and a subscriber
on a private broker, the pytest plugin, and a type checker on what other teams would write; at last what the
documents promise for the first ten minutes.
"""

import asyncio
import sys
import time
from pathlib import Path

from sandbox.system.scratch import remove_scratch_directory, scratch_directory
from tests.install import distributions, first_minutes, in_use
from tests.install.environment import Environment, FailedError

ROOT = Path(__file__).parents[2]


async def check(directory: Path) -> None:
    """Everything, in an order in which the first failure tells most.

    Raises:
        FailedError: something is not as it should be; the text says what.
    """
    wheel = distributions.build(ROOT, directory / "dist")
    tell("the source distribution makes the same wheel; all of the contract is in it, and nothing else")
    environment = Environment.create(directory / "venv", wheel)
    tell(f"it installs alone: {', '.join(environment.distributions())}")
    in_use.every_module_is_imported(environment)
    in_use.nothing_of_the_consumer_is_there(environment)
    tell("every module is imported, and nothing of the consumer's packages is there")
    in_use.the_command_line_judges_the_examples(environment, directory)
    in_use.the_console_script_says_what_is_missing(environment)
    tell("the command lines answer")
    await in_use.events_are_published_and_followed(environment, directory, ROOT)
    tell("events are published and followed on a broker")
    in_use.types_are_checked(environment, directory, ROOT)
    tell("a strict type checker is content with its users")
    in_use.the_plugin_serves_a_project(environment, directory)
    tell("the pytest plugin serves a project")
    took = await asyncio.to_thread(
        first_minutes.first_minutes_hold, environment, directory / "first", ROOT, wheel
    )
    tell(f"the documents' first ten minutes hold as they stand there: {', '.join(took)}")


def tell(what: str) -> None:
    """One line of progress."""
    print(f"install-check: {what}", flush=True)


def main() -> int:
    """Run it; returns the exit code."""
    began = time.monotonic()
    directory = scratch_directory("rehome-install")
    try:
        asyncio.run(check(directory))
    except FailedError as error:
        print(f"install-check: {error}", file=sys.stderr)
        return 1
    finally:
        remove_scratch_directory(directory)
    tell(f"holds, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
