"""A build's graph as a picture: DOT, Mermaid, or SVG, from one neutral `Drawing`.

Ids come from elsewhere. None of them is used as a name in the output, and as a label each is on one line and
escaped in the output's own way: whatever an id holds, it is text.
"""

from scheduler.display.drawing.dot import dot
from scheduler.display.drawing.mermaid import mermaid
from scheduler.display.drawing.model import Drawing, Node, around, collapsed
from scheduler.display.drawing.sources import drawing_of, drawing_of_build
from scheduler.display.drawing.svg import MOST_EDGES, MOST_NODES, svg

__all__ = [
    "MOST_EDGES",
    "MOST_NODES",
    "Drawing",
    "Node",
    "around",
    "collapsed",
    "dot",
    "drawing_of",
    "drawing_of_build",
    "mermaid",
    "svg",
]
