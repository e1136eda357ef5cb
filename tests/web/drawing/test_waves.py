"""Places of components: waves, columns, and an order with fewer crossings."""

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from scheduler.web.drawing.ordering import order
from scheduler.web.drawing.waves import CELL, folds_of, longest_chain, place, rows_of, waves_of


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """Dependencies of each component, each on earlier ones."""
    size = draw(st.integers(0, 40))
    return [draw(st.lists(st.integers(0, one - 1), max_size=3)) if one else [] for one in range(size)]


@given(graphs())
def test_each_component_stands_right_behind_the_last_that_it_needs(needs: list[list[int]]) -> None:
    """No sooner, as edges go one way, and no later."""
    wave = waves_of(needs)
    assert wave == [max((wave[one] + 1 for one in found), default=0) for found in needs]


@given(graphs())
def test_no_two_components_share_a_place(needs: list[list[int]]) -> None:
    """All of them are inside the drawing, and each wave behind the one before."""
    wave = waves_of(needs)
    rows = rows_of(wave)
    placed = place(rows)
    assert len(set(zip(placed.x, placed.y, strict=True))) == len(needs)
    assert all(0 < one < placed.width for one in placed.x)
    assert all(0 < one < placed.height for one in placed.y)
    columns = [[placed.x[vertex] for vertex in row] for row in rows]
    assert all(max(one) < min(two) for one, two in itertools.pairwise(columns))


@given(graphs())
def test_ordering_moves_nothing_to_another_wave(needs: list[list[int]]) -> None:
    """And it is the same each time."""
    rows = rows_of(waves_of(needs))
    found = order(rows, needs)
    assert [Counter(row) for row in found] == [Counter(row) for row in rows]
    assert found == order(rows, needs)


def crossings(rows: list[list[int]], needs: list[list[int]]) -> int:
    """Number of pairs of edges between two waves that cross."""
    at = {vertex: number for row in rows for number, vertex in enumerate(row)}
    edges = [(at[one], at[vertex]) for vertex, found in enumerate(needs) for one in found]
    return sum((a - c) * (b - d) < 0 for a, b in edges for c, d in edges) // 2


def test_ordering_untangles_what_can_be_untangled() -> None:
    """Pairs that were submitted crosswise stand side by side."""
    half = 20
    needs: list[list[int]] = [[] for _ in range(half)]
    needs += [[half - 1 - number] for number in range(half)]
    rows = rows_of(waves_of(needs))
    assert crossings(rows, needs) == half * (half - 1) // 2
    assert crossings(order(rows, needs), needs) == 0


@given(graphs())
def test_the_longest_chain_goes_through_every_wave(needs: list[list[int]]) -> None:
    """Each of it needs the one before."""
    wave = waves_of(needs)
    chain = longest_chain(needs, wave)
    assert [wave[one] for one in chain] == list(range(max(wave, default=-1) + 1))
    assert all(one in needs[two] for one, two in itertools.pairwise(chain))


@given(graphs())
def test_folds_have_each_component_once(needs: list[list[int]]) -> None:
    """A fold is of one type in one wave, and its members stand in it."""
    wave = waves_of(needs)
    types = [vertex % 3 for vertex in range(len(needs))]
    placed = place(rows_of(wave))
    folds = folds_of(placed, wave, types)
    assert sorted(one for fold in folds for one in fold.members) == list(range(len(needs)))
    for fold in folds:
        for one in fold.members:
            assert (wave[one], types[one]) == (fold.wave, fold.type)
            assert fold.x < placed.x[one] < fold.x + fold.width
            assert fold.y < placed.y[one] < fold.y + fold.height


def test_a_long_wave_has_several_columns() -> None:
    """Ten thousand components without edges are no line."""
    placed = place(rows_of(waves_of([[] for _ in range(10_000)])))
    assert 2 <= CELL * placed.width / placed.height <= 4


def test_what_needs_itself_stands_somewhere_all_the_same() -> None:
    """A service of another version may answer anything."""
    assert waves_of([[1], [0], []]) == [0, 0, 0]
