"""What messages of `pgoutput` say was written, and that nothing is taken that is not understood."""

from __future__ import annotations

import struct

import pytest

from rehome_consumer.adapters.postgres.pgoutput import Changes, Misunderstood
from rehome_consumer.model import Keys

INT4, TEXT, UUID = 23, 25, 2950
BEGIN = b"B" + bytes(20)
COMMIT = b"C" + bytes(25)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def relation(
    oid: int = 1,
    name: str = "t",
    identity: str = "d",
    columns: tuple[tuple[str, int, bool], ...] = (("id", INT4, True), ("name", TEXT, False)),
) -> bytes:
    described = b"".join(
        struct.pack(">B", key) + text(column) + struct.pack(">Ii", kind, -1) for column, kind, key in columns
    )
    head = struct.pack(">cI", b"R", oid) + text("public") + text(name) + identity.encode()
    return head + struct.pack(">H", len(columns)) + described


def row(*values: str | None) -> bytes:
    told = b"".join(
        b"n" if one is None else b"t" + struct.pack(">I", len(one.encode())) + one.encode() for one in values
    )
    return struct.pack(">H", len(values)) + told


def change(kind: str, *parts: tuple[str, bytes], oid: int = 1) -> bytes:
    return struct.pack(">cI", kind.encode(), oid) + b"".join(what.encode() + one for what, one in parts)


def told(*messages: bytes) -> dict[str, Keys | None]:
    found = Changes(keys_at_most=3)
    for one in messages:
        found.add(one)
    return dict(found.written())


def keys(*values: str) -> dict[str, Keys | None]:
    return {"public.t": Keys((("id", "int4"),), frozenset((one,) for one in values))}


def test_nothing_was_written() -> None:
    assert told() == {}
    assert told(BEGIN, relation(), COMMIT) == {}


def test_each_kind_of_change_gives_the_keys_of_its_rows_before_and_after() -> None:
    assert told(BEGIN, relation(), change("I", ("N", row("1", "x"))), COMMIT) == keys("1")
    assert told(relation(), change("D", ("K", row("2", None)))) == keys("2")
    assert told(relation(), change("U", ("N", row("3", "x")))) == keys("3")
    assert told(relation(), change("U", ("K", row("4", None)), ("N", row("5", "x")))) == keys("4", "5")
    unchanged = struct.pack(">H", 2) + b"t" + struct.pack(">I", 1) + b"6" + b"u"
    assert told(relation(), change("U", ("N", unchanged))) == keys("6")


def test_a_key_of_several_columns_is_taken_in_their_order() -> None:
    columns = (("b", INT4, True), ("name", TEXT, False), ("a", UUID, True))
    found = told(relation(columns=columns), change("I", ("N", row("1", "x", "u-1"))))
    assert found == {"public.t": Keys((("b", "int4"), ("a", "uuid")), frozenset({("1", "u-1")}))}


@pytest.mark.parametrize(
    "described",
    [
        pytest.param(relation(identity="f"), id="REPLICA IDENTITY FULL"),
        pytest.param(relation(identity="n"), id="REPLICA IDENTITY NOTHING"),
        pytest.param(
            relation(columns=(("id", TEXT, True), ("name", TEXT, False))), id="a key of another type"
        ),
        pytest.param(relation(columns=(("id", INT4, False), ("name", TEXT, False))), id="no key"),
    ],
)
def test_rows_that_no_key_tells_apart_make_it_the_whole_table(described: bytes) -> None:
    assert told(described, change("I", ("N", row("1", "x")))) == {"public.t": None}
    assert told(described, change("D", ("O", row("1", "x")))) == {"public.t": None}


def test_a_table_that_was_emptied_is_whole_and_stays_so() -> None:
    emptied = struct.pack(">cIBI", b"T", 1, 0, 1)
    assert told(relation(), change("I", ("N", row("1", "x"))), emptied) == {"public.t": None}
    assert told(relation(), emptied, change("I", ("N", row("1", "x")))) == {"public.t": None}


def test_too_many_keys_and_a_key_that_is_not_told_make_it_the_whole_table() -> None:
    some = [change("I", ("N", row(str(number), "x"))) for number in range(4)]
    assert told(relation(), *some[:3]) == keys("0", "1", "2")
    assert told(relation(), *some) == {"public.t": None}
    assert told(relation(), change("I", ("N", row(None, "x")))) == {"public.t": None}


def test_of_a_long_change_the_beginning_is_enough_if_it_has_the_key() -> None:
    key_first = change("I", ("N", row("1", "x" * 100)))
    moved = change("U", ("K", row("2", None)), ("N", row("3", "x" * 100)))
    found = Changes()
    found.add(relation())
    for one in (key_first, moved, change("D", ("K", row("4", "x" * 100)))):
        found.add(one[:40], cut=True)
    assert found.written() == keys("1", "2", "3", "4")


@pytest.mark.parametrize("length", range(5, 40))
def test_where_the_beginning_has_not_the_whole_key_it_is_the_whole_table(length: int) -> None:
    moved = change("U", ("K", row("12345", None)), ("N", row("67890", "x" * 100)))
    found = Changes()
    found.add(relation())
    found.add(moved[:length], cut=True)
    has_both = moved[:length].count(b"67890") == 1
    assert found.written() == (keys("12345", "67890") if has_both else {"public.t": None})


def test_only_changes_of_rows_may_be_long() -> None:
    found = Changes()
    with pytest.raises(Misunderstood, match="longer"):
        found.add(relation()[:8], cut=True)


def test_two_tables_that_have_had_one_name_are_read_whole() -> None:
    both = told(
        relation(1), change("I", ("N", row("1", "x"))), relation(2), change("I", ("N", row("1", "x")), oid=2)
    )
    assert both == {"public.t": None}


def test_names_types_and_origins_are_passed_over() -> None:
    kind = struct.pack(">cI", b"Y", 5) + text("public") + text("mood")
    origin = b"O" + bytes(8) + text("elsewhere")
    assert told(BEGIN, origin, kind, relation(), change("I", ("N", row("1", "x"))), COMMIT) == keys("1")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"M" + bytes(20), id="an unknown message"),
        pytest.param(b"S" + bytes(5), id="a later protocol's"),
        pytest.param(BEGIN[:-1], id="too short"),
        pytest.param(BEGIN + b"x", id="too long"),
        pytest.param(change("I", ("N", row("1", "x")), oid=7), id="of a table that was not described"),
        pytest.param(struct.pack(">cIBI", b"T", 1, 0, 7), id="of a table that was not described, emptied"),
        pytest.param(change("I", ("N", row("1"))), id="a row of another width"),
        pytest.param(change("I", ("O", row("1", "x"))), id="an old row of a new one"),
        pytest.param(change("U", ("K", row("1", None)), ("K", row("1", None))), id="two old rows"),
        pytest.param(change("U", ("K", row("1", None))), id="no new row"),
        pytest.param(change("I", ("N", b"\0\2bb")), id="a value of another kind"),
        pytest.param(relation(columns=(("id", INT4, True),)), id="a table that is another now"),
        pytest.param(b"R" + bytes(4) + b"no end", id="a name without end"),
        pytest.param(b"R" + bytes(4) + b"\xff\0", id="a name in no known encoding"),
    ],
)
def test_what_is_not_understood_to_its_last_byte_is_an_error(message: bytes) -> None:
    found = Changes()
    found.add(relation())
    with pytest.raises(Misunderstood):
        found.add(message)
