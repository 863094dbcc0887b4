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
async def rig() -> StepRig:
    made = StepRig()
    await made.until("prepare")
    return made


def conf(rig: StepRig) -> Path:
    return conf_path(rig.site.odoo_conf.data_root, rig.site.instance(rig.instance))


def edit(rig: StepRig, before: bytes, after: bytes) -> None:
    assert before in rig.site.odoo_conf.files[conf(rig)]
    files = rig.site.odoo_conf.files
    files[conf(rig)] = files[conf(rig)].replace(before, after)


async def refused(rig: StepRig, kind: type[RehomeError], match: str) -> None:
    """The step is refused, and nothing of the tenant's was changed."""
    servers = len(rig.site.platform.servers)
    with pytest.raises(kind, match=match):
        await rig.run("prepare")
    assert rig.service.running
    assert rig.source.roles["odoo_acme"].can_login
    assert servers <= len(rig.site.platform.servers)


async def test_a_server_is_provisioned_and_the_instance_serves_on(rig: StepRig) -> None:
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.provisioned_now
    assert answer.target.name == f"postgres-dedicated-{rig.instance.hex[:8]}"
    assert rig.service.running
    assert rig.site.write(rig.instance, 1)


async def test_limits_that_no_node_has_are_refused_before_anything_is_asked_for_or_stopped(
    rig: StepRig,
) -> None:
    rig.site.runtime.cpus = 0.5
    await refused(rig, Incompatible, "only 0.5 CPUs available")
    assert rig.site.database_service.calls == 0


async def test_what_may_go_wrong_is_logged_and_refuses_nothing(
    rig: StepRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.site.runtime.warnings = ("the image is not on this node",)
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert "runtime" in answer.checks
    assert f"prepare.warning instance={rig.instance} warning=the image is not on this node" in caplog.text


async def test_a_server_that_is_there_is_used(rig: StepRig) -> None:
    await rig.site.database_service.provision(rig.instance, rig.record["customer_id"], "premium")
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert not answer.provisioned_now
    assert rig.site.database_service.calls == 1


@pytest.mark.parametrize("mood", ["answers too late", "answers garbage"])
async def test_a_server_that_was_made_without_an_answer_is_found_by_the_next_try(
    rig: StepRig, mood: str
) -> None:
    rig.site.database_service.moods = [mood]  # type: ignore[list-item] # one of its words
    with pytest.raises(Transient):
        await rig.run("prepare")
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert rig.site.database_service.calls == 1


async def test_a_second_run_asks_for_no_second_server(rig: StepRig) -> None:
    event = rig.event
    first = await rig.run("prepare")
    rig.event = event
    assert await rig.run("prepare") == first
    assert rig.site.database_service.calls == 1


async def test_a_login_that_the_service_names_is_stored_as_a_secret(rig: StepRig) -> None:
    rig.site.database_service.gives_login = True
    await rig.run("prepare")
    facts = await rig.facts()
    assert await facts.recall(NEW_USER) == f"odoo_{rig.instance.hex[:8]}"
    password = await facts.recall(NEW_PASSWORD)
    assert password
    assert password.reveal() == f"made-for-{rig.instance.hex[:8]}"
    recorded = await FakeViews(rig.journal, FakeClaims()).facts(rig.migration, 1)
    assert NEW_PASSWORD in recorded
    assert recorded.get(NEW_PASSWORD) is None


async def test_a_server_that_is_not_active_yet_is_waited_for(rig: StepRig) -> None:
    provision = rig.site.database_service.provision

    async def slow(*arguments: object) -> object:
        answer = await provision(*arguments)  # type: ignore[arg-type] # as it came
        rig.site.platform.servers[answer.db_server_id]["status"] = "initializing"
        return answer

    rig.site.database_service.provision = slow  # type: ignore[method-assign,assignment]
    await refused(rig, Transient, "not active")


async def test_a_superuser_cannot_be_fenced(rig: StepRig) -> None:
    rig.source.roles["odoo_acme"].superuser = True
    await refused(rig, Incompatible, "superuser")


async def test_a_role_that_owns_another_database_would_stop_that_tenant_too(rig: StepRig) -> None:
    rig.source.databases["other"] = FakeDatabase("other", "odoo_acme")
    await refused(rig, Incompatible, "it owns database other, so fencing")


async def test_a_role_that_another_record_names_would_stop_that_tenant_too(rig: StepRig) -> None:
    """Nothing on the server ties it to the other database, which is an administrator's."""
    there = {"db_server_id": rig.site.pool.id, "db_user": "odoo_acme"}
    other = rig.site.platform.add_instance(database_name="globex", status="terminated", **there)
    event = rig.event
    await rig.run("prepare")
    rig.event = event
    rig.site.platform.instances[other]["status"] = "stopped"
    await refused(rig, Incompatible, r"role odoo_acme on .* is the login of other instances, too.*globex")


async def test_a_dedicated_server_that_keeps_its_logins_out_is_found_before_the_stop(rig: StepRig) -> None:
    event = rig.event
    await rig.run("prepare")
    rig.target.keeps_out, rig.event = True, event
    await refused(rig, Incompatible, r"pg_hba\.conf of .* lets odoo_acme into neither acme nor acme__rehome_")


async def test_the_role_of_odoo_conf_is_compared_with_the_record(rig: StepRig) -> None:
    rig.source.roles["monitoring"] = FakeRole("monitoring")
    edit(rig, b"db_user = odoo_acme", b"db_user = monitoring")
    await refused(rig, Incompatible, "odoo.conf's db_user is monitoring, the record's odoo_acme")


async def test_the_role_of_odoo_conf_and_record_is_compared_with_the_owner(rig: StepRig) -> None:
    rig.source.roles["monitoring"] = FakeRole("monitoring")
    edit(rig, b"db_user = odoo_acme", b"db_user = monitoring")
    rig.record["db_user"] = "monitoring"
    await refused(rig, Incompatible, "belongs to role odoo_acme, not to monitoring")
    assert rig.source.roles["monitoring"].can_login


async def test_a_database_of_an_administrators_is_the_records_role_s(rig: StepRig) -> None:
    rig.source.databases["acme"].owner = "postgres"
    assert isinstance(await rig.run("prepare"), MigrationPrepared)


async def test_where_an_administrator_owns_it_and_the_record_names_no_role_it_is_refused(
    rig: StepRig,
) -> None:
    rig.source.databases["acme"].owner = "postgres"
    rig.record["db_user"] = None
    await refused(rig, Incompatible, "Put db_user into the record")


@pytest.mark.parametrize(
    ("tie", "match"),
    [
        ({"attributes": ("CREATEROLE", "REPLICATION")}, "ALTER ROLE ... NOCREATEROLE NOREPLICATION"),
        ({"member_of": ("pg_monitor",)}, "is a member of pg_monitor"),
        ({"members": ("mallory",)}, "is granted to mallory"),
        ({"elsewhere": ("owns something in database next_door",)}, "it owns something in database next_door"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_role_that_is_more_than_this_tenants_login_is_refused(
    rig: StepRig, tie: dict[str, tuple[str, ...]], match: str
) -> None:
    rig.source.roles["odoo_acme"] = replace(rig.source.roles["odoo_acme"], **tie)
    await refused(rig, Incompatible, match)


@pytest.mark.parametrize("tie", [{"attributes": ("CREATEROLE",)}, {"member_of": ("pg_monitor",)}])
async def test_a_role_that_is_more_on_the_dedicated_server_already_is_refused(
    rig: StepRig, tie: dict[str, tuple[str, ...]]
) -> None:
    rig.site.add_dedicated(rig.instance)
    rig.target.roles["odoo_acme"] = FakeRole("odoo_acme", **tie)  # type: ignore[arg-type]
    await refused(rig, Incompatible, "is on postgres-dedicated-.* already, and more than a tenant's login")


async def test_a_pool_that_is_a_standby_is_refused_by_name(rig: StepRig) -> None:
    rig.source.standby = True
    await refused(rig, Incompatible, "postgres-pool-1 at postgres-pool-1:5432 is a standby")


async def test_a_dedicated_server_that_is_a_standby_is_refused_by_name(rig: StepRig) -> None:
    rig.site.add_dedicated(rig.instance)
    rig.target.standby = True
    await refused(rig, Incompatible, "postgres-dedicated-.* is a standby")


async def test_a_pool_that_refuses_short_lived_roles_is_reported_before_anything_is_stopped(
    rig: StepRig,
) -> None:
    rig.source.keeps_out = True
    await refused(rig, Incompatible, "keeps out a short-lived role")


async def test_what_hides_in_an_extension_is_reported_before_anything_is_stopped(rig: StepRig) -> None:
    rig.source.databases["acme"].strays = ["table public.account_move"]
    await refused(rig, Incompatible, "account_move")


async def test_a_database_that_is_not_there_is_reported(rig: StepRig) -> None:
    del rig.source.databases["acme"]
    await refused(rig, NotFound, "acme")


async def test_a_service_that_is_not_there_is_reported(rig: StepRig) -> None:
    services = rig.site.runtime.services
    service = services.pop("odoo-acme")
    with pytest.raises(NotFound, match="odoo-acme"):
        await rig.run("prepare")
    services["odoo-acme"] = service


async def test_a_conf_that_names_another_server_than_the_record_is_reported(rig: StepRig) -> None:
    edit(rig, b"db_host = postgres-pool-1", b"db_host = postgres-pool-2")
    await refused(rig, ConfUnusable, "postgres-pool-2:5432")


async def test_a_conf_that_names_another_database_is_reported(rig: StepRig) -> None:
    edit(rig, b"db_name = False", b"db_name = other")
    await refused(rig, ConfUnusable, "db_name is other")


async def test_a_conf_that_cannot_be_replaced_is_reported(rig: StepRig) -> None:
    rig.site.odoo_conf.read_only.add(conf(rig))
    await refused(rig, ConfUnusable, "read-only")


async def test_tls_that_odoo_wants_and_the_dedicated_server_lacks_is_reported(rig: StepRig) -> None:
    edit(rig, b"db_name = False", b"db_name = False\ndb_sslmode = require")
    await refused(
        rig, ConfUnusable, r"db_sslmode in \[options\] is require, and postgres-dedicated-.* no TLS"
    )
    rig.target.tls = True
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.warnings == ()


async def test_an_argument_that_counts_more_than_odoo_conf_is_reported_before_a_server_is_asked_for(
    rig: StepRig,
) -> None:
    container = {"Args": ["odoo", "--db_host=postgres-pool-1"]}
    rig.service.spec["TaskTemplate"] = {"ContainerSpec": container}
    await refused(rig, Incompatible, "service odoo-acme: argument --db_host is postgres-pool-1")
    assert rig.site.database_service.calls == 0


async def test_what_is_only_suspicious_is_told_and_stops_nothing(rig: StepRig) -> None:
    edit(rig, b"db_name = False", b"db_name = False\ndb_sslmode = verify-ca\n[x]\nurl = //postgres-pool-1/x")
    await rig.site.database_service.provision(rig.instance, rig.record["customer_id"], "premium")
    rig.target.tls = True
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert [text.split(": ")[1][:24] for text in answer.warnings] == [
        "db_sslmode in [options] ",
        "url in [x] names the poo",
    ]


async def test_too_little_room_is_reported(rig: StepRig) -> None:
    rig.site.world.free = 100
    await refused(rig, Incompatible, "100 bytes free")


async def test_an_older_target_is_told(rig: StepRig) -> None:
    await rig.site.database_service.provision(rig.instance, rig.record["customer_id"], "premium")
    rig.target.version = 140010
    await refused(rig, Incompatible, "PostgreSQL 15, .* only 14")


@pytest.mark.parametrize("client", [14, 17])
async def test_client_programs_of_the_wrong_version_are_reported(rig: StepRig, client: int) -> None:
    rig.site.world.client = client
    await refused(rig, Incompatible, f"PostgreSQL {client}")


async def test_client_programs_that_cannot_read_the_pool_are_reported_before_a_server_is_asked_for(
    rig: StepRig,
) -> None:
    rig.site.world.client = 14
    await refused(rig, Incompatible, "PostgreSQL 14, postgres-pool-1 runs 15: they read no newer server")
    assert rig.site.database_service.calls == 0


async def test_an_extension_that_the_target_does_not_offer_is_told(rig: StepRig) -> None:
    rig.source.databases["acme"].extensions["postgis"] = "3.3"
    await refused(rig, Incompatible, "postgis")


async def test_the_server_is_given_back_by_the_undo(rig: StepRig) -> None:
    await rig.run("prepare")
    assert await rig.undo("prepare") == ()
    assert [row["name"] for row in rig.site.platform.servers.values()] == ["postgres-pool-1"]
    assert await rig.undo("prepare") == ()


async def test_a_server_that_was_there_before_is_left_alone_by_the_undo(rig: StepRig) -> None:
    await rig.site.database_service.provision(rig.instance, rig.record["customer_id"], "premium")
    await rig.run("prepare")
    assert await rig.undo("prepare") == ()
    assert len(rig.site.platform.servers) == 2


async def test_a_server_that_cannot_be_given_back_is_named(rig: StepRig) -> None:
    await rig.run("prepare")
    rig.site.database_service.takes_back = False
    (leftover,) = await rig.undo("prepare")
    assert f"postgres-dedicated-{rig.instance.hex[:8]}" in leftover


async def test_a_server_that_was_requested_and_is_not_listed_is_named(rig: StepRig) -> None:
    rig.site.database_service.moods = ["fails"]
    with pytest.raises(Transient):
        await rig.run("prepare")
    (leftover,) = await rig.undo("prepare")
    assert "check whether it appears later" in leftover


async def test_where_nothing_was_requested_the_undo_does_nothing(rig: StepRig) -> None:
    rig.site.world.free = 1
    with pytest.raises(Incompatible):
        await rig.run("prepare")
    assert await rig.undo("prepare") == ()
