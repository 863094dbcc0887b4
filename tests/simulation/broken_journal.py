"""Guarantees of the journal, each broken on purpose in its fake. Calling one patches this process for good."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.model.line import Turn
from tests.fakes import journal as fake_journal
from tests.fakes.journal import FakeFacts, FakeJournal
from tests.simulation.broken_engine import nothing, replace

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.ports.engine import StepRow


def a_stale_token_is_accepted() -> None:
    def take(journal: FakeJournal, migration_id: UUID, _last: int, _step: str) -> int:
        token = journal.migrations[migration_id].token + 1
        journal._change(migration_id, token=token)
        return token

    replace(FakeJournal, "_take_token", take)


def two_migrations_of_an_instance_are_open() -> None:
    replace(FakeJournal, "_require_free", lambda *_arguments: None)


def a_fact_is_overwritten_by_the_second_value() -> None:
    def keep(facts: FakeFacts, name: str, value: Any) -> Any:
        facts._require_newest()
        facts._journal.stored_facts[facts._fact(name)] = value
        return value

    replace(FakeFacts, "_keep", keep)


def a_slot_is_not_released() -> None:
    replace(FakeFacts, "release_slots", nothing)


def a_slot_goes_to_whoever_looks_first() -> None:
    replace(fake_journal, "turn", lambda *_arguments: Turn(goes=True))


def the_priority_of_an_upgrade_is_forgotten() -> None:
    replace(fake_journal, "rank", lambda since, _priority: since)


def who_does_not_look_any_more_is_waited_for() -> None:
    replace(fake_journal, "GRACE", timedelta(days=99))


def the_event_is_committed_without_its_result() -> None:
    async def finish(journal: FakeJournal, row: StepRow, *, event: Any, **_named: Any) -> Any:
        journal._take_token(row.migration_id, row.token, row.step)
        return journal._put(row.migration_id, event, journal.clock.now())

    replace(FakeJournal, "finish", finish)


def the_result_is_committed_without_its_event() -> None:
    async def finish(journal: FakeJournal, row: StepRow, *, event: Any, **named: Any) -> Any:
        return await original(journal, row, event=event if row.runs == 1 else None, **named)

    original = replace(FakeJournal, "finish", finish)


def the_point_of_no_return_is_not_recorded() -> None:
    async def finish(journal: FakeJournal, row: StepRow, **named: Any) -> Any:
        return await original(journal, row, **{**named, "past_pivot": False})

    original = replace(FakeJournal, "finish", finish)


def confirms_that_were_lost_with_a_consumer_are_never_made_up_for() -> None:
    """What one consumer had in hand no other looks for."""
    replace(FakeJournal, "_is_free", lambda _journal, one: one.reserved is None)


def a_run_that_died_is_the_last() -> None:
    async def begin(journal: FakeJournal, *arguments: Any, **named: Any) -> StepRow:
        row: StepRow = await original(journal, *arguments, **named)
        return dataclasses.replace(row, deaths=99 if row.deaths else 0)

    original = replace(FakeJournal, "begin", begin)


BROKEN: Final = (
    a_stale_token_is_accepted,
    two_migrations_of_an_instance_are_open,
    a_fact_is_overwritten_by_the_second_value,
    a_slot_is_not_released,
    a_slot_goes_to_whoever_looks_first,
    the_priority_of_an_upgrade_is_forgotten,
    who_does_not_look_any_more_is_waited_for,
    the_event_is_committed_without_its_result,
    the_result_is_committed_without_its_event,
    the_point_of_no_return_is_not_recorded,
    confirms_that_were_lost_with_a_consumer_are_never_made_up_for,
    a_run_that_died_is_the_last,
)
