"""What the messages of `pgoutput` (protocol version 1) say was written: tables, and of most the keys of the rows.

Source: "Logical Replication Message Formats" in PostgreSQL's documentation. Strict: a message that is not understood to
its last byte is an error, since what is not noticed here is compared by nobody.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres.names import spelt
from rehome_consumer.model import Keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.model import Written

KEYS_AT_MOST: Final = 10_000
"""Rows of a table of which the keys are kept; where more were written to, the table is read whole."""

_KEY_TYPES: Final = {20: "int8", 21: "int2", 23: "int4", 2950: "uuid"}
"""Types, by oid, of which equal values have equal texts, and whose text is read back as the same value."""
_INDEXES: Final = ("d", "i")  # replica identities that are an index: the key of a row
_PLAIN: Final = {"B": 20, "C": 25}  # BEGIN and COMMIT, whose length is fixed


class Misunderstood(Exception):
    """A message is not as the documentation says."""


@dataclass
class _Relation:
    name: str
    names: tuple[str, ...]
    key: tuple[int, ...] | None
    """Places of the columns that are the key; None: rows are not told apart."""
    columns: tuple[tuple[str, str], ...]
    rows: set[tuple[str, ...]] = field(default_factory=set)
    whole: bool = False

    def take_whole(self) -> None:
        """Its rows are not told apart any more."""
        self.whole = True
        self.rows.clear()


class Changes:
    """Takes messages in their order."""

    def __init__(self, keys_at_most: int = KEYS_AT_MOST) -> None:
        """Nothing is written yet."""
        self._keys_at_most = keys_at_most
        self._relations: dict[int, _Relation] = {}

    def add(self, data: bytes, *, cut: bool = False) -> None:
        """One more message; `cut`: only its beginning.

        Raises:
            Misunderstood: it is not understood.
        """
        message = _Message(data, cut=cut)
        kind = message.letter()
        if cut:
            if kind not in ("I", "U", "D"):
                raise Misunderstood(f"message {kind!r} is longer than can be")
            relation = self._relation(message)
            try:
                self._changed(kind, relation, message)
            except Misunderstood:  # it was cut before the end of a key
                relation.take_whole()
            return
        if kind in _PLAIN:
            message.skip(_PLAIN[kind])
        elif kind == "O":
            message.skip(8)
            message.text()
        elif kind == "Y":
            message.skip(4)
            message.text()
            message.text()
        elif kind == "R":
            self._describe(message)
        elif kind == "T":
            self._truncated(message)
        elif kind in ("I", "U", "D"):
            self._changed(kind, self._relation(message), message)
        else:
            raise Misunderstood(f"message {kind!r} is not known")
        message.require_end()

    def written(self) -> Written:
        """All that was written, by the messages so far."""
        found: dict[str, Keys | None] = {}
        for relation in self._relations.values():
            if not relation.whole and not relation.rows:
                continue
            by_key = not relation.whole and relation.name not in found
            found[relation.name] = Keys(relation.columns, frozenset(relation.rows)) if by_key else None
        return found

    def _describe(self, message: _Message) -> None:
        oid = message.number(">I")
        schema, name = message.text(), message.text()
        identity = message.letter()
        names: list[str] = []
        kinds: list[int] = []
        key: list[int] = []
        for place in range(message.number(">H")):
            if message.number(">B") & 1:
                key.append(place)
            names.append(message.text())
            kinds.append(message.number(">I"))
            message.skip(4)
        told_apart = identity in _INDEXES and key and all(kinds[place] in _KEY_TYPES for place in key)
        found = _Relation(
            spelt((schema or "pg_catalog", name)),
            tuple(names),
            tuple(key) if told_apart else None,
            tuple((names[place], _KEY_TYPES[kinds[place]]) for place in key) if told_apart else (),
        )
        before = self._relations.get(oid)
        if before is None:
            self._relations[oid] = found
        elif (before.name, before.names, before.key, before.columns) != (
            found.name,
            found.names,
            found.key,
            found.columns,
        ):
            raise Misunderstood(f"table {found.name} was changed meanwhile")

    def _truncated(self, message: _Message) -> None:
        count = message.number(">I")
        message.skip(1)
        for _ in range(count):
            self._relation(message).take_whole()

    def _changed(self, kind: str, relation: _Relation, message: _Message) -> None:
        expected = {"I": ("N",), "U": ("K", "O", "N"), "D": ("K", "O")}[kind]
        while True:
            what = message.letter()
            if what not in expected:
                raise Misunderstood(f"message {kind!r} has a part {what!r}")
            self._take(relation, message.row(len(relation.names), relation.key or ()))
            if kind != "U" or what == "N":
                return
            expected = ("N",)

    def _take(self, relation: _Relation, row: list[str | None]) -> None:
        if relation.whole:
            return
        key = None if relation.key is None else [row[place] for place in relation.key]
        if key is None or None in key or len(relation.rows) >= self._keys_at_most:
            relation.take_whole()
        else:
            relation.rows.add(tuple(one for one in key if one is not None))

    def _relation(self, message: _Message) -> _Relation:
        oid = message.number(">I")
        found = self._relations.get(oid)
        if found is None:
            raise Misunderstood(f"table {oid} was not described")
        return found


class _Message:
    """Reads one message from its beginning."""

    def __init__(self, data: bytes, *, cut: bool) -> None:
        self._data = data
        self._cut = cut
        self._at = 0

    def skip(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise Misunderstood("a message ends too early")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, form: str) -> int:
        (found,) = struct.unpack(form, self.skip(struct.calcsize(form)))
        return int(found)

    def letter(self) -> str:
        return chr(self.number(">B"))

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise Misunderstood("a text has no end")
        return _decoded(self.skip(end + 1 - self._at)[:-1])

    def row(self, width: int, wanted: Sequence[int]) -> list[str | None]:
        """The values of a row in these places; None: not told, or not wanted."""
        if self.number(">H") != width:
            raise Misunderstood("a row is not as wide as its table")
        found: list[str | None] = [None] * width
        data, at = self._data, self._at  # each value of each row passes here
        for place in range(width):
            if self._cut and at >= len(data) and place > max(wanted, default=width):
                break
            kind = data[at : at + 1]
            at += 1
            if kind == b"t":
                begin = at + 4
                at = begin + int.from_bytes(data[at:begin], "big")
                if place in wanted:
                    if at > len(data):
                        raise Misunderstood("a message ends too early")
                    found[place] = _decoded(data[begin:at])
            elif kind not in (b"n", b"u"):
                raise Misunderstood(f"a value is of kind {kind!r}")
        self._at = at
        if not self._cut:
            self.skip(0)  # it does not end behind its end
        return found

    def require_end(self) -> None:
        if self._at != len(self._data):
            raise Misunderstood("a message has more than its parts")


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Misunderstood("a text is not UTF-8") from None
