"""Comparing fingerprints."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehome_consumer import fingerprint
from rehome_consumer.fingerprint import (
    ADMINISTRATOR,
    LISTED,
    NAMED,
    READ_AGAIN,
    TENANT,
    Fold,
    Shortlist,
    digest,
    direct_differences,
    named_differences,
    summary,
    suspects,
)
from rehome_consumer.model import Fingerprint
from tests.fakes.verifier import first, folded, in_both_ways

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = st.text(min_size=1, max_size=8)
VALUES = st.text(max_size=8)


@dataclass(frozen=True)
class Content:
    """All that a fingerprint is made of."""

    tables: Mapping[str, tuple[int, str]]
    sequences: Mapping[str, str]
    objects: Mapping[str, Mapping[str, str]]
    database: Mapping[str, str] = field(default_factory=lambda: {"encoding": "UTF8", "major": "15"})
    extensions: Mapping[str, str] = field(default_factory=dict)
    large_objects: tuple[int, str] | None = None

    def named(self) -> dict[str, Mapping[str, str]]:
        return {
            **in_both_ways(self.objects),
            fingerprint.TABLES: {
                name: f"{rows} {checksum}" for name, (rows, checksum) in self.tables.items()
            },
            fingerprint.SEQUENCES: self.sequences,
        }

    def print(self) -> Fingerprint:
        kinds = self.named()
        return Fingerprint(
            tables=folded(kinds.pop(fingerprint.TABLES), fingerprint.TABLE_PARTS),
            rows=sum(rows for rows, _ in self.tables.values()),
            large_objects=self.large_objects,
            sequences=folded(kinds.pop(fingerprint.SEQUENCES)),
            objects={kind: folded(names) for kind, names in kinds.items()},
            counts={kind: len(kinds.get(kind, ())) for kind in fingerprint.COUNTED},
            extensions=self.extensions,
            database=self.database,
        )


WHOLE = st.builds(
    Content,
    tables=st.dictionaries(NAMES, st.tuples(st.integers(0, 10**6), VALUES), max_size=5),
    sequences=st.dictionaries(NAMES, VALUES, max_size=5),
    objects=st.dictionaries(
        st.sampled_from(["index", "index definition", "constraint", "trigger"]),
        st.dictionaries(NAMES, VALUES, max_size=5),
    ),
)


def made(major: str = "15", **objects: Mapping[str, str]) -> Content:
    return Content(
        tables={"public.a": (3, "0a"), "public.b": (4, "0b")},
        sequences={"public.a_id_seq": "last_value=3 is_called=true"},
        objects={kind.replace("_", " "): names for kind, names in objects.items()},
        database={"encoding": "UTF8", "collation": "C", "major": major},
    )


def differences(source: Content, target: Content) -> list[str]:
    """Both looks."""
    found = direct_differences(source.print(), target.print())
    for suspect in suspects(source.print(), target.print()):
        kinds = suspect.source_kind, suspect.target_kind
        here, there = (
            first(content.named().get(kind, {}), kind, suspect.parts)
            for content, kind in zip((source, target), kinds, strict=True)
        )
        found += named_differences(suspect, here, there)
    return found


def backwards(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return dict(reversed(list(mapping.items())))


@given(WHOLE)
def test_nothing_differs_from_itself_in_whatever_order_it_comes(one: Content) -> None:
    turned = Content(
        tables=backwards(one.tables),
        sequences=backwards(one.sequences),
        objects=backwards({kind: backwards(names) for kind, names in one.objects.items()}),
        database=backwards(one.database),
    )
    assert differences(one, turned) == []
    assert one.print() == turned.print()
    assert digest(one.print()) == digest(turned.print())


@given(WHOLE, st.data())
def test_whatever_is_removed_or_changed_is_one_difference_with_its_name(
    one: Content, data: st.DataObject
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
        assert digest(other.print()) != digest(one.print())
    elif kind == "sequence":
        other = replace(one, sequences=changed)
    else:
        other = replace(one, objects={**one.objects, kind: changed})
    for found in (differences(one, other), differences(other, one)):
        assert len(found) == 1
        assert found[0].startswith(f"{kind} {name}: ")


def test_missing_rows_changed_content_and_encoding_are_distinguished() -> None:
    source = made()
    target = replace(
        source,
        tables={"public.a": (2, "0a"), "public.b": (4, "ff")},
        database={**source.database, "encoding": "LATIN1"},
        large_objects=(1, "0c"),
    )
    assert differences(source, target) == [
        "database encoding: UTF8 on the source, LATIN1 on the target",
        "large objects: only on the target",
        "table public.a: 3 rows on the source, 2 on the target",
        "table public.b: as many rows (4), but not the same content",
    ]
    assert "large objects: missing on the target (1 rows on the source)" in differences(target, source)
    assert digest(replace(source, large_objects=(1, "0c")).print()) != digest(source.print())


def test_what_an_administrator_owned_becomes_the_tenants_but_schemas_and_extensions() -> None:
    kept = {
        "schema public": ADMINISTRATOR,
        "extension pg_trgm": ADMINISTRATOR,
        "schema b": "pg_database_owner",
    }
    source = made(owner={"table public.a": ADMINISTRATOR, "table public.b": TENANT, **kept})
    right = made(owner={"table public.a": TENANT, "table public.b": TENANT, **kept})
    wrong = made(
        owner={"table public.a": ADMINISTRATOR, "table public.b": TENANT, **kept, "schema b": TENANT}
    )
    assert differences(source, right) == []
    assert differences(source, wrong) == [
        "owner schema b: pg_database_owner on the source, <tenant> on the target",
        "owner table public.a: <tenant> on the source, <administrator> on the target",
    ]


def test_what_another_role_owned_is_a_difference() -> None:
    source, target = made(owner={"table public.a": "reporting"}), made(owner={"table public.a": TENANT})
    assert differences(source, target) == [
        "owner table public.a: reporting on the source, <tenant> on the target"
    ]


def test_values_are_compared_completely_and_shown_cut() -> None:
    source, target = made(index={"i": "x" * 200 + "a"}), made(index={"i": "x" * 200 + "b"})
    short = "x" * 160 + "..."
    assert differences(source, target) == [f"index i: {short} on the source, {short} on the target"]


# Where there is more than the second look takes


def crowd(number: int) -> dict[str, str]:
    """So many names, all in one part."""
    names = (f"public.t{place}" for place in range(10**6))
    together = (name for name in names if fingerprint.part_of(name) == 7)
    return {next(together): "" for _ in range(number)}


def test_in_a_crowded_part_what_is_beyond_the_list_is_no_false_difference() -> None:
    names = crowd(LISTED + 50)
    listed = first(names, "index", [7])[7]
    assert len(listed) == LISTED
    removed = next(one.name for one in listed)
    without = {name: value for name, value in names.items() if name != removed}
    for source, target in ((names, without), (without, names)):
        found = differences(made(index=source), made(index=target))
        assert len(found) == 1
        assert found[0].startswith(f"index {removed}: ")


def test_a_difference_beyond_the_list_is_reported_without_its_name() -> None:
    names = crowd(LISTED + 1)
    listed = {one.name for one in first(names, "index", [7])[7]}
    without = {name: value for name, value in names.items() if name in listed}
    assert differences(made(index=names), made(index=without)) == [
        f"index: something differs that is not among the first {LISTED} names of part 7"
    ]


def test_what_differs_at_the_first_look_is_reported_even_when_the_second_finds_nothing() -> None:
    (suspect,) = suspects(made(index={"i": "1"}).print(), made(index={"i": "2"}).print())
    same = first({"i": "1"}, "index", suspect.parts)
    (sentence,) = named_differences(suspect, same, same)
    assert sentence.startswith("index: differed when all was read, and no longer")


def test_where_everything_differs_a_bounded_part_is_named_and_the_rest_counted() -> None:
    source = made(index={f"public.i{place}": "" for place in range(5000)})
    found = differences(source, made(index={}))
    assert found[-1].startswith("index: more differ, in ")
    assert NAMED - LISTED < len(found) <= NAMED + 1
    tables = replace(made(), tables={f"public.t{place}": (1, "") for place in range(5000)})
    found = differences(tables, made())
    assert found[-1].startswith("table: more differ, in ")
    assert READ_AGAIN - LISTED < len(found) <= READ_AGAIN + 3


@given(st.lists(st.tuples(NAMES, VALUES), max_size=20, unique_by=lambda pair: pair[0]), st.data())
def test_a_list_has_what_a_part_counts(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    fold, shortlist = Fold(2), Shortlist([0, 1], 2)
    for name, value in pairs:
        fold.add(name, value)
    for name, value in data.draw(st.permutations(pairs)):
        shortlist.add(name, value)
    parts = fold.parts()
    assert {part: len(found) for part, found in shortlist.found.items() if found} == {
        part: counted.size for part, counted in parts.items()
    }
    assert all(found == sorted(found) for found in shortlist.found.values())


def test_name_and_value_do_not_run_into_each_other() -> None:
    one, other = Fold(1), Fold(1)
    one.add("ab", "c")
    other.add("a", "bc")
    assert one.parts() != other.parts()


# Between major versions


def test_texts_that_a_version_may_spell_otherwise_are_compared_within_one_version_only() -> None:
    source = made(index_definition={"public.i": "one"}, index={"public.i": "unique"})
    target = made(index_definition={"public.i": "two"}, index={"public.i": "unique"})
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
    source = replace(made(), extensions={"pg_trgm": "1.6"})
    target = replace(made(major), extensions={"pg_trgm": version} if version else {})
    assert len(differences(source, target)) == expected


def test_new_privileges_of_a_new_version_are_no_difference_but_missing_grantees_are() -> None:
    source = made(grant={"table public.a.ro": "SELECT", "schema public.PUBLIC": "CREATE, USAGE"})
    target = made("17", grant={"table public.a.ro": "MAINTAIN, SELECT", "schema public.PUBLIC": "USAGE"})
    assert differences(source, target) == []
    assert differences(source, made("17", grant={})) == ["grant table public.a.ro: missing on the target"]
    assert len(differences(source, made(grant=target.objects["grant"]))) == 2


def test_default_privileges_are_compared_as_others_are() -> None:
    source = made(default_grant={"<tenant>..r.ro": "DELETE, SELECT"})
    target = made("17", default_grant={"<tenant>..r.ro": "DELETE, MAINTAIN, SELECT"})
    assert differences(source, target) == []
    assert differences(source, made("17", default_grant={})) == [
        "default grant <tenant>..r.ro: missing on the target"
    ]
    assert len(differences(source, made(default_grant=target.objects["default grant"]))) == 1


def test_the_summary_counts_what_was_compared() -> None:
    one = replace(
        made(index={"i": ""}, constraint={"c": "", "d": ""}),
        extensions={"plpgsql": "1.0"},
        large_objects=(7, "0c"),
    ).print()
    found = summary(one)
    assert (found.tables, found.rows, found.sequences) == (2, 7, 1)
    assert (found.indexes, found.constraints, found.extensions) == (1, 2, 1)
    assert found.digest == digest(one)
