"""Waits of the Swarm runtime have a limit, and report that they go on."""

from __future__ import annotations

import pytest

from rehome_consumer.adapters.swarm.waiting import Wait
from rehome_consumer.errors import TimedOut


def test_a_wait_that_goes_on_is_logged_with_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    Wait("odoo-shop", "serve", log_every=0).check("no task runs", limit=60)
    (record,) = caplog.records
    assert (
        record.getMessage() == "wait.goes_on service=odoo-shop for=serve seconds=0 limit=60 why=no task runs"
    )


def test_a_short_wait_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    Wait("odoo-shop", "serve").check("no task runs", limit=60)
    assert caplog.records == []


def test_a_wait_beyond_its_limit_is_an_error_that_says_what_was_waited_for() -> None:
    with pytest.raises(TimedOut, match=r"^waited 0\.0 s for service odoo-shop to stop; still run: a, b$"):
        Wait("odoo-shop", "stop").check("still run: a, b", limit=-1)
