"""What a running step carries along without passing it from call to call: its migration, and its claim."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    Check: TypeAlias = Callable[[], Awaitable[None]]
    Probe: TypeAlias = Callable[[str], Awaitable[None]]

current_migration: ContextVar[UUID | None] = ContextVar("current_migration", default=None)
"""Set by the engine before each step; sessions of it are named `rehome:<uuid>`."""

log_fields: ContextVar[dict[str, str | int]] = ContextVar("log_fields", default={})  # noqa: B039 - never changed in place
"""What each JSON line of the log has besides its own fields; set by the engine before each try of a step."""

claim_check: ContextVar[Check | None] = ContextVar("claim_check", default=None)
"""Raises ClaimLost unless the step's claim is held; set by the engine before each step.

Called when a session is open and nothing was done in it. A consumer that takes over ends the sessions of the
migration before it acts. So a session was either checked after that, and does nothing, or is ended.
"""

inner_probe: ContextVar[Probe | None] = ContextVar("inner_probe", default=None)
"""Called at the moments within a port's call that a crash test must be able to hit; set around each call."""


async def reached(moment: str) -> None:
    """Report that work has come this far, such as `role_made`: a crash here leaves something that others must find."""
    if (probe := inner_probe.get()) is not None:
        await probe(moment)
