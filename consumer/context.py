"""Which migration this task works for: PostgreSQL sessions and child processes carry it as their name."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

current_migration: ContextVar[UUID | None] = ContextVar("current_migration", default=None)
"""Set by the engine before each step; sessions of it are named `rehome:<uuid>`."""
