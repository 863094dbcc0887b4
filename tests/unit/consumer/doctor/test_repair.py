"""Repairs, on fakes that are tied together: what is safe is done, once, and only while nobody is at work."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.adapters.odoo.conf import kept_path
from rehome_consumer.adapters.odoo.conf_files import conf_path
from rehome_consumer.adapters.platform.rows import as_server
from rehome_consumer.adapters.postgres.ownership_tags import TagComment
from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.doctor.diagnosis import diagnose
from rehome_consumer.doctor.observer import Observer
from rehome_consumer.doctor.periodic import PeriodicDiagnosis
from rehome_consumer.doctor.repair import Repairs
from rehome_consumer.doctor.snapshot import tag
from rehome_consumer.engine.dead_letter import read_dead_letter
from rehome_consumer.errors import Conflict, Refused, Unreachable
from rehome_consumer.model import OwnershipTag
from rehome_consumer.ports.operators import DeadLetterRecord, Slot
from rehome_consumer.rabbitmq.topology import DEAD, queue_of
from tests.fakes.inspection import (
    WHEN,
    FakeBackupInventory,
    FakeInspector,
    FakeQueues,
    FakeRecords,
    FakeViews,
)
from tests.fakes.world import ADMIN, FakeDatabase, FakeRole
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
    "half_backup",
    "conf_backup",
    "still_fenced",
    "scratch_left",
    "sessions_left",
    "role_left",
    "slot_left",
)


class Clinic:
    """A rig, and the doctor in it."""

    def __init__(self) -> None:
        self.rig = Rig()
        site = self.rig.site
        self.views = FakeViews(self.rig.journal, self.rig.claims)
        self.inspector, self.inventory = FakeInspector(site.world), FakeBackupInventory()
        self.observer = Observer(
            clock=self.rig.clock,
            views=self.views,
            records=FakeRecords(site.platform),
            inspector=self.inspector,
            conf=site.odoo_conf,
            runtime=site.runtime,
            inventory=self.inventory,
            queues=FakeQueues(self.rig.node),
        )
        rig = self.rig
        self.repairs = Repairs(self.observer, rig.journal, rig.claims, rig.broker, rig.relay, site.databases)

    async def snapshot(self) -> Snapshot:
        self.rig.clock.advance(120)
        return await self.observer.everything(dead_letters=())

    async def found(self) -> dict[str, Finding]:
        """Findings by kind, a missing consumer (there is no real one) and notes about readers left out."""
        found = diagnose(await self.snapshot(), stuck_after=SILENCE)
        return {one.kind: one for one in found if one.kind != "no_reader"}

    async def rolled_back(self) -> CloudEvent[PlanUpgraded]:
        """An upgrade whose back_up was refused."""
        event = self.rig.upgraded()
        self.rig.fail("back_up.platform.instance.before", Refused("no"))
        await self.rig.run()
        assert self.rig.row(event).state == "rolled_back"
        return event


@pytest.fixture
def clinic() -> Clinic:
    return Clinic()


async def mess_up(clinic: Clinic, event: CloudEvent[PlanUpgraded]) -> None:
    """Everything that killed consumers may leave of a migration that was rolled back."""
    rig, site = clinic.rig, clinic.rig.site
    (view,) = await clinic.views.migrations()
    server = as_server(site.platform.servers[site.add_dedicated(rig.instance(event))])
    there = site.world.at(server)
    instance = site.instance(rig.instance(event))
    clinic.inventory.names[f".{view.id}-1.partial"] = WHEN
    site.odoo_conf.files[kept_path(conf_path(site.odoo_conf.data_root, instance), tag(view))] = b"old"
    await site.databases.fence(site.pool, "acme", "odoo_acme", timedelta(seconds=5))
    scratch = FakeDatabase(
        f"acme__rehome_{view.id.hex[:12]}-1", ADMIN, label=TagComment(OwnershipTag(view.id, 1, "scratch"))
    )
    there.databases[scratch.name] = scratch
    for lent in (there, site.world.at(site.pool)):
        lent.roles[f"rehome_{view.id.hex}_read"] = FakeRole(f"rehome_{view.id.hex}_read")
    making = FakeDatabase(
        f"rehome_making_{view.id.hex}", ADMIN, label=TagComment(OwnershipTag(view.id, 1, "scratch"))
    )
    there.databases[making.name] = making
    site.world.enter(there, ADMIN, there.databases["postgres"], application_name(view.id))
    clinic.inspector.slots[server.id] = [Slot(f"rehome_{view.id.hex}", active=False, kept_bytes=1)]


async def both(clinic: Clinic) -> tuple[set[str], set[str]]:
    """What is found by who may look into the dead letters, and by the consumers, who may not."""
    clinic.rig.clock.advance(120)
    assert len(clinic.rig.dead()) == 1
    delivery = clinic.rig.node.get(DEAD)
    assert delivery
    dead_letter = read_dead_letter(delivery, 0)
    delivery.return_to_queue()
    looked = (
        DeadLetterRecord(
            dead_letter.id,
            dead_letter.handler,
            dead_letter.reason,
            dead_letter.migration_id,
            dead_letter.failed_at,
        ),
    )
    with_letters, without = [
        diagnose(await clinic.observer.everything(dead_letters=dead_letters), stuck_after=SILENCE)
        for dead_letters in (looked, None)
    ]
    return {one.kind for one in with_letters}, {one.kind for one in without}


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
    [(gives_up, "dead_lettered"), (dies, "dead_lettered"), (fails, "waits_for_operator")],
    ids=["gave up", "crashed", "failed"],
)
async def test_consumers_find_what_the_command_finds_though_they_see_no_dead_letter(
    clinic: Clinic, way: Callable[[Rig], Awaitable[None]], kind: str
) -> None:
    await way(clinic.rig)
    by_command, by_consumer = await both(clinic)
    assert by_consumer == by_command
    assert kind in by_command


async def test_a_last_delivery_that_the_consumer_survives_is_no_dead_letter(clinic: Clinic) -> None:
    event = clinic.rig.upgraded()
    clinic.rig.fail("stop.claimed", CrashError(), times=5)
    async with asyncio.timeout(30):
        await clinic.rig.run(until="stop")
        for _ in range(5):
            await clinic.rig.handle_next("stop")
        async with clinic.rig.claims.claim(clinic.rig.instance(event)):
            await clinic.rig.handle_next("stop")  # somebody else is at work: it comes back
    assert clinic.rig.journal.dead_letters == {}
    await clinic.rig.run()
    assert clinic.rig.row(event).state == "completed"


async def test_after_a_rollback_nothing_is_found(clinic: Clinic) -> None:
    await clinic.rolled_back()
    assert await clinic.found() == {}


async def test_everything_that_is_left_over_is_found_repaired_and_noted(clinic: Clinic) -> None:
    event = await clinic.rolled_back()
    await mess_up(clinic, event)
    found = await clinic.found()
    assert set(FAULTS) <= set(found)
    for one in diagnose(await clinic.snapshot(), stuck_after=SILENCE):
        if one.action is not None:
            await clinic.repairs.repair(one)
    assert set(await clinic.found()) == {"unused_server"}
    site, instance = clinic.rig.site, clinic.rig.instance(event)
    assert site.writable(instance) == [site.pool.host]
    assert {what for _, what, _ in clinic.views.noted} == {"repaired by the doctor"}


async def test_a_comment_that_a_tenant_wrote_on_its_own_database_on_a_pool_proves_nothing(
    clinic: Clinic,
) -> None:
    event = await clinic.rolled_back()
    (view,) = await clinic.views.migrations()
    site = clinic.rig.site
    site.world.at(site.pool).databases["acme"].label = TagComment(OwnershipTag(view.id, 1, "scratch"))
    assert await clinic.found() == {}
    assert site.writable(clinic.rig.instance(event)) == [site.pool.host]


async def test_while_somebody_is_at_work_nothing_is_repaired(clinic: Clinic) -> None:
    event = await clinic.rolled_back()
    await mess_up(clinic, event)
    found = await clinic.found()
    async with clinic.rig.claims.claim(clinic.rig.instance(event)) as claim:
        assert claim
        assert await clinic.found() == {}  # nor told
        for kind in FAULTS:
            with pytest.raises(Conflict, match="somebody is at work"):
                await clinic.repairs.repair(found[kind])
    assert set(FAULTS) <= set(await clinic.found())


async def test_what_has_moved_on_since_it_was_seen_is_left_alone(clinic: Clinic) -> None:
    event = await clinic.rolled_back()
    await mess_up(clinic, event)
    found = await clinic.found()
    rig = clinic.rig
    rig.journal._change(rig.row(event).id, reason="somebody was here")
    for kind in FAULTS:
        with pytest.raises(Conflict, match="has moved on since it was looked at"):
            await clinic.repairs.repair(found[kind])


async def test_a_fence_is_looked_at_once_more_before_it_is_lifted(clinic: Clinic) -> None:
    event = await clinic.rolled_back()
    await mess_up(clinic, event)
    finding = (await clinic.found())["still_fenced"]
    rig = clinic.rig
    rig.site.platform.instances[rig.instance(event)]["db_server_id"] = None
    rig.site.platform.instances[rig.instance(event)]["db_host"] = "elsewhere"
    with pytest.raises(Conflict, match="has changed since it was looked at, and it is no longer safe"):
        await clinic.repairs.repair(finding)
    assert rig.site.writable(rig.instance(event)) == []


async def test_what_is_not_safe_is_not_repaired(clinic: Clinic) -> None:
    event = await clinic.rolled_back()
    await mess_up(clinic, event)
    finding = (await clinic.found())["still_fenced"]
    with pytest.raises(Conflict, match="not safe"):
        await clinic.repairs.repair(replace(finding, action=None))


async def test_a_migration_whose_delivery_was_lost_is_woken_and_completes(clinic: Clinic) -> None:
    event = clinic.rig.upgraded()
    await clinic.rig.run(until="restore")
    clinic.rig.node.queues[queue_of("restore")].ready.clear()
    found = await clinic.found()
    await clinic.repairs.repair(found["stuck"])
    await clinic.repairs.repair(found["stuck"])  # twice is once
    await clinic.rig.run()
    assert clinic.rig.row(event).state == "completed"
    assert clinic.rig.published().count("migration.completed") == 1


async def test_the_first_delivery_can_be_lost_too(clinic: Clinic) -> None:
    event = clinic.rig.upgraded()
    clinic.rig.fail("accept.platform.instance.before", Unreachable("no answer"))
    await clinic.rig.handle_next("accept")
    clinic.rig.node.queues["migration.retry.1s"].ready.clear()
    await clinic.repairs.repair((await clinic.found())["stuck"])
    await clinic.rig.run()
    assert clinic.rig.row(event).state == "completed"


async def test_past_the_point_of_no_return_a_step_without_its_letter_is_run_again(clinic: Clinic) -> None:
    event = clinic.rig.upgraded()
    clinic.rig.fail("complete.platform.instance.before", Refused("no"))
    await clinic.rig.run()
    clinic.rig.node.queues[DEAD].ready.clear()
    await clinic.repairs.repair((await clinic.found())["failed_without_dead_letter"])
    await clinic.rig.run()
    assert clinic.rig.row(event).state == "completed"


async def test_what_waits_in_the_outbox_is_sent_with_the_ids_it_has(clinic: Clinic) -> None:
    await clinic.rolled_back()
    before = clinic.rig.published()
    clinic.rig.journal.outbox[-1].sent = None
    await clinic.repairs.repair((await clinic.found())["unsent"])
    assert "unsent" not in await clinic.found()
    assert clinic.rig.published() == before


async def test_rounds_tell_what_is_new_once_and_what_is_gone(
    clinic: Clinic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rounds = PeriodicDiagnosis(clinic.observer, every=timedelta(seconds=1), stuck_after=SILENCE)
    event = await clinic.rolled_back()
    await rounds.look()
    quiet = sum(rounds.counts.values())
    await mess_up(clinic, event)
    clinic.rig.clock.advance(600)
    await rounds.look()
    await rounds.look()
    told = [record.getMessage() for record in caplog.records if "kind=still_fenced" in record.getMessage()]
    assert [line.partition(" ")[0] for line in told] == ["doctor.finding"]
    assert rounds.counts["still_fenced", "error"] == 1
    assert sum(rounds.counts.values()) > quiet
    clinic.rig.clock.advance(3601)  # after an hour it is told again
    await rounds.look()
    await clinic.repairs.repair((await clinic.found())["still_fenced"])
    await rounds.look()
    told = [record.getMessage() for record in caplog.records if "kind=still_fenced" in record.getMessage()]
    assert [line.partition(" ")[0] for line in told] == ["doctor.finding", "doctor.finding", "doctor.cleared"]
    assert rounds.looked_at == clinic.rig.clock.now()


async def test_what_cannot_be_seen_is_told_and_stops_no_other_look(clinic: Clinic) -> None:
    event = await clinic.rolled_back()
    await mess_up(clinic, event)
    site: Any = clinic.rig.site
    site.world.at(site.pool).reachable = False
    found = await clinic.found()
    assert "does not answer" in found["unseen"].what
    assert {"half_backup", "conf_backup"} <= set(found)


async def test_a_look_at_one_instance_sees_it_alone(clinic: Clinic) -> None:
    first = await clinic.rolled_back()
    other = clinic.rig.site.add_tenant("globex")
    instance: UUID = clinic.rig.instance(first)
    assert [one.id for one in (await clinic.observer.everything(instance)).instances] == [instance]
    (unmoved,) = (await clinic.observer.everything(other)).instances
    assert (unmoved.id, unmoved.migration) == (other, None)
