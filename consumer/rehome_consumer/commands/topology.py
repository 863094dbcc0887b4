"""`rehome topology`: the broker's exchanges, queues and bindings, as the saga needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from rehome_consumer import bootstrap
from rehome_consumer.adapters.rabbitmq.declaring import declare
from rehome_consumer.adapters.rabbitmq.rabbitmqctl import Rabbitmqctl
from rehome_consumer.commands import topology_users
from rehome_consumer.commands.lines import printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.errors import SettingsError
from rehome_consumer.network.tls import parsed
from rehome_consumer.rabbitmq import topology
from rehome_consumer.rabbitmq.comparison import differences
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Register the group."""
    parser = commands.add_parser(
        "topology",
        help="exchanges, queues and bindings: check or apply; the broker's users",
        description="The broker loads rabbitmq/definitions.json at boot; a later boot ignores changed arguments "
        "silently. check reports the differences, apply declares what is missing.",
    )
    group = parser.add_subparsers(required=True, metavar="ACTION")
    check = group.add_parser(
        "check",
        help="compare a running broker with the saga",
        description="Compare names, arguments and bindings. Reads the broker's definitions from its management API "
        "(the login of REHOME_AMQP_URL needs tag administrator), from rabbitmqctl, or from a file made by "
        "`rabbitmqctl export_definitions`. Exit code 1 on a difference.",
    )
    source = check.add_mutually_exclusive_group()
    source.add_argument(
        "--management-url", metavar="URL", help="management API (default: the AMQP host, port 15672)"
    )
    source.add_argument(
        "--rabbitmqctl",
        metavar="COMMAND",
        help="the command that runs rabbitmqctl, such as 'docker exec -i rabbitmq rabbitmqctl'",
    )
    source.add_argument(
        "--definitions", metavar="FILE", help="a file with exported definitions; - for standard input"
    )
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.set_defaults(work=_check)
    apply = group.add_parser(
        "apply",
        help="declare what is missing on the broker of REHOME_AMQP_URL",
        description="Declare exchanges, queues and bindings. The user needs configure permission. Fails where one "
        "exists with other arguments: such a queue must be emptied and deleted by hand first.",
    )
    apply.set_defaults(work=_apply)
    show = group.add_parser("show", help="print the definitions file of this saga")
    show.set_defaults(work=_show)
    topology_users.add(group)


async def _check(args: argparse.Namespace) -> int:
    found = differences(topology.definitions(), await _definitions(args))
    if args.json:
        as_json({"differences": found})
    else:
        printed(found)
        say("the broker differs from the saga" if found else "the broker has the topology of the saga")
    return 1 if found else 0


async def _apply(_args: argparse.Namespace) -> int:
    settings = read_settings(needed={"amqp_url"})
    wanted = topology.definitions()
    vhost = parsed(settings.amqp_url.get_secret_value()).path[1:] or "/"
    if vhost != topology.VHOST:
        raise SettingsError(
            f"REHOME_AMQP_URL names virtual host {vhost!r}; the topology is for {topology.VHOST!r}"
        )
    async with bootstrap.amqp(settings, "rehome topology") as connection:
        await declare(connection, wanted)
    counts = ", ".join(f"{len(wanted[kind])} {kind}" for kind in ("exchanges", "queues", "bindings"))
    say(f"declared {counts}")
    return 0


async def _show(_args: argparse.Namespace) -> int:
    as_json(topology.definitions())
    return 0


async def _definitions(args: argparse.Namespace) -> Any:
    if args.definitions:
        return _from_file(args.definitions)
    if args.rabbitmqctl:
        return await Rabbitmqctl(args.rabbitmqctl).definitions()
    async with bootstrap.management(read_settings(needed={"amqp_url"}), args.management_url) as management:
        return await management.definitions()


def _from_file(name: str) -> Any:
    try:
        return orjson.loads(sys.stdin.read() if name == "-" else Path(name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise SettingsError(f"--definitions {name}: {error}") from error
