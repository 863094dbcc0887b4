"""A page in Markdown, for git hosts; the diagram is in Mermaid's language, which they draw."""

from collections.abc import Iterable
from functools import singledispatch
from typing import Final

from rehome_events.tools.page.blocks import Block, Bullets, Diagram, Example, Heading, Table, Text

_GENERATED: Final = "<!-- Generated: python -m rehome_events page --write -->"


def render(blocks: Iterable[Block]) -> str:
    """Write the page."""
    return "\n\n".join([_GENERATED, *map(_written, blocks)]) + "\n"


@singledispatch
def _written(block: Block) -> str:
    raise TypeError(type(block).__name__)


@_written.register
def _(block: Heading) -> str:
    return f"{'#' * block.level} {block.text}"


@_written.register
def _(block: Text) -> str:
    return block.text


@_written.register
def _(block: Bullets) -> str:
    return "\n".join(
        f"{f'{number}.' if block.numbered else '-'} {item}" for number, item in enumerate(block.items, 1)
    )


@_written.register
def _(block: Table) -> str:
    rows = [block.header, ("---",) * len(block.header), *block.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


@_written.register
def _(block: Example) -> str:
    return f"<details><summary>Example</summary>\n\n```json\n{block.json}\n```\n\n</details>"


@_written.register
def _(block: Diagram) -> str:
    chain = [kind for kind, _ in block.chain]
    failed, handler, undone = block.failure
    lines = [f'{_node(kind)}["{kind}"]' for kind in (*chain, *block.branches, failed, undone)]
    following = zip(block.chain, chain[1:], strict=False)
    lines += [f"{_node(kind)} -- {then} --> {_node(after)}" for (kind, then), after in following]
    first, accept = block.chain[0]
    lines += [f"{_node(first)} -- {accept} --> {_node(other)}" for other in block.branches]
    lines += [f"{_node(kind)} -. fails .-> {_node(failed)}" for kind in chain[1:-1]]
    lines.append(f"{_node(failed)} -- {handler} --> {_node(undone)}")
    return "\n".join(["```mermaid", "flowchart TD", *(f"    {line}" for line in lines), "```"])


def _node(kind: str) -> str:
    return kind.replace(".", "_")
