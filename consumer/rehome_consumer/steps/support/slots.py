"""Names of the resources that few migrations use at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rehome_consumer.model import Server


def dump_slot(source: Server) -> str:
    """Dumps of one server: taken before the instance is stopped, released when its backup is sealed."""
    return f"dump {source.id}"


def rehearsal_slot(source: Server) -> str:
    """Rehearsals from one server: taken before one begins, released at its end."""
    return f"rehearsal {source.id}"
