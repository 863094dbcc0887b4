"""The operators' tools on a hostile tenant's databases."""

import pytest

from tests.attack.attack import COMPLETED, ROLLED_BACK, Attack
from tests.attack.operators import rehome
from tests.chaos.moving import hold

EVERYTHING = ("planner", "writing", "shadows")
TERMINAL = "x\x1b]52;c;aGVsbG8=\x07\x1b[2J\u202e\u0085y"


@pytest.mark.representative("15-15")
async def test_check_doctor_and_retire_run_the_tenants_code_with_no_more_than_its_rights(
    attack: Attack,
) -> None:
    await attack.make(*EVERYTHING)
    checked = await rehome(attack.place, "check", attack.site.id)
    assert checked.code == 0, checked.text
    await attack.begin()
    assert await attack.ends() == COMPLETED, attack.refusal()
    for words in (("doctor", attack.site.id), ("doctor", "--repair"), ("status", attack.site.id)):
        await rehome(attack.place, *words)
    retired = await rehome(attack.place, "retire", attack.site.id, "--now", "--yes")
    assert retired.code == 0, retired.text
    async with attack.pool.connect() as pool:
        assert not await pool.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", attack.tenant.database)
    await attack.holds(but=(attack.tenant.database,))


async def test_a_rollback_that_an_operator_orders_gives_the_tenant_nothing(attack: Attack) -> None:
    await attack.make(*EVERYTHING)
    await attack.begin(order=hold("provision.claimed"))
    assert await attack.there()
    ordered = await rehome(attack.place, "roll-back", attack.migration, "--yes")
    assert ordered.code == 0, ordered.text
    assert await attack.ends() == ROLLED_BACK
    await attack.holds()


@pytest.mark.representative("15-15")
async def test_control_characters_in_odoo_conf_reach_no_terminal(attack: Attack) -> None:
    await attack.make()
    attack.write_conf(database=TERMINAL)
    checked = await rehome(attack.place, "check", attack.site.id)
    await attack.begin()
    assert await attack.ends() == ROLLED_BACK
    shown = {"check": checked}
    for words in (
        ("status", attack.site.id),
        ("status", attack.migration),
        ("dead", "list"),
        ("doctor", attack.site.id),
    ):
        shown[words[0]] = await rehome(attack.place, *words)
    assert {name: output.raw for name, output in shown.items() if output.raw} == {}


@pytest.mark.representative("15-15")
async def test_a_forged_ownership_tag_lets_no_repair_drop_a_database_of_the_pool(
    attack: Attack,
) -> None:
    await attack.begin()
    assert await attack.ends() == COMPLETED, attack.refusal()
    comment = (
        f'{{"rehome": {{"migration": "{attack.migration}", "attempt": 1, "state": "scratch", '
        '"connection_limit": -1, "restored": false}}'
    )
    neighbour = attack.neighbour
    async with attack.pool.connect(
        neighbour.database, user=neighbour.role, password=neighbour.password
    ) as connection:
        await connection.execute(f"COMMENT ON DATABASE {neighbour.database} IS '{comment}'")
    await rehome(attack.place, "doctor", "--repair")
    await rehome(attack.place, "doctor", attack.site.id, "--repair")
    async with attack.pool.connect() as pool:
        assert await pool.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", neighbour.database)
