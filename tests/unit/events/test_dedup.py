"""The memory of handled events."""

from uuid import uuid4

from rehome_events.client.dedup import RecentEvents


async def test_what_was_added_is_known_and_nothing_else() -> None:
    seen = RecentEvents()
    event = uuid4()
    assert not await seen.has(event)
    await seen.add(event)
    assert await seen.has(event)


async def test_the_oldest_id_is_forgotten_when_there_are_too_many() -> None:
    seen = RecentEvents(size=2)
    first, second, third = (uuid4() for _ in range(3))
    await seen.add(first)
    await seen.add(second)
    await seen.add(first)
    await seen.add(third)
    assert [await seen.has(event) for event in (first, second, third)] == [True, False, True]
