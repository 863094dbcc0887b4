"""Comparing fingerprints."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.fingerprint import LARGE_OBJECTS, TENANT, differences, digest, summary
from consumer.model import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

NAMES = st.text(min_size=1, max_size=8)
VALUES = st.text(max_size=8)
FINGERPRINTS = st.builds(
    Fingerprint,
    tables=st.dictionaries(NAMES, st.tuples(st.integers(0, 10**6), VALUES), max_size=5),
    sequences=st.dictionaries(NAMES, VALUES, max_size=5),
    objects=st.dictionaries(
        st.sampled_from(["index", "index definition", "constraint", "trigger"]),
        st.dictionaries(NAMES, VALUES, max_size=5),
    ),
    database=st.just({"encoding": "UTF8", "major": "15"}),
)


def a_fingerprint(major: str = "15", **objects: Mapping[str, str]) -> Fingerprint:
    return Fingerprint(
        tables={"public.a": (3, "0a"), "public.b": (4, "0b")},
        sequences={"public.a_id_seq": "last_value=3 is_called=true"},
        objects={kind.replace("_", " "): names for kind, names in objects.items()},
        database={"encoding": "UTF8", "collation": "C", "major": major},
    )


def backwards(mapping: Mapping[str, T]) -> dict[str, T]:
    return dict(reversed(list(mapping.items())))


@given(FINGERPRINTS)
def test_nothing_differs_from_itself_in_whatever_order_it_is_told(one: Fingerprint) -> None:
    turned = Fingerprint(
        tables=backwards(one.tables),
        sequences=backwards(one.sequences),
        objects=backwards({kind: backwards(names) for kind, names in one.objects.items()}),
        database=backwards(one.database),
    )
    assert differences(one, turned) == []
    assert digest(one) == digest(turned)


@given(FINGERPRINTS, st.data())
def test_whatever_is_taken_away_or_changed_is_one_difference_with_its_name(
    one: Fingerprint, data: st.DataObject
) -> None:
    parts: list[tuple[str, Mapping[str, Any]]] = [
        ("table", one.tables),
        ("sequence", one.sequences),
        *one.objects.items(),
    ]
    kind, names = data.draw(st.sampled_from(parts))
    if not names:
        return
    name = data.draw(st.sampled_from(sorted(names)))
    if data.draw(st.booleans()):
        changed = {key: value for key, value in names.items() if key != name}
    else:
        changed = {**names, name: (-1, "other") if kind == "table" else "something else"}
    if kind == "table":
        other = replace(one, tables=changed)
        assert digest(other) != digest(one)
    elif kind == "sequence":
        other = replace(one, sequences=changed)
    else:
        other = replace(one, objects={**one.objects, kind: changed})
    for found in (differences(one, other), differences(other, one)):
        assert len(found) == 1
        assert found[0].startswith(f"{kind} {name}: ")


def test_rows_missing_content_changed_and_encoding_are_told_apart() -> None:
    source = a_fingerprint()
    target = replace(
        source,
        tables={"public.a": (2, "0a"), "public.b": (4, "ff")},
        database={**source.database, "encoding": "LATIN1"},
    )
    assert differences(source, target) == [
        "database encoding: UTF8 on the source, LATIN1 on the target",
        "table public.a: 3 rows on the source, 2 on the target",
        "table public.b: as many rows (4), but not the same content",
    ]


def test_what_somebody_else_owned_becomes_the_tenants() -> None:
    source = a_fingerprint(owner={"table public.a": "postgres", "table public.b": TENANT})
    right = a_fingerprint(owner={"table public.a": TENANT, "table public.b": TENANT})
    wrong = a_fingerprint(owner={"table public.a": "postgres", "table public.b": TENANT})
    assert differences(source, right) == []
    assert differences(source, wrong) == [
        "owner table public.a: <tenant> on the source, postgres on the target"
    ]


# Between major versions


def test_texts_that_a_version_may_spell_otherwise_are_compared_within_one_version_only() -> None:
    source = a_fingerprint(index_definition={"public.i": "one"}, index={"public.i": "unique"})
    target = a_fingerprint(index_definition={"public.i": "two"}, index={"public.i": "unique"})
    assert len(differences(source, target)) == 1
    later = replace(target, database={**target.database, "major": "17"})
    assert differences(source, later) == []
    without = replace(later, objects={"index": {}})
    assert differences(source, without) == ["index public.i: missing on the target"]


@pytest.mark.parametrize(
    ("version", "major", "expected"),
    [
        ("1.6", "17", 0),
        ("1.10", "17", 0),
        ("1.10", "15", 1),
        ("1.5", "17", 1),
        (None, "17", 1),
    ],
)
def test_an_extension_may_be_newer_on_a_newer_server_only(
    version: str | None, major: str, expected: int
) -> None:
    source = a_fingerprint(extension={"pg_trgm": "1.6"})
    target = a_fingerprint(major, extension={"pg_trgm": version} if version else {})
    assert len(differences(source, target)) == expected


def test_new_privileges_of_a_new_version_are_no_difference_but_missing_grantees_are() -> None:
    source = a_fingerprint(grant={"table public.a.ro": "SELECT", "schema public.PUBLIC": "CREATE, USAGE"})
    target = a_fingerprint(
        "17", grant={"table public.a.ro": "MAINTAIN, SELECT", "schema public.PUBLIC": "USAGE"}
    )
    assert differences(source, target) == []
    assert differences(source, a_fingerprint("17", grant={})) == [
        "grant table public.a.ro: missing on the target"
    ]


def test_the_summary_counts_what_was_compared() -> None:
    one = a_fingerprint(index={"i": ""}, constraint={"c": "", "d": ""}, extension={"plpgsql": "1.0"})
    one = replace(one, tables={**one.tables, LARGE_OBJECTS: (7, "0c")})
    found = summary(one)
    assert (found.tables, found.rows, found.sequences) == (2, 7, 1)
    assert (found.indexes, found.constraints, found.extensions) == (1, 2, 1)
    assert found.digest == digest(one)
