"""Whether the fence still stands: checked before each step that relies on an unchanged source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.errors import Refused

if TYPE_CHECKING:
    from rehome_consumer.move import Move


async def require_fence(move: Move) -> None:
    """Go on only while nobody but the administrator reaches the source.

    Raises:
        Refused: someone lifted the fence; what was copied may be out of date.
    """
    instance, source = await move.instance(), await move.source()
    state = await move.databases.fence_state(source, instance.database, (await move.tenant()).user)
    if state.can_login or not state.closed or state.inside:
        who = f" ({', '.join(state.inside)})" if state.inside else ""
        raise Refused(
            f"the fence of {instance.database} on {source.name} was lifted during the migration{who}: "
            "what was copied may be out of date"
        )
