"""`rehome topology`: the broker's exchanges, queues and bindings, as the saga wants them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson
from yarl import URL

from consumer import bootstrap, topology
from consumer.adapters.topology import declare
from consumer.commands.show import as_json
from consumer.errors import Refused, SettingsError, Unreachable
from consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

    from consumer.settings import Settings

SECONDS = 10.0


def add(commands: Any) -> None:
    """Register the group."""
    parser = commands.add_parser(
        "topology",
        help="exchanges, queues and bindings: check or apply",
        description="The broker loads rabbitmq/definitions.json at boot; a later boot ignores changed arguments "
        "without a word. Check tells the differences, apply declares what is missing.",
    )
    group = parser.add_subparsers(required=True, metavar="ACTION")
    check = group.add_parser(
        "check",
        help="compare a running broker with the saga",
        description="Compare names, arguments and bindings. Reads the broker's definitions from its management API, "
        "or from a file made by `rabbitmqctl export_definitions` (- for standard input). Exit code 1 on a difference.",
    )
    check.add_argument(
        "--management-url", metavar="URL", help="management API (default: the AMQP host, port 15672)"
    )
    check.add_argument(
        "--definitions", metavar="FILE", help="exported definitions instead; - for standard input"
    )
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.set_defaults(work=_check)
    apply = group.add_parser(
        "apply",
        help="declare what is missing on the broker of REHOME_AMQP_URL",
        description="Declare exchanges, queues and bindings. The user needs configure rights. Fails where one exists "
        "with other arguments: such a queue must be emptied and deleted by hand first.",
    )
    apply.set_defaults(work=_apply)
    show = group.add_parser("show", help="print the definitions file that belongs to this saga")
    show.set_defaults(work=_show)


async def _check(args: argparse.Namespace) -> int:
    there = await _definitions(args)
    found = topology.differences(topology.definitions(), there)
    if args.json:
        as_json({"differences": found})
    else:
        for line in found:
            print(line)
        print("the broker differs from the saga" if found else "the broker has the topology of the saga")
    return 1 if found else 0


async def _apply(_args: argparse.Namespace) -> int:
    settings = read_settings(needed={"amqp_url"})
    wanted = topology.definitions()
    async with bootstrap.amqp(settings, "rehome topology") as connection:
        await declare(connection, wanted)
    counts = ", ".join(f"{len(wanted[kind])} {kind}" for kind in ("exchanges", "queues", "bindings"))
    print(f"declared {counts}")
    return 0


async def _show(_args: argparse.Namespace) -> int:
    as_json(topology.definitions())
    return 0


async def _definitions(args: argparse.Namespace) -> Any:
    if args.definitions:
        return _from_file(args.definitions)
    return await _from_management(read_settings(needed={"amqp_url"}), args.management_url)


def _from_file(name: str) -> Any:
    try:
        return orjson.loads(sys.stdin.read() if name == "-" else Path(name).read_text("utf-8"))
    except (OSError, orjson.JSONDecodeError) as error:
        raise SettingsError(f"--definitions {name}: {error}") from error


async def _from_management(settings: Settings, given: str | None) -> Any:
    amqp = URL(settings.amqp_url.get_secret_value())
    base = given or f"http://{amqp.host}:15672"
    url = f"{base.rstrip('/')}/api/definitions/{topology.VHOST}"
    try:
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            answer = await client.get(url, auth=(amqp.user or "guest", amqp.password or "guest"))
    except httpx.HTTPError as error:
        raise Unreachable(
            f"management API at {base}: {error or type(error).__name__}. Give --management-url, "
            "or --definitions with the output of `rabbitmqctl export_definitions`"
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise Refused(f"management API at {base} answered {answer.status_code}: {answer.text[:200]}")
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError as error:
        raise Refused(f"management API at {base} did not answer with JSON: {error}") from error
