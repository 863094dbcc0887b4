"""What reads a tenant's database names nothing that the tenant could have made."""

from __future__ import annotations

import re

import pytest

from consumer.adapters.postgres.shape import KINDS
from consumer.sql import load

QUERIES = {
    f"{file}.{name}": re.sub(r"--.*", "", statement)
    for file in ("fingerprint", "verification")
    for name, statement in load(file).items()
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
    *("WHERE", "AND", "SELECT", "coalesce", "nullif"),
}
"""What stands before a parenthesis and is no function that could be another's."""


def without_texts(statement: str) -> str:
    """The statement, its literals empty, but for names of relations and types."""
    return re.sub(r"'[^']*'", lambda text: text[0] if text[0].startswith("'pg_catalog.") else "''", statement)


@pytest.mark.parametrize("name", QUERIES)
def test_every_function_type_and_relation_is_named_with_its_schema(name: str) -> None:
    statement = without_texts(QUERIES[name])
    called = re.findall(r"(?<![\w.\"])([A-Za-z_]\w*)\s*\(", statement)
    columns = re.findall(r"\bAS ([a-z]+)\(", statement)  # a table's name with those of its columns
    assert set(called) - SYNTAX - set(columns) == set()
    assert re.findall(r"::(?!pg_catalog\.)", statement) == []
    assert re.findall(r"COLLATE (?!pg_catalog\.)\S+", statement) == []
    read = re.findall(r"(?:FROM|JOIN)\s+(?!LATERAL\b)([\w.]+)", statement)
    assert [one for one in read if not one.startswith("pg_catalog.")] == []
    assert re.findall(r"(?<![.\w])pg_(?!catalog\.)\w+", statement) == []


def test_the_databases_owner_stands_for_nobody() -> None:
    """While it is fenced, that is the administrator."""
    assert {name for name, statement in QUERIES.items() if "datdba" in statement} == {"fingerprint.grant"}
    assert (
        QUERIES["fingerprint.grant"].count("datdba") == 2
    )  # the database's own owner, as of any other object


def test_only_the_query_of_large_objects_reads_what_is_closed_to_others() -> None:
    closed = re.compile(r"\b(pg_largeobject|pg_authid|pg_user_mapping|pg_statistic|pg_shadow)\b")
    assert {name for name, statement in QUERIES.items() if closed.search(statement)} == {
        "verification.large_objects"
    }
    assert len(KINDS) == len(load("fingerprint")) + 1  # without extensions, with two in another form, too
