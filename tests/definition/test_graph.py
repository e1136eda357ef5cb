"""Dependencies, layers, paths and cycles, against naive answers."""

from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import Edges, graphs, made

from scheduler.definition.graph import Graph


def before(size: int, edges: Edges) -> list[set[int]]:
    """Ancestors of each vertex, by taking steps until nothing is new."""
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


def knots(size: int, edges: Edges) -> list[list[tuple[int, ...]]]:
    """All elementary cycles, those together that share a vertex, directly or over others."""
    found: list[list[tuple[int, ...]]] = []
    for cycle in elementary(size, edges):
        joined = [knot for knot in found if any(set(cycle) & set(other) for other in knot)]
        found = [knot for knot in found if knot not in joined]
        found.append([cycle, *(other for knot in joined for other in knot)])
    return found


@settings(max_examples=300)
@given(graphs(most=6))
def test_each_knot_of_cycles_is_told_once(graph: tuple[int, Edges]) -> None:
    """By its shortest cycle, the number of the others, and the edges that are on all of them."""
    size, edges = graph
    found = made(size, edges).knots()
    expected = sorted(knots(size, edges), key=min)
    assert len(found) == len(expected)
    assert all(knot.cycle[0] == knot.cycle[-1] == min(knot.cycle) for knot in found)
    for knot in found:
        (cycles,) = [some for some in expected if knot.cycle[:-1] in some]
        assert len(knot.cycle) - 1 == min(map(len, cycles))
        assert (knot.others, knot.counted) == (len(cycles) - 1, True)
        around = [set(pairwise((*cycle, cycle[0]))) for cycle in cycles]
        on_all = set.intersection(*around)
        assert list(knot.shared) == [edge for edge in pairwise(knot.cycle) if edge in on_all]


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([], []),
        ([(0, 1), (1, 2), (0, 2)], []),
        ([(1, 1)], [((1, 1), 0, ((1, 1),))]),
        ([(0, 1), (1, 0)], [((0, 1, 0), 0, ((0, 1), (1, 0)))]),
        ([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)], [((0, 1, 2, 0), 1, ())]),
        (
            [(0, 1), (1, 0), (2, 3), (3, 4), (4, 2), (1, 2)],
            [((0, 1, 0), 0, ((0, 1), (1, 0))), ((2, 3, 4, 2), 0, ((2, 3), (3, 4), (4, 2)))],
        ),
        ([(0, 1), (1, 2), (2, 0), (1, 0)], [((0, 1, 0), 1, ((0, 1),))]),
        ([(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)], [((0, 1, 0), 4, ())]),
    ],
    ids=["none", "diamond", "self", "pair", "figure-eight", "two-apart", "shared-edge", "both-ways"],
)
def test_known_knots(edges: Edges, expected: list[object]) -> None:
    """The knots of a few small graphs, in the order of their vertices."""
    found = made(5, edges).knots()
    assert all(knot.counted for knot in found)
    assert [(knot.cycle, knot.others, knot.shared) for knot in found] == expected


WIDE = [(a, b) for a in range(9_900) for b in range(a + 1, a + 11)]


@pytest.mark.parametrize(
    ("edges", "count", "length", "others", "shared"),
    [
        ([(vertex, (vertex + 1) % 10_000) for vertex in range(10_000)], 1, 10_000, 0, 10_000),
        ([(vertex, vertex ^ 1) for vertex in range(10_000)], 5_000, 2, 0, 2),
        ([(a, b) for a in range(300) for b in range(300) if a != b], 1, 2, 500, 0),
        ([(a, a + 1) for a in range(9_999)] + [(9_999, a) for a in range(9_999)], 1, 2, 1_000, 1),
        ([(a, b % 10_000) for a in range(10_000) for b in (a + 1, a + 7, a + 91)], 1, 124, 1, 0),
        ([*WIDE, (9_909, 0)], 1, 992, 1_000, 2),
        ([*WIDE, (9_909, 0), (9_000, 1_000)], 1, 801, 1, 0),
        ([*WIDE, *((b, a) for a, b in WIDE)], 1, 2, 1, 0),
    ],
    ids=["ring", "pairs", "complete", "all-back", "knot", "one-wrong", "two-wrong", "both-ways"],
)
@pytest.mark.timeout(20)
def test_large_knots_take_bounded_time(
    edges: Edges, count: int, length: int, others: int, shared: int
) -> None:
    """In graphs of 10,000 vertices and 100,000 edges each knot is described by an existing cycle."""
    found = made(10_000, edges).knots()
    known = set(edges)
    assert len(found) == count
    for knot in found:
        assert len(knot.cycle) == length + 1
        assert all(pair in known for pair in pairwise(knot.cycle))
        assert knot.others >= others
        assert len(knot.shared) == shared


def test_a_large_knot_with_few_cycles_is_counted() -> None:
    """Two rings of 1,000 that share one vertex are two cycles."""
    first = [(vertex, (vertex + 1) % 1_000) for vertex in range(1_000)]
    second = [(999 + vertex, 1_000 + vertex if vertex < 999 else 999) for vertex in range(1_000)]
    (knot,) = made(1_999, first + second).knots()
    assert (len(knot.cycle), knot.others, knot.counted, knot.shared) == (1_001, 1, True, ())
