"""What follows from an error."""

import asyncio
from uuid import uuid4

import pytest

from rehome_consumer.engine.outcome import (
    EARLY_LIMIT,
    PATIENCE,
    UNKNOWN_TRIES,
    Defer,
    GiveUp,
    Retry,
    after_run,
    after_trouble,
    come_back,
    describe_error,
    gravest,
    patience,
)
from rehome_consumer.errors import (
    ClaimLost,
    Queued,
    Refused,
    TimedOut,
    Transient,
    Unreachable,
    VerificationFailed,
)
from rehome_consumer.ports.engine import AnotherOpen, StepRow

TIERS = ("1s", "10s", "1m", "5m")


def row(tries: int) -> StepRow:
    """A step that is tried this many times, the present one included."""
    return StepRow(uuid4(), 1, "stop", "running", tries, tries - 1, 0, 7)


@pytest.mark.parametrize("tries", [1, 2, 3, 4])
def test_a_transient_error_is_tried_again_after_the_delay_of_its_try(tries: int) -> None:
    found = after_run(TimedOut("no answer"), row(tries), TIERS)
    assert found == Retry(TIERS[tries - 1], tries, "no answer")


def test_a_transient_error_fails_when_the_tries_are_used_up() -> None:
    last = row(5)
    assert after_run(Transient("no answer"), last, TIERS) == GiveUp("failed", "no answer", last)


def test_a_refusal_fails_at_once() -> None:
    first = row(1)
    assert after_run(VerificationFailed("39 rows"), first, TIERS) == GiveUp("failed", "39 rows", first)


def test_an_unknown_error_has_few_tries() -> None:
    last = row(UNKNOWN_TRIES)
    assert after_run(ValueError("odd"), row(UNKNOWN_TRIES - 1), TIERS) == Retry("10s", 2, "ValueError: odd")
    assert after_run(ValueError("odd"), last, TIERS) == GiveUp("failed", "ValueError: odd", last)


@pytest.mark.parametrize("error", [ClaimLost("lost"), AnotherOpen("held"), Queued("full")], ids=str)
def test_what_is_no_fault_of_the_step_is_no_try(error: Exception) -> None:
    assert after_run(error, row(99), TIERS) == Defer(str(error))


def test_who_is_next_for_a_slot_looks_again_within_seconds_however_long_it_has_waited() -> None:
    found = after_run(Queued("full", next=True), row(99), TIERS)
    assert found == Defer("full", soon=True)
    assert [patience(times, soon=True) for times in (1, 2, 3, 4, 5, 1000)] == ["1s", "1s"] + ["10s"] * 4


def test_a_cancelled_call_is_no_try() -> None:
    assert after_run(asyncio.CancelledError(), row(99), TIERS) == Defer("CancelledError")


def test_a_longer_delay_than_wanted_is_replaced() -> None:
    assert after_run(Transient("x"), row(3), TIERS, longest="10s") == Retry("10s", 3, "x")
    assert after_run(Transient("x"), row(1), TIERS, longest="10s") == Retry("1s", 1, "x")


def test_a_delivery_that_cannot_be_dealt_with_now_comes_back() -> None:
    assert after_trouble(Unreachable("no journal"), EARLY_LIMIT) == Defer("no journal")
    assert after_trouble(AnotherOpen("held"), EARLY_LIMIT) == Defer("held", behind=True)


def test_a_defect_comes_back_so_many_times() -> None:
    assert after_trouble(KeyError("x"), EARLY_LIMIT - 1) == Defer("KeyError: 'x'", early=True)
    assert after_trouble(KeyError("x"), EARLY_LIMIT) == GiveUp("gave_up_waiting", "KeyError: 'x'")


def test_what_comes_back_too_often_is_given_up() -> None:
    assert come_back(EARLY_LIMIT - 1, "why") == Defer("why", early=True)
    assert come_back(EARLY_LIMIT, "why") == GiveUp("gave_up_waiting", "why")


def test_of_a_group_the_gravest_error_counts() -> None:
    transient, refused, lost = Transient("t"), Refused("r"), ClaimLost("l")
    unknown = KeyError("u")
    assert gravest(ExceptionGroup("g", [transient, unknown])) is unknown
    assert gravest(ExceptionGroup("g", [unknown, ExceptionGroup("h", [transient, refused])])) is refused
    assert gravest(ExceptionGroup("g", [refused, lost])) is lost
    assert gravest(transient) is transient


def test_waiting_gets_longer_and_stays_at_the_longest() -> None:
    assert [patience(times) for times in range(1, 6)] == list(PATIENCE)
    assert patience(1000) == PATIENCE[-1]


def test_an_error_is_described_in_one_line_with_its_class_if_it_is_foreign() -> None:
    assert describe_error(Transient("two\n  lines")) == "two lines"
    assert describe_error(OSError()) == "OSError"
    assert describe_error(Refused()) == "Refused"
    assert describe_error(ValueError("a\x00b\ud800")) == "ValueError: a b?"


def test_a_secret_in_an_error_is_masked() -> None:
    text = describe_error(Transient("postgresql://odoo:s3cret@host/db refused; password='other s3cret'"))
    assert "s3cret" not in text
    assert "postgresql://odoo:***@host/db" in text


def test_an_endless_error_is_cut() -> None:
    assert len(describe_error(Transient("x" * 10**6))) == 2000
