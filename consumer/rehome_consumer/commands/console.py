"""`rehome console`: migrations and dead letters in a browser, and as a JSON API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer.commands.lines import Paragraphs
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.process import logs
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

ABOUT = """\
Serve the operators' console on REHOME_CONSOLE_HOST and REHOME_CONSOLE_PORT (http://127.0.0.1:8090/) until SIGTERM:
what moves and waits, each migration's timeline, dead letters; a JSON API under /api/v1; /healthz, /readyz, /metrics.

Without REHOME_CONSOLE_TOKENS_FILE it listens on loopback only, and whoever reaches that may read, and do nothing.
Replaying, discarding and rolling back need a token with the role operator, and a reason, which the journal keeps.

A process of its own: nothing that a browser does slows a move. Needs REHOME_PLATFORM_DSN or REHOME_STATE_DSN; acts
need what `rehome dead` and `rehome roll-back` need. docs/console.md has the rest. Logs go to standard error."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "console",
        help="migrations and dead letters in a browser, until it is stopped",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.set_defaults(work=_console)


async def _console(_args: argparse.Namespace) -> int:
    settings = read_settings(needed=JOURNAL)
    logs.configure(settings.log_format, settings.log_level)
    # Here, since the consumer has no use for these libraries: it must neither load nor depend on them.
    from rehome_consumer.console import server  # noqa: PLC0415

    await server.run(settings)
    return 0
