"""Whether a migration needs an operator: the one answer of the command line, the console and reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.doctor.migrations import idle_since
from rehome_consumer.operators.ages import age

if TYPE_CHECKING:
    from rehome_consumer.ports.operators import ClaimHolder, MigrationView

GRACE: Final = timedelta(seconds=90)
"""How late a try may start before an operator has to look: deliveries wait for each other."""


def attention(one: MigrationView, holder: ClaimHolder | None, *, now: datetime | None = None) -> str | None:
    """Why an operator has to look at it; None when that is not needed."""
    now = now or datetime.now(UTC)
    if one.behind is not None:
        late = one.next_try_at is not None and now - one.next_try_at > GRACE
        return "its next try is overdue: is a consumer running? see also rehome dead list" if late else None
    if one.ended or holder is not None:
        return None
    if one.state == "failed":
        undo = "" if one.past_pivot else f", or rehome roll-back {one.id}"
        return f"it failed; rehome dead list --instance {one.instance_id}{undo}"
    since = idle_since(one)
    if now - since > GRACE:
        return f"no consumer has worked on it for {age(since, now=now)}; rehome doctor {one.instance_id}"
    return None
