"""Drawings of builds: as submitted, or in their current state."""

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.client.counts import GATED, STATES
from scheduler.client.lenient import text, texts
from scheduler.definition.graph import Graph
from scheduler.definition.model import Build, State
from scheduler.display.drawing.model import Drawing, Node


def drawing_of_build(build: Build, graph: Graph) -> Drawing:
    """Draw a build before it runs: the marks are actions, or ``completed`` for completed changes."""
    nodes = [
        Node(
            change.id,
            change.type,
            State.COMPLETED.value if change.state is State.COMPLETED else change.action.value,
        )
        for change in build.changes
    ]
    edges = [
        (source, vertex) for vertex, sources in enumerate(graph.dependencies) for source in sorted(sources)
    ]
    return Drawing(f"{build.action} {build.id}", nodes, edges)


def drawing_of(summary: Mapping[str, Any], components: Sequence[Mapping[str, Any]]) -> Drawing:
    """Draw a build from the answer to ``get``: the marks are states.

    Args:
        summary: the answer about the build.
        components: the answer about its components, each with its ``needs``.
    """
    index: dict[str, int] = {}
    nodes: list[Node] = []
    needs: list[list[str]] = []
    for component in components:
        name, state = text(component.get("id")), text(component.get("state"))
        if name in index:
            # Pages are from different moments, and may overlap.
            continue
        index[name] = len(nodes)
        type_ = text(component.get("subject")).partition(".")[0]
        error = text(component.get("error"))
        known = state in STATES or state == GATED
        nodes.append(Node(name, type_, state if known else "unknown", error=error))
        needs.append(texts(component.get("needs")))
    edges = [
        (index[one], position)
        for position, names in enumerate(needs)
        for one in dict.fromkeys(names)
        if one in index and index[one] != position
    ]
    words = (text(summary.get(word)) for word in ("action", "id", "status"))
    return Drawing(" ".join(filter(None, words)), nodes, edges)
