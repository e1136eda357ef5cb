"""DOT, the language of Graphviz (https://graphviz.org/doc/info/lang.html)."""

from collections.abc import Iterator

from scheduler.display.drawing.colours import colours_of
from scheduler.display.drawing.model import Drawing
from scheduler.text import printable


def dot(drawing: Drawing) -> str:
    """Write a drawing as a DOT digraph."""
    return "".join(f"{line}\n" for line in _lines(drawing))


def _lines(drawing: Drawing) -> Iterator[str]:
    yield "digraph build {"
    yield f"  label={quoted(printable(drawing.title))}; labelloc=t; fontname=Helvetica;"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style="rounded,filled", fontname=Helvetica, fontsize=11];'
    yield '  edge [color="#8a93a0", arrowsize=0.7];'
    if drawing.note:
        yield f"  // {printable(drawing.note)}"
    for number, node in enumerate(drawing.nodes):
        colours = colours_of(node.mark)
        style = ', style="rounded,filled,dashed"' if colours.dashed else ""
        label = f'"{_escaped(node.label)}\\n{_escaped(node.detail)}"'
        tip = quoted(node.tooltip())
        yield (
            f'  n{number} [label={label}, tooltip={tip}, color="{colours.line}",'
            f' fillcolor="{colours.fill}"{style}];'
        )
    for source, destination in drawing.edges:
        yield f"  n{source} -> n{destination};"
    yield "}"


def quoted(text: str) -> str:
    """Quote a text of one line so that nothing in it is an escape or an entity."""
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    # In labels \N, \G and the like are replaced, and HTML entities too.
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
