"""What a replay or a rollback would do, in the names of the things that it would touch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rehome_consumer import saga
from rehome_consumer.doctor.forecast import in_detail, is_as_left, replaying, undoing
from rehome_consumer.doctor.snapshot import Trouble, tag
from rehome_consumer.facts import RecordedFacts
from rehome_consumer.model import OwnershipTag
from rehome_consumer.ports.operators import BackupEntry, ConfBackup, TaggedDatabase
from tests.support.snapshots import DEDICATED, FENCED_BEFORE, MIGRATION, NOW, a_state, conf_of, on_pool

TAG = f"{MIGRATION.hex[:12]}-1"
SCRATCH = TaggedDatabase("acme__rehome", tag=OwnershipTag(MIGRATION, 1, "scratch"))
IN_MID_MOVE = on_pool(
    "failed",
    facts=RecordedFacts({**FENCED_BEFORE.values, "replicas": 2, "server_requested": True}),
    target=DEDICATED,
    source_state=a_state(is_open=False),
    target_state=a_state(is_open=False),
    on_target=(SCRATCH,),
    files=(ConfBackup(f"odoo.conf.rehome-{TAG}", TAG, NOW),),
    stored=(BackupEntry(f"{MIGRATION}-1", "backup", NOW, MIGRATION, 1),),
    conf=conf_of(DEDICATED),
)


@pytest.mark.parametrize("step", [step.name for step in saga.MIGRATION])
def test_every_step_is_described_with_real_names_whatever_was_observed(step: str) -> None:
    described = " ".join(replaying(step, IN_MID_MOVE))
    assert described.startswith("would ")
    assert "?" not in described
    assert replaying(step, on_pool())
    assert replaying(
        step, replace(on_pool(), home=None, source=None, source_state=None, conf=None, service=None)
    )


def test_a_replay_of_the_restore_says_what_is_there_of_backup_source_and_target() -> None:
    first, backup, source, target = replaying("restore", IN_MID_MOVE)
    assert first.startswith("would restore the backup on postgres-dedicated-1")
    assert backup == f"backup {MIGRATION}-1: sealed"
    assert source == "source acme on postgres-pool-1: there, 54 MB, fenced, 0 connection(s)"
    assert target == "scratch database acme__rehome on postgres-dedicated-1 would be dropped and made again"


def test_a_database_of_no_migration_would_be_refused() -> None:
    strange = replace(IN_MID_MOVE, on_target=())
    assert "is not this migration's: it would be refused" in replaying("restore", strange)[-1]


def test_operators_are_shown_what_the_saga_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is added to the saga needs no second place."""
    new = replace(
        saga.MIGRATION[1],
        name="new",
        describe=lambda now: (f"would call {now.target}",),
        describe_undo=lambda now: f"call {now.source} and {now.target}",
    )
    monkeypatch.setattr(saga, "MIGRATION", (*saga.MIGRATION[:-1], new, saga.ROLL_BACK))
    assert replaying("new", IN_MID_MOVE) == ("would call postgres-dedicated-1",)
    assert undoing(IN_MID_MOVE, None)[0] == ("new", "call postgres-pool-1 and postgres-dedicated-1")
    assert "new" not in dict(undoing(IN_MID_MOVE, ["accept", "prepare"]))
    assert replaying("no such step", IN_MID_MOVE) == ()


def test_a_replay_of_the_rollback_lists_what_was_started_last_first() -> None:
    first, *more = replaying("roll_back", IN_MID_MOVE, ["accept", "prepare", "stop"])
    assert first.startswith("would undo stop: let acme connect")
    assert more == ["would undo prepare: give dedicated server postgres-dedicated-1 back to database-service"]


def test_a_rollback_is_described_in_the_order_of_undoing() -> None:
    undo = dict(undoing(IN_MID_MOVE, None))
    assert list(undo) == ["start", "restore", "rewrite_conf", "provision", "back_up", "stop", "prepare"]
    assert "drop acme__rehome" in undo["provision"]
    assert f"remove {MIGRATION}-1" in undo["back_up"]
    assert undo["rewrite_conf"].startswith("restore /srv/")
    assert f"odoo.conf from odoo.conf.rehome-{TAG}; restore" in undo["rewrite_conf"]
    assert "let acme connect to acme on postgres-pool-1 again; start service odoo-acme" in undo["stop"]
    assert undo["prepare"] == "give dedicated server postgres-dedicated-1 back to database-service"


def test_only_steps_that_were_started_would_be_undone() -> None:
    assert [step for step, _ in undoing(IN_MID_MOVE, ["accept", "prepare", "stop"])] == ["stop", "prepare"]


def test_where_there_is_nothing_to_undo_it_says_nothing() -> None:
    undo = dict(undoing(on_pool("requested", facts=RecordedFacts()), None))
    assert undo["stop"] == "nothing: the source was not fenced"
    assert undo["prepare"] == "nothing"
    assert undo["back_up"] == "nothing: there is no backup"


def test_what_could_not_be_looked_at_is_named_too() -> None:
    blind = replace(IN_MID_MOVE, troubles=(Trouble("odoo.conf", "no such file"),))
    assert in_detail("restore", blind)[-1] == "odoo.conf could not be looked at: no such file"
    assert in_detail("restore", None) == []


def test_a_move_may_go_on_only_where_nothing_of_it_was_undone() -> None:
    assert is_as_left(IN_MID_MOVE)
    assert not is_as_left(replace(IN_MID_MOVE, conf=conf_of(on_pool().home or DEDICATED)))
    assert not is_as_left(replace(IN_MID_MOVE, source_state=a_state(is_open=True)))
    assert not is_as_left(replace(IN_MID_MOVE, on_target=()))
    assert not is_as_left(on_pool())


def test_file_names_carry_the_attempt() -> None:
    view = IN_MID_MOVE.migration
    assert view
    assert tag(view) == TAG
