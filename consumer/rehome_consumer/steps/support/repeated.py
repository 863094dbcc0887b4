"""What an attempt may do several times: a fact is written once, so each time has its own, and the last counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rehome_consumer.facts import Fact
    from rehome_consumer.ports.steps import Facts

T = TypeVar("T")


async def last(facts: Facts, fact: Fact[T]) -> T | None:
    """What was remembered last; None: it was not done yet."""
    found = await _each(facts, fact)
    return found[-1] if found else None


async def add(facts: Facts, fact: Fact[T], value: T) -> None:
    """Remember one more, unless it is as the last."""
    found = await _each(facts, fact)
    if found[-1:] != [value]:
        await facts.remember(fact.again(len(found) + 1), value)


async def _each(facts: Facts, fact: Fact[T]) -> list[T]:
    found: list[T] = []
    while (one := await facts.recall(fact.again(len(found) + 1))) is not None:
        found.append(one)
    return found
