"""What is drawn: nodes and edges, and how to draw fewer of them."""

from collections.abc import Sequence
from typing import Final

from attrs import evolve, field, frozen

from scheduler.definition.graph import Graph
from scheduler.text import mask_url, printable, shortened

LONGEST_LABEL: Final = 40
"""Characters of an id that are shown."""
_LONGEST_ERROR: Final = 500


@frozen
class Node:
    """A component, or several that are drawn as one."""

    id: str
    type: str
    mark: str
    """Its state where the build runs or ran, otherwise the action that is to be done."""
    count: int = 1
    """How many components it stands for; from two on, ``id`` is not one of theirs."""
    error: str = ""
    """Why it failed, secrets taken out."""

    @property
    def label(self) -> str:
        """What it is called: on one line, and not too long."""
        return shortened(self.id, LONGEST_LABEL)

    def tooltip(self, *, detail: bool = False) -> str:
        """All of its id, what stands below it, and why it failed."""
        parts = [printable(self.id), self.detail if detail else ""]
        parts.append(printable(mask_url(self.error), _LONGEST_ERROR))
        return ": ".join(filter(None, parts))

    @property
    def detail(self) -> str:
        """What stands below that: its mark is told in words, for those who see no colours."""
        # Of most ids the type is a part.
        named = self.count > 1 or self.id.startswith(f"{self.type}::")
        return self.mark if named else f"{printable(self.type, LONGEST_LABEL)} · {self.mark}"


@frozen
class Drawing:
    """A graph to be drawn."""

    title: str
    nodes: Sequence[Node] = field(repr=False)
    edges: Sequence[tuple[int, int]] = field(repr=False)
    """From a dependency to its dependent, as positions in ``nodes``."""
    note: str = ""
    """What is to be said beside it."""

    @property
    def marks(self) -> list[str]:
        """Every mark, in the order of its first use."""
        return list(dict.fromkeys(node.mark for node in self.nodes))


def around(drawing: Drawing, component: str, depth: int) -> Drawing | None:
    """The neighbourhood of a component; None where there is none of this id.

    Args:
        drawing: the whole.
        component: its id.
        depth: how many edges away from it, along them or against them.
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
        f" what is up to {depth} from it",
    )


def collapsed(drawing: Drawing, *, nodes: int, edges: int) -> Drawing | None:
    """The drawing with components drawn as one, as far as it takes to have no more nodes and edges.

    First those of one type, mark and wave become one node, then those of one type and mark.

    Returns:
        The drawing as it is where it is small enough; None where nothing makes it so.
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
            count = sum(drawing.nodes[one].count for one in members)
            nodes.append(Node(f"{count:,} x {printable(type_)}", type_, mark, count))
    edges = dict.fromkeys((group_of[a], group_of[b]) for a, b in drawing.edges if group_of[a] != group_of[b])
    return Drawing(drawing.title, nodes, list(edges), drawing.note)


def _graph(drawing: Drawing) -> Graph:
    ids = [node.id for node in drawing.nodes]
    return Graph.of(ids, ((ids[a], ids[b]) for a, b in drawing.edges))
