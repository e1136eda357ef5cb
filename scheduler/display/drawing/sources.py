"""Drawings of builds: as submitted, or as a scheduler says that they stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.client.lenient import text, texts
from scheduler.client.progress import STATES
from scheduler.definition.model import State
from scheduler.definition.validation import Prepared
from scheduler.display.drawing.model import Drawing, Node


def drawing_of_build(prepared: Prepared) -> Drawing:
    """A build before it runs: the marks are actions, or ``completed`` for what is done already."""
    build, graph = prepared.build, prepared.graph
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
    """A build as a scheduler answers ``get`` about it: the marks are states.

    Args:
        summary: what is said of the build.
        components: what is said of its components, each with its ``needs``.
    """
    index: dict[str, int] = {}
    nodes: list[Node] = []
    needs: list[list[str]] = []
    for component in components:
        name, state = text(component.get("id")), text(component.get("state"))
        if name in index:
            # Pages of different moments may overlap.
            continue
        index[name] = len(nodes)
        type_ = text(component.get("subject")).partition(".")[0]
        error = text(component.get("error"))
        nodes.append(Node(name, type_, state if state in STATES else "unknown", error=error))
        needs.append(texts(component.get("needs")))
    edges = [
        (index[one], position)
        for position, names in enumerate(needs)
        for one in dict.fromkeys(names)
        if one in index and index[one] != position
    ]
    words = (text(summary.get(word)) for word in ("action", "id", "status"))
    return Drawing(" ".join(filter(None, words)), nodes, edges)
