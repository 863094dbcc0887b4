"""Ports that check the claim immediately before every call.

So a consumer that was frozen past the loss of its claim does nothing more when it goes on. The same place names
the boundaries that crash tests use: before and after every call of a port, between the check of the claim and the
call, and, within a call, the moments that `context.reached` reports. A call is a span of the trace.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.context import inner_probe
from rehome_consumer.ports.tracing import NoTracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.ports.tracing import Tracing

UNGUARDED: Final = frozenset({"policy", "clock", "facts"})
"""No calls to the outside: values, time, and the facts, which have a fencing token of their own."""


class _Guarded:
    """A port whose methods, all of them coroutines, are checked."""

    def __init__(
        self,
        name: str,
        port: Any,
        check: Callable[[], Awaitable[None]],
        probe: Callable[[str], Awaitable[None]],
        tracing: Tracing,
    ) -> None:
        self._name = name
        self._port = port
        self._check = check
        self._probe = probe
        self._tracing = tracing

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        async def inner(moment: str) -> None:
            await self._probe(f"{self._name}.{name}.{moment}")

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._probe(f"{self._name}.{name}.before")
            await self._check()
            await self._probe(f"{self._name}.{name}.checked")
            outside = inner_probe.set(inner)
            try:
                with self._tracing.call(f"{self._name}.{name}"):
                    result = await method(*args, **kwargs)
            finally:
                inner_probe.reset(outside)
            await self._probe(f"{self._name}.{name}.after")
            return result

        return call


def guarded(
    ports: Ports,
    check: Callable[[], Awaitable[None]],
    probe: Callable[[str], Awaitable[None]],
    tracing: Tracing | None = None,
) -> Ports:
    """The same ports, each call preceded by `check` and reported to `probe` and `tracing`."""
    spans = tracing or NoTracing()
    fields: dict[str, Any] = {field.name: getattr(ports, field.name) for field in dataclasses.fields(ports)}
    guards: dict[str, Any] = {
        name: _Guarded(name, port, check, probe, spans)
        for name, port in fields.items()
        if name not in UNGUARDED
    }
    return dataclasses.replace(ports, **guards)
