"""Our mark in a database's comment."""

from __future__ import annotations

from uuid import UUID

import pytest

from rehome_consumer.adapters.postgres.ownership_tags import TagComment, parse
from rehome_consumer.model import OwnershipTag

MARK = OwnershipTag(UUID("7d9f2a54-0b6c-4d7e-8f90-4a1bb2c3d4e5"), 2, "verified")


def test_a_label_is_read_as_it_was_written() -> None:
    label = TagComment(MARK, connection_limit=20, restored=True)
    assert parse(label.text()) == label


@pytest.mark.parametrize(
    "comment",
    [
        None,
        "",
        "A tenant's database",
        "null",
        "[]",
        "7",
        '{"rehome": null}',
        '{"rehome": {"migration": "no uuid", "attempt": 1, "state": "scratch"}}',
        TagComment(MARK).text().replace("verified", "something else"),
        TagComment(MARK).text().replace('"attempt": 2, ', ""),
        TagComment(MARK).text()[:-1],
    ],
)
def test_anything_else_is_no_label(comment: str | None) -> None:
    assert parse(comment) is None
