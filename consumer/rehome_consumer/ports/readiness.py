"""Whether this consumer can work: what every migration needs of the consumer's own machine and surroundings.

A part that is not as it should be is nobody's database: it never ends a customer's upgrade
(docs/decisions/0009-ready-before-work.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Collection

Part = Literal[
    "journal",  # the state database, and the key for secrets in it
    "platform",  # the platform's databases
    "broker",  # the connection, its exchanges and queues
    "database_service",
    "runtime",  # what runs the instances
    "client_programs",  # pg_dump, pg_restore, vacuumdb
    "backup_place",
    "data_root",  # the instances' directories
]
"""Stable words, for logs, `/readyz` and metrics; docs/operating.md explains each."""

EVERYTHING: Final[frozenset[Part]] = frozenset(get_args(Part))


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the consumer is not ready: the part, and what is wrong with it and what to do, in words."""

    part: Part
    message: str

    def __str__(self) -> str:
        """Both, for errors."""
        return f"{self.part}: {self.message}"


class Readiness(Protocol):
    """What the engine and the reconciler ask."""

    async def causes(self, needs: Collection[Part], *, max_age: float | None = None) -> tuple[Cause, ...]:
        """Why this consumer cannot do what needs these parts; none when it can.

        Args:
            needs: the parts.
            max_age: how old (seconds) the look may be, 0 for a new one; None: as it was seen last.
        """
        ...

    def is_overdue(self, needs: Collection[Part]) -> bool:
        """Whether one of these parts has been missing for longer than a customer who is down is left waiting."""
        ...


class AlwaysReady:
    """For engines whose surroundings are checked by whoever runs them."""

    async def causes(self, needs: Collection[Part], *, max_age: float | None = None) -> tuple[Cause, ...]:  # noqa: ARG002 - the port's signature
        """Nothing is missing."""
        return ()

    def is_overdue(self, needs: Collection[Part]) -> bool:  # noqa: ARG002 - the port's signature
        """Nothing is."""
        return False
