"""`stop`, `back_up`, `provision`, `rewrite_conf`, `restore`, and their undos: while the instance is down."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from rehome_consumer.adapters.odoo.conf_files import conf_path
from rehome_consumer.adapters.postgres.ownership_tags import TagComment
from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.errors import (
    NotFound,
    NotOurs,
    Queued,
    Refused,
    TimedOut,
    Unreachable,
    VerificationFailed,
)
from rehome_consumer.model import OwnershipTag
from rehome_consumer.steps.support.common import scratch_name
from rehome_events.migration import (
    MigrationBackedUp,
    MigrationConfRewritten,
    MigrationProvisioned,
    MigrationRestored,
    MigrationStopped,
)
from tests.fakes.runtime import Behaviour
from tests.fakes.site import ORDERS, PASSWORD
from tests.fakes.world import FakeDatabase, FakeSession
from tests.support.events import body_of, migration_of, upgrade
from tests.support.steps import StepRig


async def before(step: str, **tenant: Any) -> StepRig:
    bench = StepRig(**tenant)
    await bench.until(step)
    return bench


def conf_of(bench: StepRig) -> bytes:
    return bench.site.odoo_conf.files[
        conf_path(bench.site.odoo_conf.data_root, bench.site.instance(bench.instance))
    ]


async def test_the_instance_is_down_and_fenced_when_it_is_told_so() -> None:
    bench = await before("stop")
    answer = await bench.run("stop")
    assert isinstance(answer, MigrationStopped)
    assert (answer.replicas, answer.connections_ended) == (1, 1)
    assert not bench.service.running
    assert bench.site.writable(bench.instance) == []
    assert bench.source.tenants("acme", "odoo_acme") == []
    assert bench.record["status"] == "maintenance"
    assert not bench.site.write(bench.instance, 1)


async def test_a_stop_that_is_run_again_remembers_how_it_was_before_the_first() -> None:
    bench = await before("stop")
    event = bench.event
    first = await bench.run("stop")
    bench.event = event
    second = await bench.run("stop")
    assert isinstance(first, MigrationStopped)
    assert isinstance(second, MigrationStopped)
    assert (second.replicas, second.stopped_at, second.connections_ended) == (1, first.stopped_at, 1)
    assert await bench.undo("stop") == ()
    assert bench.service.running


async def test_who_stops_or_lets_in_again_first_ends_what_a_lost_run_left_on_the_source() -> None:
    bench = await before("stop")
    world, name = bench.site.world, application_name(bench.migration)

    def leave_a_session() -> FakeSession:
        return world.enter(bench.source, "postgres", bench.source.databases["postgres"], name)

    left = leave_a_session()
    await bench.run("stop")
    assert left not in bench.source.sessions
    left = leave_a_session()
    await bench.undo("stop")
    assert left not in bench.source.sessions


async def test_an_instance_that_will_not_stop_is_not_fenced_under_it() -> None:
    bench = await before("stop")
    bench.service.tasks[0].behaviour = Behaviour(immortal=True)
    with pytest.raises(TimedOut, match="service-1-task-1"):
        await bench.run("stop")
    assert bench.source.roles["odoo_acme"].can_login


async def test_only_so_many_instances_of_a_server_are_down_for_a_dump_at_once() -> None:
    bench = await before("stop")
    for number in range(bench.site.policy.dumps_per_server):
        other = upgrade(UUID(int=number, version=4))
        row = await bench.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
        facts = bench.journal.facts(await bench.journal.begin(row, "stop", replay=None))
        assert await facts.acquire_slot(f"dump {bench.site.pool.id}", 99)
    with pytest.raises(Queued, match="postgres-pool-1"):
        await bench.run("stop")
    assert bench.service.running
    bench.journal.slots.clear()
    await bench.run("stop")
    assert not bench.service.running


async def test_the_undo_of_a_stop_lets_the_tenant_in_and_starts_what_ran() -> None:
    bench = await before("stop")
    as_before = bench.site.snapshot(bench.instance)
    await bench.run("stop")
    assert await bench.undo("stop") == ()
    assert bench.site.snapshot(bench.instance) == as_before
    assert bench.site.write(bench.instance, 1)


async def test_the_undo_of_a_stop_starts_nothing_that_did_not_run() -> None:
    bench = await before("stop", replicas=0)
    as_before = bench.site.snapshot(bench.instance)
    await bench.run("stop")
    await bench.undo("stop")
    assert bench.site.snapshot(bench.instance) == as_before


async def test_the_undo_of_a_stop_that_fenced_nothing_does_nothing() -> None:
    bench = await before("stop")
    bench.site.runtime.services.clear()
    with pytest.raises(NotFound):
        await bench.run("stop")
    assert await bench.undo("stop") == ()


async def test_a_backup_is_whole_and_sealed_when_it_is_told() -> None:
    bench = await before("back_up")
    answer = await bench.run("back_up")
    assert isinstance(answer, MigrationBackedUp)
    backup = bench.site.world.backups[answer.backup_id]
    assert backup.sealed
    assert backup.sealed.manifest_sha256 == answer.manifest_sha256
    assert backup.content.tables == bench.source.databases["acme"].tables


async def test_a_backup_that_is_there_is_not_made_again() -> None:
    bench = await before("back_up")
    event = bench.event
    first = await bench.run("back_up")
    bench.event = event
    (kept,) = bench.site.world.backups.values()
    assert await bench.run("back_up") == first
    assert list(bench.site.world.backups.values()) == [kept]


async def test_after_the_dump_others_may_have_their_turn() -> None:
    bench = await before("back_up")
    assert bench.journal.slots
    await bench.run("back_up")
    assert not bench.journal.slots


@pytest.mark.parametrize("step", ["back_up", "restore", "start"])
async def test_a_fence_that_somebody_lifted_stops_the_move(step: str) -> None:
    bench = await before(step)
    bench.source.roles["odoo_acme"].can_login = True
    with pytest.raises(Refused, match="lifted during the migration"):
        await bench.run(step)


async def test_the_undo_of_a_backup_removes_it() -> None:
    bench = await before("back_up")
    await bench.run("back_up")
    assert await bench.undo("back_up") == ()
    assert bench.site.world.backups == {}
    assert await bench.undo("back_up") == ()


@pytest.mark.parametrize(("step", "server"), [("back_up", "source"), ("provision", "target")])
async def test_who_dumps_or_makes_the_database_first_ends_what_a_lost_run_left_there(
    step: str, server: str
) -> None:
    bench = await before(step)
    where = getattr(bench, server)
    left = bench.site.world.enter(
        where, "postgres", where.databases["postgres"], application_name(bench.migration)
    )
    await bench.run(step)
    assert left not in where.sessions


async def test_role_and_scratch_database_are_there_and_nobody_gets_in() -> None:
    bench = await before("provision")
    answer = await bench.run("provision")
    assert isinstance(answer, MigrationProvisioned)
    assert (answer.role, answer.encoding, answer.collation) == ("odoo_acme", "UTF8", "C")
    scratch = bench.target.databases[answer.scratch_database]
    assert scratch.label.tag == OwnershipTag(bench.migration, 1, "scratch")
    assert scratch.owner == "odoo_acme"
    assert not bench.target.roles["odoo_acme"].can_login
    assert bench.target.roles["odoo_acme"].password == PASSWORD
    assert "acme" not in bench.target.databases


async def test_a_half_filled_scratch_database_is_replaced() -> None:
    bench = await before("provision")
    event = bench.event
    answer = await bench.run("provision")
    assert isinstance(answer, MigrationProvisioned)
    bench.target.databases[answer.scratch_database].tables["half"] = [(1,)]
    bench.event = event
    await bench.run("provision")
    assert bench.target.databases[answer.scratch_database].tables == {}


async def test_somebody_else_s_database_of_the_scratch_name_is_left_alone() -> None:
    bench = await before("provision")
    name = scratch_name(bench.event, "acme")
    bench.target.databases[name] = FakeDatabase(name, "postgres")
    with pytest.raises(NotOurs, match=name):
        await bench.run("provision")
    assert await bench.undo("provision") != ()
    assert name in bench.target.databases


@pytest.mark.parametrize("database", ["acme", "x" * 63, "ä" * 31], ids=["short", "long", "umlauts"])
async def test_a_scratch_name_fits_and_ends_with_its_migration(database: str) -> None:
    bench = await before("provision")
    name = scratch_name(bench.event, database)
    assert len(name.encode()) <= 63  # PostgreSQL's NAMEDATALEN, less one
    assert name.endswith(f"__rehome_{bench.migration.hex[:12]}-1")


async def test_the_undo_of_the_provision_leaves_neither_login_nor_database() -> None:
    bench = await before("start")
    assert bench.target.roles["odoo_acme"].can_login
    assert await bench.undo("provision") == ()
    assert not bench.target.roles["odoo_acme"].can_login
    assert list(bench.target.databases) == ["postgres"]
    assert await bench.undo("provision") == ()


async def test_what_cannot_be_removed_from_a_dead_server_is_named() -> None:
    bench = await before("rewrite_conf")
    bench.target.reachable = False
    (leftover,) = await bench.undo("provision")
    assert "acme" in leftover
    assert "postgres-dedicated-" in leftover


async def test_odoo_conf_and_environment_name_the_new_server_and_nothing_is_started() -> None:
    bench = await before("rewrite_conf")
    old = conf_of(bench)
    answer = await bench.run("rewrite_conf")
    assert isinstance(answer, MigrationConfRewritten)
    host = f"postgres-dedicated-{bench.instance.hex[:8]}"
    assert conf_of(bench) == old.replace(b"postgres-pool-1", host.encode())
    assert answer.changed == ("db_host",)
    assert bench.service.spec["env"]["ODOO_DATABASE_HOST"] == host
    assert bench.service.spec["env"]["ODOO_DATABASE_PASSWORD"] == PASSWORD
    assert bench.service.spec["env"]["ODOO_SKIP_BOOTSTRAP"] == "yes"
    assert not bench.service.running


async def test_a_rewrite_that_is_run_again_tells_what_the_first_changed() -> None:
    bench = await before("rewrite_conf")
    event = bench.event
    first = await bench.run("rewrite_conf")
    bench.event = event
    assert await bench.run("rewrite_conf") == first


async def test_the_undo_of_a_rewrite_puts_file_and_definition_back() -> None:
    bench = await before("rewrite_conf")
    old, spec = conf_of(bench), dict(bench.service.spec)
    await bench.run("rewrite_conf")
    assert await bench.undo("rewrite_conf") == ()
    assert conf_of(bench) == old
    assert bench.service.spec == spec
    assert len(bench.site.odoo_conf.files) == 1
    assert await bench.undo("rewrite_conf") == ()
    assert conf_of(bench) == old


async def test_a_definition_that_cannot_be_put_back_is_named() -> None:
    bench = await before("rewrite_conf")
    await bench.run("rewrite_conf")
    bench.site.runtime.services.clear()
    (leftover,) = await bench.undo("rewrite_conf")
    assert "could not be put back" in leftover


async def test_the_copy_is_verified_before_anybody_is_let_in() -> None:
    bench = await before("restore")
    answer = await bench.run("restore")
    assert isinstance(answer, MigrationRestored)
    copy = bench.target.databases["acme"]
    assert copy.tables == bench.source.databases["acme"].tables
    assert copy.label.tag == OwnershipTag(bench.migration, 1, "verified")
    assert answer.verified.rows == 2
    assert bench.site.writable(bench.instance) == [answer.target.name]


async def test_a_copy_that_differs_lets_nobody_in() -> None:
    bench = await before("restore")
    bench.source.databases["acme"].tables["public.res_partner"].append((3, "too late"))
    with pytest.raises(VerificationFailed, match=r"res_partner"):
        await bench.run("restore")
    assert "acme" not in bench.target.databases
    assert bench.site.writable(bench.instance) == []


async def test_of_many_differences_a_few_are_named() -> None:
    bench = await before("restore")
    for number in range(30):
        bench.source.databases["acme"].tables[f"public.t{number}"] = [(1,)]
    with pytest.raises(VerificationFailed, match=r"and 20 more"):
        await bench.run("restore")


async def test_a_restore_that_was_cut_off_begins_anew() -> None:
    bench = await before("restore")
    pause, left = bench.site.world.pause, [3]

    async def cut_off(at: str) -> None:
        await pause(at)
        if at == "copier.restore.table":
            left[0] -= 1
            if left[0] == 1:
                raise Unreachable("the connection was closed")

    bench.site.world.pause = cut_off
    with pytest.raises(ExceptionGroup):
        await bench.run("restore")
    bench.site.world.pause = pause
    await bench.run("restore")
    assert bench.target.databases["acme"].tables == bench.source.databases["acme"].tables


async def test_a_restore_that_is_run_again_copies_nothing_again() -> None:
    bench = await before("restore")
    event = bench.event
    first = await bench.run("restore")
    kept = bench.target.databases["acme"]
    bench.event = event
    bench.site.world.backups.clear()
    assert await bench.run("restore") == first
    assert bench.target.databases["acme"] is kept


async def test_without_its_backup_nothing_is_restored() -> None:
    bench = await before("restore")
    bench.site.world.backups.clear()
    with pytest.raises(NotFound, match="backup"):
        await bench.run("restore")


async def test_a_backup_that_was_altered_is_not_restored() -> None:
    bench = await before("restore")
    (backup,) = bench.site.world.backups.values()
    backup.damaged = "toc.dat"
    with pytest.raises(Refused, match=r"toc\.dat"):
        await bench.run("restore")


@pytest.mark.parametrize("state", ["scratch", "verified"])
async def test_a_database_of_another_migration_is_left_alone(state: Any) -> None:
    bench = await before("restore")
    theirs = FakeDatabase("acme", "postgres", label=TagComment(OwnershipTag(bench.instance, 1, state)))
    bench.target.databases["acme"] = theirs
    with pytest.raises(NotOurs, match=str(bench.instance)):
        await bench.run("restore")
    assert bench.target.databases["acme"] is theirs


async def test_the_undo_of_a_restore_closes_the_door() -> None:
    bench = await before("start")
    assert await bench.undo("restore") == ()
    assert bench.site.writable(bench.instance) == []
    assert await bench.undo("restore") == ()


async def test_the_undo_of_a_restore_keeps_what_was_written_meanwhile() -> None:
    bench = await before("start")
    bench.target.databases["acme"].tables[ORDERS].append((7,))
    with pytest.raises(Refused, match="going back would lose it"):
        await bench.undo("restore")
    assert bench.site.writable(bench.instance) == []
    assert bench.target.databases["acme"].tables[ORDERS] == [(7,)]


async def test_what_odoo_writes_by_itself_does_not_hold_a_rollback_up() -> None:
    bench = StepRig()
    bench.source.databases["acme"].tables["public.ir_cron"] = [(1, "nextcall")]
    await bench.until("start")
    bench.target.databases["acme"].tables["public.ir_cron"] = [(1, "later")]
    assert await bench.undo("restore") == ()


async def test_where_nobody_was_let_in_there_is_nothing_to_look_at() -> None:
    bench = await before("restore")
    bench.target.reachable = False
    assert await bench.undo("restore") == ()
