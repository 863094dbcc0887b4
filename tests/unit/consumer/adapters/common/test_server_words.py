"""What a server says of an error: which of it stays so, and which words are shown."""

from __future__ import annotations

import asyncpg
import pytest

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.common.server_words import detail, is_final
from rehome_consumer.errors import (
    Conflict,
    Incompatible,
    Refused,
    RehomeError,
    TimedOut,
    Transient,
    Unreachable,
)

FINAL = (
    "pg_restore: error: could not execute query: ERROR:  functions in index expression must be marked IMMUTABLE",
    'pg_restore: error: COPY failed for table "t": ERROR:  duplicate key value violates unique constraint "t_pkey"',
    'pg_restore: error: could not execute query: ERROR:  relation "res_partner" does not exist',
    "pg_dump: error: query failed: ERROR:  permission denied for table private",
    "pg_restore: error: could not execute query: ERROR:  cannot execute CREATE TABLE in a read-only transaction",
    # one session's stays, another's does not
    (
        "restoring acme: pg_restore ended with exit code 1: pg_restore: error: could not execute query: "
        "ERROR:  deadlock detected | DETAIL:  Process 7 waits for ShareLock on transaction 9; blocked by process 8. | "
        'pg_restore: error: could not execute query: ERROR:  could not create unique index "twice_a" | '
        "DETAIL:  Key (a)=(...) is duplicated."
    ),
    (
        'pg_restore: error: COPY failed for table "t": ERROR:  duplicate key value violates unique constraint "t_k" | '
        "pg_restore: error: COPY failed: FATAL:  terminating connection due to administrator command"
    ),
    # the words of a name, and of a function of the tenant's
    'pg_restore: error: could not execute query: ERROR:  relation "lock timeout" does not exist',
    'restoring into out of memory: pg_restore: error: ERROR:  type "deadlock detected" does not exist',
    "pg_restore: error: could not execute query: ERROR:  the customer's card: out of memory",
    (
        "pg_restore: error: could not execute query: ERROR:  could not open extension control file "
        '"/usr/share/postgresql/16/extension/x.control": No such file or directory'
    ),
)
PASSING = (
    'pg_dump: error: connection to server at "pool", port 5432 failed: Connection refused',
    "pg_restore: error: could not execute query: ERROR:  out of shared memory | HINT:  You might need to increase",
    "pg_restore: error: could not execute query: ERROR:  deadlock detected",
    "pg_restore: error: could not execute query: ERROR:  canceling statement due to user request",
    "pg_restore: error: COPY failed: FATAL:  terminating connection due to administrator command",
    'pg_restore: error: could not execute query: ERROR:  could not extend file "base/1": No space left on device',
    'pg_dump: error: query failed: ERROR:  relation "public.wizard" does not exist',
    "pg_dump: error: query failed: ERROR:  could not open relation with OID 12345",
    'pg_dump: error: query failed: ERROR:  snapshot "00000003-1B" does not exist',
    "pg_restore: error: could not open input file",
    (
        "pg_dump: error: query failed: ERROR:  deadlock detected | pg_dump: error: query failed: "
        "ERROR:  current transaction is aborted, commands ignored until end of transaction block"
    ),
    "pg_dump: detail: Error message from server: ERROR:  canceling statement due to conflict with recovery",
    'pg_restore: error: could not execute query: ERROR:  could not open file "base/1/2": Too many open files',
    'pg_restore: error: could not execute query: ERROR:  could not create file "base/1/2": No space left on device',
    (
        "pg_restore: while PROCESSING TOC: | pg_restore: from TOC entry 7; 1259 8 INDEX ERROR: x acme | "
        "pg_restore: error: could not execute query: ERROR:  deadlock detected | "
        "HINT:  See server log for query details."
    ),
)


@pytest.mark.parametrize("text", FINAL)
def test_what_is_said_of_a_definition_or_of_data_stays_so(text: str) -> None:
    assert is_final(text)


@pytest.mark.parametrize("text", PASSING)
def test_what_is_said_of_the_server_or_of_others_may_pass(text: str) -> None:
    assert not is_final(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Key (email)=(anna@example.com) already exists.", "Key (email)=(...) already exists."),
        ("Key (a, b)=(1, x) y) is duplicated.", "Key (a, b)=(...) is duplicated."),
        ('Key (partner_id)=(7) is not present in table "res_partner".',
         'Key (partner_id)=(...) is not present in table "res_partner".'),
        ('Token "4111 1111" is invalid.', 'Token "..." is invalid.'),
        ('view summary depends on table "orders"', 'view summary depends on table "orders"'),
        ("Failing row contains (1, secret).", ""),
    ],
)  # fmt: skip
def test_a_detail_is_shown_without_data(text: str, shown: str) -> None:
    assert detail(text) == shown


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (asyncpg.UndefinedFunctionError("function unaccent(text) does not exist"), Incompatible),
        (
            asyncpg.InvalidObjectDefinitionError("functions in index expression must be marked IMMUTABLE"),
            Incompatible,
        ),
        (asyncpg.RaiseError("not today"), Incompatible),
        (asyncpg.FeatureNotSupportedError("virtual generated columns"), Incompatible),
        (
            asyncpg.CardinalityViolationError(
                "more than one row returned by a subquery used as an expression"
            ),
            Incompatible,
        ),
        (asyncpg.CaseNotFoundError("case not found"), Incompatible),
        (asyncpg.InvalidTransactionTerminationError("invalid transaction termination"), Incompatible),
        (asyncpg.DataCorruptedError("invalid page in block 3 of relation base/1/2"), Incompatible),
        (asyncpg.IndexCorruptedError('index "x" contains unexpected zero page'), Incompatible),
        (asyncpg.InternalServerError("cache lookup failed for relation 4"), Transient),
        (asyncpg.StatementTooComplexError("stack depth limit exceeded"), Incompatible),
        (asyncpg.InvalidTextRepresentationError("invalid input syntax"), Refused),
        (asyncpg.DuplicateDatabaseError("database x already exists"), Conflict),
        (asyncpg.DeadlockDetectedError("deadlock detected"), Conflict),
        (asyncpg.OutOfMemoryError("out of shared memory"), Transient),
        (asyncpg.DiskFullError("could not extend file"), Transient),
        (asyncpg.QueryCanceledError("canceling statement"), TimedOut),
        (asyncpg.AdminShutdownError("terminating connection"), Unreachable),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, meaning: type[RehomeError]) -> None:
    with pytest.raises(meaning) as raised, translated("reading acme"):
        raise error
    assert type(raised.value) is meaning


def test_a_hint_and_a_detail_without_values_are_in_the_message() -> None:
    error = asyncpg.OutOfMemoryError("out of shared memory")
    error.hint, error.detail = (
        'You might need to increase "max_locks_per_transaction".',
        "Key (login)=(anna) exists.",
    )
    with pytest.raises(Transient) as raised, translated("counting rows of acme"):
        raise error
    assert str(raised.value) == (
        "counting rows of acme: out of shared memory | DETAIL: Key (login)=(...) exists. | "
        'HINT: You might need to increase "max_locks_per_transaction".'
    )


def test_the_functions_in_which_it_happened_are_named_and_nothing_else_of_the_context() -> None:
    error = asyncpg.UndefinedFunctionError("function unaccent(text) does not exist")
    error.context = (
        'SQL function "plain" during inlining\nSQL statement "SELECT 4141"\n'
        "PL/pgSQL function reports.wrapped(text,integer) line 1 at RETURN\n"
        'COPY t, line 1: "anna PL/pgSQL function secret()"'
    )
    with pytest.raises(Incompatible) as raised, translated("reading acme"):
        raise error
    assert str(raised.value) == (
        "reading acme: function unaccent(text) does not exist | "
        "IN: function plain, function reports.wrapped(text,integer)"
    )


def test_a_setting_that_a_hint_names_is_no_data() -> None:
    """Quoted since PostgreSQL 17; what is quoted elsewhere may be a value."""
    hint = 'HINT:  You might need to increase "max_locks_per_transaction".'
    assert detail(hint) == hint
    assert detail('DETAIL:  Someone has set "a secret".') == 'DETAIL:  Someone has set "...".'


def test_a_connection_pooler_is_named_as_one() -> None:
    error = asyncpg.ProtocolViolationError("unsupported startup parameter: search_path")
    with (
        pytest.raises(Incompatible, match=r"A connection pooler.*`db_servers`"),
        translated("looking at pool-1"),
    ):
        raise error
