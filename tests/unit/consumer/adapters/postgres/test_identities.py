"""Temporary replica identities as the comment of a role."""

from __future__ import annotations

import pytest

from rehome_consumer.adapters.postgres.identities import Temporary, parsed


def test_what_is_written_down_is_read_again() -> None:
    temporary = Temporary(16390, {16500: "n", 16400: "d"})
    assert temporary.text() == "rehome replica identities of database 16390: 16400=d 16500=n"
    assert parsed(temporary.text()) == temporary


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "a colleague's note",
        "rehome replica identities of database 16390: ",
        "rehome replica identities of database 16390: 16400=f",
        "rehome replica identities of database 16390: 16400=d; DROP TABLE x",
        "rehome replica identities of database x: 16400=d",
        "x rehome replica identities of database 16390: 16400=d",
        "rehome replica identities of database 16390: 16400=d\n16500=n",
    ],
)
def test_what_somebody_else_has_written_is_none(text: str | None) -> None:
    assert parsed(text) is None
