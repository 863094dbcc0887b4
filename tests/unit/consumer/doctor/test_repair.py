"""Repairs, on fakes that are tied together: what is safe is done, once, and only while no consumer works on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer.adapters.odoo.conf import backup_path
from rehome_consumer.adapters.odoo.conf_files import conf_path
from rehome_consumer.adapters.platform.rows import as_server
from rehome_consumer.adapters.postgres.ownership_tags import TagComment
from rehome_consumer.adapters.postgres.rehearsal_marks import mark_name
from rehome_consumer.adapters.postgres.replication_parts import apply_role, name_of
from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.doctor.diagnosis import diagnose
from rehome_consumer.doctor.observer import Observer
from rehome_consumer.doctor.periodic import PeriodicDiagnosis
from rehome_consumer.doctor.repair import Repairs
from rehome_consumer.doctor.snapshot import tag
from rehome_consumer.engine.dead_letter import read_dead_letter
from rehome_consumer.errors import Conflict, Refused, Unreachable
from rehome_consumer.model import OwnershipTag, RehearsalMark
from rehome_consumer.ports.operators import DeadLetterRecord
from rehome_consumer.rabbitmq.topology import DEAD, queue_of
from tests.fakes.inspection import (
    WHEN,
    FakeBackupInventory,
    FakeInspector,
    FakeQueueInspector,
    FakeViews,
)
from tests.fakes.world import ADMIN, FakeDatabase, FakeRole, FakeSubscription
from tests.support.rig import CrashError, Rig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.snapshot import Snapshot
    from rehome_events.billing import PlanUpgraded
    from rehome_events.envelope import CloudEvent

SILENCE = timedelta(0)
FAULTS = (
    "partial_backup",
    "leftover_conf_backup",
    "source_still_fenced",
    "leftover_scratch",
    "leftover_sessions",
    "leftover_role",
    "leftover_sync",
)


class DoctorRig:
    """A rig with the doctor."""

    def __init__(self) -> None:
        self.rig = Rig()
        site = self.rig.site
        self.views = FakeViews(self.rig.journal, self.rig.claims)
        self.inspector, self.inventory = FakeInspector(site.world), FakeBackupInventory()
        self.observer = Observer(
            clock=self.rig.clock,
            views=self.views,
            records=site.platform,
            inspector=self.inspector,
            conf=site.odoo_conf,
            runtime=site.runtime,
            inventory=self.inventory,
            queues=FakeQueueInspector(self.rig.node),
        )
        rig = self.rig
        self.repairs = Repairs(
            self.observer,
            rig.journal,
            rig.claims,
            rig.broker,
            rig.relay,
            site.databases,
            site.replicator,
            by="bert@night",
        )

    async def snapshot(self) -> Snapshot:
        self.rig.clock.advance(120)
        return await self.observer.everything(dead_letters=())

    async def found(self) -> dict[str, Finding]:
        """Findings by kind, without the one about queues without consumers (there are no real ones)."""
        found = diagnose(await self.snapshot(), stuck_after=SILENCE)
        return {one.kind: one for one in found if one.kind != "queue_not_consumed"}

    async def rolled_back(self) -> CloudEvent[PlanUpgraded]:
        """An upgrade whose back_up was refused."""
        event = self.rig.upgraded()
        self.rig.fail("back_up.platform.instance.before", Refused("no"))
        await self.rig.run()
        assert self.rig.row(event).state == "rolled_back"
        return event


@pytest.fixture
def doctor() -> DoctorRig:
    return DoctorRig()


async def leave_everything(doctor: DoctorRig, event: CloudEvent[PlanUpgraded]) -> None:
    """Everything that killed consumers may leave behind of a migration that was rolled back."""
    rig, site = doctor.rig, doctor.rig.site
    (view,) = await doctor.views.migrations()
    server = as_server(site.platform.servers[site.add_dedicated(rig.instance(event))])
    there = site.world.at(server)
    instance = site.instance(rig.instance(event))
    doctor.inventory.names[f".{view.id}-1.partial"] = WHEN
    site.odoo_conf.files[backup_path(conf_path(site.odoo_conf.data_root, instance), tag(view))] = b"old"
    await site.databases.fence(site.pool, "acme", "odoo_acme", timedelta(seconds=5))
    scratch = FakeDatabase(
        f"acme__rehome_{view.id.hex[:12]}-1", ADMIN, label=TagComment(OwnershipTag(view.id, 1, "scratch"))
    )
    there.databases[scratch.name] = scratch
    for at in (there, site.world.at(site.pool)):
        at.roles[f"rehome_{view.id.hex}_read"] = FakeRole(f"rehome_{view.id.hex}_read")
    there.roles[apply_role(view.id)] = FakeRole(apply_role(view.id))
    scratch.follows = FakeSubscription(name_of(view.id), (site.pool.host, 5432), "acme")
    making = FakeDatabase(
        f"rehome_making_{view.id.hex}", ADMIN, label=TagComment(OwnershipTag(view.id, 1, "scratch"))
    )
    there.databases[making.name] = making
    site.world.enter(there, ADMIN, there.databases["postgres"], application_name(view.id))


async def leave_a_rehearsal(doctor: DoctorRig) -> RehearsalMark:
    """What `rehome check --rehearse` leaves that was killed, long ago; a role of it is in use by now."""
    rig, site, rehearsal = doctor.rig, doctor.rig.site, uuid4()
    event = rig.upgraded()
    there = site.world.at(as_server(site.platform.servers[site.add_dedicated(rig.instance(event))]))
    scratch = f"acme__rehome_{rehearsal.hex[:12]}-1"
    mark = RehearsalMark(
        rehearsal, rig.clock.now() - timedelta(hours=1), scratch, ("rehearsal_0", "reporting")
    )
    there.roles[mark_name(rehearsal)] = FakeRole(mark_name(rehearsal), can_login=False, mark=mark)
    there.roles["rehearsal_0"] = FakeRole("rehearsal_0", can_login=False)
    there.roles["reporting"] = FakeRole("reporting")
    label = TagComment(OwnershipTag(rehearsal, 1, "scratch"))
    there.databases[scratch] = FakeDatabase(scratch, "rehearsal_0", label=label)
    for at in (there, site.world.at(site.pool)):
        at.roles[f"rehome_{rehearsal.hex}_read"] = FakeRole(f"rehome_{rehearsal.hex}_read")
    doctor.inventory.names[f".{rehearsal}-1-rehearsal.partial"] = WHEN
    return mark


async def test_what_a_killed_rehearsal_left_is_removed_everywhere(doctor: DoctorRig) -> None:
    mark = await leave_a_rehearsal(doctor)
    left = [
        one
        for one in diagnose(await doctor.snapshot(), stuck_after=SILENCE)
        if one.kind == "leftover_rehearsal"
    ]
    assert len(left) == 3
    for one in left:
        await doctor.repairs.repair(one)
    for there in doctor.rig.site.world.servers.values():
        assert mark.database not in there.databases
        assert not [name for name in there.roles if "reh" in name]
    assert any("reporting" in there.roles for there in doctor.rig.site.world.servers.values())
    assert doctor.inventory.names == {}


async def test_a_rehearsal_that_is_at_work_after_all_is_left_alone(doctor: DoctorRig) -> None:
    mark = await leave_a_rehearsal(doctor)
    left = diagnose(await doctor.snapshot(), stuck_after=SILENCE)
    (marked,) = [one for one in left if one.clearing and one.clearing.mark]
    world = doctor.rig.site.world
    assert marked.clearing
    assert marked.clearing.server
    there = world.at(marked.clearing.server)
    world.enter(there, ADMIN, there.databases["postgres"], application_name(mark.id))
    with pytest.raises(Conflict, match="is at work"):
        await doctor.repairs.repair(marked)
    assert mark.database in there.databases


async def both(doctor: DoctorRig) -> tuple[set[str], set[str]]:
    """What is found with the dead letters read, and by consumers, which may not read them."""
    doctor.rig.clock.advance(120)
    assert len(doctor.rig.dead()) == 1
    delivery = doctor.rig.node.get(DEAD)
    assert delivery
    dead_letter = read_dead_letter(delivery, 0)
    delivery.return_to_queue()
    read = (
        DeadLetterRecord(
            dead_letter.id,
            dead_letter.handler,
            dead_letter.reason,
            dead_letter.migration_id,
            dead_letter.failed_at,
        ),
    )
    with_dead_letters, without = [
        diagnose(await doctor.observer.everything(dead_letters=dead_letters), stuck_after=SILENCE)
        for dead_letters in (read, None)
    ]
    return {one.kind for one in with_dead_letters}, {one.kind for one in without}


async def gives_up(rig: Rig) -> None:
    rig.upgraded()
    await rig.run(until="stop")
    ((key, _),) = [one for one in rig.journal.steps.items() if one[0][2] == "prepare"]
    prepared = rig.journal.steps.pop(key)
    await rig.run()
    rig.journal.steps[key] = prepared
    assert rig.dead() == [("stop", "gave_up_waiting")]


async def dies(rig: Rig) -> None:
    rig.upgraded()
    rig.fail("stop.claimed", CrashError(), times=6)
    await rig.run()
    assert rig.dead() == [("stop", "None")]


async def fails(rig: Rig) -> None:
    rig.upgraded()
    rig.fail("accept.platform.instance.before", Refused("no"))
    await rig.run()
    assert rig.dead() == [("accept", "failed")]


@pytest.mark.parametrize(
    ("way", "kind"),
    [(gives_up, "dead_lettered"), (dies, "dead_lettered"), (fails, "waiting_for_operator")],
    ids=["gave up", "crashed", "failed"],
)
async def test_consumers_find_what_the_command_finds_though_they_read_no_dead_letters(
    doctor: DoctorRig, way: Callable[[Rig], Awaitable[None]], kind: str
) -> None:
    await way(doctor.rig)
    by_command, by_consumer = await both(doctor)
    assert by_consumer == by_command
    assert kind in by_command


async def test_a_last_delivery_that_the_consumer_survives_is_no_dead_letter(doctor: DoctorRig) -> None:
    event = doctor.rig.upgraded()
    doctor.rig.fail("stop.claimed", CrashError(), times=5)
    async with asyncio.timeout(30):
        await doctor.rig.run(until="stop")
        for _ in range(5):
            await doctor.rig.handle_next("stop")
        async with doctor.rig.claims.claim(doctor.rig.instance(event)):
            await doctor.rig.handle_next("stop")  # another consumer works on it: the delivery is deferred
    assert doctor.rig.journal.dead_letters == {}
    await doctor.rig.run()
    assert doctor.rig.row(event).state == "completed"


async def test_after_a_rollback_nothing_is_found(doctor: DoctorRig) -> None:
    await doctor.rolled_back()
    assert await doctor.found() == {}


async def test_everything_that_is_left_over_is_found_repaired_and_recorded(doctor: DoctorRig) -> None:
    event = await doctor.rolled_back()
    await leave_everything(doctor, event)
    found = await doctor.found()
    assert set(FAULTS) <= set(found)
    for one in diagnose(await doctor.snapshot(), stuck_after=SILENCE):
        if one.action is not None:
            await doctor.repairs.repair(one)
    assert set(await doctor.found()) == {"unused_server"}
    site, instance = doctor.rig.site, doctor.rig.instance(event)
    assert site.writable(instance) == [site.pool.host]
    assert {what for _, what, _ in doctor.views.noted} == {"repaired by the doctor"}
    assert all(detail.startswith("by bert@night; ") for _, _, detail in doctor.views.noted)


async def test_a_comment_that_a_tenant_wrote_on_its_own_database_on_a_pool_proves_nothing(
    doctor: DoctorRig,
) -> None:
    event = await doctor.rolled_back()
    (view,) = await doctor.views.migrations()
    site = doctor.rig.site
    site.world.at(site.pool).databases["acme"].label = TagComment(OwnershipTag(view.id, 1, "scratch"))
    assert await doctor.found() == {}
    assert site.writable(doctor.rig.instance(event)) == [site.pool.host]


async def test_while_a_consumer_works_on_the_instance_nothing_is_repaired(doctor: DoctorRig) -> None:
    event = await doctor.rolled_back()
    await leave_everything(doctor, event)
    found = await doctor.found()
    async with doctor.rig.claims.claim(doctor.rig.instance(event)) as claim:
        assert claim
        assert await doctor.found() == {}  # nor reported
        for kind in FAULTS:
            with pytest.raises(Conflict, match="a consumer works on instance"):
                await doctor.repairs.repair(found[kind])
    assert set(FAULTS) <= set(await doctor.found())


async def test_what_has_changed_since_the_check_is_left_alone(doctor: DoctorRig) -> None:
    event = await doctor.rolled_back()
    await leave_everything(doctor, event)
    found = await doctor.found()
    rig = doctor.rig
    rig.journal._change(rig.row(event).id, reason="another process was here")
    for kind in FAULTS:
        with pytest.raises(Conflict, match="has changed since it was checked"):
            await doctor.repairs.repair(found[kind])


async def test_a_fence_is_checked_once_more_before_it_is_removed(doctor: DoctorRig) -> None:
    event = await doctor.rolled_back()
    await leave_everything(doctor, event)
    finding = (await doctor.found())["source_still_fenced"]
    rig = doctor.rig
    rig.site.platform.instances[rig.instance(event)]["db_server_id"] = None
    rig.site.platform.instances[rig.instance(event)]["db_host"] = "elsewhere"
    with pytest.raises(Conflict, match="has changed since it was checked, and the repair is no longer safe"):
        await doctor.repairs.repair(finding)
    assert rig.site.writable(rig.instance(event)) == []


async def test_what_is_not_safe_is_not_repaired(doctor: DoctorRig) -> None:
    event = await doctor.rolled_back()
    await leave_everything(doctor, event)
    finding = (await doctor.found())["source_still_fenced"]
    with pytest.raises(Conflict, match="not safe"):
        await doctor.repairs.repair(replace(finding, action=None))


async def test_a_migration_whose_delivery_was_lost_gets_it_again_and_completes(doctor: DoctorRig) -> None:
    event = doctor.rig.upgraded()
    await doctor.rig.run(until="restore")
    doctor.rig.node.queues[queue_of("restore")].ready.clear()
    found = await doctor.found()
    await doctor.repairs.repair(found["stuck"])
    await doctor.repairs.repair(found["stuck"])  # twice is once
    await doctor.rig.run()
    assert doctor.rig.row(event).state == "completed"
    assert doctor.rig.published().count("migration.completed") == 1


async def test_the_first_delivery_can_be_lost_too(doctor: DoctorRig) -> None:
    event = doctor.rig.upgraded()
    doctor.rig.fail("accept.platform.instance.before", Unreachable("no answer"))
    await doctor.rig.handle_next("accept")
    doctor.rig.node.queues["migration.retry.1s"].ready.clear()
    await doctor.repairs.repair((await doctor.found())["stuck"])
    await doctor.rig.run()
    assert doctor.rig.row(event).state == "completed"


async def test_past_the_point_of_no_return_a_step_without_its_dead_letter_is_run_again(
    doctor: DoctorRig,
) -> None:
    event = doctor.rig.upgraded()
    doctor.rig.fail("complete.platform.instance.before", Refused("no"))
    await doctor.rig.run()
    doctor.rig.node.queues[DEAD].ready.clear()
    await doctor.repairs.repair((await doctor.found())["dead_letter_missing"])
    await doctor.rig.run()
    assert doctor.rig.row(event).state == "completed"


async def test_what_waits_in_the_outbox_is_sent_with_the_ids_it_has(doctor: DoctorRig) -> None:
    await doctor.rolled_back()
    before = doctor.rig.published()
    doctor.rig.journal.outbox[-1].sent = None
    await doctor.repairs.repair((await doctor.found())["unsent_events"])
    assert "unsent_events" not in await doctor.found()
    assert doctor.rig.published() == before


async def test_periodic_checks_report_what_is_new_once_and_what_is_resolved(
    doctor: DoctorRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    periodic = PeriodicDiagnosis(doctor.observer, every=timedelta(seconds=1), stuck_after=SILENCE)
    event = await doctor.rolled_back()
    await periodic.check()
    before = sum(periodic.counts.values())
    await leave_everything(doctor, event)
    doctor.rig.clock.advance(600)
    await periodic.check()
    await periodic.check()
    lines = [
        record.getMessage() for record in caplog.records if "kind=source_still_fenced" in record.getMessage()
    ]
    assert [line.partition(" ")[0] for line in lines] == ["doctor.finding"]
    assert periodic.counts["source_still_fenced", "error"] == 1
    assert sum(periodic.counts.values()) > before
    doctor.rig.clock.advance(3601)  # after an hour it is reported again
    await periodic.check()
    await doctor.repairs.repair((await doctor.found())["source_still_fenced"])
    await periodic.check()
    lines = [
        record.getMessage() for record in caplog.records if "kind=source_still_fenced" in record.getMessage()
    ]
    assert [line.partition(" ")[0] for line in lines] == [
        "doctor.finding",
        "doctor.finding",
        "doctor.cleared",
    ]
    assert periodic.checked_at == doctor.rig.clock.now()


async def test_what_cannot_be_read_is_reported_and_stops_no_other_check(doctor: DoctorRig) -> None:
    event = await doctor.rolled_back()
    await leave_everything(doctor, event)
    site: Any = doctor.rig.site
    site.world.at(site.pool).reachable = False
    found = await doctor.found()
    assert "does not answer" in found["not_checked"].what
    assert {"partial_backup", "leftover_conf_backup"} <= set(found)


async def test_a_check_of_one_instance_reads_it_alone(doctor: DoctorRig) -> None:
    first = await doctor.rolled_back()
    other = doctor.rig.site.add_tenant("globex")
    instance: UUID = doctor.rig.instance(first)
    assert [one.id for one in (await doctor.observer.everything(instance)).instances] == [instance]
    (unmoved,) = (await doctor.observer.everything(other)).instances
    assert (unmoved.id, unmoved.migration) == (other, None)
