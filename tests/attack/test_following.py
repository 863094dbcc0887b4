"""Warm moves: what the tenant made runs in the worker that applies changes, with the tenant's rights and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.adapters.postgres.replicator import APPLIES_AS_OWNER_SINCE
from sandbox.demo.chaos import Order
from sandbox.postgres.databases import major_version
from tests.attack.attack import COMPLETED, ROLLED_BACK

if TYPE_CHECKING:
    from tests.attack.attack import Attack

SITES = {f"{site} of an arriving row" for site in ("domain", "check", "generated column", "index predicate")}
"""Sites that must have run in the worker."""
SITES |= {f"{site} of a row without a key" for site in ("check", "index expression")}
WHILE_IT_FOLLOWS = (
    "INSERT INTO arrived (id, word) SELECT i, 'later' FROM generate_series(11, 20) AS i; "
    'UPDATE "without"" a key" SET word = \'later\' WHERE n = 2; DELETE FROM "without"" a key" WHERE n = 3'
)
ALWAYS = "ALTER TABLE arrived ENABLE ALWAYS TRIGGER at_arrival"
LATER_INDEX = "CREATE INDEX ON arrived ((id + 1)) WHERE canary.same('index that came later', id) > 0"


def hold(boundary: str) -> Order:
    return Order("hold", boundary)


async def prepared(attack: Attack) -> Any:
    """The data of `migration.prepared`."""
    event: Any = await attack.place.subscriber.wait_for(
        "migration.prepared", instance_id=attack.site.id, limit=60
    )
    return event.data


async def follows(attack: Attack) -> bool:
    """Whether the dedicated servers of this pair are new enough; where not, the move is cold and says why."""
    data = await prepared(attack)
    dedicated = await attack.dedicated()
    assert dedicated
    new_enough = int(await major_version(dedicated)) >= APPLIES_AS_OWNER_SINCE
    assert data.strategy == ("warm" if new_enough else "cold"), data.strategy_reason
    if not new_enough:
        assert "apply changes with the tenant's rights" in data.strategy_reason
    return new_enough


@pytest.mark.representative("15-15", "15-17", "18-18")
async def test_code_that_runs_where_changes_are_applied_has_no_more_than_the_tenants_rights(
    attack: Attack,
) -> None:
    await attack.begin("following", order=hold("stop.claimed"), STRATEGY="auto")
    assert await attack.there()
    warm = await follows(attack)
    await attack.as_tenant(WHILE_IT_FOLLOWS)
    await attack.remember_data()
    assert await attack.ends() == COMPLETED, attack.refusal()
    worker = {one.site for one in attack.reports("a dedicated") if one.session.endswith("_apply")}
    if warm:
        assert worker >= SITES, f"never ran in the worker: {SITES - worker}"
    assert not any("trigger, not here" in site for site in worker)
    await attack.holds()


@pytest.mark.representative("15-17")
async def test_a_trigger_that_fires_everywhere_is_not_followed(attack: Attack) -> None:
    await attack.make("following")
    await attack.as_tenant(ALWAYS)
    await attack.begin(STRATEGY="auto")
    assert await attack.ends() == COMPLETED, attack.refusal()
    data = await prepared(attack)
    assert data.strategy == "cold"
    await attack.holds()


@pytest.mark.representative("15-17")
@pytest.mark.parametrize("change", [ALWAYS, LATER_INDEX])
async def test_what_is_changed_while_the_copy_follows_gains_nothing(change: str, attack: Attack) -> None:
    await attack.begin("following", order=hold("stop.claimed"), STRATEGY="auto")
    assert await attack.there()
    await follows(attack)
    await attack.as_tenant(change, WHILE_IT_FOLLOWS)
    await attack.remember_data()
    assert await attack.ends() == COMPLETED, attack.refusal()
    await attack.holds()


@pytest.mark.representative("15-17")
@pytest.mark.parametrize("step", ["prepare", "stop", "start"])
async def test_a_warm_move_that_fails_gives_the_tenant_nothing_and_leaves_no_trace(
    step: str, attack: Attack
) -> None:
    await attack.make("following")
    await attack.begin(fail=(step,), STRATEGY="auto")
    assert await attack.ends() == ROLLED_BACK, attack.types()
    await attack.holds()
