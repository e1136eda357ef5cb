"""Drawing: nodes and edges, and ways to reduce their number."""

from collections.abc import Sequence
from typing import Final

from attrs import evolve, field, frozen

from scheduler.definition.graph import Graph
from scheduler.text import count, mask_url, printable, shortened

LONGEST_LABEL: Final = 40
"""Largest number of characters of an id that are shown."""
_LONGEST_ERROR: Final = 500


@frozen
class Node:
    """Component, or several components drawn as one."""

    id: str
    type: str
    mark: str
    """State if the build runs or ran, otherwise the action."""
    count: int = 1
    """Number of components that it stands for; from two on, ``id`` is not the id of one of them."""
    error: str = ""
    """Error, without secrets."""

    @property
    def label(self) -> str:
        """Label: on one line, and not too long."""
        return shortened(self.id, LONGEST_LABEL)

    def tooltip(self, *, detail: bool = False) -> str:
        """Return its whole id, its detail if asked for, and its error."""
        parts = [printable(self.id), self.detail if detail else ""]
        parts.append(printable(mask_url(self.error), _LONGEST_ERROR))
        return ": ".join(filter(None, parts))

    @property
    def detail(self) -> str:
        """Line below the label: the mark in words, for people who do not see colours."""
        # Most ids contain the type.
        named = self.count > 1 or self.id.startswith(f"{self.type}::")
        return self.mark if named else f"{printable(self.type, LONGEST_LABEL)} · {self.mark}"


@frozen
class Drawing:
    """Graph to be drawn."""

    title: str
    nodes: Sequence[Node] = field(repr=False)
    edges: Sequence[tuple[int, int]] = field(repr=False)
    """Edges from a dependency to its dependent, as positions in ``nodes``."""
    note: str = ""
    """Remark beside the picture."""

    @property
    def marks(self) -> list[str]:
        """List the marks, in the order of their first use."""
        return list(dict.fromkeys(node.mark for node in self.nodes))


def around(drawing: Drawing, component: str, depth: int) -> Drawing | None:
    """Return the part around a component; None if there is no component of this id.

    Args:
        drawing: the whole drawing.
        component: the component's id.
        depth: the distance in edges, followed in both directions.
    """
    graph = _graph(drawing)
    position = graph.index.get(component)
    if position is None:
        return None
    kept = {position}
    for neighbours in (graph.dependencies, graph.dependents):
        layer = {position}
        for _ in range(depth):
            layer = {other for one in layer for other in neighbours[one]} - kept
            kept |= layer
    chosen = sorted(kept)
    index = {old: new for new, old in enumerate(chosen)}
    return Drawing(
        drawing.title,
        [drawing.nodes[one] for one in chosen],
        [(index[a], index[b]) for a, b in drawing.edges if a in index and b in index],
        f"{len(chosen):,} of {len(drawing.nodes):,} components: {shortened(component, LONGEST_LABEL)}, and"
        f" all within {count(depth, 'edge')} of it",
    )


def collapsed(drawing: Drawing, *, nodes: int, edges: int) -> Drawing | None:
    """Draw components as one until there are at most so many nodes and edges.

    First, components of one type, mark and wave become one node; then those of one type and mark.

    Returns:
        The same drawing if it is small enough; None if it cannot be made small enough.
    """
    if len(drawing.nodes) <= nodes and len(drawing.edges) <= edges:
        return drawing
    waves = [0] * len(drawing.nodes)
    for number, layer in enumerate(_graph(drawing).layers()):
        for position in layer:
            waves[position] = number
    for by, keys in (("type and wave", waves), ("type", [0] * len(waves))):
        found = _merged(drawing, keys)
        if len(found.nodes) <= nodes and len(found.edges) <= edges:
            return evolve(
                found,
                note=f"{len(drawing.nodes):,} components, drawn as one by {by}; "
                "--around COMPONENT draws the part around one of them",
            )
    return None


def _merged(drawing: Drawing, waves: Sequence[int]) -> Drawing:
    groups: dict[tuple[int, str, str], list[int]] = {}
    for position, node in enumerate(drawing.nodes):
        groups.setdefault((waves[position], node.type, node.mark), []).append(position)
    group_of: dict[int, int] = {}
    nodes = []
    for number, ((_, type_, mark), members) in enumerate(groups.items()):
        group_of.update(dict.fromkeys(members, number))
        if len(members) == 1:
            nodes.append(drawing.nodes[members[0]])
        else:
            total = sum(drawing.nodes[one].count for one in members)
            nodes.append(Node(f"{total:,} x {printable(type_)}", type_, mark, total))
    edges = dict.fromkeys((group_of[a], group_of[b]) for a, b in drawing.edges if group_of[a] != group_of[b])
    return Drawing(drawing.title, nodes, list(edges), drawing.note)


def _graph(drawing: Drawing) -> Graph:
    ids = [node.id for node in drawing.nodes]
    return Graph.of(ids, ((ids[a], ids[b]) for a, b in drawing.edges))
