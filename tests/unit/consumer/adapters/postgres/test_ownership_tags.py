"""The ownership tag in a database's comment."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

import rehome_consumer
from rehome_consumer.adapters.postgres.ownership_tags import MAKING, TagComment, making_name, parse
from rehome_consumer.model import OwnershipTag

TAG = OwnershipTag(UUID("7d9f2a54-0b6c-4d7e-8f90-4a1bb2c3d4e5"), 2, "verified")


def test_a_comment_is_read_as_it_was_written() -> None:
    comment = TagComment(TAG, connection_limit=20, restored=True)
    assert parse(comment.text()) == comment


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
        TagComment(TAG).text().replace("verified", "something else"),
        TagComment(TAG).text().replace('"attempt": 2, ', ""),
        TagComment(TAG).text()[:-1],
    ],
)
def test_any_other_comment_has_no_tag(comment: str | None) -> None:
    assert parse(comment) is None


def test_the_prefix_of_unfinished_databases_is_the_same_everywhere() -> None:
    """Statements and the reconciler, which may not import an adapter, spell it out."""
    source = Path(rehome_consumer.__file__).parent
    files = [*source.rglob("*.py"), *source.rglob("*.sql")]
    found = {prefix for file in files for prefix in re.findall(r"rehome_making\w*", file.read_text())}
    assert found == {MAKING}
    assert making_name(TAG.migration_id) == f"{MAKING}{TAG.migration_id.hex}"
