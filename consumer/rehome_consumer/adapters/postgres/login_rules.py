"""Whom a server's pg_hba.conf lets in, read from `pg_hba_file_rules`: asked before there is anybody to let in.

A role that does not exist yet cannot be tried. So the lines are read as the server reads them: the first one that fits
decides. Where a line cannot be judged from here (a host name, a file of names), it is believed to let in.
Source: PostgreSQL's documentation, "The pg_hba.conf File".
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from rehome_consumer.adapters.postgres import short_lived_roles
from rehome_consumer.errors import Incompatible
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")
_SHORT_LIVED: Final = f"{short_lived_roles.prefix(UUID(int=0))}restore"  # such a name
_OURS: Final = frozenset({"scram-sha-256", "md5"})  # `scram_only` answers the challenge of both
_THEIRS: Final = _OURS | {"password", "trust"}
_ENCRYPTED: Final = {"host": None, "hostnogssenc": None, "hostssl": True, "hostnossl": False}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line.

    Attributes:
        kind: local, host, hostssl, hostnossl, hostgssenc or hostnogssenc.
        databases, users: as they are written.
        address, mask: as they are written; None for `local`.
        method: such as scram-sha-256 or reject.
    """

    kind: str
    databases: tuple[str, ...]
    users: tuple[str, ...]
    address: str | None
    mask: str | None
    method: str


@dataclass(frozen=True, slots=True)
class Client:
    """Who comes.

    Attributes:
        role: its name.
        groups: roles that it is a member of, itself included.
        address: where it comes from; None: that is not known.
        encrypted: whether over TLS; None: that is not known.
    """

    role: str
    groups: tuple[str, ...]
    address: str | None = None
    encrypted: bool | None = None


async def require(session: Administrator, server: str, database: str, scratch: str, role: str) -> None:
    """The lines let a tenant's role into its database, and short-lived roles with its rights into `scratch` from here.

    Args:
        session: on the server.
        server: its name, for messages.
        database: the tenant's, as it will be called.
        scratch: how the copy is called until it is verified.
        role: the tenant's, which need not exist.

    Raises:
        Incompatible: they do not; names the role, the server and the line that is missing.
    """
    rules = [_rule(row) for row in await session.fetch(_SQL["login_rules"])]
    if not rules:
        return  # none is shown: this server keeps them elsewhere
    here = await session.fetchrow(_SQL["own_connection"])
    address, encrypted = (here["address"], here["encrypted"]) if here else (None, None)
    ours = Client(_SHORT_LIVED, (_SHORT_LIVED, role), address, encrypted)
    kind = "hostssl" if encrypted else "host"
    if not is_let_in(rules, scratch, ours, _OURS):
        line = f"{kind} all +{role} {_network(address)} scram-sha-256"
        raise Incompatible(
            f"the pg_hba.conf of {server} lets no short-lived role with the rights of {role} into {scratch} from "
            f"{address or 'here'}, where rehome restores: add a line such as `{line}` before those that reject it, "
            "reload the server and replay the upgrade"
        )
    if not is_let_in(rules, database, Client(role, (role,)), _THEIRS):
        raise Incompatible(
            f"the pg_hba.conf of {server} lets role {role}, the customer's login there, into {database} from nowhere: "
            f"add a line such as `host {database} {role} NETWORK scram-sha-256`, for the network of the instances, "
            "before those that reject it, reload the server and replay the upgrade"
        )


def is_let_in(rules: Sequence[Rule], database: str, client: Client, methods: frozenset[str]) -> bool:
    """Whether a line asks for a password that the client has, and none that fits for sure comes before it."""
    for rule in rules:
        fits = _all(
            _is_of_kind(rule, client),
            _any(_is_database(word, database, client) for word in rule.databases),
            _any(_is_user(word, client) for word in rule.users),
            _covers(rule, client.address),
        )
        if fits is not False and rule.method in methods:
            return True
        if fits:
            return False
    return False


def _all(*answers: bool | None) -> bool | None:
    """False where one is; None, which says that it is not known, where one is; else True."""
    return False if False in answers else None if None in answers else True


def _any(answers: Iterable[bool | None]) -> bool | None:
    found = tuple(answers)
    return True if True in found else None if None in found else False


def _is_of_kind(rule: Rule, client: Client) -> bool | None:
    if rule.kind not in _ENCRYPTED:
        return False
    wanted = _ENCRYPTED[rule.kind]
    if wanted is None:
        return True
    return None if client.encrypted is None else wanted is client.encrypted


def _is_database(word: str, database: str, client: Client) -> bool | None:
    if word in ("samerole", "samegroup"):
        return database in client.groups
    if word in ("all", database) or (word == "sameuser" and database == client.role):
        return True
    return _fits(word, database)


def _is_user(word: str, client: Client) -> bool | None:
    if word.startswith("+"):
        return word[1:] in client.groups
    return True if word in ("all", client.role) else _fits(word, client.role)


def _fits(word: str, name: str) -> bool | None:
    """A regular expression (16 and newer); of one that Python cannot read it is not known."""
    if not word.startswith("/"):
        return False
    try:
        return re.search(word[1:], name) is not None
    except re.error:
        return None


def _covers(rule: Rule, address: str | None) -> bool | None:
    """Whether the line is for that address; None: that cannot be known here, such as for one family of addresses."""
    if rule.address == "all":
        return True
    try:
        network = ipaddress.ip_network(f"{rule.address}/{_length(rule.mask)}", strict=False)
        return None if address is None else ipaddress.ip_address(address) in network
    except ValueError:  # samehost, samenet, or a host's name
        return None


def _length(mask: str | None) -> int:
    """How many bits of an address a mask covers."""
    return int(ipaddress.ip_address(mask)).bit_count() if mask else 0


def _network(address: str | None) -> str:
    return f"{address}/{128 if ':' in address else 32}" if address else "ADDRESS"


def _rule(row: asyncpg.Record) -> Rule:
    return Rule(
        row["kind"], tuple(row["databases"]), tuple(row["users"]), row["address"], row["mask"], row["method"]
    )
