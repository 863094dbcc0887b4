"""`stop`, `back_up`, `provision`, `rewrite_conf`, `restore`, and their undos: while the instance is down."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from rehome_consumer.adapters.odoo.conf_files import conf_path
from rehome_consumer.adapters.postgres.ownership_tags import TagComment
from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.engine.outcome import gravest
from rehome_consumer.errors import (
    Incompatible,
    NotFound,
    NotOurs,
    Queued,
    Refused,
    TimedOut,
    Unreachable,
    VerificationFailed,
)
from rehome_consumer.model import OwnershipTag
from rehome_consumer.move import scratch_name
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
from tests.support.slots import got
from tests.support.steps import StepRig


async def before(step: str, **tenant: Any) -> StepRig:
    rig = StepRig(**tenant)
    await rig.until(step)
    return rig


def conf_of(rig: StepRig) -> bytes:
    return rig.site.odoo_conf.files[conf_path(rig.site.odoo_conf.data_root, rig.site.instance(rig.instance))]


async def test_the_instance_is_fenced_and_going_away_when_the_event_says_so() -> None:
    rig = await before("stop")
    answer = await rig.run("stop")
    assert isinstance(answer, MigrationStopped)
    assert (answer.replicas, answer.connections_ended) == (1, 1)
    assert (rig.service.spec["replicas"], rig.service.staying) == (0, [])
    assert rig.service.running, "nobody waits for its end yet"
    assert rig.site.writable(rig.instance) == []
    assert rig.source.tenants("acme", "odoo_acme") == []
    assert rig.record["status"] == "maintenance"
    assert not rig.site.write(rig.instance, 1)


async def test_a_stop_that_is_run_again_remembers_how_it_was_before_the_first() -> None:
    rig = await before("stop")
    event = rig.event
    first = await rig.run("stop")
    rig.event = event
    second = await rig.run("stop")
    assert isinstance(first, MigrationStopped)
    assert isinstance(second, MigrationStopped)
    assert (second.replicas, second.stopped_at, second.connections_ended) == (1, first.stopped_at, 1)
    assert await rig.undo("stop") == ()
    assert rig.service.running


async def test_stop_and_its_undo_first_end_what_a_lost_run_left_on_the_source() -> None:
    rig = await before("stop")
    world, name = rig.site.world, application_name(rig.migration)

    def leave_a_session() -> FakeSession:
        return world.enter(rig.source, "postgres", rig.source.databases["postgres"], name)

    left = leave_a_session()
    await rig.run("stop")
    assert left not in rig.source.sessions
    left = leave_a_session()
    await rig.undo("stop")
    assert left not in rig.source.sessions


async def test_the_copy_is_not_opened_before_the_last_task_has_ended() -> None:
    rig = await before("restore")
    rig.service.tasks[0].behaviour = Behaviour(immortal=True)
    with pytest.raises(BaseExceptionGroup) as raised:
        await rig.run("restore")
    assert isinstance(gravest(raised.value), TimedOut)
    assert "service-1-task-1" in str(gravest(raised.value))
    assert not rig.target.roles["odoo_acme"].can_login
    rig.service.tasks[0].behaviour = Behaviour()
    await rig.run("restore")
    assert rig.service.running == []
    assert rig.target.roles["odoo_acme"].can_login


async def test_quick_starts_the_new_task_beside_the_fenced_one_that_ends() -> None:
    rig = StepRig()
    rig.site.policy = replace(rig.site.policy, cutover="quick")
    await rig.until("start")
    (old,) = rig.service.running
    assert rig.target.roles["odoo_acme"].can_login
    assert rig.site.writers(rig.instance) == []
    await rig.run("start")
    assert [task is old for task in rig.service.running] == [True, False]
    (writer,) = rig.site.writers(rig.instance)
    assert writer != old.id
    assert rig.site.writable(rig.instance) == [f"postgres-dedicated-{rig.instance.hex[:8]}"]


@pytest.mark.parametrize("step", ["back_up", "restore"])
async def test_a_task_that_does_not_end_does_not_keep_the_customer_down_after_a_rollback(step: str) -> None:
    rig = await before(step)
    rig.service.tasks[0].behaviour = Behaviour(immortal=True)
    for undone in ("restore", "rewrite_conf", "provision", "back_up", "stop"):
        assert await rig.undo(undone) == ()
    assert len(rig.service.staying) == 1
    assert rig.site.write(rig.instance, 1)
    assert rig.record["status"] == "running"


async def test_a_rollback_that_is_run_again_does_not_stop_the_customer_a_second_time() -> None:
    rig = await before("restore")
    undos = ("restore", "rewrite_conf", "provision", "back_up", "stop")
    for undone in undos:
        await rig.undo(undone)
    serving = rig.service.staying
    for undone in undos:
        await rig.undo(undone)
        assert rig.service.staying == serving, undone
    assert len(serving) == 1


async def test_a_rollback_that_goes_on_leaves_what_it_started_alone() -> None:
    rig = await before("back_up")
    await rig.undo("stop")
    (started,) = rig.service.running
    assert await rig.undo("stop") == ()
    assert rig.service.running == [started]


async def test_only_so_many_instances_of_a_server_are_down_for_a_dump_at_once() -> None:
    rig = await before("stop")
    for number in range(rig.site.policy.dumps_per_server):
        other = upgrade(UUID(int=number, version=4))
        row = await rig.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
        facts = rig.journal.facts(await rig.journal.begin(row, "stop", replay=None))
        assert await got(facts, f"dump {rig.site.pool.id}", 99)
    with pytest.raises(Queued, match="postgres-pool-1"):
        await rig.run("stop")
    assert rig.service.running
    rig.journal.slots.clear()
    await rig.run("stop")
    assert not rig.service.staying


async def test_the_undo_of_a_stop_opens_the_source_and_starts_what_ran() -> None:
    rig = await before("stop")
    as_before = rig.site.snapshot(rig.instance)
    await rig.run("stop")
    assert await rig.undo("stop") == ()
    assert rig.site.snapshot(rig.instance) == as_before
    assert rig.site.write(rig.instance, 1)


async def test_the_undo_of_a_stop_starts_nothing_that_did_not_run() -> None:
    rig = await before("stop", replicas=0)
    as_before = rig.site.snapshot(rig.instance)
    await rig.run("stop")
    await rig.undo("stop")
    assert rig.site.snapshot(rig.instance) == as_before


async def test_the_undo_of_a_stop_that_fenced_nothing_does_nothing() -> None:
    rig = await before("stop")
    rig.site.runtime.services.clear()
    with pytest.raises(NotFound):
        await rig.run("stop")
    assert await rig.undo("stop") == ()


async def test_a_backup_is_complete_and_sealed_when_the_event_says_so() -> None:
    rig = await before("back_up")
    answer = await rig.run("back_up")
    assert isinstance(answer, MigrationBackedUp)
    backup = rig.site.world.backups[answer.backup_id]
    assert backup.sealed
    assert backup.sealed.manifest_sha256 == answer.manifest_sha256
    assert backup.content.tables == rig.source.databases["acme"].tables


async def test_a_backup_that_is_there_is_not_made_again() -> None:
    rig = await before("back_up")
    event = rig.event
    first = await rig.run("back_up")
    rig.event = event
    (backup,) = rig.site.world.backups.values()
    assert await rig.run("back_up") == first
    assert list(rig.site.world.backups.values()) == [backup]


async def test_after_the_dump_its_slot_is_free() -> None:
    rig = await before("back_up")
    assert rig.journal.slots
    await rig.run("back_up")
    assert not rig.journal.slots


@pytest.mark.parametrize("step", ["back_up", "restore", "start"])
async def test_a_fence_that_was_lifted_stops_the_move(step: str) -> None:
    rig = await before(step)
    rig.source.roles["odoo_acme"].can_login = True
    with pytest.raises(Refused, match="lifted during the migration"):
        await rig.run(step)


async def test_the_undo_of_a_backup_removes_it() -> None:
    rig = await before("back_up")
    await rig.run("back_up")
    assert await rig.undo("back_up") == ()
    assert rig.site.world.backups == {}
    assert await rig.undo("back_up") == ()


@pytest.mark.parametrize(("step", "server"), [("back_up", "source"), ("provision", "target")])
async def test_dump_and_provision_first_end_what_a_lost_run_left_there(step: str, server: str) -> None:
    rig = await before(step)
    where = getattr(rig, server)
    left = rig.site.world.enter(
        where, "postgres", where.databases["postgres"], application_name(rig.migration)
    )
    await rig.run(step)
    assert left not in where.sessions


async def test_role_and_scratch_database_are_there_and_nobody_gets_in() -> None:
    rig = await before("provision")
    answer = await rig.run("provision")
    assert isinstance(answer, MigrationProvisioned)
    assert (answer.role, answer.encoding, answer.collation) == ("odoo_acme", "UTF8", "C")
    scratch = rig.target.databases[answer.scratch_database]
    assert scratch.label.tag == OwnershipTag(rig.migration, 1, "scratch")
    assert scratch.owner == "odoo_acme"
    assert not rig.target.roles["odoo_acme"].can_login
    assert rig.target.roles["odoo_acme"].password == PASSWORD
    assert "acme" not in rig.target.databases


async def test_a_half_filled_scratch_database_is_replaced() -> None:
    rig = await before("provision")
    event = rig.event
    answer = await rig.run("provision")
    assert isinstance(answer, MigrationProvisioned)
    rig.target.databases[answer.scratch_database].tables["half"] = [(1,)]
    rig.event = event
    await rig.run("provision")
    assert rig.target.databases[answer.scratch_database].tables == {}


async def test_another_database_of_the_scratch_name_is_left_alone() -> None:
    rig = await before("provision")
    name = await (await rig.move("provision")).scratch_name()
    rig.target.databases[name] = FakeDatabase(name, "postgres")
    with pytest.raises(NotOurs, match=name):
        await rig.run("provision")
    assert await rig.undo("provision") != ()
    assert name in rig.target.databases


@pytest.mark.parametrize("database", ["acme", "x" * 63, "ä" * 31], ids=["short", "long", "umlauts"])
def test_a_scratch_name_fits_and_ends_with_its_attempt(database: str) -> None:
    name = scratch_name("0123456789ab-1", database)
    assert len(name.encode()) <= 63  # PostgreSQL's NAMEDATALEN, less one
    assert name.endswith("__rehome_0123456789ab-1")


async def test_the_undo_of_the_provision_leaves_neither_login_nor_database() -> None:
    rig = await before("start")
    assert rig.target.roles["odoo_acme"].can_login
    assert await rig.undo("provision") == ()
    assert not rig.target.roles["odoo_acme"].can_login
    assert list(rig.target.databases) == ["postgres"]
    assert await rig.undo("provision") == ()


async def test_what_cannot_be_removed_from_a_dead_server_is_named() -> None:
    rig = await before("rewrite_conf")
    rig.target.reachable = False
    (leftover,) = await rig.undo("provision")
    assert "acme" in leftover
    assert "postgres-dedicated-" in leftover


async def test_odoo_conf_and_environment_name_the_new_server_and_nothing_is_started() -> None:
    rig = await before("rewrite_conf")
    old = conf_of(rig)
    answer = await rig.run("rewrite_conf")
    assert isinstance(answer, MigrationConfRewritten)
    host = f"postgres-dedicated-{rig.instance.hex[:8]}"
    assert conf_of(rig) == old.replace(b"postgres-pool-1", host.encode())
    assert answer.changed == ("db_host",)
    assert rig.service.spec["env"]["ODOO_DATABASE_HOST"] == host
    assert rig.service.spec["env"]["ODOO_DATABASE_PASSWORD"] == PASSWORD
    assert rig.service.spec["env"]["ODOO_SKIP_BOOTSTRAP"] == "yes"
    assert not rig.service.staying


async def test_a_rewrite_that_is_run_again_reports_what_the_first_changed() -> None:
    rig = await before("rewrite_conf")
    event = rig.event
    first = await rig.run("rewrite_conf")
    rig.event = event
    assert await rig.run("rewrite_conf") == first


async def test_what_else_reaches_the_database_follows_it_and_comes_back_with_the_undo() -> None:
    rig = StepRig()
    files = rig.site.odoo_conf.files
    (path,) = files
    files[path] += b"db_replica_host = pool-1-replica\n[queue_job]\njobrunner_db_host = postgres-pool-1\n"
    rig.service.spec["env"] |= {"PGHOST": "postgres-pool-1", "PGUSER": "someone"}
    await rig.until("rewrite_conf")
    old, spec = conf_of(rig), copy.deepcopy(rig.service.spec)
    event = rig.event
    answer = await rig.run("rewrite_conf")
    assert isinstance(answer, MigrationConfRewritten)
    host = f"postgres-dedicated-{rig.instance.hex[:8]}"
    assert answer.changed == ("db_host", "db_replica_host", "queue_job.jobrunner_db_host")
    assert conf_of(rig) == old.replace(b"postgres-pool-1", host.encode()).replace(
        b"pool-1-replica", host.encode()
    )
    env = rig.service.spec["env"]
    assert (env["PGHOST"], env["PGUSER"], env["ODOO_DATABASE_HOST"]) == (host, "someone", host)
    rig.event = event
    assert await rig.run("rewrite_conf") == answer
    await rig.undo("rewrite_conf")
    assert (conf_of(rig), rig.service.spec) == (old, spec)


async def test_an_odoo_conf_that_forbids_the_move_by_now_is_left_as_it_is() -> None:
    rig = await before("rewrite_conf")
    rig.service.spec["env"]["PGHOSTADDR"] = "10.0.0.1"
    old = conf_of(rig)
    with pytest.raises(Incompatible, match="PGHOSTADDR"):
        await rig.run("rewrite_conf")
    assert conf_of(rig) == old
    assert len(rig.site.odoo_conf.files) == 1


async def test_the_undo_of_a_rewrite_restores_file_and_definition() -> None:
    rig = await before("rewrite_conf")
    old, spec = conf_of(rig), dict(rig.service.spec)
    await rig.run("rewrite_conf")
    assert await rig.undo("rewrite_conf") == ()
    assert conf_of(rig) == old
    assert rig.service.spec == spec
    assert len(rig.site.odoo_conf.files) == 1
    assert await rig.undo("rewrite_conf") == ()
    assert conf_of(rig) == old


async def test_a_definition_that_cannot_be_restored_is_named() -> None:
    rig = await before("rewrite_conf")
    await rig.run("rewrite_conf")
    rig.site.runtime.services.clear()
    (leftover,) = await rig.undo("rewrite_conf")
    assert "could not be restored" in leftover


async def test_the_copy_is_verified_before_anyone_can_log_in() -> None:
    rig = await before("restore")
    answer = await rig.run("restore")
    assert isinstance(answer, MigrationRestored)
    copy = rig.target.databases["acme"]
    assert copy.tables == rig.source.databases["acme"].tables
    assert copy.label.tag == OwnershipTag(rig.migration, 1, "verified")
    assert answer.verified.rows == 2
    assert rig.site.writable(rig.instance) == [answer.target.name]


async def test_nobody_can_log_in_to_a_copy_that_differs() -> None:
    rig = await before("restore")
    rig.source.databases["acme"].tables["public.res_partner"].append((3, "too late"))
    with pytest.raises(VerificationFailed, match=r"res_partner"):
        await rig.run("restore")
    assert "acme" not in rig.target.databases
    assert rig.site.writable(rig.instance) == []


async def test_of_many_differences_a_few_are_named() -> None:
    rig = await before("restore")
    for number in range(30):
        rig.source.databases["acme"].tables[f"public.t{number}"] = [(1,)]
    with pytest.raises(VerificationFailed, match=r"and 20 more"):
        await rig.run("restore")


async def test_a_restore_that_was_cut_off_starts_again() -> None:
    rig = await before("restore")
    pause, left = rig.site.world.pause, [3]

    async def cut_off(at: str) -> None:
        await pause(at)
        if at == "copier.restore.table":
            left[0] -= 1
            if left[0] == 1:
                raise Unreachable("the connection was closed")

    rig.site.world.pause = cut_off
    with pytest.raises(ExceptionGroup):
        await rig.run("restore")
    rig.site.world.pause = pause
    await rig.run("restore")
    assert rig.target.databases["acme"].tables == rig.source.databases["acme"].tables


async def test_a_restore_that_is_run_again_copies_nothing_again() -> None:
    rig = await before("restore")
    event = rig.event
    first = await rig.run("restore")
    copy = rig.target.databases["acme"]
    rig.event = event
    rig.site.world.backups.clear()
    assert await rig.run("restore") == first
    assert rig.target.databases["acme"] is copy


async def test_without_its_backup_nothing_is_restored() -> None:
    rig = await before("restore")
    rig.site.world.backups.clear()
    with pytest.raises(NotFound, match="backup"):
        await rig.run("restore")


async def test_a_backup_that_was_altered_is_not_restored() -> None:
    rig = await before("restore")
    (backup,) = rig.site.world.backups.values()
    backup.damaged = "toc.dat"
    with pytest.raises(Refused, match=r"toc\.dat"):
        await rig.run("restore")


@pytest.mark.parametrize("state", ["scratch", "verified"])
async def test_a_database_of_another_migration_is_left_alone(state: Any) -> None:
    rig = await before("restore")
    other = FakeDatabase("acme", "postgres", label=TagComment(OwnershipTag(rig.instance, 1, state)))
    rig.target.databases["acme"] = other
    with pytest.raises(NotOurs, match=str(rig.instance)):
        await rig.run("restore")
    assert rig.target.databases["acme"] is other


async def test_the_undo_of_a_restore_closes_the_role() -> None:
    rig = await before("start")
    assert await rig.undo("restore") == ()
    assert rig.site.writable(rig.instance) == []
    assert await rig.undo("restore") == ()


async def test_the_undo_of_a_restore_keeps_what_was_written_meanwhile() -> None:
    rig = await before("start")
    rig.target.databases["acme"].tables[ORDERS].append((7,))
    with pytest.raises(Refused, match="going back would lose it"):
        await rig.undo("restore")
    assert rig.site.writable(rig.instance) == []
    assert rig.target.databases["acme"].tables[ORDERS] == [(7,)]


async def test_the_undo_of_a_restore_finds_what_was_renamed_meanwhile() -> None:
    rig = await before("start")
    renamed = rig.target.databases["kept"] = rig.target.databases.pop("acme")
    renamed.name = "kept"
    renamed.tables[ORDERS].append((7,))
    with pytest.raises(Refused, match=r"role odoo_acme has more on .*: owns database kept"):
        await rig.undo("restore")
    assert rig.site.writable(rig.instance) == []
    rig.target.databases["acme"] = rig.target.databases.pop("kept")
    renamed.name = "acme"
    with pytest.raises(Refused, match="something was written to acme"):
        await rig.undo("restore")
    del rig.target.databases["acme"]  # as the message says
    assert await rig.undo("restore") == ()


async def test_the_undo_of_a_restore_finds_what_was_made_meanwhile_and_closes_the_role_first() -> None:
    """The role may have CREATEDB, and Odoo's database manager uses it."""
    rig = await before("start")
    rig.target.databases["copied"] = FakeDatabase("copied", "odoo_acme")
    with pytest.raises(
        Refused, match=r"role odoo_acme has more on .*: owns database copied.*drop what was made"
    ):
        await rig.undo("restore")
    assert rig.site.writable(rig.instance) == []
    del rig.target.databases["copied"]
    assert await rig.undo("restore") == ()


async def test_what_odoo_writes_by_itself_does_not_hold_a_rollback_up() -> None:
    rig = StepRig()
    rig.source.databases["acme"].tables["public.ir_cron"] = [(1, "nextcall")]
    await rig.until("start")
    rig.target.databases["acme"].tables["public.ir_cron"] = [(1, "later")]
    assert await rig.undo("restore") == ()


async def test_where_nobody_could_log_in_there_is_nothing_to_compare() -> None:
    rig = await before("restore")
    rig.target.reachable = False
    assert await rig.undo("restore") == ()
