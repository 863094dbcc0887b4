"""`prepare` and its undo: every check that needs no downtime, and the dedicated server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.odoo.conf_files import conf_path
from rehome_consumer.errors import ConfUnusable, Incompatible, NotFound, RehomeError, Transient
from rehome_consumer.facts import NEW_PASSWORD, NEW_USER
from rehome_events.migration import MigrationPrepared
from tests.fakes.claims import FakeClaims
from tests.fakes.inspection import FakeViews
from tests.fakes.world import FakeDatabase, FakeRole
from tests.support.steps import StepRig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def bench() -> StepRig:
    made = StepRig()
    await made.until("prepare")
    return made


def conf(bench: StepRig) -> Path:
    return conf_path(bench.site.odoo_conf.data_root, bench.site.instance(bench.instance))


def edit(bench: StepRig, before: bytes, after: bytes) -> None:
    assert before in bench.site.odoo_conf.files[conf(bench)]
    files = bench.site.odoo_conf.files
    files[conf(bench)] = files[conf(bench)].replace(before, after)


async def refused(bench: StepRig, kind: type[RehomeError], match: str) -> None:
    """The step is refused, and nothing of the tenant's was changed."""
    servers = len(bench.site.platform.servers)
    with pytest.raises(kind, match=match):
        await bench.run("prepare")
    assert bench.service.running
    assert bench.source.roles["odoo_acme"].can_login
    assert servers <= len(bench.site.platform.servers)


async def test_a_server_is_made_and_told_and_the_instance_serves_on(bench: StepRig) -> None:
    answer = await bench.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.provisioned_now
    assert answer.target.name == f"postgres-dedicated-{bench.instance.hex[:8]}"
    assert bench.service.running
    assert bench.site.write(bench.instance, 1)


async def test_a_server_that_is_there_is_used(bench: StepRig) -> None:
    await bench.site.database_service.provision(bench.instance, bench.record["customer_id"], "premium")
    answer = await bench.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert not answer.provisioned_now
    assert bench.site.database_service.calls == 1


@pytest.mark.parametrize("mood", ["answers too late", "answers garbage"])
async def test_a_server_that_was_made_without_a_word_is_found_by_the_next_try(
    bench: StepRig, mood: str
) -> None:
    bench.site.database_service.moods = [mood]  # type: ignore[list-item] # one of its words
    with pytest.raises(Transient):
        await bench.run("prepare")
    answer = await bench.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert bench.site.database_service.calls == 1


async def test_a_second_run_asks_for_no_second_server(bench: StepRig) -> None:
    event = bench.event
    first = await bench.run("prepare")
    bench.event = event
    assert await bench.run("prepare") == first
    assert bench.site.database_service.calls == 1


async def test_a_login_of_the_service_s_own_is_kept_as_a_secret(bench: StepRig) -> None:
    bench.site.database_service.gives_login = True
    await bench.run("prepare")
    facts = await bench.facts()
    assert await facts.recall(NEW_USER) == f"odoo_{bench.instance.hex[:8]}"
    kept = await facts.recall(NEW_PASSWORD)
    assert kept
    assert kept.reveal() == f"made-for-{bench.instance.hex[:8]}"
    recorded = await FakeViews(bench.journal, FakeClaims()).facts(bench.migration, 1)
    assert NEW_PASSWORD in recorded
    assert recorded.get(NEW_PASSWORD) is None


async def test_a_server_that_is_not_active_yet_is_waited_for(bench: StepRig) -> None:
    provision = bench.site.database_service.provision

    async def slow(*arguments: object) -> object:
        answer = await provision(*arguments)  # type: ignore[arg-type] # as it came
        bench.site.platform.servers[answer.db_server_id]["status"] = "initializing"
        return answer

    bench.site.database_service.provision = slow  # type: ignore[method-assign,assignment]
    await refused(bench, Transient, "not active")


async def test_a_superuser_cannot_be_fenced(bench: StepRig) -> None:
    bench.source.roles["odoo_acme"].superuser = True
    await refused(bench, Incompatible, "superuser")


async def test_a_role_that_owns_another_database_would_stop_that_tenant_too(bench: StepRig) -> None:
    bench.source.databases["other"] = FakeDatabase("other", "odoo_acme")
    await refused(bench, Incompatible, "it owns database other, so fencing")


async def test_the_role_of_odoo_conf_is_compared_with_the_record(bench: StepRig) -> None:
    bench.source.roles["monitoring"] = FakeRole("monitoring")
    edit(bench, b"db_user = odoo_acme", b"db_user = monitoring")
    await refused(bench, Incompatible, "odoo.conf's db_user is monitoring, the record's odoo_acme")


async def test_the_role_of_odoo_conf_and_record_is_compared_with_the_owner(bench: StepRig) -> None:
    bench.source.roles["monitoring"] = FakeRole("monitoring")
    edit(bench, b"db_user = odoo_acme", b"db_user = monitoring")
    bench.record["db_user"] = "monitoring"
    await refused(bench, Incompatible, "belongs to role odoo_acme, not to monitoring")
    assert bench.source.roles["monitoring"].can_login


async def test_a_database_of_an_administrators_is_the_records_role_s(bench: StepRig) -> None:
    bench.source.databases["acme"].owner = "postgres"
    assert isinstance(await bench.run("prepare"), MigrationPrepared)


async def test_where_an_administrator_owns_it_and_the_record_is_silent_nobody_is_believed(
    bench: StepRig,
) -> None:
    bench.source.databases["acme"].owner = "postgres"
    bench.record["db_user"] = None
    await refused(bench, Incompatible, "Put db_user into the record")


@pytest.mark.parametrize(
    ("tie", "match"),
    [
        ({"attributes": ("CREATEROLE", "CREATEDB")}, "ALTER ROLE ... NOCREATEROLE NOCREATEDB"),
        ({"member_of": ("pg_monitor",)}, "is a member of pg_monitor"),
        ({"members": ("mallory",)}, "is lent to mallory"),
        ({"elsewhere": ("owns something in database next_door",)}, "it owns something in database next_door"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_role_that_is_more_than_this_tenants_login_is_refused(
    bench: StepRig, tie: dict[str, tuple[str, ...]], match: str
) -> None:
    bench.source.roles["odoo_acme"] = replace(bench.source.roles["odoo_acme"], **tie)
    await refused(bench, Incompatible, match)


@pytest.mark.parametrize("tie", [{"attributes": ("CREATEDB",)}, {"member_of": ("pg_monitor",)}])
async def test_a_role_that_is_more_on_the_dedicated_server_already_is_refused(
    bench: StepRig, tie: dict[str, tuple[str, ...]]
) -> None:
    bench.site.add_dedicated(bench.instance)
    bench.target.roles["odoo_acme"] = FakeRole("odoo_acme", **tie)  # type: ignore[arg-type]
    await refused(bench, Incompatible, "is on postgres-dedicated-.* already, and more than a tenant's login")


async def test_a_pool_that_keeps_our_short_lived_roles_out_is_told_before_anything_is_stopped(
    bench: StepRig,
) -> None:
    bench.source.keeps_out = True
    await refused(bench, Incompatible, "keeps out a short-lived role")


async def test_what_hides_in_an_extension_is_told_before_anything_is_stopped(bench: StepRig) -> None:
    bench.source.databases["acme"].strays = ["table public.account_move"]
    await refused(bench, Incompatible, "account_move")


async def test_a_database_that_is_not_there_is_told(bench: StepRig) -> None:
    del bench.source.databases["acme"]
    await refused(bench, NotFound, "acme")


async def test_a_service_that_is_not_there_is_told(bench: StepRig) -> None:
    services = bench.site.runtime.services
    kept = services.pop("odoo-acme")
    with pytest.raises(NotFound, match="odoo-acme"):
        await bench.run("prepare")
    services["odoo-acme"] = kept


async def test_a_conf_that_names_another_server_than_the_record_is_told(bench: StepRig) -> None:
    edit(bench, b"db_host = postgres-pool-1", b"db_host = postgres-pool-2")
    await refused(bench, ConfUnusable, "postgres-pool-2:5432")


async def test_a_conf_that_names_another_database_is_told(bench: StepRig) -> None:
    edit(bench, b"db_name = False", b"db_name = other")
    await refused(bench, ConfUnusable, "db_name is other")


async def test_a_conf_that_cannot_be_replaced_is_told(bench: StepRig) -> None:
    bench.site.odoo_conf.read_only.add(conf(bench))
    await refused(bench, ConfUnusable, "read-only")


async def test_too_little_room_is_told(bench: StepRig) -> None:
    bench.site.world.free = 100
    await refused(bench, Incompatible, "100 bytes free")


async def test_an_older_target_is_told(bench: StepRig) -> None:
    await bench.site.database_service.provision(bench.instance, bench.record["customer_id"], "premium")
    bench.target.version = 140010
    await refused(bench, Incompatible, "PostgreSQL 15, .* only 14")


@pytest.mark.parametrize("client", [14, 17])
async def test_client_programs_of_the_wrong_version_are_told(bench: StepRig, client: int) -> None:
    bench.site.world.client = client
    await refused(bench, Incompatible, f"PostgreSQL {client}")


async def test_an_extension_that_the_target_does_not_offer_is_told(bench: StepRig) -> None:
    bench.source.databases["acme"].extensions["postgis"] = "3.3"
    await refused(bench, Incompatible, "postgis")


async def test_the_server_is_given_back_by_the_undo(bench: StepRig) -> None:
    await bench.run("prepare")
    assert await bench.undo("prepare") == ()
    assert [row["name"] for row in bench.site.platform.servers.values()] == ["postgres-pool-1"]
    assert await bench.undo("prepare") == ()


async def test_a_server_that_was_there_before_is_left_alone_by_the_undo(bench: StepRig) -> None:
    await bench.site.database_service.provision(bench.instance, bench.record["customer_id"], "premium")
    await bench.run("prepare")
    assert await bench.undo("prepare") == ()
    assert len(bench.site.platform.servers) == 2


async def test_a_server_that_cannot_be_given_back_is_named(bench: StepRig) -> None:
    await bench.run("prepare")
    bench.site.database_service.takes_back = False
    (leftover,) = await bench.undo("prepare")
    assert f"postgres-dedicated-{bench.instance.hex[:8]}" in leftover


async def test_a_server_that_was_asked_for_and_is_not_seen_is_named(bench: StepRig) -> None:
    bench.site.database_service.moods = ["fails"]
    with pytest.raises(Transient):
        await bench.run("prepare")
    (leftover,) = await bench.undo("prepare")
    assert "check whether it appears later" in leftover


async def test_where_nothing_was_asked_for_the_undo_does_nothing(bench: StepRig) -> None:
    bench.site.world.free = 1
    with pytest.raises(Incompatible):
        await bench.run("prepare")
    assert await bench.undo("prepare") == ()
