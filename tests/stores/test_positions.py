"""How far captured replies were dealt with: positions that never claim what may still be lost."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.journal.records import Position
from scheduler.stores.positions import ReplyPositions


def at(sequence: int) -> Position:
    return Position(sequence, sequence * 10)


def see(captured: ReplyPositions, sequence: int, *, hold: str = "") -> None:
    """The next reply was looked at; it is for a component of ``hold``, or for nobody."""
    if hold:
        captured.hold(hold, sequence, captured.seen)
    captured.seen = at(sequence)


def test_in_the_beginning_nothing_was_dealt_with() -> None:
    """Before the first reply every build stands at the beginning."""
    assert ReplyPositions().position("b1") == Position()


def test_replies_for_nobody_are_dealt_with_when_they_were_looked_at() -> None:
    """Builds that nothing is held for stand where the stream was read to."""
    captured = ReplyPositions()
    see(captured, 5)
    assert captured.position("b1") == at(5)


def test_a_held_reply_keeps_its_build_before_it() -> None:
    """The position is that of the reply before, until the held one was dealt with; others go on."""
    captured = ReplyPositions()
    see(captured, 5)
    see(captured, 6, hold="b1")
    see(captured, 7)
    assert (captured.position("b1"), captured.position("b2")) == (at(5), at(7))
    captured.release("b1", 6)
    assert captured.position("b1") == at(7)


def test_the_oldest_of_several_counts() -> None:
    """Replies that are dealt with in another order free the position only up to the oldest that is not."""
    captured = ReplyPositions()
    for sequence in range(1, 6):
        see(captured, sequence, hold="b1")
    captured.release("b1", 2)
    captured.release("b1", 5)
    assert captured.position("b1") == at(0)
    captured.release("b1", 1)
    assert captured.position("b1") == at(2)
    captured.release("b1", 3)
    captured.release("b1", 4)
    assert captured.position("b1") == at(5)


def test_releasing_is_idempotent() -> None:
    """What is not held, or no longer, is released without harm to others."""
    captured = ReplyPositions()
    see(captured, 1, hold="b1")
    captured.release("b2", 1)
    captured.release("b1", 9)
    assert captured.position("b1") == at(0)
    captured.release("b1", 1)
    captured.release("b1", 1)
    assert captured.position("b1") == at(1)


def test_a_build_that_was_taken_up_stays_behind_until_it_has_caught_up() -> None:
    """What came since its position is still to be read, however far others are."""
    captured = ReplyPositions()
    captured.seen = at(100)
    captured.keep_behind("b1", at(3))
    captured.keep_behind("b2", at(7))
    see(captured, 101, hold="b1")
    captured.release("b1", 101)
    assert [captured.position(build) for build in ("b1", "b2", "b3")] == [at(3), at(7), at(101)]
    captured.catch_up(["b1"])
    assert [captured.position(build) for build in ("b1", "b2")] == [at(101), at(7)]
    captured.catch_up(["b2", "never seen"])
    assert captured.position("b2") == at(101)


def test_one_that_has_caught_up_is_still_held_by_its_replies() -> None:
    """To have been read is not to have been dealt with."""
    captured = ReplyPositions()
    captured.seen = at(3)
    captured.keep_behind("b1", at(3))
    see(captured, 4)
    see(captured, 5, hold="b1")
    see(captured, 6)
    captured.catch_up(["b1"])
    assert captured.position("b1") == at(4)


def test_what_is_read_again_counts_as_well() -> None:
    """A reply from further back, which is looked at later, holds the position before itself."""
    captured = ReplyPositions()
    captured.seen = at(100)
    captured.keep_behind("b1", at(40))
    see(captured, 101, hold="b1")
    captured.hold("b1", 50, at(49))
    captured.catch_up(["b1"])
    assert captured.position("b1") == at(49)
    captured.release("b1", 50)
    assert captured.position("b1") == at(100)


def test_a_build_that_is_left_stays_where_it_is() -> None:
    """What comes in and is let go of afterwards was not dealt with."""
    captured = ReplyPositions()
    see(captured, 5)
    see(captured, 6, hold="b1")
    see(captured, 7)
    captured.freeze("b1")
    captured.release("b1", 6)
    see(captured, 8)
    captured.freeze("b1")
    assert (captured.position("b1"), captured.position("b2")) == (at(5), at(8))


def test_a_build_that_is_forgotten_holds_nothing() -> None:
    """Nothing of it is kept; under the same id another one may begin."""
    captured = ReplyPositions()
    for build in ("b1", "b2", "b3"):
        see(captured, captured.seen.sequence + 1, hold=build)
    captured.freeze("b1")
    captured.keep_behind("b2", at(1))
    for build in ("b1", "b2", "b3", "never seen"):
        captured.forget(build)
        assert captured.position(build) == at(3)
    captured.release("b3", 3)
    assert captured.position("b3") == at(3)


@given(
    st.lists(
        st.tuples(st.sampled_from(["see", "deal"]), st.sampled_from(["", "b1", "b2"]), st.integers(0, 5)),
        max_size=60,
    )
)
def test_no_position_is_ahead_of_what_is_not_dealt_with(steps: list[tuple[str, str, int]]) -> None:
    """Whatever comes in and is dealt with in whichever order: a position covers nothing that is open."""
    captured = ReplyPositions()
    outstanding: dict[str, list[int]] = {"b1": [], "b2": []}
    sequence = 0
    for what, build, which in steps:
        if what == "see":
            sequence += 1
            see(captured, sequence, hold=build)
            if build:
                outstanding[build].append(sequence)
        elif build and outstanding[build]:
            captured.release(build, outstanding[build].pop(which % len(outstanding[build])))
        for name, mine in outstanding.items():
            assert captured.position(name).sequence == min(mine, default=sequence + 1) - 1


def test_each_stream_has_a_place_of_its_own() -> None:
    """What was seen or is held in one says nothing of the others, whose numbers are their own."""
    captured = ReplyPositions()
    captured.seen = at(50).moved("gcp", at(7))
    captured.hold("b1", 1, at(0), "aws")
    captured.see(at(1), "aws")
    captured.see(at(2), "aws")
    captured.hold("b1", 51, at(50))
    captured.see(at(51))
    captured.hold("b1", 2, at(1), "gcp")
    seen = at(51).moved("aws", at(2)).moved("gcp", at(7))
    assert captured.position("b2") == seen
    assert captured.position("b1") == at(50).moved("aws", at(0)).moved("gcp", at(1))
    captured.release("b1", 1)
    captured.release("b1", 1, "aws")
    assert captured.position("b1") == at(50).moved("aws", at(2)).moved("gcp", at(1))
    captured.release("b1", 51)
    captured.release("b1", 2, "gcp")
    assert captured.position("b1") == seen
