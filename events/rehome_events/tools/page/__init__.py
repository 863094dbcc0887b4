"""The contract as a page to read, made from the catalogue, the schemas and the golden examples.

`content` makes its blocks, `markdown` and `html` render them: docs/events.md for git hosts, docs/events.html for a
browser, with nothing to load from elsewhere. `changes` makes the blocks of docs/events-changes.md.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from rehome_events.tools.page import changes, html, markdown
from rehome_events.tools.page.content import blocks

_DOCS: Final = Path(str(files("rehome_events"))).parents[1] / "docs"
FILE: Final = _DOCS / "events.md"
HTML_FILE: Final = _DOCS / "events.html"
CHANGES_FILE: Final = _DOCS / "events-changes.md"


def render() -> str:
    """Make the page, in Markdown."""
    return markdown.render(blocks())


def render_html() -> str:
    """Make the page, in HTML."""
    return html.render(blocks())


def render_changes() -> str:
    """Make the page about what changed, in Markdown."""
    return markdown.render(changes.blocks())
