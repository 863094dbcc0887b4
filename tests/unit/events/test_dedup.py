"""The memory of handled events."""

from uuid import uuid4

from rehome_events.client.dedup import RecentEvents


async def test_what_was_added_is_known_and_nothing_else() -> None:
    recent = RecentEvents()
    event = uuid4()
    assert not await recent.has(event)
    await recent.add(event)
    assert await recent.has(event)


async def test_the_oldest_id_is_forgotten_when_there_are_too_many() -> None:
    recent = RecentEvents(size=2)
    first, second, third = (uuid4() for _ in range(3))
    await recent.add(first)
    await recent.add(second)
    await recent.add(first)
    await recent.add(third)
    assert [await recent.has(event) for event in (first, second, third)] == [True, False, True]
