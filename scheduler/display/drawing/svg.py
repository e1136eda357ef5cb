"""Writes a drawing as SVG, as laid out by `scheduler.display.drawing.layout`.

The picture has its own light ground, so that it can be read on a dark page, too.
"""

from collections.abc import Iterator
from html import escape
from typing import Final

from rich.cells import cell_len

from scheduler.display.drawing.bands import BandPlace, Point, Route
from scheduler.display.drawing.colours import Colours, colours_of
from scheduler.display.drawing.layout import Layout, lay_out
from scheduler.display.drawing.model import Drawing, Node
from scheduler.errors import InvalidDrawing
from scheduler.text import printable

MOST_NODES: Final = 500
MOST_EDGES: Final = 1_000
"""Largest numbers of nodes and edges: their layout takes 0.1 s, or 0.2 s if each is a wave; more are hard to
read."""

_CELL: Final = 7.3
"""Width of a character of the larger font, which has a fixed width, px."""
_SMALL: Final = 0.84
"""Size of the smaller font, as a fraction of the larger one."""
_HEIGHT: Final = 44.0
_MARGIN: Final = 28.0
_HEADER: Final = 64.0
_NOTE: Final = 20.0
_SHEET: Final = 4.0
_CORNER: Final = 7.0
_LEVEL: Final = 0.05
"""Largest difference of points on one level, px."""
_INK, _DIM, _EDGE = "#1f2937", "#5b6472", "#8a93a0"
_FONT: Final = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"


def svg(drawing: Drawing) -> str:
    """Write a drawing as an SVG document.

    Raises:
        InvalidDrawing: there are more than `MOST_NODES` nodes or `MOST_EDGES` edges.
    """
    if len(drawing.nodes) > MOST_NODES or len(drawing.edges) > MOST_EDGES:
        raise InvalidDrawing(
            f"{len(drawing.nodes):,} nodes and {len(drawing.edges):,} edges are too many for a picture:"
            f" at most {MOST_NODES:,} and {MOST_EDGES:,}"
        )
    # A node for several components is drawn as two sheets, one behind the other.
    sheets = [_SHEET if node.count > 1 else 0.0 for node in drawing.nodes]
    sizes = [
        (_width(node) + sheet, _HEIGHT + sheet) for node, sheet in zip(drawing.nodes, sheets, strict=True)
    ]
    return "\n".join(_document(drawing, lay_out(sizes, drawing.edges))) + "\n"


def _width(node: Node) -> float:
    return max(cell_len(node.label) * _CELL, cell_len(node.detail) * _CELL * _SMALL) + 32.0


def _document(drawing: Drawing, layout: Layout) -> Iterator[str]:
    top = _MARGIN + _HEADER + (_NOTE if drawing.note else 0.0)
    title = printable(drawing.title, 120)
    legend = list(_legend(drawing, top - 14.0))
    words = max(cell_len(title) * 9.2, cell_len(drawing.note) * _CELL * _SMALL, _legend_width(drawing))
    width = max(layout.width, words) + 2 * _MARGIN
    height = layout.height + top + _MARGIN
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_FONT}" font-size="12" fill="{_INK}">'
    )
    yield f"<title>{escape(title)}</title>"
    yield (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        f' orient="auto-start-reverse"><path d="M0 .5 8 4 0 7.5z" fill="{_EDGE}"/></marker></defs>'
    )
    yield (
        f'<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="12"'
        ' fill="#fcfcfd" stroke="#d5d9df"/>'
    )
    yield f'<text x="{_MARGIN}" y="{_MARGIN + 12}" font-size="15" font-weight="600">{escape(title)}</text>'
    if drawing.note:
        yield (
            f'<text x="{_MARGIN}" y="{_MARGIN + 34}" font-size="{12 * _SMALL:.1f}"'
            f' fill="{_DIM}">{escape(drawing.note)}</text>'
        )
    yield from legend
    yield f'<g transform="translate({_MARGIN:.1f} {top:.1f})">'
    yield f'<g fill="none" stroke="{_EDGE}" stroke-width="1.3" marker-end="url(#arrow)">'
    yield from (f'<path d="{_path(route)}"/>' for route in layout.routes if route)
    yield "</g>"
    for node, place in zip(drawing.nodes, layout.places, strict=True):
        yield from _box(node, place)
    yield "</g>"
    yield "</svg>"


def _box(node: Node, place: BandPlace) -> Iterator[str]:
    x, y, width, height = place
    colours = colours_of(node.mark)
    yield f"<g><title>{escape(node.tooltip(detail=True))}</title>"
    if node.count > 1:
        # A second sheet behind the first shows that there are several.
        width, height = width - _SHEET, height - _SHEET
        yield _rectangle(x + _SHEET, y + _SHEET, width, height, colours)
    yield _rectangle(x, y, width, height, colours)
    yield (
        f'<rect x="{x + 7:.1f}" y="{y + 8:.1f}" width="4" height="{height - 16:.1f}" rx="2"'
        f' fill="{colours.line}"/>'
    )
    yield f'<text x="{x + 19:.1f}" y="{y + 19:.1f}" font-weight="600">{escape(node.label)}</text>'
    yield (
        f'<text x="{x + 19:.1f}" y="{y + 34:.1f}" font-size="{12 * _SMALL:.1f}"'
        f' fill="{_DIM}">{escape(node.detail)}</text></g>'
    )


def _rectangle(x: float, y: float, width: float, height: float, colours: Colours) -> str:
    dashes = ' stroke-dasharray="5 3"' if colours.dashed else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8"'
        f' fill="{colours.fill}" stroke="{colours.line}" stroke-width="1.4"{dashes}/>'
    )


def _legend(drawing: Drawing, y: float) -> Iterator[str]:
    x = _MARGIN
    for mark, words in _legend_words(drawing):
        colours = colours_of(mark)
        yield _rectangle(x, y - 22, 14, 14, colours).replace('rx="8"', 'rx="3"')
        yield f'<text x="{x + 21:.1f}" y="{y - 11:.1f}" fill="{_DIM}">{escape(words)}</text>'
        x += _legend_step(words)


def _legend_words(drawing: Drawing) -> list[tuple[str, str]]:
    counts = dict.fromkeys(drawing.marks, 0)
    for node in drawing.nodes:
        counts[node.mark] += node.count
    return [(mark, f"{mark} {number:,}") for mark, number in counts.items()]


def _legend_step(words: str) -> float:
    return 44.0 + cell_len(words) * _CELL


def _legend_width(drawing: Drawing) -> float:
    return sum(_legend_step(words) for _, words in _legend_words(drawing))


def _path(route: Route) -> str:
    """Draw a line through the points: level or upright with rounded corners, otherwise an S."""
    parts = [_at("M", route[0])]
    for index in range(1, len(route)):
        before, here = route[index - 1], route[index]
        if _is_slanted(before, here):
            middle = (before[0] + here[0]) / 2
            parts.append(_at("C", (middle, before[1]), (middle, here[1]), here))
        elif index + 1 < len(route) and not _is_slanted(here, route[index + 1]):
            parts.append(_at("L", _towards(here, before)))
            parts.append(_at("Q", here, _towards(here, route[index + 1])))
        else:
            parts.append(_at("L", here))
    return "".join(parts)


def _at(command: str, *points: Point) -> str:
    return command + " ".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _is_slanted(one: Point, other: Point) -> bool:
    return abs(one[0] - other[0]) > _LEVEL and abs(one[1] - other[1]) > _LEVEL


def _towards(corner: Point, other: Point) -> Point:
    """Find where the curve of a corner begins on the way to another point, at most half-way."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = (dx * dx + dy * dy) ** 0.5
    part = min(0.5, _CORNER / length) if length else 0.0
    return corner[0] + dx * part, corner[1] + dy * part
