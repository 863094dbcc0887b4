"""`rehome topology users`: the broker's users, each with only the permissions that its role needs."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rehome_consumer import bootstrap
from rehome_consumer.adapters.rabbitmq.rabbitmqctl import NAME, Rabbitmqctl
from rehome_consumer.commands.lines import printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.errors import Refused
from rehome_consumer.rabbitmq.access import Access, changes, missing_exchanges, unknown_users
from rehome_consumer.rabbitmq.topology import VHOST
from rehome_consumer.rabbitmq.users_file import password_of, read_users
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Iterator

    from rehome_consumer.rabbitmq.access import Change
    from rehome_consumer.rabbitmq.permissions import User


class Broker(Protocol):
    """Reads and changes the broker's users."""

    async def definitions(self) -> Any:
        """The node's definitions, with users and permissions."""

    async def make(self, change: Change, password: str) -> None:
        """Make one change."""


def add(group: Any) -> None:
    """Register the command."""
    users = group.add_parser(
        "users",
        help="the broker's users and their permissions",
        description="Give each user of FILE (see rabbitmq/users.example.toml) exactly the permissions of its role. "
        "FILE says where passwords are; none is printed, logged or passed as an argument. Users that FILE does not "
        "name are reported, never removed. --check exits with 1 on a difference.",
    )
    users.add_argument("file", type=Path, metavar="FILE", help="users, as TOML")
    what = users.add_mutually_exclusive_group(required=True)
    what.add_argument("--print", action="store_true", help="print a shell script that does it")
    what.add_argument("--apply", action="store_true", help="do it; what is correct already stays")
    what.add_argument("--check", action="store_true", help="report the differences")
    way = users.add_mutually_exclusive_group()
    way.add_argument(
        "--rabbitmqctl",
        metavar="COMMAND",
        help=f"the command that runs rabbitmqctl, such as 'docker exec -i rabbitmq rabbitmqctl' (default: {NAME})",
    )
    way.add_argument(
        "--management-url",
        metavar="URL",
        help="use the management API instead, with the login of REHOME_AMQP_URL (tag administrator)",
    )
    users.add_argument("--json", action="store_true", help="print one JSON document (--apply, --check)")
    users.set_defaults(work=_users)


async def _users(args: argparse.Namespace) -> int:
    file = await asyncio.to_thread(read_users, args.file)
    if args.management_url is None and not args.check:
        Rabbitmqctl(args.rabbitmqctl or NAME).require_that_it_reads_passwords()
    if args.print:
        printed(script(file.users, args.rabbitmqctl or NAME, args.file.name))
        return 0
    passwords = {user.name: password_of(user) for user in file.users}  # before anything is changed
    async with _broker(args) as broker:
        access = Access.of(await broker.definitions())
        found = [change for user in file.users for change in changes(user, passwords[user.name], access)]
        if args.apply and (missing := missing_exchanges(file.users, access)):
            raise Refused(
                f"the broker has no exchange {', '.join(missing)} in virtual host {VHOST}; nothing was changed. "
                "Make the topology first: `rehome topology apply`, or definitions.json at the node's boot"
            )
        if args.apply:
            for change in found:
                await broker.make(change, passwords[change.user])
    unknown = unknown_users(file.users, file.others, access)
    if args.json:
        as_json(
            {"changes": [change.why for change in found], "applied": args.apply, "unknown_users": unknown}
        )
    else:
        _print(found, unknown, applied=args.apply)
    return 1 if args.check and (found or unknown) else 0


def _print(found: list[Change], unknown: list[str], *, applied: bool) -> None:
    for change in found:
        say(f"{'changed: ' if applied else ''}{change.why}")
    for name in unknown:
        say(f"user {name} has access to virtual host {VHOST}, but the file does not name it")
    if not found:
        say("the users of the file have the permissions of their roles")


@asynccontextmanager
async def _broker(args: argparse.Namespace) -> AsyncIterator[Broker]:
    if args.management_url is None:
        yield Rabbitmqctl(args.rabbitmqctl or NAME)
        return
    async with bootstrap.management(read_settings(needed={"amqp_url"}), args.management_url) as management:
        yield management


def script(users: tuple[User, ...], rabbitmqctl: str, source: str) -> Iterator[str]:
    """Lines of a shell script that gives users their permissions; it may be run again.

    `printf` is built into the shell, so that no password becomes an argument of a process.
    """
    yield "#!/bin/sh"
    yield f"# Users of virtual host {VHOST}, made from {source!a}. Passwords are read when this runs."
    yield "set -eu"
    for user in users:
        if user.password_env:
            yield f': "${{{user.password_env}:?is not set}}"'
        else:
            file = shlex.quote(user.password_file or "")
            yield f"test -s {file} || {{ echo {file} is missing or empty >&2; exit 1; }}"
    for user in users:
        yield ""
        yield f"# {user.name}: {user.role}{''.join(f' {key}' for key in user.keys)}"
        add, change = (
            _with_password(user, f"{rabbitmqctl} {verb}") for verb in ("add_user", "change_password")
        )
        yield f"{add} 2>/dev/null || {change}"
        yield f"{rabbitmqctl} set_user_tags {user.name}"
        for one in changes(user, "", Access()):
            if one.arguments:
                arguments = shlex.join([one.command, "--vhost", VHOST, one.user, *one.arguments])
                yield f"{rabbitmqctl} {arguments}"


def _with_password(user: User, command: str) -> str:
    if user.password_env:
        return f"printf '%s\\n' \"${user.password_env}\" | {command} {user.name}"
    return f"{command} {user.name} < {shlex.quote(user.password_file or '')}"
