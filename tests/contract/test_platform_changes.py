"""Port `Platform`, held by the fake and by the real tables alike: changes."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from rehome_consumer.errors import Incompatible, NotFound, Refused
from rehome_consumer.model import Server
from rehome_events.parts import Limits
from tests.contract.platform_tables import Tables, a_dedicated_server, a_move, instance_of, server_of, unique

LIMITS = Limits(cpu_limit=4.0, memory_limit="8G", storage_limit="50G")


async def point_record_to(tables: Tables, instance: UUID, target: UUID, limits: Limits = LIMITS) -> None:
    server = await server_of(tables, target)
    await tables.platform.point_record_to(
        instance, server, db_user="odoo_new", plan_tier="premium", limits=limits
    )


async def test_pointing_a_record_to_a_server_changes_it_and_both_counts_and_nothing_else(
    tables: Tables,
) -> None:
    instance, source, target = await a_move(tables)
    before = await tables.rows()
    await point_record_to(tables, instance, target)
    after = await tables.rows()
    changed = {
        identity: {name: value for name, value in row.items() if value != before[identity][name]}
        for identity, row in after.items()
        if row != before[identity]
    }
    for row in changed.values():
        assert row.pop("updated_at")
    assert changed == {
        instance: {
            "db_host": (await server_of(tables, target)).host,
            "db_user": "odoo_new",
            "db_type": "dedicated",
            "db_server_id": target,
            "plan_tier": "premium",
            "cpu_limit": 4,
            "memory_limit": "8G",
            "storage_limit": "50G",
        },
        source: {"current_instances": 2},
        target: {"current_instances": 1},
    }


async def test_pointing_a_record_again_changes_nothing(tables: Tables) -> None:
    instance, _, target = await a_move(tables)
    await point_record_to(tables, instance, target, Limits(cpu_limit=1.25))
    once = await tables.rows()
    await point_record_to(tables, instance, target, Limits(cpu_limit=1.25))
    assert await tables.rows() == once


async def test_records_pointed_at_the_same_moment_count_each_instance_once(tables: Tables) -> None:
    pool = await tables.add_server(current_instances=3)
    instances = [await tables.add_instance(db_server_id=pool) for _ in range(3)]
    targets = [await a_dedicated_server(tables, instance) for instance in instances]
    pairs = list(zip(instances, targets, strict=True)) * 3
    await asyncio.gather(*(point_record_to(tables, instance, target) for instance, target in pairs))
    rows = await tables.rows()
    assert rows[pool]["current_instances"] == 0
    assert [rows[target]["current_instances"] for target in targets] == [1, 1, 1]


async def test_pointing_a_record_leaves_limits_that_the_plan_does_not_set(tables: Tables) -> None:
    instance, _, target = await a_move(tables)
    await point_record_to(tables, instance, target, Limits(memory_limit="6G"))
    limits = (await instance_of(tables, instance)).limits
    assert limits == Limits(cpu_limit=2.0, memory_limit="6G", storage_limit="20G")


async def test_pointing_a_record_without_db_server_id_lowers_the_count_of_the_pool_at_its_address(
    tables: Tables,
) -> None:
    pool = await tables.add_server(current_instances=5)
    instance = await tables.add_instance(db_host=(await server_of(tables, pool)).host)
    record = await tables.platform.record(instance)
    await point_record_to(tables, instance, await a_dedicated_server(tables, instance))
    assert (await tables.rows())[pool]["current_instances"] == 4
    await tables.platform.restore_record(instance, record)
    assert (await tables.rows())[pool]["current_instances"] == 5


async def test_pointing_a_record_never_lowers_a_count_below_zero(tables: Tables) -> None:
    instance, source, target = await a_move(tables, current_instances=0)
    await point_record_to(tables, instance, target)
    assert (await tables.rows())[source]["current_instances"] == 0


async def test_pointing_a_record_to_a_full_server_is_refused_and_changes_nothing(tables: Tables) -> None:
    instance, _, _ = await a_move(tables)
    full = await a_dedicated_server(tables, uuid4(), name=unique("full"), current_instances=1)
    before = await tables.rows()
    with pytest.raises(Incompatible, match=r"full-\w+ is full"):
        await point_record_to(tables, instance, full)
    assert await tables.rows() == before


async def test_pointing_a_record_to_a_server_that_counts_its_instance_already_is_not_refused(
    tables: Tables,
) -> None:
    instance, source, _ = await a_move(tables)
    counted = await a_dedicated_server(tables, instance, current_instances=1)
    await point_record_to(tables, instance, counted)
    rows = await tables.rows()
    assert (rows[counted]["current_instances"], rows[source]["current_instances"]) == (1, 2)


async def test_pointing_an_unknown_record_or_to_an_unknown_server_is_refused(tables: Tables) -> None:
    instance, _, target = await a_move(tables)
    with pytest.raises(NotFound, match="no instance"):
        await point_record_to(tables, uuid4(), target)
    server = await server_of(tables, target)
    unknown = Server(uuid4(), "unknown", unique("unknown"), server.port, "dedicated", "active", server.admin)
    with pytest.raises(NotFound, match="unknown"):
        await tables.platform.point_record_to(
            instance, unknown, db_user="u", plan_tier="premium", limits=LIMITS
        )


async def test_more_cores_than_the_column_holds_are_refused_and_change_nothing(tables: Tables) -> None:
    instance, _, target = await a_move(tables)
    before = await tables.rows()
    with pytest.raises(Incompatible, match=r"99\.9"):
        await point_record_to(tables, instance, target, Limits(cpu_limit=99.95))
    assert await tables.rows() == before


async def test_restoring_a_record_undoes_its_change_and_may_be_repeated(tables: Tables) -> None:
    instance, source, target = await a_move(tables)
    before = await tables.rows()
    record = json.loads(json.dumps(await tables.platform.record(instance)))
    await point_record_to(tables, instance, target)
    await tables.platform.set_status(instance, "error", "half way")
    for _ in range(2):
        await tables.platform.restore_record(instance, record)
    after = await tables.rows()
    for identity in (instance, source, target):
        before[identity].pop("updated_at")
        after[identity].pop("updated_at")
    assert after == before


async def test_restoring_a_record_that_was_never_changed_changes_nothing(tables: Tables) -> None:
    instance, _, _ = await a_move(tables)
    before = await tables.rows()
    await tables.platform.restore_record(instance, await tables.platform.record(instance))
    assert await tables.rows() == before


async def test_restoring_a_record_to_a_pool_that_filled_up_meanwhile_succeeds_at_its_limit(
    tables: Tables,
) -> None:
    instance, source, target = await a_move(tables, current_instances=2, max_instances=2)
    record = await tables.platform.record(instance)
    await point_record_to(tables, instance, target)
    newcomer, _, elsewhere = await a_move(tables)
    before = await tables.platform.record(newcomer)
    await tables.platform.restore_record(newcomer, {**before, "db_server_id": str(source)})
    await tables.platform.restore_record(instance, record)
    rows = await tables.rows()
    assert rows[instance]["db_server_id"] == source
    assert rows[source]["current_instances"] == 2
    assert rows[elsewhere]["current_instances"] == 0


async def test_limits_are_written_with_the_tier_and_what_is_not_set_stays(tables: Tables) -> None:
    instance, source, _ = await a_move(tables)
    await tables.platform.set_limits(instance, Limits(cpu_limit=1.5), plan_tier="basic")
    found = await instance_of(tables, instance)
    assert found.limits == Limits(cpu_limit=1.5, memory_limit="4G", storage_limit="20G")
    assert (found.plan_tier, found.db_server_id) == ("basic", source)


async def test_a_status_is_written_with_its_message_and_cleared_without(tables: Tables) -> None:
    instance = await tables.add_instance()
    await tables.platform.set_status(instance, "error", "why; it's \x27%s\x27")
    found = await instance_of(tables, instance)
    assert (found.status, found.error_message) == ("error", "why; it's '%s'")
    await tables.platform.set_status(instance, "running")
    found = await instance_of(tables, instance)
    assert (found.status, found.error_message) == ("running", None)


async def test_a_status_that_the_platform_does_not_know_is_refused(tables: Tables) -> None:
    instance = await tables.add_instance()
    with pytest.raises(Refused, match="'migrating' is no status"):
        await tables.platform.set_status(instance, "migrating")
    assert (await instance_of(tables, instance)).status == "running"


async def test_a_service_is_written_and_an_unknown_url_stays(tables: Tables) -> None:
    instance = await tables.add_instance(internal_url="http://old:8069")
    await tables.platform.set_service(
        instance, service_id="abc", internal_url=None, external_url="https://acme.example.com"
    )
    found = await instance_of(tables, instance)
    assert (found.service_id, found.internal_url, found.external_url) == (
        "abc",
        "http://old:8069",
        "https://acme.example.com",
    )


async def test_changes_to_an_unknown_instance_are_refused(tables: Tables) -> None:
    unknown, platform = uuid4(), tables.platform
    for change in (
        platform.record(unknown),
        platform.restore_record(unknown, {}),
        platform.set_limits(unknown, LIMITS, plan_tier="basic"),
        platform.set_status(unknown, "running"),
        platform.set_service(unknown, service_id="x", internal_url=None, external_url=None),
    ):
        with pytest.raises(NotFound, match=str(unknown)):
            await change
