"""From where to where an instance's database moves, and what odoo.conf and its service mean for that. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import ConfUnusable, Incompatible

if TYPE_CHECKING:
    from rehome_consumer.model import ConfKey, Credentials, LoginPart, Server
    from rehome_consumer.steps.support.conf_settings import Setting

MOST_WARNINGS: Final = 20


@dataclass(frozen=True, slots=True)
class Relocation:
    """From where to where.

    Attributes:
        database: the database's name, the same on both servers.
        aliases: hosts by which the pool is named: its row's, and the instance's record's.
        login: the tenant's today; `new_login` on the dedicated server.
        target: None where none is known yet: what depends on it is not judged.
        versions: major versions of both servers; None as above.
        tls: whether the dedicated server offers it; None as above.
    """

    database: str
    source: Server
    aliases: frozenset[str]
    login: Credentials
    new_login: Credentials
    target: Server | None = None
    versions: tuple[int, int] | None = None
    tls: bool | None = None

    def old(self, part: LoginPart) -> frozenset[str]:
        """Today's values of one of the four, in lower case where case does not count."""
        if part == "db_host":
            return self.aliases
        return frozenset({value_of(part, self.source, self.login)})

    def new(self, part: LoginPart) -> str | None:
        """The value on the dedicated server; None where that is not known yet."""
        return None if self.target is None else value_of(part, self.target, self.new_login)

    def was(self, part: LoginPart, value: str) -> bool:
        """Whether the value is today's."""
        return (value.casefold() if part == "db_host" else value) in self.old(part)

    def names_pool(self, text: str) -> bool:
        """Whether the pool's host is a word of the text."""
        folded = text.casefold()
        return any(
            re.search(rf"(?:(?<=//)|(?<=@)|(?<![\w.\-/@])){re.escape(host)}(?![\w\-])(?!\.\w)", folded)
            for host in self.aliases
        )


@dataclass(slots=True)
class Meaning:
    """What follows.

    Attributes:
        options: further options of odoo.conf to be rewritten, with the part of the login that each takes.
        variables: the same of the service's environment.
        in_conf, in_service: why the move is refused, in words; empty where it is not.
        warnings: what was noticed, in words without any secret.
    """

    options: dict[ConfKey, LoginPart] = field(default_factory=dict)
    variables: dict[str, LoginPart] = field(default_factory=dict)
    in_conf: list[str] = field(default_factory=list)
    in_service: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def require_movable(self) -> None:
        """Raise ConfUnusable or Incompatible, with everything that has to be put right."""
        if self.in_conf:
            raise ConfUnusable("; ".join(self.in_conf + self.in_service))
        if self.in_service:
            raise Incompatible("; ".join(self.in_service))

    def shown_warnings(self) -> tuple[str, ...]:
        """The warnings, of which there may be as many as a tenant likes; the first ones only."""
        more = len(self.warnings) - MOST_WARNINGS
        return (*self.warnings[:MOST_WARNINGS], *([f"and {more} more like these"] if more > 0 else []))

    def also_rewritten(self) -> str:
        """Names of what is rewritten besides the four options, for people; empty where nothing is."""
        names = [f"{section}.{key}" if section != "options" else key for section, key in self.options]
        return ", ".join([*names, *(f"variable {name}" for name in self.variables)])


@dataclass(frozen=True, slots=True)
class Found:
    """A setting with a value; `where` names it for people."""

    setting: Setting
    value: str
    where: str
    complaints: list[str]


def value_of(part: LoginPart, server: Server, login: Credentials) -> str:
    """One of the four values, as odoo.conf has it."""
    if part == "db_host":
        return server.host
    if part == "db_port":
        return str(server.port)
    return login.user if part == "db_user" else login.password.reveal()
