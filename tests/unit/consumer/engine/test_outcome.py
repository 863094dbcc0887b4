"""What follows from an error."""

import asyncio

import pytest

from rehome_consumer.engine.outcome import (
    PATIENCE,
    UNKNOWN_TRIES,
    Defer,
    Fail,
    Retry,
    gravest,
    patience,
    told,
    verdict,
)
from rehome_consumer.errors import ClaimLost, Queued, Refused, TimedOut, Transient, VerificationFailed
from rehome_consumer.ports.engine import AnotherOpen

TIERS = ("1s", "10s", "1m", "5m")


@pytest.mark.parametrize("tries", [1, 2, 3, 4])
def test_a_transient_error_is_tried_again_after_the_delay_of_its_try(tries: int) -> None:
    assert verdict(TimedOut("no answer"), tries, TIERS) == Retry(TIERS[tries - 1], "no answer")


def test_a_transient_error_fails_when_the_tries_are_used_up() -> None:
    assert verdict(Transient("no answer"), 5, TIERS) == Fail("no answer", "Transient")


def test_a_refusal_fails_at_once() -> None:
    assert verdict(VerificationFailed("39 rows"), 1, TIERS) == Fail("39 rows", "VerificationFailed")


def test_an_unknown_error_has_few_tries() -> None:
    assert verdict(ValueError("odd"), UNKNOWN_TRIES - 1, TIERS) == Retry("10s", "ValueError: odd")
    assert verdict(ValueError("odd"), UNKNOWN_TRIES, TIERS) == Fail("ValueError: odd", "ValueError")


@pytest.mark.parametrize("error", [ClaimLost("lost"), AnotherOpen("held"), Queued("full")], ids=str)
def test_what_is_nobody_s_fault_is_no_try(error: Exception) -> None:
    assert verdict(error, 99, TIERS) == Defer(str(error))


def test_a_cancelled_call_is_no_try() -> None:
    assert verdict(asyncio.CancelledError(), 99, TIERS) == Defer("CancelledError")


def test_a_longer_delay_than_wanted_is_replaced() -> None:
    assert verdict(Transient("x"), 3, TIERS, longest="10s") == Retry("10s", "x")
    assert verdict(Transient("x"), 1, TIERS, longest="10s") == Retry("1s", "x")


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


def test_an_error_is_told_in_one_line_with_its_class_if_it_is_not_ours() -> None:
    assert told(Transient("two\n  lines")) == "two lines"
    assert told(OSError()) == "OSError"
    assert told(Refused()) == "Refused"
    assert told(ValueError("a\x00b\ud800")) == "ValueError: a b?"


def test_a_secret_in_an_error_is_masked() -> None:
    text = told(Transient("postgresql://odoo:s3cret@host/db refused; password='other s3cret'"))
    assert "s3cret" not in text
    assert "postgresql://odoo:***@host/db" in text


def test_an_endless_error_is_cut() -> None:
    assert len(told(Transient("x" * 10**6))) == 2000
