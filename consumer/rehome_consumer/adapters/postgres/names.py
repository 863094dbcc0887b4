"""Names and texts in SQL that must be composed: a parameter cannot stand where an identifier does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def quoted(name: str) -> str:
    """An SQL identifier, whatever the name holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string, whatever the text holds: for statements that take no parameters."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def spelt(parts: Sequence[str]) -> str:
    """A name in parts as one text, for people and as a key: no other name has the same.

    PostgreSQL's own quoting depends on each version's reserved words; this one does not. A single part is
    taken as it is.
    """
    if len(parts) == 1:
        return parts[0]
    return ".".join(quoted(part) if not part or "." in part or '"' in part else part for part in parts)
