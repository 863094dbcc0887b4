"""The contract as a page to read, made from the catalogue, the schemas and the golden examples.

`content` makes its blocks, `markdown` and `html` render them: docs/events.md for git hosts, docs/events.html for a
browser, with nothing to load from elsewhere.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from rehome_events.tools.page import html, markdown
from rehome_events.tools.page.content import blocks

_DOCS: Final = Path(str(files("rehome_events"))).parents[1] / "docs"
FILE: Final = _DOCS / "events.md"
HTML_FILE: Final = _DOCS / "events.html"


def render() -> str:
    """Make the page, in Markdown."""
    return markdown.render(blocks())


def render_html() -> str:
    """Make the page, in HTML."""
    return html.render(blocks())
