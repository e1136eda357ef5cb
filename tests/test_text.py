"""Text for people and from them: cut, counted, in the right number; durations."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.text import (
    agreeing,
    count,
    doing,
    mask_url,
    moment,
    printable,
    read_duration,
    seconds,
    shortened,
    write_duration,
)


@given(st.text(max_size=80), st.integers(3, 60))
def test_what_is_shortened_has_both_ends(text: str, limit: int) -> None:
    """A short text is as it is; of a long one the beginning and the end are left, nearly equally long."""
    cut = shortened(text, limit)
    if len(text) <= limit:
        assert cut == printable(text)
        return
    tail = (limit - 1) // 2
    assert cut == printable(text[: limit - 1 - tail] + "…" + text[len(text) - tail :])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 components wait, so do 0 more, 0 components are due"),
        (1, "1 component waits, so does 1 more, 1 component is due"),
        (2, "2 components wait, so do 2 more, 2 components are due"),
        (1_234, "1,234 components wait, so do 1234 more, 1,234 components are due"),
    ],
)
def test_verbs_agree_with_numbers(number: int, said: str) -> None:
    """One waits, several wait."""
    more = f"so {agreeing(number, 'do')} {number} more"
    text = f"{doing(number, 'component', 'wait')}, {more}, {doing(number, 'component', 'be')} due"
    assert text == said
    assert text.startswith(count(number, "component"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 600.0),
        ("7d", 604_800.0),
        ("1h30m", 5_400.0),
        (" 1d 2h 3m 4s 5ms ", 93_784.005),
        ("250ms", 0.25),
        ("1.5h", 5_400.0),
        ("0s", 0.0),
        ("90", 90.0),
        ("0.1", 0.1),
        ("1e3", 1_000.0),
        ("-5", -5.0),
    ],
)
def test_durations_are_read(text: str, expected: float) -> None:
    """Plain numbers are seconds; units stand from the largest to the smallest, each once."""
    assert read_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "m", "1h1h", "30m1h", "5M", "5 min", "1h30", "-5m", "1.m", ".5m", "٣m", "5m,", "1m30s4"]
)
def test_what_is_no_duration_is_not_read(text: str) -> None:
    """Units that are unknown, doubled or in another order, and numbers behind them, are refused."""
    with pytest.raises(ValueError, match="could not convert"):
        read_duration(text)


@given(st.one_of(st.integers(0, 10**9), st.integers(0, 10**6).map(lambda number: number / 1_000)))
def test_durations_are_written_as_they_are_read(value: float) -> None:
    """What is shown as a default can be given as a value."""
    assert read_duration(write_duration(value)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nats://u:p@h:1,tls://x", "nats://***@h:1,tls://x"),
        ("nats://u:p/w@h", "nats://***@h"),
        ("a@b", "a@b"),
        ("see nats://t@h and http://x/y", "see nats://***@h and http://x/y"),
    ],
)
def test_user_information_is_masked(text: str, shown: str) -> None:
    """Whatever stands before the @ of a URL is not shown."""
    assert mask_url(text) == shown


def test_nothing_that_is_shown_can_drive_a_terminal() -> None:
    """Escape sequences, new lines and direction marks come out as harmless text."""
    assert printable("a\x1b[2Jb\r\nc\u202ed\x00") == "a\\x1b[2Jb  c\\u202ed\\x00"
    assert printable("\ud800") == "\\ud800"
    assert printable("x" * 50, 10) == "xxxxxxx..."


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-1, "0.0s"), (0.44, "0.4s"), (59.94, "59.9s"), (59.97, "1m00s"), (245, "4m05s"), (7384, "2h03m")],
)
def test_durations_are_readable(value: float, shown: str) -> None:
    """Seconds are given in the unit that people would use."""
    assert seconds(value) == shown


NOW = datetime(2026, 1, 13, 9, 30, tzinfo=UTC).timestamp()
EAST = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("ago", "zone", "said"),
    [
        (timedelta(), UTC, "today 09:30"),
        (timedelta(hours=9, minutes=30), UTC, "today 00:00"),
        (timedelta(hours=9, minutes=31), UTC, "yesterday 23:59"),
        (timedelta(hours=9, minutes=31), EAST, "today 08:59"),
        (timedelta(hours=33, minutes=30), UTC, "yesterday 00:00"),
        (timedelta(hours=33, minutes=31), UTC, "Sun 11 Jan 23:59"),
        (timedelta(days=12), UTC, "Thu 1 Jan 09:30"),
        (timedelta(days=13), UTC, "Wed 31 Dec 2025 09:30"),
        (-timedelta(hours=1), UTC, "today 10:30"),
        (-timedelta(days=1), UTC, "Wed 14 Jan 09:30"),
    ],
)
def test_a_moment_is_told_as_people_do(ago: timedelta, zone: timezone, said: str) -> None:
    """By the day, in the zone; further back with the date, and the year where it is another."""
    assert moment(NOW - ago.total_seconds(), NOW, zone) == said
