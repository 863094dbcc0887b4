"""Deliver a migration's events to a handler as `rehome_events.client.Subscriber` would, without a broker or delays."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehome_events.client.arguments import require_coroutine_function, require_count
from rehome_events.client.subscriber import Handler, Reject, handled, wanted
from rehome_events.data import EventData
from rehome_events.envelope import CloudEvent
from rehome_events.errors import NotAwaitable

if TYPE_CHECKING:
    from uuid import UUID


@dataclass(frozen=True)
class Played:
    """The result of a delivery.

    Attributes:
        handled: Events that were handled, in the order of handling.
        dead_letters: Events that would be dead letters, each with the handler's last error.
        calls: How often the handler was called.
    """

    handled: list[CloudEvent[Any]] = field(default_factory=list)
    dead_letters: list[tuple[CloudEvent[Any], Exception]] = field(default_factory=list)
    calls: int = 0


async def play_into(
    handler: Handler,
    events: Iterable[CloudEvent[Any]],
    *,
    types: Iterable[str | type[EventData]] | None = None,
    tries: int = 5,
) -> Played:
    """Deliver events: repeats dropped by id, what failed again later, at most `tries` times.

    Args:
        handler: As `Subscriber` takes it.
        events: What is delivered, such as ``Story("completed").disturbed("reordered")``.
        types: As `Subscriber` takes them.
        tries: How often an event is tried.

    Raises:
        EventError: A type is not for subscribers, or an argument cannot work.
    """
    chosen = wanted(types)
    require_coroutine_function("handler", handler)
    require_count("tries", tries)
    waiting = deque((event, 1) for event in events if (event.type, event.data.VERSION) in chosen)
    done: dict[UUID, CloudEvent[Any]] = {}
    dead_letters: list[tuple[CloudEvent[Any], Exception]] = []
    calls = 0
    while waiting:
        event, number = waiting.popleft()
        if event.id in done:
            continue
        calls += 1
        try:
            await handled(handler, event)
        except NotAwaitable:
            raise
        except Reject as error:
            dead_letters.append((event, error))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, as in the subscriber
            if number < tries:
                waiting.append((event, number + 1))
            else:
                dead_letters.append((event, error))
        else:
            done[event.id] = event
    return Played(list(done.values()), dead_letters, calls)
