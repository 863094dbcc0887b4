"""The page to read: the catalogue's, with every field."""

import pytest

from events.catalog import CATALOG, EventType
from events.page import FILE, render


def test_the_committed_page_is_that_of_the_catalogue() -> None:
    assert FILE.read_text() == render()


@pytest.mark.parametrize("entry", CATALOG.values(), ids=lambda entry: entry.type)
def test_the_page_tells_every_field_of_a_type(entry: EventType) -> None:
    section = render().partition(f"\n## {entry.type} v{entry.version}\n")[2].partition("\n## ")[0]
    for name in entry.model.model_fields:
        assert f"`{name}`" in section


def test_the_diagram_shows_every_type_and_every_handler() -> None:
    diagram = render().partition("```mermaid")[2].partition("```")[0]
    for entry in CATALOG.values():
        assert f'"{entry.type}"' in diagram
        assert entry.next is None or f"-- {entry.next} -->" in diagram
