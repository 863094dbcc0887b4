"""When the old database of a completed migration may be dropped: every reason against it, one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.doctor.retirement import refusals
from rehome_consumer.model import OwnershipTag
from rehome_consumer.ports.operators import ClaimHolder, Completed
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
    service_of,
)

if TYPE_CHECKING:
    from rehome_consumer.doctor.snapshot import InstanceSnapshot

DUE = Completed(MIGRATION, INSTANCE, 1, ago(days=8), ago(days=1))
FENCED = a_state(is_open=False)


def test_it_may_be_dropped_when_the_instance_uses_its_new_database_and_the_retention_is_over() -> None:
    assert refusals(DUE, moved(), NOW, early=False) == []


def test_a_source_that_does_not_exist_any_more_may_be_retired() -> None:
    missing = moved(source_state=replace(FENCED, connection_limit=None))
    assert refusals(DUE, missing, NOW, early=False) == []


AGAINST: dict[str, InstanceSnapshot] = {
    "not in the platform's table": moved(instance=None),
    "is terminated": moved(instance=an_instance(status="terminated")),
    "a consumer works on": moved(holder=ClaimHolder(INSTANCE, 1, "10.0.0.1", NOW)),
    "a later migration": moved(migration=a_view("completed", id=INSTANCE)),
    "dedicated server is not in": moved(target=None),
    "the record names postgres-pool-1": moved(home=POOL),
    "could not be read": moved(conf=None),
    "names pool-1:5432": moved(conf=conf_of(POOL)),
    "does not run": moved(service=service_of(DEDICATED, running=0)),
    "no connection to its database": moved(target_state=a_state(is_open=True, sessions=0)),
    "could not be checked": moved(source_state=None),
    "is not a shared pool": moved(source=replace(POOL, kind="dedicated")),
    "has an ownership tag": moved(source_state=replace(FENCED, tag=OwnershipTag(MIGRATION, 1, "verified"))),
    "is not fenced": moved(source_state=replace(FENCED, closed=False)),
    "connection(s) to acme": moved(source_state=replace(FENCED, sessions=1)),
}


@pytest.mark.parametrize(("reason", "snapshot"), AGAINST.items(), ids=AGAINST)
def test_it_stays_for_each_of_these_reasons_and_early_or_not(reason: str, snapshot: InstanceSnapshot) -> None:
    for early in (False, True):
        (refusal,) = refusals(DUE, snapshot, NOW, early=early)
        assert reason in refusal


def test_the_retention_is_waited_for_unless_that_is_overruled() -> None:
    for until, words in (
        (NOW.replace(year=2027), "it is kept until 2027"),
        (None, "does not say until when"),
    ):
        completed = replace(DUE, until=until)
        (refusal,) = refusals(completed, moved(), NOW, early=False)
        assert words in refusal
        assert refusals(completed, moved(), NOW, early=True) == []
