"""Port: traces of what the engine does, for those who look at them with OpenTelemetry's tools.

One migration is one trace, from billing's event to `migration.completed`: each try of a step is a span, whose parent is
the `traceparent` of the event that caused it, and each event that a try emits carries that span. So retries, replays
and rollbacks are in the same trace without anything being remembered between two steps.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from uuid import UUID


class Span(Protocol):
    """One try of a step, while it runs."""

    @property
    def traceparent(self) -> str | None:
        """What the events of this try carry (W3C trace context); None: there is no trace."""

    def mark(self, **attributes: str | int) -> None:
        """Note attributes; they are named `rehome.<name>`."""

    def failed(self, why: str) -> None:
        """Mark it as failed, with the words of the error."""


class Tracing(Protocol):
    """Makes spans. Whatever becomes of them, no step fails or waits because of it."""

    def step(
        self, name: str, *, parent: str | None, trace: UUID, attributes: dict[str, str | int]
    ) -> AbstractContextManager[Span]:
        """A try of a step.

        Args:
            name: of the span.
            parent: `traceparent` of the event that is handled; None or one that is not valid: there is none.
            trace: id of the trace where there is no parent, the same for each try.
            attributes: with their whole names.
        """

    def call(self, name: str) -> AbstractContextManager[object]:
        """A call of a port within a step; one that raises is marked as failed."""


@dataclass(frozen=True, slots=True)
class NoSpan:
    """Stands for a span where nothing is traced: events carry what their cause carried."""

    traceparent: str | None

    def mark(self, **attributes: str | int) -> None:
        """Note nothing."""

    def failed(self, why: str) -> None:
        """Note nothing."""


class NoTracing:
    """Nothing is traced."""

    def step(
        self,
        name: str,  # noqa: ARG002 - the port's signature
        *,
        parent: str | None,
        trace: UUID,  # noqa: ARG002 - the port's signature
        attributes: dict[str, str | int],  # noqa: ARG002 - the port's signature
    ) -> AbstractContextManager[Span]:
        """No span."""
        return nullcontext(NoSpan(parent))

    def call(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002 - the port's signature
        """No span."""
        return nullcontext()
