"""The broker's users as an operator creates them: a file, and `rehome topology users`."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from rehome_consumer.rabbitmq.permissions import Role, rights
from sandbox.rabbitmq.files import BrokerUser
from sandbox.rabbitmq.node import BrokerNode
from tests.support.command_line import Answer, command

LIMIT = 300
"""Seconds: a run with many users starts rabbitmqctl dozens of times."""

# Printable ASCII with every character that is special in a shell, a URL or TOML.
NASTY = """p%40'"$x;`#=:/?@&\\ !"""

USERS = """
others = ["guest"]

[[user]]
name = "billing"
role = "billing"
password_env = "BILLING_PASSWORD"

[[user]]
name = "migrator"
role = "migrator"
password_env = "MIGRATOR_PASSWORD"

[[user]]
name = "operator"
role = "operator"
password_file = "operator_password"

[[user]]
name = "crm"
role = "subscriber"
keys = ["migration.completed", "migration.rolled_back"]
password_env = "CRM_PASSWORD"

[[user]]
name = "shop"
role = "subscriber"
keys = ["migration.completed"]
password_env = "SHOP_PASSWORD"
"""


def password(user: str) -> str:
    return f"{user}{NASTY}{user}"


def environment() -> dict[str, str]:
    """The passwords that `write_users` refers to."""
    return {f"{user.upper()}_PASSWORD": password(user) for user in ("billing", "migrator", "crm", "shop")}


def write_users(directory: Path, text: str = USERS) -> Path:
    """A file of users, and the files of passwords beside it."""
    file = directory / "users.toml"
    file.write_text(text)
    (directory / "operator_password").write_text(f"{password('operator')}\n")
    return file


async def rehome(*arguments: object, settings: Mapping[str, str] | None = None, stdin: str = "") -> Answer:
    """The command line as a process of its own, with only these settings and passwords."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REHOME_")}
    return await command(
        *arguments,
        environment={**inherited, **environment(), **(settings or {})},
        stdin=stdin,
        limit=LIMIT,
    )


async def apply_users(node: BrokerNode, file: Path) -> Answer:
    """Give a node the users of a file."""
    answer = await rehome(
        "topology", "users", file, "--apply", "--rabbitmqctl", shlex.join(node.rabbitmqctl_command)
    )
    assert answer.code == 0, answer
    return answer


def as_booted(name: str, role: Role, keys: tuple[str, ...] = ()) -> BrokerUser:
    """A user that a node has from its first boot."""
    granted = rights(role, name, keys)
    return BrokerUser(name, password(name), *granted.triple, granted.topics)
