"""Names and texts in composed SQL: a parameter cannot take the place of an identifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def quoted(name: str) -> str:
    """An SQL identifier, whatever the name contains."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string, whatever the text contains: for statements that take no parameters."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def spelt(parts: Sequence[str]) -> str:
    """A name in parts as one text, for people and as a key: no other name gives the same text.

    PostgreSQL's own quoting depends on each version's reserved words; this one does not. A single part stays
    as it is.
    """
    if len(parts) == 1:
        return parts[0]
    return ".".join(quoted(part) if not part or "." in part or '"' in part else part for part in parts)
