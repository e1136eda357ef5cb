"""Mermaid flowcharts (https://mermaid.js.org/syntax/flowchart.html), drawn by many hosts of Markdown."""

from collections.abc import Iterator
from typing import Final

from scheduler.drawing.colours import colours_of
from scheduler.drawing.model import Drawing
from scheduler.text import printable

MOST_EDGES: Final = 500
"""Mermaid's ``maxEdges``: it draws nothing where there are more."""
MOST_NODES: Final = 300
"""So that the text stays below its ``maxTextSize`` of 50,000 characters, with ids of the usual length."""


def mermaid(drawing: Drawing) -> str:
    """The drawing as a flowchart."""
    return "".join(f"{line}\n" for line in _lines(drawing))


def _lines(drawing: Drawing) -> Iterator[str]:
    yield "flowchart LR"
    if drawing.note:
        # In a comment braces would still be taken for a directive; a note holds an id.
        yield f"  %% {escaped(printable(drawing.note))}"
    for number, node in enumerate(drawing.nodes):
        yield f'  n{number}["{escaped(node.label)}<br/>{escaped(node.detail)}"]:::m{escaped(node.mark)}'
    for source, destination in drawing.edges:
        yield f"  n{source} --> n{destination}"
    for mark in drawing.marks:
        colours = colours_of(mark)
        dashes = ",stroke-dasharray:4 3" if colours.dashed else ""
        yield f"  classDef m{escaped(mark)} fill:{colours.fill},stroke:{colours.line},color:#1f2937{dashes}"


def escaped(text: str) -> str:
    """Letters, digits and blanks as they are; anything else as an entity, which is never syntax."""
    return "".join(
        character if character.isalnum() or character == " " else f"#{ord(character)};" for character in text
    )
