"""What a replay or a rollback would do, in the names of the things that it would touch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rehome_consumer import saga
from rehome_consumer.doctor.forecast import in_detail, is_as_left, replaying, undoing
from rehome_consumer.doctor.snapshot import Trouble, tag
from rehome_consumer.model import OwnershipTag
from rehome_consumer.ports.operators import BackupEntry, ConfBackup, TaggedDatabase
from tests.support.snapshots import DEDICATED, MIGRATION, NOW, a_state, conf_of, on_pool

TAG = f"{MIGRATION.hex[:12]}-1"
SCRATCH = TaggedDatabase("acme__rehome", tag=OwnershipTag(MIGRATION, 1, "scratch"))
IN_MID_MOVE = on_pool(
    "failed",
    facts={"fence": {"connection_limit": -1, "can_login": True}, "replicas": 2, "provisioning": True},
    target=DEDICATED,
    source_state=a_state(is_open=False),
    target_state=a_state(is_open=False),
    on_target=(SCRATCH,),
    files=(ConfBackup(f"odoo.conf.rehome-{TAG}", TAG, NOW),),
    stored=(BackupEntry(f"{MIGRATION}-1", "backup", NOW, MIGRATION, 1),),
    conf=conf_of(DEDICATED),
)


@pytest.mark.parametrize("step", [step.name for step in saga.MIGRATION])
def test_every_step_is_told_with_real_names_whatever_was_seen(step: str) -> None:
    told = " ".join(replaying(step, IN_MID_MOVE))
    assert told.startswith("would ")
    assert "?" not in told
    assert replaying(step, on_pool())
    assert replaying(
        step, replace(on_pool(), home=None, source=None, source_state=None, conf=None, service=None)
    )


def test_a_replay_of_the_restore_tells_what_is_there_of_backup_source_and_target() -> None:
    first, backup, source, target = replaying("restore", IN_MID_MOVE)
    assert first.startswith("would restore the backup on postgres-dedicated-1")
    assert backup == f"backup {MIGRATION}-1: sealed"
    assert source == "source acme on postgres-pool-1: there, 54 MB, fenced, 0 connection(s)"
    assert target == "scratch database acme__rehome on postgres-dedicated-1 would be dropped and made anew"


def test_a_database_that_is_not_ours_would_be_refused() -> None:
    strange = replace(IN_MID_MOVE, on_target=())
    assert "is not this migration's: it would be refused" in replaying("restore", strange)[-1]


def test_a_rollback_is_told_in_the_order_of_undoing() -> None:
    undo = dict(undoing(IN_MID_MOVE, None))
    assert list(undo) == ["start", "restore", "rewrite_conf", "provision", "back_up", "stop", "prepare"]
    assert "drop acme__rehome" in undo["provision"]
    assert f"remove {MIGRATION}-1" in undo["back_up"]
    assert undo["rewrite_conf"].startswith(f"put odoo.conf.rehome-{TAG} back in the place of /srv/")
    assert "let acme into acme on postgres-pool-1 again; start service odoo-acme" in undo["stop"]
    assert undo["prepare"] == "give dedicated server postgres-dedicated-1 back to database-service"


def test_of_a_rollback_only_what_was_begun_is_told() -> None:
    assert [step for step, _ in undoing(IN_MID_MOVE, ["accept", "prepare", "stop"])] == ["stop", "prepare"]


def test_what_there_is_nothing_to_undo_of_is_told_as_nothing() -> None:
    undo = dict(undoing(on_pool("requested", facts={}), None))
    assert undo["stop"] == "nothing: the source was not fenced"
    assert undo["prepare"] == "nothing"
    assert undo["back_up"] == "nothing: there is no backup"


def test_what_could_not_be_looked_at_is_told_too() -> None:
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
