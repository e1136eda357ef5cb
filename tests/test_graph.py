"""Dependencies, layers, paths and cycles, against naive answers."""

from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.graph import Graph

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


def before(size: int, edges: Edges) -> list[set[int]]:
    """Who can reach each vertex, by taking steps until nothing is new."""
    reach = [{source for source, end in edges if end == vertex} for vertex in range(size)]
    while True:
        more = [one.union(*(reach[other] for other in one)) for one in reach]
        if more == reach:
            return reach
        reach = more


def chains(edges: Edges, size: int) -> list[list[int]]:
    """Every path of a graph without cycles."""
    found = [[vertex] for vertex in range(size)]
    for path in found:
        found.extend([*path, end] for source, end in sorted(set(edges)) if source == path[-1])
    return found


def elementary(size: int, edges: Edges) -> set[tuple[int, ...]]:
    """Every elementary cycle from its smallest vertex, by trying all orders of all vertices."""
    known = set(edges)
    found = set()
    for length in range(1, size + 1):
        for order in permutations(range(size), length):
            if order[0] == min(order) and all(pair in known for pair in pairwise([*order, order[0]])):
                found.add(order)
    return found


@given(graphs())
def test_neighbours_are_indexed_both_ways(graph: tuple[int, Edges]) -> None:
    """Dependencies and dependents hold each edge once, from both ends."""
    size, edges = graph
    one = made(size, edges)
    assert [sorted(row) for row in one.dependencies] == [
        sorted({source for source, end in edges if end == vertex}) for vertex in range(size)
    ]
    assert [sorted(row) for row in one.dependents] == [
        sorted({end for source, end in edges if source == vertex}) for vertex in range(size)
    ]


def test_edges_from_elsewhere_are_passed_over() -> None:
    """What already exists and the pseudo ids make no edge."""
    one = Graph.of(["a", "b"], [("start", "a"), ("old", "a"), ("a", "b"), ("b", "end")])
    assert one.dependencies == ((), (0,))
    assert one.dependents == ((1,), ())
    assert one.index == {"a": 0, "b": 1}


@given(graphs())
def test_ancestors_are_all_who_lead_to_it(graph: tuple[int, Edges]) -> None:
    """The ancestors of a vertex are its dependencies, direct or not."""
    size, edges = graph
    assert [made(size, edges).ancestors(vertex) for vertex in range(size)] == before(size, edges)


@given(graphs(acyclic=True, most=7))
def test_layers_follow_the_longest_chain(graph: tuple[int, Edges]) -> None:
    """A vertex is in the layer of the longest chain that ends in it."""
    size, edges = graph
    depth = [0] * size
    for path in chains(edges, size):
        depth[path[-1]] = max(depth[path[-1]], len(path) - 1)
    layers = made(size, edges).layers()
    assert {vertex: at for at, layer in enumerate(layers) for vertex in layer} == dict(enumerate(depth))
    assert sum(map(len, layers)) == size


def test_layers_leave_cycles_out() -> None:
    """What lies on a cycle or behind one is in no layer."""
    assert made(4, [(0, 1), (1, 2), (2, 1), (2, 3)]).layers() == [[0]]


@given(graphs(acyclic=True, most=7), st.lists(st.integers(0, 9), min_size=7, max_size=7))
def test_the_critical_path_costs_most(graph: tuple[int, Edges], costs: list[int]) -> None:
    """The critical path is a chain, and no chain costs more."""
    size, edges = graph
    one = made(size, edges)
    every = chains(edges, size)
    path = one.critical_path([float(cost) for cost in costs])
    assert sum(costs[vertex] for vertex in path) == max(
        (sum(costs[vertex] for vertex in chain) for chain in every), default=0
    )
    assert all(pair in edges for pair in pairwise(path))
    assert len(one.critical_path()) == max(map(len, every), default=0)


@given(graphs(acyclic=True), st.lists(st.floats(0, 9), min_size=8, max_size=8))
def test_what_remains_is_the_most_expensive_way_to_an_end(
    graph: tuple[int, Edges], costs: list[float]
) -> None:
    """Of every vertex: its own cost, and that of the most expensive chain behind it."""
    size, edges = graph
    cost = costs[:size]

    def way(vertex: int) -> float:
        return cost[vertex] + max((way(after) for one, after in edges if one == vertex), default=0.0)

    remaining = made(size, edges).remaining(cost)
    assert remaining == pytest.approx([way(vertex) for vertex in range(size)])
    assert cost == costs[:size]


@given(graphs(acyclic=True), st.lists(st.integers(0, 9), min_size=8, max_size=8))
def test_what_remains_at_most_is_the_critical_path(graph: tuple[int, Edges], costs: list[int]) -> None:
    """The most expensive way of all is the critical path."""
    made_graph, cost = made(*graph), costs[: graph[0]]
    path = made_graph.critical_path(cost)
    assert max(made_graph.remaining(cost), default=0) == sum(cost[vertex] for vertex in path)


@given(graphs(most=5))
def test_cycles_are_all_the_elementary_ones(graph: tuple[int, Edges]) -> None:
    """Every elementary cycle is found once, as a path that ends where it began, and nothing else."""
    size, edges = graph
    found = made(size, edges).cycles()
    assert all(path[0] == path[-1] for path in found)
    assert len(found) == len({tuple(path) for path in found})
    assert {tuple(path[:-1]) for path in found} == elementary(size, edges)


@pytest.mark.parametrize(
    ("edges", "cycles"),
    [
        ([], []),
        ([(0, 1), (1, 2), (0, 2)], []),
        ([(1, 1)], [[1, 1]]),
        ([(0, 1), (1, 0)], [[0, 1, 0]]),
        ([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)], [[0, 1, 2, 0], [2, 3, 4, 2]]),
        ([(0, 1), (1, 0), (2, 3), (3, 4), (4, 2), (1, 2)], [[0, 1, 0], [2, 3, 4, 2]]),
        ([(0, 1), (1, 2), (2, 0), (1, 0)], [[0, 1, 0], [0, 1, 2, 0]]),
        (
            [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)],
            [[0, 1, 0], [0, 1, 2, 0], [0, 2, 0], [0, 2, 1, 0], [1, 2, 1]],
        ),
    ],
    ids=["none", "diamond", "self", "pair", "figure-eight", "two-apart", "shared-edge", "both-ways"],
)
def test_known_cycles(edges: Edges, cycles: list[list[int]]) -> None:
    """Each cycle of a graph is named."""
    assert sorted(made(5, edges).cycles()) == cycles


@pytest.mark.parametrize(
    ("edges", "count"),
    [
        ([(vertex, (vertex + 1) % 10_000) for vertex in range(10_000)], 1),
        ([(vertex, vertex ^ 1) for vertex in range(10_000)], 5_000),
        ([(a, b) for a in range(300) for b in range(300) if a != b], 100),
        ([(a, b) for a in range(60) for b in range(60) if a != b], 100),
        ([(a, a + 1) for a in range(9_999)] + [(9_999, a) for a in range(9_999)], 100),
        ([(a, b % 10_000) for a in range(10_000) for b in (a + 1, a + 7, a + 91)], 100),
    ],
    ids=["ring", "pairs", "complete", "small-complete", "all-back", "knot"],
)
@pytest.mark.timeout(20)
def test_many_cycles_take_bounded_time(edges: Edges, count: int) -> None:
    """Large knots are told by some of their cycles, each a real one, in no time; no knot is left out."""
    cycles = made(10_000, edges).cycles()
    assert len(cycles) == count
    assert len({tuple(path) for path in cycles}) == count
    known = set(edges)
    assert all(path[0] == path[-1] and all(pair in known for pair in pairwise(path)) for path in cycles)


def test_a_large_knot_with_few_cycles_is_told_whole() -> None:
    """Two rings of 1,000 that share one vertex are two cycles."""
    first = [(vertex, (vertex + 1) % 1_000) for vertex in range(1_000)]
    second = [(999 + vertex, 1_000 + vertex if vertex < 999 else 999) for vertex in range(1_000)]
    assert sorted(map(len, made(1_999, first + second).cycles())) == [1_001, 1_001]
