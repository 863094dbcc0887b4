"""Arguments that cannot work are refused where they are given, not when the first event comes."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from rehome_events.errors import EventError

_LARGEST: Final = 1e15
"""Seconds; more is infinite, or a mistake."""


def require_count(name: str, value: int) -> int:
    """A number of tries or of things: a whole number from 1.

    Raises:
        EventError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise EventError(f"{name} must be a whole number from 1, not {value!r}")
    return value


def require_seconds(name: str, value: float, *, zero: bool = False, longest: float = math.inf) -> float:
    """A time in seconds: more than 0, or from 0 where ``zero``; at most ``longest``.

    Raises:
        EventError: It is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    good = number and abs(value) <= _LARGEST  # of a number too large for a float, and of NaN, this is False
    if not good or value < 0 or (value == 0 and not zero) or value > longest:
        least = "0 or more" if zero else "more than 0"
        most = f" and at most {longest:g}" if math.isfinite(longest) else ""
        raise EventError(f"{name} must be {least}{most} (seconds), not {value!r}")
    return value


def require_text(name: str, value: str) -> str:
    """A text that is not empty.

    Raises:
        EventError: It is not.
    """
    if not isinstance(value, str) or not value:
        raise EventError(f"{name} must be text, at least one character, not {value!r}")
    return value


def require_one_of(name: str, value: object, known: Iterable[object]) -> None:
    """One of several values.

    Raises:
        EventError: It is not; the known ones are named.
    """
    if value not in (found := list(known)):
        raise EventError(f"{name} must be one of {', '.join(map(repr, found))}, not {value!r}")


def require_names(name: str, value: Iterable[Any] | None, example: str) -> list[Any] | None:
    """Several of something, at least one; None stays None.

    Raises:
        EventError: It is one text, or empty.
    """
    if value is None:
        return None
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise EventError(f"{name} must be several, such as [{example}], not {value!r}")
    found = list(value)
    if not found:
        raise EventError(f"{name} is empty: name at least one, such as [{example}], or None for all")
    return found


def require_coroutine_function(name: str, value: Callable[..., Any]) -> None:
    """Something that is called and awaited.

    Of an object, a lambda or a decorated function it cannot be known before the call, which raises `NotAwaitable`.

    Raises:
        EventError: It cannot be called, or is a function that is not ``async``.
    """
    if not callable(value):
        raise EventError(f"{name} must be a function that is called with an event, not {value!r}")
    inner = value
    while isinstance(inner, functools.partial):
        inner = inner.func
    plain = inspect.isfunction(inner) or inspect.ismethod(inner) or inspect.isbuiltin(inner)
    unknown = hasattr(inner, "__wrapped__") or getattr(inner, "__name__", "") == "<lambda>"
    if inspect.isclass(inner) or (plain and not unknown and not inspect.iscoroutinefunction(inner)):
        raise EventError(not_awaitable(name, value))


def not_awaitable(name: str, value: object) -> str:
    """What to say of a function that is not ``async``."""
    called = getattr(value, "__qualname__", None) or type(value).__qualname__
    return (
        f"{name} {called} is not a coroutine function: write `async def`; work that blocks goes into "
        "`await asyncio.to_thread(...)`"
    )
