"""When instances may be stopped: by the clocks where the customers live."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from rehome_consumer.model import Window, closed

NIGHT = Window.read("22:00-05:00 Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-01-10T20:59:59", False),
        ("2026-01-10T21:00:00", True),  # 22:00 in Berlin's winter
        ("2026-01-11T03:59:59", True),
        ("2026-01-11T04:00:00", False),
        ("2026-07-10T19:59:59", False),
        ("2026-07-10T20:00:00", True),  # 22:00 in its summer
        ("2026-07-11T03:00:00", False),
    ],
)
def test_a_window_follows_its_zone_through_the_year_and_past_midnight(moment: str, inside: bool) -> None:
    assert NIGHT.has(at(moment)) is inside


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        ("2026-01-10T12:00:00", "2026-01-10T21:00:00"),
        ("2026-01-10T23:00:00", "2026-01-11T21:00:00"),
        ("2026-03-28T22:00:00", "2026-03-29T20:00:00"),  # clocks are put forward in that night
    ],
)
def test_it_opens_next_by_its_own_clocks(moment: str, opens: str) -> None:
    assert NIGHT.opens(at(moment)) == at(opens)


def test_a_window_that_the_change_of_clocks_leaves_out_opens_the_next_day() -> None:
    early = Window.read("02:10-02:40 Europe/Berlin")
    assert early.opens(at("2026-03-29T00:00:00")) == at("2026-03-30T00:10:00")


def test_of_several_windows_one_is_enough_and_the_first_to_open_is_named() -> None:
    noon = Window.read("12:00-13:00")
    assert closed((), at("2026-01-10T12:30:00")) is None
    assert closed((NIGHT, noon), at("2026-01-10T12:30:00")) is None
    assert closed((NIGHT, noon), at("2026-01-10T11:00:00")) == (
        "the maintenance window is 22:00-05:00 Europe/Berlin, 12:00-13:00 UTC; it opens at 2026-01-10 12:00 UTC"
    )
    assert (closed((NIGHT,), at("2026-01-10T11:00:00")) or "").endswith("opens at 2026-01-10 22:00 CET")


def test_it_is_written_as_it_was_read() -> None:
    assert str(NIGHT) == "22:00-05:00 Europe/Berlin"
    assert Window.read(" 1200-1300  UTC") == Window.read("12:00-13:00")
    assert str(Window.read("22-05")) == "22:00-05:00 UTC"
    assert NIGHT.zone == ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ten-five", "'ten-five': write it as"),
        ("22:00", "write it as 22:00-05:00 Europe/Berlin"),
        ("22:00-22:00", "the two times differ"),
        ("22:00-25:00", "write it as"),
        ("22:00+01:00-05:00", "write it as"),
        ("22:00-05:00 Berlin", "no time zone 'Berlin'"),
        ("22:00-05:00 ../../etc/passwd", "no time zone '../../etc/passwd'"),
        ("22:00-05:00 Europe", "no time zone 'Europe'"),
        ("", "write it as"),
    ],
)
def test_what_is_no_window_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="time") as refused:
        Window.read(text)
    assert said in str(refused.value)
