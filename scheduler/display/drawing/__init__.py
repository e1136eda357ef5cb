"""Draws a build's graph as DOT, Mermaid or SVG, from one neutral `Drawing`.

Ids come from outside. They are never names in the output. As labels they are on one line, and escaped for the
output's language: an id is always text, whatever it contains.
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
