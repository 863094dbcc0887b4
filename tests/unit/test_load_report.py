"""The report of a burst, as it is printed, tells another revision how long it took."""

import pytest

from tests.load.__main__ import seconds_in

REPORT = """
│ completed; rolled back after four    │ 40; 0                                 │
│ kills                                │                                       │
│ seconds                              │ 48                                    │
│ seconds until a server's next        │ 4.7 in the middle, 11.8 at most       │
"""


def test_the_seconds_of_a_burst_are_found_in_its_report() -> None:
    assert seconds_in(REPORT) == 48.0


def test_a_report_without_them_is_shown() -> None:
    with pytest.raises(ValueError, match=r"no line `seconds` .* usage: nothing"):
        seconds_in("usage: nothing")
