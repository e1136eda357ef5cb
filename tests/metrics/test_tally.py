"""The tally of components, and what bounds it."""

import pytest

from scheduler.metrics.bounding import LONGEST, bounded
from scheduler.metrics.histogram import Counted, Histogram
from scheduler.metrics.tally import OTHER, SECONDS, SERIES, Tally


def test_what_happens_is_counted_by_type_action_and_provider() -> None:
    """Numbers by all three; durations and waits by type and provider."""
    tally = Tally()
    for action in ("create", "delete"):
        meter = tally.of(f"vpc.{action}.aws")
        meter.sent(0.2)
        meter.retries(3.0)
        meter.sent(None)
        meter.settled(0.05, completed=action == "create")
    tally.skipped(["vpc.create.aws", "net.create.aws"])
    copy = tally.copy()
    assert copy.kinds == {
        ("vpc", "create", "aws"): (1, 0, 1, 2, 1),
        ("vpc", "delete", "aws"): (0, 1, 0, 2, 1),
        ("net", "create", "aws"): (0, 0, 1, 0, 0),
    }
    durations, waits = copy.pairs["vpc", "aws"]
    assert (durations.total, durations.sum, waits.total) == (4, 6.1, 2)
    assert durations.counts[:4] == (2, 0, 0, 2)


def test_a_copy_does_not_change_any_more() -> None:
    """It is read in a thread while the loop goes on counting."""
    tally = Tally()
    tally.of("vpc.create.aws").settled(1.0, completed=True)
    copy = tally.copy()
    tally.of("vpc.create.aws").settled(1.0, completed=True)
    assert copy.kinds["vpc", "create", "aws"][0] == 1
    assert copy.pairs["vpc", "aws"][0].total == 1


def test_types_without_end_fill_no_memory_and_no_metric() -> None:
    """A metric keeps to its series; what is beyond is counted all the same, as other."""
    tally, number = Tally(), 5_000
    for which in range(number):
        tally.of(f"t{which}.create.p{which}").sent(0.1)
    copy = tally.copy()
    assert 3 * len(copy.kinds) <= SERIES
    assert (len(SECONDS) + 3) * len(copy.pairs) <= SERIES
    assert sum(numbers[3] for numbers in copy.kinds.values()) == number
    assert sum(waits.total for _, waits in copy.pairs.values()) == number
    assert copy.kinds[OTHER, OTHER, OTHER][3] == number - len(copy.kinds) + 1
    assert copy.pairs[OTHER, OTHER][1].total > number / 2


def test_a_known_pair_is_kept_where_the_kind_is_beyond_the_bound() -> None:
    """The bound of one metric takes nothing from another one."""
    tally = Tally()
    tally.of("vpc.create.aws").sent(0.1)
    for which in range(1_000):
        tally.of(f"t{which}.create.p").sent(0.1)
    tally.of("vpc.update.aws").sent(0.1)
    assert tally.copy().pairs["vpc", "aws"][1].total == 2


@pytest.mark.parametrize(
    "subject", ["{{ x }}.create.aws", "{{ a.b.c }}.create.aws", "v" * 65 + ".create.aws"]
)
def test_what_could_be_no_type_is_other(subject: str) -> None:
    """A label has no reference in it, no line end, and no length of somebody's choice."""
    tally = Tally()
    tally.of(subject).settled(None, completed=True)
    [kind] = tally.copy().kinds
    assert kind[0] == OTHER


def test_series_beyond_the_bound_are_added_up() -> None:
    """The first ones keep their labels; long labels are cut."""
    found = bounded(((f"l{which}",), 1.0) for which in range(10_000))
    assert len(found) == SERIES
    assert found[OTHER,] == 10_000 - SERIES + 1
    long = "x" * (LONGEST + 5)
    assert bounded([((long,), 1.0), ((long + "y",), 2.0)]) == {("x" * LONGEST,): 3.0}


def test_a_quantile_is_a_bound_that_the_share_does_not_exceed() -> None:
    """Without values there is none; above the last bound nothing better is known."""
    histogram = Histogram((1.0, 2.0, 4.0))
    assert histogram.copy().quantile(0.5) is None
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.note(value)
    counted = histogram.copy()
    assert counted == Counted((1.0, 2.0, 4.0), (2, 1, 1, 0), 6.0)
    assert [counted.quantile(share) for share in (0.5, 0.75, 0.99)] == [1.0, 2.0, 4.0]
    histogram.note(100.0)
    assert histogram.copy().quantile(1.0) == 4.0
