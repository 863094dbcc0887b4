"""The pages: every type and field of the catalogue, and no broken link."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rehome_events.catalog import CATALOG, EventType, all_in_use
from rehome_events.tools.page import FILE, HTML_FILE, render, render_html

DOCS = FILE.parent
PAGES = [*sorted(DOCS.glob("*.md")), HTML_FILE]
ENTRIES = all_in_use()
VOID = {"meta", "rect", "path", "br"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.type}-v{entry.version}")
def test_the_page_has_every_field_of_a_type(entry: EventType) -> None:
    section = render().partition(f"\n## {entry.type} v{entry.version}\n")[2].partition("\n## ")[0]
    for name in entry.model.model_fields:
        assert f"`{name}`" in section


def test_the_diagram_shows_every_type_and_every_handler() -> None:
    diagram = render().partition("```mermaid")[2].partition("```")[0]
    for entry in CATALOG.values():
        assert f'"{entry.type}"' in diagram
        assert entry.next is None or f"-- {entry.next} -->" in diagram


def test_the_drawing_shows_the_same() -> None:
    drawing = render_html().partition("<svg")[2].partition("</svg>")[0]
    for entry in CATALOG.values():
        assert f">{entry.type}<" in drawing
        assert entry.next is None or f">{entry.next}<" in drawing


class Reader(HTMLParser):
    """Reads a page of HTML; fails at an element that is not closed or would load something."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.text: list[str] = []
        self.feed(page.read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "img", "iframe", "object", "use"}
        attributes = dict(attrs)
        assert "src" not in attributes
        self.links += [attributes["href"] or ""] if "href" in attributes else []
        self.anchors += [attributes["id"] or ""] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def test_the_html_is_complete_and_loads_nothing() -> None:
    page = Reader(HTML_FILE)
    assert page.open == []
    assert len(page.anchors) == len(set(page.anchors))
    assert "url(" not in HTML_FILE.read_text().replace("url(#arrow)", "")


def test_no_markup_is_left_in_the_html() -> None:
    text = "".join(Reader(HTML_FILE).text)
    assert "`" not in text
    assert "](" not in text


def links_of(page: Path) -> list[str]:
    if page.suffix == ".html":
        return Reader(page).links
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors_of(page: Path) -> set[str]:
    """Names that links may lead to, as git hosts make them of headings."""
    if page.suffix == ".html":
        return set(Reader(page).anchors)
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links_of(page):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        known = not anchor or (target.is_file() and anchor in anchors_of(target))
        if not link.startswith(("http://", "https://")) and not (target.exists() and known):
            broken.append(link)
    assert broken == []
