"""For the tests of other teams: valid events, complete migrations in any disorder, a check of a publisher.

Nothing here needs pytest; pytest finds the fixtures by itself (`rehome_events.testing.plugin`).
"""

from rehome_events.testing.checks import assert_valid_event, unknown_fields
from rehome_events.testing.conformance import check_publisher, check_returned
from rehome_events.testing.deviations import assert_conforms, deviations
from rehome_events.testing.expectations import unmet
from rehome_events.testing.playing import Played, play_into
from rehome_events.testing.stories import DISORDERS, OUTCOMES, Disorder, Outcome, Story

__all__ = [
    "DISORDERS",
    "OUTCOMES",
    "Disorder",
    "Outcome",
    "Played",
    "Story",
    "assert_conforms",
    "assert_valid_event",
    "check_publisher",
    "check_returned",
    "deviations",
    "play_into",
    "unknown_fields",
    "unmet",
]
