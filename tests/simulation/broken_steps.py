"""Guarantees of steps, ports and the doctor, each broken on purpose. Calling one patches this process for good."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.adapters.postgres.replication_parts import sync_role
from rehome_consumer.doctor.repair import Repairs
from rehome_consumer.engine import decide
from rehome_consumer.facts import CAUGHT_UP, SPEC
from rehome_consumer.move import Move
from rehome_consumer.steps import back_up, prepare, restore, roll_back, start, stop
from rehome_consumer.steps.support import open_access, pacing, rehearsal, warm
from rehome_consumer.steps.support.slots import DOWN, Slot
from tests.fakes import replicator
from tests.fakes.databases import FakeDatabases
from tests.fakes.odoo_conf import FakeOdooConf
from tests.fakes.platform import FakePlatform
from tests.fakes.replicator import FakeReplicator
from tests.fakes.runtime import FakeRuntime
from tests.fakes.verifier import FakeVerifier
from tests.fakes.world import ADMIN, World
from tests.simulation.broken_engine import nothing, replace

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID


async def no_leftovers(_move: Move) -> tuple[str, ...]:
    """An undo that does nothing."""
    return ()


def _without_undo(*names: str) -> None:
    _undoing(tuple((name, no_leftovers if name in names else undo) for name, undo in _undos()))


def _undos() -> list[tuple[str, Any]]:
    return [(step.name, step.undo) for step in reversed(saga.MIGRATION[:-1]) if step.undo]


def _undoing(undos: Any) -> None:
    object.__setattr__(saga.ROLL_BACK, "run", roll_back.undoing(tuple(undos)))


def the_fence_is_forgotten() -> None:
    replace(FakeDatabases, "fence", nothing)
    for module in (back_up, restore, start):
        replace(module, "require_fence", nothing)


def short_lived_roles_are_not_dropped() -> None:
    replace(World, "_drop_role", nothing)


def the_backup_begins_before_the_fence_is_closed() -> None:
    async def fence(databases: FakeDatabases, server: Any, database: str, role: str, *_limits: Any) -> None:
        there, found = databases.world.at(server), databases.world.database(server, database)
        there.roles[role].can_login = False
        found.owner, found.closed, found.connection_limit = ADMIN, True, 0

    replace(FakeDatabases, "fence", fence)
    for module in (back_up, restore, start):
        replace(module, "require_fence", nothing)


def access_is_opened_before_the_old_task_is_gone() -> None:
    async def run(move: Move) -> Any:
        runtime = type("Runtime", (), {"stop": nothing})()
        return await original(_with(move, runtime=runtime))

    original: Callable[..., Any] = _step("restore", run)


def the_instance_is_not_stopped() -> None:
    for method in ("begin_stop", "stop"):
        replace(FakeRuntime, method, nothing)


def the_source_is_opened_before_the_target_is_closed() -> None:
    _undoing(reversed(_undos()))


def the_copy_is_not_verified() -> None:
    async def none(*_arguments: Any) -> list[str]:
        return []

    replace(restore, "differences", none)


def access_is_opened_before_the_verification() -> None:
    async def restored(move: Move) -> Any:
        class Verifier:
            some = staticmethod(move.verifier.some)

            async def fingerprint(self, server: Any, database: str, role: str) -> Any:
                if server == await move.target():
                    await open_access.run(move)
                    database = (await move.instance()).database
                return await move.verifier.fingerprint(server, database, role)

        return await original(_with(move, verifier=Verifier()))

    original = replace(restore, "_restore_verified", restored)


def _with(move: Move, **instead: Any) -> Move:
    return Move(move.event, dataclasses.replace(move.ports, **instead))


def _every_rollback_runs() -> None:
    def refusal(inbound: Any, migration: Any) -> str:
        return "" if inbound.step is saga.ROLL_BACK else str(whole(inbound, migration))

    whole = replace(decide, "_refusal", refusal)


def the_rollback_runs_past_the_point_of_no_return() -> None:
    _every_rollback_runs()


def the_rollback_does_not_look_whether_users_have_written() -> None:
    replace(open_access, "_require_nothing_written", nothing)
    _every_rollback_runs()


def the_rollback_leaves_the_record() -> None:
    replace(FakePlatform, "restore_record", nothing)


def the_rollback_leaves_odoo_conf() -> None:
    replace(FakeOdooConf, "restore_file", nothing)


def the_rollback_leaves_the_service_definition() -> None:
    replace(FakeRuntime, "restore_spec", nothing)


def the_rollback_leaves_the_source_fenced() -> None:
    replace(FakeDatabases, "unfence", nothing)


def the_rollback_leaves_the_instance_down() -> None:
    _without_undo("stop")


def the_rollback_leaves_the_scratch_database() -> None:
    _without_undo("provision")


def the_rollback_leaves_the_backup() -> None:
    _without_undo("back_up")


def the_rollback_keeps_the_dedicated_server() -> None:
    _without_undo("prepare")


def the_rollback_leaves_the_target_open() -> None:
    _without_undo("start", "restore", "provision")


def the_source_is_dropped_at_the_end() -> None:
    async def run(move: Move) -> Any:
        completed = await original(move)
        instance, source = await move.instance(), await move.source()
        move.databases._port.world.at(source).databases.pop(instance.database, None)  # type: ignore[attr-defined]
        return completed

    original: Callable[..., Any] = _step("complete", run)


def the_record_is_not_pointed_to_the_target() -> None:
    replace(FakePlatform, "point_record_to", nothing)


def odoo_conf_is_not_rewritten() -> None:
    async def rewrite(*_arguments: Any) -> tuple[str, ...]:
        return ()

    replace(FakeOdooConf, "rewrite", rewrite)


def the_environment_is_not_kept_in_step() -> None:
    replace(FakeRuntime, "configure", nothing)


def an_instance_that_was_stopped_is_left_running() -> None:
    async def run(move: Move) -> Any:
        runtime = type("Runtime", (), {"stop": nothing})()
        return await original(_with(move, runtime=runtime))

    original: Callable[..., Any] = _step("complete", run)


def the_server_is_requested_without_a_look() -> None:
    async def dedicated(move: Move) -> Any:
        class Platform:
            instance = staticmethod(move.platform.instance)
            server = staticmethod(move.platform.server)

            async def dedicated_server(self, _instance_id: UUID) -> None:
                """There is none, whatever the table says."""

        return await original(_with(move, platform=Platform()))

    original = replace(prepare, "_dedicated_server", dedicated)


def definitions_that_changed_since_the_rehearsal_are_not_noticed() -> None:
    replace(rehearsal, "require_current", nothing)


def a_paused_consumer_begins_a_move() -> None:
    replace(pacing, "require_unpaused", nothing)


def an_instance_is_stopped_outside_of_its_window() -> None:
    replace(pacing, "require_window", nothing)


def more_instances_are_down_than_may_be() -> None:
    async def take(facts: Any, *slots: Slot, waits: bool) -> None:
        more = (dataclasses.replace(slot, places=99) if slot.name == DOWN else slot for slot in slots)
        await original(facts, *more, waits=waits)

    original = replace(stop, "take", take)


def sequences_are_not_set_in_a_copy_that_followed() -> None:
    replace(FakeReplicator, "settle", nothing)


def the_last_position_is_not_waited_for() -> None:
    async def finish(move: Move, like: Any) -> Any:
        await move.facts.remember(CAUGHT_UP, value=True)
        return await original(move, like)

    original = replace(warm, "_finish", finish)


def a_copy_that_followed_is_not_verified() -> None:
    replace(warm, "_require_equal", nothing)


def the_witness_tells_of_no_table() -> None:
    async def written(_replicator: FakeReplicator, _followed: Any) -> dict[str, None]:
        return {}

    replace(FakeReplicator, "written", written)


def changed_catalogs_have_the_signature_that_they_had() -> None:
    async def signature(_verifier: FakeVerifier, *_place: Any) -> str:
        return "as ever"

    replace(FakeVerifier, "signature", signature)


def slots_are_not_dropped() -> None:
    async def remove(replicator: FakeReplicator, server: Any, migration: UUID) -> bool:
        slots = dict(replicator.world.at(server).slots)
        found: bool = await original(replicator, server, migration)
        replicator.world.at(server).slots |= slots
        return found

    original = replace(FakeReplicator, "remove", remove)


def the_rollback_leaves_what_the_copy_follows_by() -> None:
    async def clear(move: Move) -> Any:
        return await original(_with(move, replicator=type("Replicator", (), {"remove": nothing})()))

    original = replace(prepare, "_clear_rehearsal", clear)


def a_lent_replica_identity_is_not_put_back() -> None:
    replace(replicator, "_put_back", nothing)


def a_replica_identity_is_put_back_while_the_table_is_published() -> None:
    async def remove(port: FakeReplicator, server: Any, migration: UUID) -> bool:
        there = port.world.at(server)
        role = there.roles.get(sync_role(migration))
        for (name, table), identity in role.lent.items() if role else ():
            database = there.databases.get(name)
            if database is not None and database.identities.get(table) == "f":
                database.identities[table] = identity
        await asyncio.sleep(0.2)
        return bool(await original(port, server, migration))

    original = replace(FakeReplicator, "remove", remove)


def the_copy_keeps_the_lent_replica_identity() -> None:
    replace(FakeReplicator, "restore_identities", nothing)


def a_rollback_that_is_run_again_stops_the_instance_once_more() -> None:
    async def undo(move: Move) -> Any:
        spec = await move.facts.recall(SPEC)
        if spec is not None:
            await move.runtime.restore_spec(await move.instance(), spec)
        return await original(move)

    original = dict(_undos())["rewrite_conf"]
    _undoing(tuple((name, undo if name == "rewrite_conf" else one) for name, one in _undos()))


def the_rehearsal_leaves_its_dump() -> None:
    replace(
        Move, "rehearsal_id", property(lambda move: f"{move.backup_id}-rehearsal-{move.clock.now():%H%M%S}")
    )


def the_doctor_wakes_nobody() -> None:
    replace(Repairs, "_resend", nothing)


def _step(name: str, run: Any) -> Any:
    step = saga.named(name)
    assert step
    before = step.run
    object.__setattr__(step, "run", run)
    return before


BROKEN: Final = (
    the_fence_is_forgotten,
    short_lived_roles_are_not_dropped,
    the_backup_begins_before_the_fence_is_closed,
    access_is_opened_before_the_old_task_is_gone,
    the_instance_is_not_stopped,
    the_source_is_opened_before_the_target_is_closed,
    the_copy_is_not_verified,
    access_is_opened_before_the_verification,
    the_rollback_runs_past_the_point_of_no_return,
    the_rollback_does_not_look_whether_users_have_written,
    the_rollback_leaves_the_record,
    the_rollback_leaves_odoo_conf,
    the_rollback_leaves_the_service_definition,
    the_rollback_leaves_the_source_fenced,
    the_rollback_leaves_the_instance_down,
    the_rollback_leaves_the_scratch_database,
    the_rollback_leaves_the_backup,
    the_rollback_keeps_the_dedicated_server,
    the_rollback_leaves_the_target_open,
    the_source_is_dropped_at_the_end,
    the_record_is_not_pointed_to_the_target,
    odoo_conf_is_not_rewritten,
    the_environment_is_not_kept_in_step,
    an_instance_that_was_stopped_is_left_running,
    the_server_is_requested_without_a_look,
    definitions_that_changed_since_the_rehearsal_are_not_noticed,
    a_paused_consumer_begins_a_move,
    an_instance_is_stopped_outside_of_its_window,
    more_instances_are_down_than_may_be,
    sequences_are_not_set_in_a_copy_that_followed,
    the_last_position_is_not_waited_for,
    a_copy_that_followed_is_not_verified,
    the_witness_tells_of_no_table,
    changed_catalogs_have_the_signature_that_they_had,
    slots_are_not_dropped,
    the_rollback_leaves_what_the_copy_follows_by,
    a_lent_replica_identity_is_not_put_back,
    a_replica_identity_is_put_back_while_the_table_is_published,
    the_copy_keeps_the_lent_replica_identity,
    a_rollback_that_is_run_again_stops_the_instance_once_more,
    the_rehearsal_leaves_its_dump,
    the_doctor_wakes_nobody,
)
