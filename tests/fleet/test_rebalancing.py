"""Which build a loaded instance gives to an idle one, and that builds never go back and forth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.fleet.rebalancing import (
    ACCEPT_REST,
    FRESH,
    LEAST_SIZE,
    MOVED_REST,
    REFUSED_REST,
    REST,
    SETTLED,
    Burden,
    Rests,
    Taker,
    choose,
    fits,
    is_loaded,
)

IDLE = Taker("beta", "beta-1", 0, 1.0, True)
THREE = [Burden(name, 1_000, 1_000) for name in "abc"]


def taker(key: str, components: int = 0, *, age: float = 1.0, takes: bool = True) -> Taker:
    return Taker(key, f"{key}-1", components, age, takes)


def test_one_of_three_goes_to_an_idle_instance() -> None:
    """It gets one of equal builds."""
    (best, *_) = choose(3_000, THREE, [IDLE])
    assert (best.build, best.taker) == ("a", IDLE)


def test_a_build_that_is_all_the_load_stays() -> None:
    """To move it would only make the other instance loaded."""
    assert choose(50_000, [Burden("a", 50_000, 50_000)], [IDLE]) == []


def test_of_two_instances_the_idlest_gets_a_build() -> None:
    """Whatever their names are."""
    moves = choose(3_000, THREE, [taker("a", 100), taker("b", 50), taker("c", 70)])
    assert {move.taker.key for move in moves} == {"b"}


@pytest.mark.parametrize("other", [taker("b", takes=False), taker("b", age=FRESH + 0.1), taker("b", 1_501)])
def test_who_drains_or_is_not_known_well_or_not_idle_gets_nothing(other: Taker) -> None:
    """Nor does one that is full."""
    assert choose(3_000, THREE, [other]) == []


def test_a_build_that_is_nearly_done_stays() -> None:
    """It takes a moment to move it."""
    assert choose(9_000, [Burden("a", 900, 9_001), Burden("b", LEAST_SIZE - 1, 300)], [IDLE]) == []


def test_a_small_part_of_the_difference_is_not_moved() -> None:
    """It would change nothing."""
    assert choose(50_000, [Burden("a", 4_999, 5_000)], [IDLE]) == []


def test_the_largest_build_that_fits_is_moved() -> None:
    """So that few moves are needed."""
    burdens = [Burden("a", 600, 600), Burden("b", 2_000, 2_000), Burden("c", 2_001, 2_001)]
    assert [move.build for move in choose(4_000, burdens, [IDLE])] == ["b", "a"]


def spread(totals: list[int]) -> int:
    return sum(total**2 for total in totals)


loads = st.lists(st.integers(1, 5_000), max_size=12)


@settings(max_examples=300)
@given(st.lists(loads, min_size=2, max_size=5), st.data())
def test_moves_come_to_an_end(instances: list[list[int]], data: st.DataObject) -> None:
    """However loads are spread, and whoever moves next: each move makes loads more alike."""
    fleet = [{f"{n}-{m}": load for m, load in enumerate(one)} for n, one in enumerate(instances)]
    closed = data.draw(st.sets(st.integers(0, len(fleet) - 1)))
    for _ in range(1_000):
        totals = [sum(one.values()) for one in fleet]
        possible = []
        for n, one in enumerate(fleet):
            others = [taker(str(m), totals[m], takes=m not in closed) for m in range(len(fleet)) if m != n]
            found = choose(totals[n], [Burden(*item, item[1]) for item in one.items()], others)
            if found:
                possible += [(n, move) for move in found]
        if not possible:
            break
        giver, move = data.draw(st.sampled_from(possible))
        to = int(move.taker.key)
        assert to not in closed
        size = fleet[giver].pop(move.build)
        fleet[to][move.build] = size
        assert size == move.left
        # Neither is worse off than the giver was, and the taker has no more than the giver now.
        assert totals[to] + size <= totals[giver] - size
        after = [sum(one.values()) for one in fleet]
        assert spread(after) <= spread(totals) - 2 * LEAST_SIZE**2
    else:
        pytest.fail("it does not come to an end")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_moved_does_not_move_back(ours: int, theirs: int, left: int) -> None:
    """Between two instances, with nothing else that happens."""
    if fits(ours, theirs, left):
        assert not is_loaded(theirs + left, ours - left)


def test_a_build_leaves_when_it_has_been_here_for_a_while() -> None:
    """One that is new is perhaps done soon."""
    rests = Rests()
    rests.see(["a"], 100.0)
    assert not rests.may_leave("a", 100.0 + SETTLED - 0.1)
    assert rests.may_leave("a", 100.0 + SETTLED)
    assert not rests.may_leave("b", 1e9)


def test_who_has_given_or_got_a_build_rests() -> None:
    """So does the build, and an instance that refused it."""
    rests = Rests()
    rests.see(["a", "b"], 0.0)
    now = 100.0
    assert rests.may_give(now)
    assert rests.may_accept(now)
    rests.begin(now)
    rests.moved("a", now)
    rests.refused("beta", now)
    assert not rests.may_give(now + REST - 0.1)
    assert rests.may_give(now + REST)
    for after, rested in ((MOVED_REST - 0.1, False), (MOVED_REST, True)):
        rests.see(["a", "b"], now + after)
        assert rests.may_leave("a", now + after) is rested
    rests.accept("c", now)
    assert not rests.may_accept(now + ACCEPT_REST - 0.1)
    assert rests.may_accept(now + ACCEPT_REST)
    assert not rests.may_give(now + REST - 0.1)


def test_an_instance_that_refused_is_asked_again_later() -> None:
    """Others are asked meanwhile."""
    rests = Rests()
    rests.refused("beta", 100.0)
    rests.see([], 100.0 + REFUSED_REST - 0.1)
    assert not rests.may_get("beta")
    assert rests.may_get("gamma")
    rests.see([], 100.0 + REFUSED_REST)
    assert rests.may_get("beta")
