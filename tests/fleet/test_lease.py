"""Leases: how long they hold, for those who keep them and for those who look."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from scheduler.fleet.lease import (
    LEASE,
    PERIOD,
    RENEW_WITHIN,
    Found,
    Judge,
    Lease,
    Load,
    Standing,
    Tenure,
    document,
    encode_lease,
    read_lease,
)

A = Lease("a-1", "a")


def looks(judge: Judge, start: float, seconds: float, *, revision: int = 1, lease: Lease = A) -> float:
    """Look at the same lease every `PERIOD` seconds for so long; return the time of the last look."""
    now = start
    while now <= start + seconds:
        judge.look(now, {"a": Found(lease, revision)})
        now += PERIOD
    return now - PERIOD


def test_one_that_is_not_renewed_lapses() -> None:
    """After fifteen seconds of looking at it."""
    judge = Judge()
    looks(judge, 0.0, LEASE - 1)
    assert [member.live for member in judge.members()] == [True]
    judge.look(LEASE + 1, {"a": Found(A, 1)})
    assert [member.lapsed for member in judge.members()] == [True]


def test_one_that_is_renewed_lives_on() -> None:
    """Whatever its own clock says."""
    judge = Judge()
    now = looks(judge, 0.0, LEASE - 1)
    judge.look(now + PERIOD, {"a": Found(A, 2)})
    assert [member.age for member in judge.members()] == [0.0]


def test_time_without_looks_does_not_count() -> None:
    """A process that was cut off knows nothing of the others."""
    judge = Judge()
    now = looks(judge, 0.0, 4.0)
    judge.miss()
    judge.look(now + 3_600, {"a": Found(A, 1)})
    assert judge.members()[0].age == 4.0


def test_a_process_that_stood_still_has_not_observed_that_time() -> None:
    """It was stopped between two looks, and so may the broker have been."""
    judge = Judge()
    now = looks(judge, 0.0, 4.0)
    judge.look(now + 3_600, {"a": Found(A, 1)})
    assert judge.members()[0].age <= 4.0 + 2 * PERIOD
    assert judge.members()[0].live


def test_one_that_has_gone_owns_nothing() -> None:
    """Without waiting for its lease."""
    judge = Judge()
    judge.look(0.0, {"a": Found(Lease("a-1", "a", Standing.GONE), 1)})
    assert not judge.members()[0].live


def test_one_that_is_removed_is_no_member_once_it_would_have_lapsed() -> None:
    """If somebody removes the bucket, those who work go on doing so, and keep their builds."""
    judge = Judge()
    now = looks(judge, 0.0, 4.0)
    while (now := now + PERIOD) < LEASE:
        judge.look(now, {})
        assert [member.live for member in judge.members()] == [True]
    judge.look(now + PERIOD, {})
    assert judge.members() == []


def test_one_that_ended_and_is_removed_is_no_member() -> None:
    """Nothing is waited for, as it owns nothing."""
    judge = Judge()
    judge.look(0.0, {"a": Found(Lease("a-1", "a", Standing.GONE), 1)})
    judge.look(2.0, {})
    assert judge.members() == []


def test_one_that_is_removed_in_its_time_lapses() -> None:
    """As where the whole bucket is removed by hand: its holder works on, and renews it in a moment."""
    judge = Judge()
    now = looks(judge, 0.0, 4.0)
    ages = []
    while judge.members():
        now += PERIOD
        judge.look(now, {})
        ages += [member.age for member in judge.members()]
    assert LEASE - PERIOD <= max(ages) < LEASE


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=50), st.floats(1.0, 1.3))
def test_the_holder_stops_before_anybody_may_take_over(delays: list[float], drift: float) -> None:
    """However late the looks are, and though one clock runs up to 30 % faster than the other."""
    tenure, judge = Tenure(), Judge()
    tenure.renew(0.0)
    # The renewal is stored when it has begun, at the earliest, and seen only afterwards.
    now = 0.0
    for delay in delays:
        judge.look(now * drift, {"a": Found(A, 1)})
        if not judge.members()[0].live:
            assert not tenure.holds(now)
        now += delay


def test_a_tenure_counts_from_the_beginning_of_a_renewal() -> None:
    """Its answer may have been long under way."""
    tenure = Tenure()
    tenure.renew(100.0)
    assert tenure.holds(100.0 + RENEW_WITHIN - 0.1)
    assert not tenure.holds(100.0 + RENEW_WITHIN)


def test_a_tenure_is_not_shortened_by_an_earlier_renewal() -> None:
    """Answers may come in any order."""
    tenure = Tenure()
    tenure.renew(100.0)
    tenure.renew(95.0)
    assert tenure.holds(109.0)


def test_a_lease_of_a_later_version_is_read() -> None:
    """What it has in addition is ignored; what is none is no lease."""
    later = msgspec.json.encode(
        {"instance": "a-1", "name": "a", "colour": "red", "load": {"builds": 3, "x": 1}}
    )
    assert read_lease(later) == Lease("a-1", "a", load=Load(builds=3))
    assert read_lease(b"{}") is None
    assert read_lease(b"\xff") is None
    assert read_lease(encode_lease(A)) == A


def test_what_operators_see_of_a_member() -> None:
    """Its standing is what others see, not what it says."""
    judge = Judge()
    now = looks(judge, 0.0, LEASE - 1)
    assert document(judge.members()[0])["standing"] == "active"
    judge.look(now + PERIOD, {"a": Found(A, 1)})
    judge.look(now + 2 * PERIOD, {"a": Found(A, 1)})
    assert document(judge.members()[0])["standing"] == "lapsed"


def test_a_read_that_was_overtaken_by_a_later_one_says_nothing() -> None:
    """It would count time twice, and make an older lease of a newer one."""
    judge = Judge()
    judge.look(0.0, {"a": Found(A, 1)})
    judge.look(4.0, {"a": Found(A, 2)})
    judge.look(1.0, {"a": Found(A, 1)})
    judge.look(5.0, {"a": Found(A, 2)})
    assert [(member.revision, member.age) for member in judge.members()] == [(2, 1.0)]


def test_one_that_could_not_renew_its_own_lease_does_not_call_itself_active() -> None:
    """While nobody can read the leases they do not age; but whether it may send it knows."""
    for standing, shown in ((Standing.ACTIVE, "lapsed"), (Standing.GONE, "gone")):
        judge = Judge()
        judge.look(0.0, {"a": Found(Lease("a-1", "a", standing), 1)})
        assert document(judge.members()[0], holds=False)["standing"] == shown
