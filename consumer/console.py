"""The console script `rehome`: where only the contract is installed, it says so instead of failing."""

from __future__ import annotations

import sys
from importlib import import_module

OURS = frozenset({"consumer", "events"})


def main() -> int:
    """Run the command line (`consumer/__main__.py`); returns the exit code."""
    try:
        command_line = import_module("consumer.__main__")
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in OURS:
            raise
        print(
            f"rehome: {missing} is missing. Only the contract (package events) is installed here; "
            "for the consumer: pip install 'rehome[consumer]'",
            file=sys.stderr,
        )
        return 2
    return int(command_line.main())
