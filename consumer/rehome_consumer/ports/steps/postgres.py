"""PostgreSQL servers: databases and roles, backups, verification."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from rehome_consumer.model import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from uuid import UUID

    from rehome_consumer.model import (
        Backup,
        Credentials,
        DatabaseFacts,
        Fence,
        Fingerprint,
        Followed,
        Named,
        OwnershipTag,
        RehearsalMark,
        RoleAttributes,
        RoleFacts,
        Scope,
        Server,
        ServerFacts,
        Written,
    )
    from rehome_consumer.ports.steps.facts import Facts

T = TypeVar("T")


class Databases(Protocol):
    """Roles, databases and fences on one PostgreSQL server, as its administrator."""

    async def server_facts(self, server: Server) -> ServerFacts:
        """Ask the server for its version, what it could install and how it is set."""
        ...

    async def database_size(self, server: Server, database: str) -> int:
        """Bytes. Raises NotFound."""
        ...

    async def database_facts(self, server: Server, database: str, tenant: str) -> DatabaseFacts:
        """Everything about a database that its copy must share; `tenant` is the tenant's role there.

        Raises:
            NotFound: there is no such database.
            Incompatible: it holds what that role cannot take along; names it, and says what to do.
        """
        ...

    async def attached(self, server: Server, database: str, tenant: str) -> tuple[str, ...]:
        """What other programs hang on the database, in words, at most 20.

        Publications, logical slots, subscriptions; roles that may log in and have rights in it, the tenant's and
        administrators excepted; sessions of others. Raises NotFound.
        """
        ...

    async def role_facts(self, server: Server, role: str, database: str) -> RoleFacts:
        """What the role may do, and how it is tied to anything but `database`. Raises NotFound."""
        ...

    async def require_admitted(self, server: Server, database: str, role: str) -> None:
        """Log in once as a short-lived role with the rights of the tenant's role, as later steps do.

        Raises:
            Incompatible: the server does not let it in; says what to do.
        """
        ...

    async def require_login_rules(self, server: Server, database: str, scratch: str, role: str) -> None:
        """The server would let the tenant's role, which need not exist yet, into its database, and short-lived roles.

        Args:
            server: where the tenant's data is moved to.
            database: as it will be called there.
            scratch: what the copy is called until it is verified.
            role: the tenant's, there.

        Raises:
            Incompatible: its pg_hba.conf has no line for one of them; names role, server and line.
        """
        ...

    async def require_genuine_extensions(
        self, source: Server, database: str, tenant: str, target: Server
    ) -> None:
        """Make the source's extensions in a short-lived, empty database on the target, and compare.

        Raises:
            Incompatible: one holds what it does not bring (no dump would include that), or cannot be installed.
        """
        ...

    async def connections(self, server: Server, database: str, role: str) -> int:
        """Sessions on the database (rehome's excepted) plus sessions of the role on any database, each once."""
        ...

    async def fence(
        self, server: Server, database: str, role: str, limit: timedelta, patience: timedelta = timedelta()
    ) -> None:
        """Only the administrator may connect: no login for the role, and the database becomes the administrator's.

        Ends the connections there are, those with an open transaction only after `patience`, and returns only when
        `pg_stat_activity` shows none. Raises TimedOut naming who is still connected.
        """
        ...

    async def fence_state(self, server: Server, database: str, role: str) -> Fence:
        """How both are now (`ended` counts the connections there are): to be remembered before `fence`."""
        ...

    async def unfence(self, server: Server, database: str, role: str, before: Fence) -> None:
        """Restore what `fence` changed, as it was before."""
        ...

    async def make_role(
        self, server: Server, credentials: Credentials, like: RoleAttributes, others: tuple[str, ...]
    ) -> None:
        """Make (or correct) the tenant's ordinary role, not allowed to log in yet, and `others` without login.

        Raises:
            Incompatible: it is there, and more than an ordinary login.
            NotOurs: it is there, and belongs to something else.
        """
        ...

    async def make_scratch(
        self, server: Server, name: str, like: DatabaseFacts, owner: str, tag: OwnershipTag
    ) -> None:
        """An empty database under a scratch name, with `tag`.

        Encoding, collation, settings, grants and comment are those of `like`.

        One of the same name with the same migration's tag is dropped first, and its sessions are ended.
        Raises NotOurs if the name is taken by anything else, Incompatible if the locale is not there.
        """
        ...

    async def ownership_tag(self, server: Server, database: str) -> OwnershipTag | None:
        """The database's tag; None when there is no such database. Raises NotOurs when it carries none."""
        ...

    async def promote(self, server: Server, scratch: str, final: str, role: str, tag: OwnershipTag) -> None:
        """Rename the verified scratch database to its final name, tag it as verified, allow the role to log in.

        Ends other sessions on it first. Done already (final carries the tag): only allows the role to log in.
        """
        ...

    async def drop(self, server: Server, database: str, migration_id: UUID) -> bool:
        """Drop a database that carries this migration's tag. False when it is not there; NotOurs otherwise."""
        ...

    async def close_role(self, server: Server, role: str, *, opened: bool = False) -> None:
        """No login for the role and no session of it, if it exists.

        Args:
            server: where.
            role: its name.
            opened: this migration has let it log in: it is closed whatever it has made since.

        Raises:
            NotOurs: it is a superuser; or not `opened`, and owns a database that is not this migration's.
        """
        ...

    async def mark_rehearsal(self, server: Server, mark: RehearsalMark) -> None:
        """Write down what a rehearsal without a migration is about to make there; before it makes anything."""
        ...

    async def unmark_rehearsal(self, server: Server, rehearsal: UUID) -> None:
        """Remove the mark, after all that it names; nothing where there is none."""
        ...

    async def drop_role(self, server: Server, role: str, *, counted_on: bool = False) -> None:
        """Drop a role that may not log in and has nothing; nothing when it does not exist.

        Args:
            server: where.
            role: its name.
            counted_on: a migration that found it there may need it: then not while one makes a database there.

        Raises:
            NotOurs: it may log in, is a superuser, or may be needed.
            RehomeError: it has something.
        """
        ...

    async def end_sessions(self, server: Server, migration_id: UUID) -> int:
        """End what an earlier run for this migration left behind: its sessions and its short-lived roles.

        Returns how many sessions there were.
        """
        ...


class Replicator(Protocol):
    """Lets a copy follow its source by logical replication.

    What it needs for that is on both servers and works without any consumer: a publication, a slot and a role on the
    source, a subscription and a role on the target, all named after the migration. Nothing of it is made anew by any
    other port; `remove` finds it by these names.
    """

    async def obstacles(
        self, source: Server, database: str, tenant: str, target: Server | None
    ) -> tuple[str, ...]:
        """Why this database cannot be followed, each with what to do about it; at most 20. Empty: it can be.

        Without `target`, which may not exist yet, only the source is looked at. Raises NotFound.
        """
        ...

    async def keyless(self, source: Server, database: str) -> tuple[str, ...]:
        """Tables without a key, which would have a temporary replica identity while a copy follows. Raises NotFound."""
        ...

    async def with_slot(self, followed: Followed, limit: timedelta, work: Callable[[str], Awaitable[T]]) -> T:
        """Make publication and slot, and run `work` with the name of the snapshot from which the slot streams.

        The snapshot is held meanwhile. Publication, slot and role stay, also when `work` fails: see `remove`. So do
        temporary replica identities of tables without a key, which are set before. Fingerprints have those tables'
        own identities all the time; a copy that `work` makes has the temporary ones until `restore_identities`.

        Args:
            followed: the source, and its copy, which `work` makes.
            limit: how long making the slot may take: it waits for transactions that are open on the server.
            work: is given the snapshot.

        Raises:
            FellBehind: the slot could not be made; `work` was not run.
        """
        ...

    async def restore_identities(self, followed: Followed, snapshot: str) -> None:
        """The copy of what is seen by `snapshot` gets the replica identities that the source had before `with_slot`.

        Raises:
            FellBehind: it could not be done.
        """
        ...

    async def reclaim(self, source: Server, database: str, migration_id: UUID) -> None:
        """Remove what other migrations, which are over, have left in a database that lent its tables identities.

        Raises:
            TableInUse: a table could not be altered without keeping its users from it.
        """
        ...

    async def lent(self, followed: Followed) -> tuple[str, ...]:
        """Tables of the source that have a temporary replica identity now."""
        ...

    async def follow(self, followed: Followed, limit: timedelta) -> None:
        """Let the copy, which is as the slot's snapshot, follow its source; with no more rights than the tenant's.

        Args:
            followed: both.
            limit: how long the login on the source lasts.

        Raises:
            FellBehind: the target does not reach the source, or refuses; says which.
        """
        ...

    async def reach(self, followed: Followed, limit: timedelta, keep: int) -> timedelta:
        """Wait until the copy has all that was committed on the source when this was called; how long it took.

        Args:
            followed: both.
            limit: how long it may take.
            keep: bytes of WAL that the source's server may keep for the copy.

        Raises:
            FellBehind: it took longer, the server keeps more, or the copy follows no more; says which.
        """
        ...

    async def written(self, followed: Followed) -> Written:
        """All tables of the fenced source that were written to since the snapshot of `with_slot`, perhaps others, too.

        Told by a second slot (the witness), made before that snapshot, that nobody reads. It is gone after `remove`.

        Raises:
            FellBehind: it cannot be said for sure, or would take too long; says why.
        """
        ...

    async def strays(self, followed: Followed, written: Written) -> tuple[str, ...]:
        """Tables of the settled copy, which follows no more, that may have been changed and are not in `written`.

        Not by a change of how many rows there are.

        Raises:
            TimedOut: somebody is at work in the copy.
        """
        ...

    async def detach(self, followed: Followed) -> None:
        """The copy follows no more, and what followed it is gone from the target; nothing if it did not."""
        ...

    async def settle(self, followed: Followed) -> None:
        """Give the copy what is not replicated: where the source's sequences stand; refresh materialized views.

        Done with the tenant's rights.
        """
        ...

    async def remove(self, server: Server, migration_id: UUID) -> bool:
        """Remove everything that a migration has there to follow or to be followed; whether there was anything.

        A table that has a temporary replica identity gets its own again, unless somebody else has given it another one.

        Raises:
            TableInUse: a table could not be altered without keeping its users from it; all else is removed.
        """
        ...


class Copier(Protocol):
    """Backups: dump, seal, check, restore. Data flows through subprocesses, never through this one's memory."""

    async def client_version(self) -> int:
        """Major version of the PostgreSQL client programs in use.

        Raises NotReady when one is missing, does not run, or is too old, or they are of different versions.
        """
        ...

    async def require_dumpable(self, server: Server, database: str) -> None:
        """The client programs know what this server stores in the database. Raises Incompatible, NotFound."""
        ...

    async def free_bytes(self) -> int:
        """Room at the backup place. Raises NotReady when it is not there or cannot be written to."""
        ...

    async def require_place(self, mark: UUID | None) -> UUID:
        """The mark of the backup place, which all consumers share; made now where it has none and `mark` is None.

        Raises NotReady when the place is not there, cannot be written to, or has not this `mark`: then something else
        is in its place, such as an empty directory in which nothing is mounted.
        """
        ...

    async def dump(
        self,
        server: Server,
        database: str,
        tenant: str,
        backup_id: str,
        facts: Facts,
        scope: Scope = EVERYTHING,
    ) -> None:
        """Dump in directory format, in parallel, under a temporary name; an incomplete earlier one is removed.

        Done with the rights of the tenant's role, by a short-lived login. Of the scope count snapshot, rows, jobs and
        nice.
        """
        ...

    async def seal(self, backup_id: str, rows: Mapping[str, int], versions: Mapping[str, str]) -> Backup:
        """Hash every file, write the manifest (sizes, SHA-256, versions, row counts, times), fsync, rename."""
        ...

    async def backup(self, backup_id: str) -> Backup | None:
        """The sealed backup, its files checked against the manifest; None when there is none.

        Raises Refused naming the file when one is missing or altered.
        """
        ...

    async def restore(
        self,
        server: Server,
        database: str,
        backup: Backup,
        role: str,
        facts: Facts,
        *,
        jobs: int | None = None,
        nice: int = 0,
        vacuum: bool = False,
    ) -> None:
        """Restore into `database` (empty, with this migration's tag), everything owned by `role`; then ANALYZE.

        Its programs have `jobs` sessions (None: as many as the settings say), and give way to other processes by
        `nice`, 0 to 19. With `vacuum`, whose time is for when nobody waits, rows can be counted by an index alone.
        """
        ...

    async def discard(self, backup_id: str) -> None:
        """Remove the backup, complete or not. Raises NotReady as `free_bytes`."""
        ...


class Verifier(Protocol):
    """Reads a complete database, with the rights of the tenant's role. Changes nothing."""

    async def row_counts(self, server: Server, database: str, role: str) -> dict[str, int]:
        """Exact rows of every table, 'schema.table' -> count."""
        ...

    async def with_snapshot(
        self, server: Server, database: str, role: str, work: Callable[[str], Awaitable[T]]
    ) -> T:
        """Run `work` with the name of an exported snapshot, which the server holds meanwhile; return its result.

        The server cannot clean up rows that were deleted since, so it is held no longer than needed.
        """
        ...

    async def fingerprint(
        self, server: Server, database: str, role: str, scope: Scope = EVERYTHING
    ) -> Fingerprint:
        """Content and schema objects, as far as `scope` has them.

        The tenant's role is written as `<tenant>`, so that two roles can be compared.

        Raises:
            Conflict: nobody holds the scope's snapshot any more.
        """
        ...

    async def signature(self, server: Server, database: str, snapshot: str | None = None) -> str:
        """A signature of what defines the database's objects, read by the administrator.

        Two that are equal say that no definition was changed, nor was one that was put back, from when the first was
        read to when the second was: but for settings (`fingerprint.OUTSIDE`) and where sequences stand. Two that differ
        say nothing: what is rewritten as it was makes another one. Writes to tables, temporary tables that come and go,
        VACUUM, ANALYZE, and refreshing a materialized view make none.

        Args:
            server: where.
            database: which.
            snapshot: an exported snapshot that the server still holds; None: as it is now.

        Raises:
            NotFound: there is no such database.
            Conflict: nobody holds the snapshot any more.
        """
        ...

    async def some(
        self,
        server: Server,
        database: str,
        role: str,
        kind: str,
        parts: Sequence[int],
        scope: Scope = EVERYTHING,
    ) -> Mapping[int, Sequence[Named]]:
        """The second look: of each of these parts of a kind the first `fingerprint.LISTED`, in the order of keys.

        The kind is one of a fingerprint's objects, or `fingerprint.TABLES` or `SEQUENCES`.
        """
        ...
