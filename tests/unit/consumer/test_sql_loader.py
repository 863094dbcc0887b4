from __future__ import annotations

import pytest

from rehome_consumer.sql import parse

TWO = """-- Header.

-- name: first
-- Returns one.
SELECT 1;

-- name: second
-- Returns two.
-- With a comment of its own.
SELECT
    2;
"""


def test_each_name_gives_its_statement_without_the_description() -> None:
    assert parse(TWO, source="x.sql") == {
        "first": "SELECT 1;",
        "second": "-- With a comment of its own.\nSELECT\n    2;",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SELECT 1;", "no '-- name: ...' line"),
        ("-- name: a\nSELECT 1;", "needs a line that describes it"),
        ("-- name: a\n-- Nothing.\n", "has no statement"),
        ("-- name: a\n-- A.\nSELECT 1;\n-- name: a\n-- B.\nSELECT 2;", "two queries are named 'a'"),
        ("-- name: A b\n-- A.\nSELECT 1;", "is no query name"),
        ("-- name: \n-- A.\nSELECT 1;", "is no query name"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"x\.sql") as caught:
        parse(text, source="x.sql")
    assert complaint in str(caught.value)
