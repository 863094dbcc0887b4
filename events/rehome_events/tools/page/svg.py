"""The diagram of the events as SVG: a success on the left, from top to bottom; other ends on the right."""

from typing import Final

from rehome_events.tools.page.blocks import Diagram

_LEFT: Final = 10
_WIDTH: Final = 210
_HEIGHT: Final = 32
_ROW: Final = 70
_RIGHT: Final = 400
_RAIL: Final = _LEFT + _WIDTH + 40
_FORK: Final = _RAIL + 40
_ARROW: Final = 'marker-end="url(#arrow)"'
_MARKER: Final = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z"/></marker></defs>'
)


def drawn(diagram: Diagram) -> str:
    """The diagram as an element of HTML; sizes are in CSS pixels."""
    parts = [_MARKER]
    last = len(diagram.chain) - 1
    for row, (kind, handler) in enumerate(diagram.chain):
        parts.append(_box(_LEFT, row, kind))
        if row < last:
            x, y = _LEFT + 40, _top(row) + _HEIGHT
            parts.append(_line(f"M{x} {y}V{_top(row + 1)}"))
            parts.append(_label(x + 10, y + 24, handler))
    for row, kind in enumerate(diagram.branches):
        start = _middle(0)
        parts.append(_box(_RIGHT, row, kind))
        parts.append(_line(f"M{_LEFT + _WIDTH} {start}H{_FORK}V{_middle(row)}H{_RIGHT}"))
        parts.append(_label(_FORK + 12, _middle(row) - 6, diagram.chain[0][1]))
    parts += _failing(diagram, len(diagram.branches) + 2, last)
    width, height = _RIGHT + _WIDTH + 10, _top(last) + _HEIGHT + 10
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="How the events follow each other">\n' + "\n".join(parts) + "\n</svg>"
    )


def _failing(diagram: Diagram, row: int, last: int) -> list[str]:
    """From every step but the first to the failure, and to the rollback."""
    failed, handler, undone = diagram.failure
    edge = _LEFT + _WIDTH
    parts = [_line(f"M{edge} {_middle(step)}H{_RAIL}", "fails", arrow=False) for step in range(1, last)]
    parts.append(_line(f"M{_RAIL} {_middle(1)}V{_middle(last - 1)}", "fails", arrow=False))
    parts.append(_line(f"M{_RAIL} {_middle(row)}H{_RIGHT}", "fails"))
    parts.append(_label(_FORK + 12, _middle(row) - 6, "a step fails", quiet=True))
    parts += [_box(_RIGHT, row, failed), _box(_RIGHT, row + 1, undone)]
    x, y = _RIGHT + 40, _top(row) + _HEIGHT
    parts += [_line(f"M{x} {y}V{_top(row + 1)}"), _label(x + 10, y + 24, handler)]
    return parts


def _top(row: int) -> int:
    return 10 + row * _ROW


def _middle(row: int) -> int:
    return _top(row) + _HEIGHT // 2


def _box(x: int, row: int, kind: str) -> str:
    y = _top(row)
    rect = f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'
    return f'{rect}<text x="{x + _WIDTH // 2}" y="{y + 21}" text-anchor="middle">{kind}</text>'


def _line(way: str, kind: str = "", *, arrow: bool = True) -> str:
    look = (f' class="{kind}"' if kind else "") + (f" {_ARROW}" if arrow else "")
    return f'<path d="{way}"{look}/>'


def _label(x: int, y: int, text: str, *, quiet: bool = False) -> str:
    look = ' class="quiet"' if quiet else ""
    return f'<text x="{x}" y="{y}"{look}>{text}</text>'
