"""A page in HTML that is complete in itself: it loads nothing and runs no script."""

import re
from collections.abc import Iterable
from functools import singledispatch
from html import escape
from typing import Final

from rehome_events.tools.page.blocks import Block, Bullets, Diagram, Example, Heading, Table, Text
from rehome_events.tools.page.svg import drawn

_STYLE: Final = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --link: #0550ae; --quiet: #57606a; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #1c2128; --link: #79b8ff; --quiet: #9198a1; } }
html { scroll-padding-top: 1rem; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem 2rem 4rem; }
h1 { margin-bottom: 0; }
h2 { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1rem; }
h2 a { color: inherit; text-decoration: none; }
a { color: var(--link); }
p, li { max-width: 52rem; }
code, pre { background: var(--soft); border-radius: 4px; font: 0.875em/1.5 ui-monospace, monospace; }
code { padding: 0.1em 0.3em; white-space: nowrap; }
code.long { overflow-wrap: anywhere; white-space: normal; }
pre { overflow-x: auto; padding: 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9375rem; min-width: 45rem; width: 100%; }
th, td { border: 1px solid var(--line); padding: 0.35rem 0.6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); }
summary { cursor: pointer; margin-top: 1rem; }
svg { display: block; height: auto; margin: 1rem 0; max-width: 100%; }
svg text { fill: currentColor; font: 13px ui-monospace, monospace; }
svg .quiet { fill: var(--quiet); font: 12px system-ui, sans-serif; }
svg rect { fill: var(--soft); stroke: var(--quiet); }
svg path { fill: none; stroke: var(--quiet); }
svg .fails { stroke-dasharray: 4 3; }
svg marker path { fill: var(--quiet); stroke: none; }
@media (max-width: 45rem) {
  body { padding: 1rem; }
  td:first-child, th:first-child { left: 0; position: sticky; }
  td:first-child { background: Canvas; }
}
"""
_SHORT: Final = 30
"""Characters of a value that is never broken into lines."""
_CODE: Final = re.compile(r"`([^`]+)`")
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def render(blocks: Iterable[Block]) -> str:
    """Write the page."""
    body = "\n".join(map(_written, blocks))
    return (
        '<!DOCTYPE html>\n<!-- Generated: python -m rehome_events page --write -->\n<html lang="en">\n<head>\n'
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>The events of rehome</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _inline(text: str) -> str:
    """A text with its markup."""
    return _LINK.sub(r'<a href="\2">\1</a>', _CODE.sub(_code, escape(text)))


def _code(found: re.Match[str]) -> str:
    """Long values break anywhere, short ones never."""
    long = ' class="long"' if len(found[1]) > _SHORT else ""
    return f"<code{long}>{found[1]}</code>"


@singledispatch
def _written(block: Block) -> str:
    raise TypeError(type(block).__name__)


@_written.register
def _(block: Heading) -> str:
    title = _inline(block.text)
    if block.level == 1:
        return f"<h1>{title}</h1>"
    anchor = escape(block.anchor)
    return f'<h{block.level} id="{anchor}"><a href="#{anchor}">{title}</a></h{block.level}>'


@_written.register
def _(block: Text) -> str:
    return f"<p>{_inline(block.text)}</p>"


@_written.register
def _(block: Bullets) -> str:
    kind = "ol" if block.numbered else "ul"
    items = "\n".join(f"<li>{_inline(item)}</li>" for item in block.items)
    return f"<{kind}>\n{items}\n</{kind}>"


@_written.register
def _(block: Table) -> str:
    header = "".join(f"<th>{_inline(cell)}</th>" for cell in block.header)
    rows = "\n".join(f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>" for row in block.rows)
    return f'<div class="table"><table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


@_written.register
def _(block: Example) -> str:
    return f"<details><summary>Example</summary><pre>{escape(block.json, quote=False)}</pre></details>"


@_written.register
def _(block: Diagram) -> str:
    return drawn(block)
