"""A slot of a command, which has no migration: counted with those of the migrations, and gone with the command.

The journal's slots belong to migrations, which someone always finds again. A command may be killed at any moment, and
nobody would release its slot. So a session of the state database holds it, as a shared advisory lock of the resource.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.state.facts import LIMIT, WHAT, MemoryFacts
from rehome_consumer.errors import RehomeError
from rehome_consumer.model import InLine
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

SQL: Final = load("journal")
LIMITS: Final = load("claims")["limits"]
NOBODY: Final = UUID(int=0)
"""No migration has this id."""


class CommandFacts(MemoryFacts):
    """Facts of one command: stored nowhere, but its slots are none for the consumers, nor for other commands."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        """Take a function that opens a session of the state database, for the first slot; end it with `aclose`."""
        super().__init__()
        self._connect = connect
        self._session: Any = None
        self._held: set[str] = set()

    async def acquire_slots(self, wanted: Mapping[str, int], *, waits: bool = True) -> InLine | None:  # noqa: ARG002 - the port's signature
        """See `Facts.acquire_slots`; a command waits in no line, and takes what is free.

        Raises Unreachable, TimedOut.
        """
        had = set(self._held)
        for resource, places in wanted.items():
            if resource in self._held:
                continue
            try:
                got = await self._acquire(resource, places)
            except RehomeError:
                if not self._held:  # the server may have given it, and nobody here would know
                    await self.aclose()
                raise
            if not got:
                await self.release_slots(self._held - had)
                return InLine(0, 0, lacks=resource, soon=False)
        return None

    async def _acquire(self, resource: str, places: int) -> bool:
        with translated(WHAT):
            async with asyncio.timeout(LIMIT):
                if self._session is None:
                    self._session = await self._connect()
                    await self._session.execute(
                        LIMITS, "0"
                    )  # none: it is silent as long as the command works
                async with self._session.transaction():
                    await self._session.execute(SQL["lock_slots"], [resource])
                    if await self._session.fetchval(SQL["has_slots"]):
                        taken = (await self._session.fetchrow(SQL["slots"], [resource], NOBODY, 0))["taken"]
                    else:  # no consumer ever ran
                        taken = await self._session.fetchval(SQL["slots_of_commands"], resource)
                    if taken >= places:
                        return False
                    await self._session.execute(SQL["hold_command_slot"], resource)
        self._held.add(resource)
        return True

    async def release_slots(self, resources: Collection[str]) -> None:
        """See `Facts.release_slots`. Raises Unreachable, TimedOut."""
        for resource in self._held.intersection(resources):
            with translated(WHAT):
                async with asyncio.timeout(LIMIT):
                    await self._session.execute(SQL["release_command_slot"], resource)
            self._held.remove(resource)

    async def aclose(self) -> None:
        """End the session, and with it what it holds."""
        if self._session is not None:
            self._session.terminate()
            self._session = None
