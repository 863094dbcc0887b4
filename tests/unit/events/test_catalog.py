"""One table, and everything in it fits."""

import pytest

from rehome_events import billing, migration
from rehome_events.catalog import CATALOG, KNOWN, EventType, lookup
from rehome_events.data import EventData
from rehome_events.errors import UnknownType

ENTRIES = list(CATALOG.values())


def test_every_model_is_in_the_table() -> None:
    models = {
        value
        for module in (billing, migration)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, EventData) and value is not EventData
    }
    assert {entry.model for entry in KNOWN.values()} == models


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.type)
def test_an_entry_fits_its_model_and_its_publisher(entry: EventType) -> None:
    assert (entry.type, entry.version) == (entry.model.TYPE, entry.model.VERSION)
    assert entry.summary.endswith(".")
    assert (entry.exchange == "billing") is (entry.published_by == "billing") is (entry.source == "/billing")


def test_the_order_from_stop_to_start_is_part_of_the_contract() -> None:
    handlers = [entry.next for entry in ENTRIES if entry.next]
    assert handlers == [
        *(
            "accept",
            "prepare",
            "stop",
            "back_up",
            "provision",
            "rewrite_conf",
            "restore",
            "start",
            "complete",
        ),
        "roll_back",
    ]


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnknownType, match=r"plan\.renamed"):
        lookup("plan.renamed")


def test_the_current_version_is_found_without_its_number() -> None:
    assert lookup("plan.upgraded") is lookup("plan.upgraded", 1)
