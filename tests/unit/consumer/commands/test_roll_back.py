"""A rollback by hand, in every state: shown first, done completely, refused past the point of no return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer import saga
from rehome_consumer.errors import NotFound, Refused, Unreachable
from rehome_consumer.operators.rollback_plan import read_order
from rehome_consumer.operators.rollback_request import failed_event
from tests.fakes.inspection import FakeViews
from tests.support.rig import Rig

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.operators.rollback_plan import Order

BEFORE_PIVOT = [step.name for step in saga.MIGRATION[1:-2]]
"""Steps that can still be rolled back; the last of them passes the point of no return at its end."""
UNDONE = {step.name for step in saga.MIGRATION if step.undo}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.delenv("REHOME_PLATFORM_DSN", raising=False)  # so that no server is looked at
    return Rig()


async def order_of(rig: Rig, wanted: UUID) -> Order:
    views: Any = FakeViews(rig.journal, rig.claims)
    journal: Any = rig.journal
    nothing: Any = None
    order, blind = await read_order(nothing, views, journal, wanted)
    assert order.cancel or "REHOME_PLATFORM_DSN" in blind
    return order


async def ask(rig: Rig, order: Order) -> None:
    """As the command does with the claim held."""
    state = "rejected" if order.cancel else "failing"
    await rig.journal.ask_roll_back(
        order.migration, failed_event(order, "customer asked"), "customer asked", state=state
    )


@pytest.mark.parametrize("step", BEFORE_PIVOT)
async def test_in_every_state_before_the_point_of_no_return_it_is_undone(step: str, rig: Rig) -> None:
    event = rig.upgraded()
    before = rig.site.snapshot(rig.instance(event))
    await rig.run(until=step)
    order = await order_of(rig, rig.row(event).id)
    started = [one.name for one in saga.MIGRATION[: BEFORE_PIVOT.index(step) + 1]]
    assert order.started == started
    assert [name for name, _ in order.undo] == [name for name in reversed(started) if name in UNDONE]
    await ask(rig, order)
    await rig.run()
    row = rig.row(event)
    assert (row.state, row.reason) == ("rolled_back", "customer asked")
    assert rig.site.writable(rig.instance(event)) == [rig.site.pool.host]
    assert rig.site.snapshot(rig.instance(event))["record"] == before["record"]
    assert rig.published()[-2:] == ["migration.failed", "migration.rolled_back"]


async def test_while_it_is_rolled_back_asking_again_changes_nothing(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="restore")
    for _ in range(2):
        await ask(rig, await order_of(rig, rig.instance(event)))
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.published().count("migration.rolled_back") == 1


async def test_an_upgrade_of_which_nothing_was_started_is_rejected(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("accept.platform.instance.before", Unreachable("no answer"))
    await rig.handle_next("accept")
    order = await order_of(rig, rig.instance(event))
    assert (order.cancel, order.undo) == (True, [])
    await ask(rig, order)
    await rig.run()
    assert rig.row(event).state == "rejected"
    assert rig.events("migration.rejected")[0].data.reason == "cancelled"
    assert rig.published() == ["migration.rejected"]


async def test_past_the_point_of_no_return_the_way_forward_is_named(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="complete")
    with pytest.raises(Refused, match="past the point of no return") as refused:
        await order_of(rig, rig.row(event).id)
    assert f"rehome dead replay --all --handler complete --instance {rig.instance(event)}" in str(
        refused.value
    )
    with pytest.raises(Refused):
        await rig.journal.ask_roll_back(rig.row(event), None, "anyway")  # type: ignore[arg-type] # not reached


async def test_what_has_ended_is_refused_and_so_is_what_is_unknown(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run()
    with pytest.raises(Refused, match="is over: completed") as refused:
        await order_of(rig, rig.row(event).id)
    assert "is kept, fenced, until" in str(refused.value)
    with pytest.raises(NotFound, match="rehome status --all"):
        await order_of(rig, uuid4())
