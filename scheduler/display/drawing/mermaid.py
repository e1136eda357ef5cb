"""Mermaid flowcharts (https://mermaid.js.org/syntax/flowchart.html), which many Markdown hosts draw."""

import re
from collections.abc import Iterator
from typing import Final

from scheduler.display.drawing.colours import colours_of
from scheduler.display.drawing.model import Drawing, Node
from scheduler.text import printable

MOST_EDGES: Final = 500
"""Mermaid's ``maxEdges``: with more edges it draws nothing."""
MOST_NODES: Final = 300
"""Largest number of nodes that keeps the text below its ``maxTextSize`` of 50,000 characters."""


def mermaid(drawing: Drawing) -> str:
    """Write a drawing as a flowchart."""
    return "".join(f"{line}\n" for line in _lines(drawing))


def _lines(drawing: Drawing) -> Iterator[str]:
    yield "flowchart LR"
    if drawing.note:
        # Even in a comment, braces would be read as a directive; a note contains an id.
        yield f"  %% {escaped(printable(drawing.note))}"
    for number, node in enumerate(drawing.nodes):
        yield f'  n{number}["{_label(node)}"]:::m{escaped(node.mark)}'
    for source, destination in drawing.edges:
        yield f"  n{source} --> n{destination}"
    for mark in drawing.marks:
        colours = colours_of(mark)
        dashes = ",stroke-dasharray:4 3" if colours.dashed else ""
        yield f"  classDef m{escaped(mark)} fill:{colours.fill},stroke:{colours.line},color:#1f2937{dashes}"


def _label(node: Node) -> str:
    label = f"{escaped(node.label)}<br/>{escaped(node.detail)}"
    # Mermaid removes the last semicolon of a line with such a word, as if it ended the statement.
    return _STATEMENTS.sub(lambda found: _entity(found[0]), label) if "#" in label else label


def escaped(text: str) -> str:
    """Escape ``text`` for quotes: characters that Mermaid would interpret become entities.

    Mermaid resolves entities before it looks for line breaks (a backslash and n), formulas, icons and lists.
    These are therefore broken by a space without width.
    """
    text = text.translate(_ENTITIES)
    text = _DIRECTION.sub(r"\1#32;", text)
    return _SPLIT.sub(rf"\g<0>{_JOINT}", text)


def _entity(character: str) -> str:
    return f"#{ord(character)};"


_ENTITIES: Final = {ord(one): _entity(one) for one in '#`%{}'} | {
    ord('"'): "#quot;", ord("&"): "#amp;", ord("<"): "#lt;", ord(">"): "#gt;"
}  # fmt: skip
"""Quotes and entities, HTML, Markdown strings (a quote and a backtick), comments and directives."""
_JOINT: Final = _entity("\u200b")
_SPLIT: Final = re.compile(
    r"""\\(?=[nN])                                # a line break
    | \$(?=\$)                                  # a formula
    | fa\w?:(?=fa-)                             # an icon
    | ^(?=(?:\d+[.)]|[-+*]|(?:\#35;)+)\s|\#gt;) # in some versions a list, a heading, a quotation
    | \ufb02(?=\xb0) | \xb6(?=\xdf)             # what Mermaid writes in the place of entities
    """,
    re.VERBOSE,
)
_DIRECTION: Final = re.compile(r"(direction)\s")
"""Words that Mermaid reads as a statement, even in quotes."""
_STATEMENTS: Final = re.compile(r"s(?=tyle)|c(?=lassDef)")
