"""Graphs for tests, random and drawn up."""

from hypothesis import strategies as st

from scheduler.definition.graph import Graph

Edges = list[tuple[int, int]]


@st.composite
def graphs(draw: st.DrawFn, *, acyclic: bool = False, most: int = 8) -> tuple[int, Edges]:
    size = draw(st.integers(0, most))
    if not size:
        return 0, []
    ends = st.integers(0, size - 1)
    edges = draw(st.lists(st.tuples(ends, ends), max_size=3 * size))
    if acyclic:
        order = draw(st.permutations(range(size)))
        edges = [(order[min(edge)], order[max(edge)]) for edge in edges if edge[0] != edge[1]]
    return size, edges


def made(size: int, edges: Edges) -> Graph:
    return Graph.of([f"v{vertex}" for vertex in range(size)], [(f"v{a}", f"v{b}") for a, b in edges])
