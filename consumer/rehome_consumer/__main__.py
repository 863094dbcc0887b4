"""The command line, `rehome`. Exit codes: 0 done, 1 failed, 2 wrong usage or settings."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rehome_consumer.commands import (
    check,
    completion,
    console,
    dead_letters,
    doctor,
    drain,
    move_now,
    pause,
    prioritize,
    publish,
    report,
    retire,
    roll_back,
    run,
    status,
    topology,
)
from rehome_consumer.commands.lines import say
from rehome_consumer.errors import RehomeError, SettingsError
from rehome_events.printable import Parser

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
Moves a hosted Odoo's PostgreSQL database from a shared pool to a dedicated server, event by event.

New here? `rehome demo` shows a complete move on this machine.
Something is wrong? `rehome status`, then `rehome doctor`; the handbook is docs/operating.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["demo"]:
        return _demo(given[1:])
    if not given:
        _parser().print_help(sys.stderr)
        return 2
    # aiormq logs a failed connection itself; commands report it in one line. `rehome run` sets up real logs.
    logging.getLogger().addHandler(logging.NullHandler())
    args = _parser().parse_args(given)
    try:
        return int(asyncio.run(args.work(args)))
    except SettingsError as error:
        say(f"rehome: {error}", error=True)
        return 2
    except RehomeError as error:
        say(f"rehome: {error}", error=True)
        return 1
    except Exception:  # noqa: BLE001 - a defect; Python would print it unescaped
        say(*traceback.format_exc().rstrip().split("\n"), error=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rehome",
        description=DESCRIPTION,
        epilog="Exit codes: 0 done; 1 failed, or something needs an operator; 2 wrong usage or settings.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for group in (
        run,
        console,
        status,
        report,
        check,
        publish,
        dead_letters,
        roll_back,
        pause,
        move_now,
        prioritize,
        drain,
        doctor,
        retire,
        topology,
        completion,
    ):
        group.add(commands)
    commands.add_parser(
        "demo", help="a complete move on this machine, on real servers; see rehome demo --help"
    )
    return parser


def _demo(arguments: list[str]) -> int:
    """Hand over to the sandbox, which is part of the checkout but not of the installed package."""
    checkout = Path(__file__).parents[2]
    # Two folders above an installed package there may be another project's sandbox.
    if checkout / "consumer" != Path(__file__).parents[1] or not (checkout / "sandbox" / "demo").is_dir():
        say("rehome: the demo runs from a checkout of the project: `make demo`", error=True)
        return 2
    os.chdir(
        checkout
    )  # in this very process: a signal to it reaches the demo, which then removes what it made
    return os.execv(sys.executable, [sys.executable, "-m", "sandbox.demo", *arguments])  # noqa: S606 - ours


if __name__ == "__main__":
    sys.exit(main())
