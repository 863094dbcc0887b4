"""Waits of the Swarm runtime end, and do not wait in silence."""

from __future__ import annotations

import pytest

from rehome_consumer.adapters.swarm.waiting import Wait
from rehome_consumer.errors import TimedOut


def test_a_wait_that_goes_on_says_so_with_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    Wait("odoo-shop", "serve", say_every=0).go_on("no task runs", limit=60)
    (record,) = caplog.records
    assert (
        record.getMessage() == "wait.goes_on service=odoo-shop for=serve seconds=0 limit=60 why=no task runs"
    )


def test_a_short_wait_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    Wait("odoo-shop", "serve").go_on("no task runs", limit=60)
    assert caplog.records == []


def test_a_wait_that_is_over_is_an_error_that_says_for_what_it_was() -> None:
    with pytest.raises(TimedOut, match=r"^waited 0\.0 s for service odoo-shop to stop; still run: a, b$"):
        Wait("odoo-shop", "stop").go_on("still run: a, b", limit=-1)
