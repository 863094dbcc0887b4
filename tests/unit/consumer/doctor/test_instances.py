"""The reconciler's findings about one instance: each where it belongs, none where everything agrees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.doctor.instances import findings
from rehome_consumer.doctor.snapshot import Trouble
from rehome_consumer.facts import RecordedFacts
from rehome_consumer.ports.operators import ClaimHolder, ConfBackup
from tests.support.snapshots import (
    DEDICATED,
    INSTANCE,
    MIGRATION,
    NOW,
    POOL,
    a_state,
    a_view,
    ago,
    an_instance,
    conf_of,
    moved,
    on_pool,
    service_of,
)

if TYPE_CHECKING:
    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.snapshot import InstanceSnapshot

TAG = f"{MIGRATION.hex[:12]}-1"
OPEN, FENCED = a_state(is_open=True), a_state(is_open=False)
CONF_BACKUP = ConfBackup(f"odoo.conf.rehome-{TAG}", TAG, ago(hours=1))
TEMPORARY_FILE = ConfBackup(".odoo.conf.rehome-0123.tmp", None, ago(hours=1))


def found(snapshot: InstanceSnapshot) -> dict[str, Finding]:
    return {one.kind: one for one in findings(snapshot, NOW)}


@pytest.mark.parametrize("snapshot", [on_pool(), moved(), on_pool("rolled_back", target=DEDICATED)])
def test_nothing_is_found_where_everything_agrees(snapshot: InstanceSnapshot) -> None:
    assert found(snapshot) == {}


DIFFERING: dict[str, list[InstanceSnapshot]] = {
    "not_checked": [on_pool(troubles=(Trouble("odoo.conf", "no such directory"),))],
    "both_writable": [moved(source_state=OPEN), moved("started", source_state=OPEN)],
    "fence_removed": [on_pool("stopped"), on_pool("restored")],
    "source_writable": [moved(source_state=OPEN, target_state=FENCED)],
    "record_without_server": [on_pool(home=None)],
    "conf_mismatch": [
        on_pool(conf=conf_of(DEDICATED), service=service_of(DEDICATED)),
        moved(conf=conf_of(POOL), service=service_of(POOL)),
    ],
    "record_mismatch": [
        on_pool(instance=an_instance(db_type="dedicated")),
        on_pool(instance=an_instance(db_host="elsewhere")),
        on_pool(instance=an_instance(db_port=5433)),
    ],
    "environment_mismatch": [on_pool(service=service_of(DEDICATED))],
    "connections_elsewhere": [
        moved(source_state=a_state(is_open=False, sessions=1)),
        on_pool("rolled_back", target=DEDICATED, target_state=a_state(is_open=False, sessions=2)),
    ],
    "in_maintenance": [on_pool(instance=an_instance(status="maintenance"))],
    "instance_down": [on_pool(service=service_of(POOL, running=0))],
    "target_role_open": [
        on_pool("rolled_back", target=DEDICATED, target_state=replace(FENCED, can_login=True))
    ],
    "source_still_fenced": [on_pool("rolled_back", source_state=FENCED)],
    "shared_login": [
        on_pool(same_login=(an_instance(),)),
        moved(same_login=(an_instance(),)),
    ],
    "leftover_temp_file": [on_pool(files=(TEMPORARY_FILE,))],
    "leftover_conf_backup": [moved(files=(CONF_BACKUP,)), on_pool(files=(CONF_BACKUP,))],
    "retirement_due": [moved(facts=RecordedFacts({"source_retained_until": ago(minutes=1).isoformat()}))],
}
FINE: dict[str, InstanceSnapshot] = {
    "a source that is open before the stop": on_pool("prepared"),
    "a source that is open while it is rolled back": on_pool("failing"),
    "a fence during a move": on_pool("stopped", source_state=FENCED),
    "a record that differs while it moves": on_pool("restored", source_state=FENCED, conf=conf_of(DEDICATED)),
    "maintenance while it moves": on_pool(
        "stopped", source_state=FENCED, instance=an_instance(status="maintenance")
    ),
    "a stopped instance": on_pool(
        instance=an_instance(status="stopped"), service=service_of(POOL, running=0)
    ),
    "a terminated instance": on_pool(
        instance=an_instance(status="terminated"), conf=None, service=None, home=None
    ),
    "a backup of odoo.conf that a move under way needs": on_pool(
        "conf_rewritten", source_state=FENCED, files=(replace(CONF_BACKUP),)
    ),
    "a source that is retained": moved(
        facts=RecordedFacts({"source_retained_until": NOW.isoformat().replace("2026", "2027")})
    ),
    "a source that was retired": moved(
        facts=RecordedFacts({"source_retained_until": ago(days=1).isoformat(), "source_retired_at": "x"}),
        source_state=replace(FENCED, connection_limit=None),
    ),
    "a fence that was there before": on_pool("rolled_back", source_state=FENCED, facts=RecordedFacts()),
    "an instance that is in neither table": on_pool(instance=None),
}


@pytest.mark.parametrize(
    ("kind", "snapshot"), [(kind, snapshot) for kind, many in DIFFERING.items() for snapshot in many]
)
def test_each_thing_that_differs_is_found_and_nothing_else(kind: str, snapshot: InstanceSnapshot) -> None:
    assert list(found(snapshot)) == [kind]
    finding = found(snapshot)[kind]
    assert finding.instance_id == INSTANCE
    assert finding.advice
    assert (finding.action is None) == (finding.repair is None)


@pytest.mark.parametrize("snapshot", FINE.values(), ids=FINE)
def test_what_is_as_intended_is_not_found(snapshot: InstanceSnapshot) -> None:
    assert found(snapshot) == {}


@pytest.mark.parametrize("kind", DIFFERING)
def test_nothing_is_found_while_a_consumer_works_on_the_instance(kind: str) -> None:
    at_work = replace(DIFFERING[kind][0], holder=ClaimHolder(INSTANCE, 1, "10.0.0.1", ago(seconds=5)))
    assert found(at_work) == {}


def test_a_fence_is_removed_only_where_record_and_odoo_conf_name_the_source() -> None:
    fenced = on_pool("rolled_back", source_state=FENCED)
    action = found(fenced)["source_still_fenced"].action
    assert action
    assert (action.repair_kind, action.server, action.thing) == ("unfence", POOL, "acme")
    assert found(replace(fenced, conf=conf_of(DEDICATED)))["source_still_fenced"].action is None
    assert found(replace(fenced, conf=None))["source_still_fenced"].action is None
    assert found(replace(fenced, home=DEDICATED))["source_still_fenced"].action is None
    both = replace(fenced, target=DEDICATED, target_state=OPEN)
    assert found(both)["source_still_fenced"].action is None


def test_a_role_is_closed_only_where_odoo_conf_does_not_name_its_server() -> None:
    snapshot = on_pool("rolled_back", target=DEDICATED, target_state=replace(FENCED, can_login=True))
    assert (
        found(snapshot)["target_role_open"].repair
        == "closes role acme on postgres-dedicated-1 and ends its sessions"
    )
    assert found(replace(snapshot, conf=conf_of(DEDICATED)))["target_role_open"].action is None


def test_only_files_of_a_migration_that_is_over_are_removed() -> None:
    assert found(moved(files=(CONF_BACKUP,)))["leftover_conf_backup"].action
    other = ConfBackup("odoo.conf.rehome-ffffffffffff-1", "ffffffffffff-1", NOW)
    assert found(moved(files=(other,)))["leftover_conf_backup"].action is None
    earlier = ConfBackup(f"odoo.conf.rehome-{MIGRATION.hex[:12]}-3", f"{MIGRATION.hex[:12]}-3", NOW)
    assert found(moved(files=(earlier,)))["leftover_conf_backup"].action
    assert found(on_pool(files=(CONF_BACKUP,)))["leftover_conf_backup"].action is None
    moving = on_pool("stopped", source_state=FENCED, files=(TEMPORARY_FILE,))
    assert found(moving)["leftover_temp_file"].action is None


def test_a_removed_fence_is_no_longer_reported_when_the_migration_is_over() -> None:
    assert list(found(on_pool("stopped"))) == ["fence_removed"]
    assert found(on_pool("stopped", migration=a_view("rejected"))) == {}
