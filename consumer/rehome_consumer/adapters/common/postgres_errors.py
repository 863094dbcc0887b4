"""PostgreSQL's, asyncpg's and the network's errors, translated into `rehome_consumer.errors`.

The server's first sentence is kept, without the value of a query argument; its DETAIL and HINT; of its CONTEXT, which
can show statements and rows, the names of functions. A DETAIL can show an entire row (`Failing row contains (...)`),
and rows of `db_servers` hold passwords: that one is left out, and of others the values; for the same reason the foreign
error is not chained.

What a server says about a definition or data stays so, however often it is asked: it is never `Transient`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

from rehome_consumer.adapters.common import server_words
from rehome_consumer.adapters.common.scram_only import NotScramError
from rehome_consumer.errors import (
    Conflict,
    Incompatible,
    Refused,
    RehomeError,
    TimedOut,
    Transient,
    Unreachable,
)
from rehome_consumer.network import tls

if TYPE_CHECKING:
    from collections.abc import Iterator

# In this order: the first class that fits decides. Source: PostgreSQL's appendix A, error codes.
_MEANING: tuple[tuple[type[BaseException], type[RehomeError]], ...] = (
    (asyncpg.DeadlockDetectedError, Conflict),
    (asyncpg.SerializationError, Conflict),
    (asyncpg.LockNotAvailableError, Conflict),
    (asyncpg.QueryCanceledError, TimedOut),
    (TimeoutError, TimedOut),
    (asyncpg.PostgresConnectionError, Unreachable),
    (asyncpg.AdminShutdownError, Unreachable),
    (asyncpg.CrashShutdownError, Unreachable),
    (asyncpg.CannotConnectNowError, Unreachable),
    (asyncpg.TooManyConnectionsError, Unreachable),
    (asyncpg.InvalidAuthorizationSpecificationError, Unreachable),
    (asyncpg.ReadOnlySQLTransactionError, Transient),
    (asyncpg.IntegrityConstraintViolationError, Refused),
    (asyncpg.DataError, Refused),
    (asyncpg.InsufficientPrivilegeError, Incompatible),
    (asyncpg.DuplicateDatabaseError, Conflict),
    (asyncpg.DuplicateObjectError, Conflict),
    (asyncpg.SyntaxOrAccessError, Incompatible),
    (asyncpg.FeatureNotSupportedError, Incompatible),
    (asyncpg.ProgramLimitExceededError, Incompatible),
    (asyncpg.PLPGSQLError, Incompatible),
    (asyncpg.ExternalRoutineError, Incompatible),
    (asyncpg.ExternalRoutineInvocationError, Incompatible),
    (asyncpg.SQLRoutineError, Incompatible),
    (asyncpg.WithCheckOptionViolationError, Incompatible),
    (asyncpg.TriggeredActionError, Incompatible),
    (asyncpg.TriggeredDataChangeViolationError, Incompatible),
    (asyncpg.CardinalityViolationError, Incompatible),
    (asyncpg.CaseNotFoundError, Incompatible),
    (asyncpg.InvalidTransactionTerminationError, Incompatible),
    (asyncpg.DataCorruptedError, Incompatible),
    (asyncpg.IndexCorruptedError, Incompatible),
    (asyncpg.PostgresError, Transient),
    (NotScramError, Incompatible),
    (asyncpg.InterfaceError, Unreachable),
    (asyncpg.InternalClientError, Unreachable),  # asyncpg's state is lost when a connection is cut under it
    (OSError, Unreachable),
)

FOREIGN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What PostgreSQL, asyncpg and the network raise (a time-out is an OSError)."""

_POOLER = "unsupported startup parameter"  # source: pgbouncer's answer to a setting that it does not track
NOT_A_POOLER = (
    "A connection pooler (such as pgbouncer) answers there. rehome needs the server itself: put its own host and port "
    "into `db_servers`"
)
_LONGEST = 400

# asyncpg shows the argument that it could not encode.
_ARGUMENT = re.compile(r"(query argument \$\d+).*")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run the block; translate errors of PostgreSQL, asyncpg and the network, and time-outs.

    Args:
        what: what is being done and to what, such as "reading instance 7d9f...": the error starts with it.
    """
    try:
        yield
    except RehomeError:
        raise
    except FOREIGN as error:
        if _POOLER in str(error):
            raise Incompatible(f"{what}: {_sentence(error)}. {NOT_A_POOLER}") from None
        meaning = next(translation for foreign, translation in _MEANING if isinstance(error, foreign))
        raise meaning(f"{what}: {_sentence(error)}{_more(error)}") from None


def _more(error: BaseException) -> str:
    """DETAIL and HINT, without data, and the functions in which it happened."""
    if not isinstance(error, asyncpg.PostgresError):
        return ""
    # asyncpg sets them from the server's answer; an error of its own has none.
    said = server_words.detail(getattr(error, "detail", None) or ""), getattr(error, "hint", None) or ""
    named = zip(("DETAIL", "HINT"), said, strict=True)
    added = "".join(f" | {name}: {' '.join(text.split())[:_LONGEST]}" for name, text in named if text)
    where = ", ".join(server_words.functions(getattr(error, "context", None) or ""))
    return f"{added} | IN: {where}" if where else added


def _sentence(error: BaseException) -> str:
    """The first sentence of a foreign error, and the name of the constraint that was violated."""
    first = str(error.args[0]).partition("\n")[0] if error.args else ""
    first = _ARGUMENT.sub(r"\1", first)
    if isinstance(error, TimeoutError):
        return first or "no answer in time"
    if isinstance(error, OSError):
        return tls.explained(error) or error.strerror or first or type(error).__name__
    constraint = getattr(error, "constraint_name", None)
    named = f" (constraint {constraint})" if constraint and constraint not in first else ""
    return f"{first or type(error).__name__}{named}"
