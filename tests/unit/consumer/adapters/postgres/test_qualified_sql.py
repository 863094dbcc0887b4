"""What runs in a tenant's database, or as an administrator, uses no name that a tenant could have defined."""

from __future__ import annotations

import re

import pytest

from rehome_consumer.adapters.postgres.schema_objects import KINDS
from rehome_consumer.sql import administrator, load

QUERIES = {
    f"{file}.{name}": re.sub(r"--.*", "", statement)
    for file in ("fingerprint", "verification", "settling")
    for name, statement in load(file).items()
} | {
    f"administrator.{file}.{name}": re.sub(r"--.*", "", statement)
    for file in ("databases", "inspection", "copy", "large_objects", "movable", "replication", "signature")
    for name, statement in administrator(file).items()
}
SYNTAX = {
    *(
        "ANY",
        "ARRAY",
        "AS",
        "BY",
        "EXISTS",
        "FROM",
        "IN",
        "LATERAL",
        "NOT",
        "ON",
        "OR",
        "OVER",
        "ROW",
        "THEN",
    ),
    *("ALL", "WHERE", "WHEN", "AND", "SELECT", "coalesce", "nullif", "FILTER"),
}
"""What may precede a parenthesis and is no function that a tenant could define."""


def without_texts(statement: str) -> str:
    """The statement with empty literals, except for names of relations and types."""
    return re.sub(r"'[^']*'", lambda text: text[0] if text[0].startswith("'pg_catalog.") else "''", statement)


@pytest.mark.parametrize("name", QUERIES)
def test_every_function_type_and_relation_is_named_with_its_schema(name: str) -> None:
    statement = without_texts(QUERIES[name])
    called = re.findall(r"(?<![\w.\"])([A-Za-z_]\w*)\s*\(", statement)
    columns = re.findall(r"\bAS ([a-z]+)\(", statement)  # a table's name with those of its columns
    assert set(called) - SYNTAX - set(columns) == set()
    assert re.findall(r"::(?!pg_catalog\.)", statement) == []
    assert re.findall(r"COLLATE (?!pg_catalog\.)\S+", statement) == []
    read = re.findall(r"(?:FROM|JOIN)\s+(?!LATERAL\b|ROWS\b)([\w.]+)", statement)
    own = re.findall(
        r"(?:\bWITH RECURSIVE|\bWITH|\),)\s+(\w+) AS \(", statement
    )  # what WITH names hides tables
    assert [one for one in read if not one.startswith("pg_catalog.") and one not in own] == []
    assert re.findall(r"(?<![.\w])pg_(?!catalog\.)\w+", statement) == []


def test_readers_do_not_read_the_databases_owner() -> None:
    """While the database is fenced, its owner is the administrator."""
    reading = {name for name in QUERIES if not name.startswith("administrator.")}
    assert {name for name in reading if "datdba" in QUERIES[name]} == set()


def test_readers_read_nothing_that_only_superusers_may_read() -> None:
    closed = re.compile(r"\b(pg_largeobject|pg_authid|pg_user_mapping|pg_statistic|pg_shadow)\b")
    reading = {name for name in QUERIES if not name.startswith("administrator.")}
    assert {name for name in reading if closed.search(QUERIES[name])} == set()
    assert len(KINDS) == len(load("fingerprint")) + 2  # without extensions, and three kinds twice
