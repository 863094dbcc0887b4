"""What a step's description needs: an instance and its migration as they were observed at one moment.

Each step describes itself for operators: `describe` says what running it again would do, `describe_undo` what
undoing it would do, with the names of the things that it would touch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from rehome_consumer.facts import RecordedFacts

if TYPE_CHECKING:
    from collections.abc import Collection

UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True)
class TenantDatabase:
    """The tenant's database and role on one server; `sessions` are those of either."""

    name: str
    role: str
    exists: bool
    access: Literal["fenced", "open", "partly closed"]
    sessions: int
    bytes: int | None = None

    @property
    def size(self) -> str:
        """Its size, after a comma; empty where it is not known."""
        return "" if self.bytes is None else f", {self.bytes / 1_000_000:.0f} MB"


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """A database of this migration on the dedicated server; `current`: of its present attempt."""

    name: str
    verified: bool
    current: bool

    def __str__(self) -> str:
        return f"{'verified' if self.verified else 'scratch'} database {self.name}"


@dataclass(frozen=True, slots=True)
class Situation:
    """Names and states; None or `UNKNOWN` for what was not observed.

    Attributes:
        started: steps of the present attempt that were started; None: all of them count.
        facts: what that attempt remembers.
        home: the server that the record names.
        source, target: the migration's servers.
        target_address, conf_address: host and port, as the dedicated server has them and as odoo.conf names them.
        source_database, target_database: the tenant's, on either.
        own_databases: the migration's, on the target.
        service: its name, and how many of it run.
        conf, conf_backup: the path of odoo.conf, and the name of this attempt's backup of it.
        backup: the name of this attempt's backup of the database.
        sealed: whether that one is complete.
        partial: whether there is an incomplete backup of this migration.
        stored: all entries of this migration at the backup place.
    """

    started: Collection[str] | None = None
    facts: RecordedFacts = field(default_factory=RecordedFacts)
    home: str | None = None
    source: str | None = None
    target: str | None = None
    target_address: str | None = None
    source_database: TenantDatabase | None = None
    target_database: TenantDatabase | None = None
    own_databases: tuple[OwnDatabase, ...] = ()
    service: str = UNKNOWN
    conf: str | None = None
    conf_address: str | None = None
    conf_backup: str | None = None
    backup: str = UNKNOWN
    sealed: bool = False
    partial: bool = False
    stored: tuple[str, ...] = ()

    @property
    def source_name(self) -> str:
        """The source, as a sentence names it."""
        return self.source or "an unknown server"

    @property
    def target_name(self) -> str:
        """The dedicated server, as a sentence names it."""
        return self.target or "an unknown server"

    @property
    def target_role(self) -> str:
        """The tenant's role on the dedicated server."""
        return self.target_database.role if self.target_database else UNKNOWN

    def source_line(self) -> str:
        """How the source is."""
        database = self.source_database
        if database is None:
            return f"source on {self.source_name}: could not be looked at"
        if not database.exists:
            return f"source {database.name} on {self.source_name}: it is not there"
        return (
            f"source {database.name} on {self.source_name}: there{database.size}, {database.access}, "
            f"{database.sessions} connection(s)"
        )

    def target_line(self) -> str:
        """What is on the dedicated server, and what would be done with it."""
        if self.target is None:
            return "no dedicated server is there"
        current = [one for one in self.own_databases if one.current]
        if not current:
            database = self.target_database
            if database is not None and database.exists:
                return f"database {database.name} is on {self.target} and is not this migration's: it would be refused"
            return f"no database of this migration is on {self.target} yet"
        if any(one.verified for one in current):
            return f"{current[0]} is on {self.target}: it would be used as it is"
        return f"{current[0]} on {self.target} would be dropped and made again"

    def conf_line(self) -> str:
        """What odoo.conf names now."""
        if self.conf is None or self.target is None:
            return "odoo.conf: could not be looked at"
        if self.conf_address == self.target_address:
            return f"{self.conf} names {self.conf_address} already"
        return f"{self.conf} names {self.conf_address}; the dedicated server is {self.target_address}"
