"""How long requests take: what is given, recorded, guessed, and brought over a restart."""

import pytest

from scheduler.errors import InvalidRule
from scheduler.forecast.durations import Durations, parse_durations


def test_what_is_given_goes_before_what_was_recorded() -> None:
    """The first pattern that matches counts, whatever was seen."""
    durations = Durations([("vpc.*.*", 30.0), ("*.*.*", 5.0)])
    durations.record("vpc.create.aws", 1.0)
    assert durations.known("vpc.create.aws") == (30.0, "given")
    assert durations.expected("net.create.aws") == 5.0


def test_what_was_recorded_follows_what_is_seen() -> None:
    """A figure moves towards the newest, and one that was odd does little."""
    durations = Durations()
    durations.record("vpc.create.aws", 10.0)
    durations.record("vpc.create.aws", 20.0)
    assert durations.known("vpc.create.aws") == (12.0, "recorded")


def test_what_nobody_knows_takes_as_long_as_others() -> None:
    """The mean of what was recorded; a second where nothing is known at all."""
    durations = Durations()
    assert durations.expected("a.create.x") == 1.0
    durations.record("b.create.x", 2.0)
    durations.record("c.create.x", 4.0)
    assert durations.known("a.create.x") is None
    assert durations.expected("a.create.x") == 3.0


def test_not_endlessly_many_are_remembered() -> None:
    """Of too many subjects the one that was not used for longest is forgotten, also in the mean."""
    durations = Durations()
    durations.record("old.create.x", 1_000.0)
    durations.record("kept.create.x", 1.0)
    for number in range(9_998):
        durations.record(f"c{number}.create.x", 1.0)
    durations.record("kept.create.x", 1.0)
    durations.record("new.create.x", 1.0)
    assert len(durations) == 10_000
    assert durations.known("old.create.x") is None
    assert durations.known("kept.create.x") == (1.0, "recorded")
    assert durations.typical == pytest.approx(1.0)


def test_what_was_seen_here_goes_before_what_is_recalled() -> None:
    """Recalling takes in what is not known yet, and is nothing new."""
    durations = Durations()
    durations.record("a.create.x", 1.0)
    durations.restore({"a.create.x": 9.0, "b.create.x": 2, "c": "3", "d": True, "e": -1, "f": None})
    assert dict(durations.recorded()) == {"a.create.x": 1.0, "b.create.x": 2.0}
    assert not durations.changed


def test_a_prediction_reads_what_operators_write() -> None:
    """Patterns with seconds, ``*`` for all."""
    assert parse_durations("vpc.create.*=30, *=500ms,") == (("vpc.create.*", 30.0), ("*.*.*", 0.5))


@pytest.mark.parametrize(
    "text", ["30", "vpc=30", "vpc.create.*=soon", "*=-1", "*=nan", "*=inf", "vpc.create.*=30=40"]
)
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    """The message begins with the part that is wrong."""
    with pytest.raises(InvalidRule) as caught:
        parse_durations(f"*.*.*=1, {text}")
    assert str(caught.value).startswith(repr(text))
