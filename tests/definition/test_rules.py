"""Limits, retries and what an error means, as settings and builds write them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.rules import (
    MOST_RULES,
    ONCE,
    LimitRule,
    Policy,
    Retry,
    parse_limits,
    parse_retries,
    read_limits,
    read_retry,
    retry_for,
)
from scheduler.errors import InvalidRule

# ---- limits


def test_limits_are_read_in_their_order() -> None:
    """Numbers are about what is in flight, rates about what begins in a second, a minute or an hour."""
    assert parse_limits("*=500, vpc.create.*=5,*.create.aws = 20/s, a.b.c=3 / m,a.b.c=1/h,") == (
        LimitRule("*.*.*", 500),
        LimitRule("vpc.create.*", 5),
        LimitRule("*.create.aws", 20, 1.0),
        LimitRule("a.b.c", 3, 60.0),
        LimitRule("a.b.c", 1, 3_600.0),
    )
    assert parse_limits(" ") == ()


word = st.sampled_from(("*", "vpc", "create", "a_b-9"))
limits = st.builds(
    LimitRule,
    st.tuples(word, word, word).map(".".join),
    st.integers(1, 1_000_000),
    st.sampled_from((None, 1.0, 60.0, 3_600.0)),
)


@given(st.lists(limits, max_size=5))
def test_a_limit_is_shown_as_it_is_written(rules: list[LimitRule]) -> None:
    """The text of limits is read as the same limits, as a setting and in a build."""
    assert parse_limits(", ".join(map(str, rules))) == tuple(rules)
    for rule in rules:
        pattern, _, value = str(rule).partition("=")
        assert read_limits({pattern: int(value) if value.isdigit() else value}) == (rule,)


@pytest.mark.parametrize(
    "text",
    ["vpc", "vpc=5", "vpc.create.*", "vpc.create.*=", "vpc.create.*=0", "vpc.create.*=-1", "vpc.create.*=1.5",
     "vpc.create.*=1000001", "vpc.create.*=5/", "vpc.create.*=5/d", "vpc.create.*=/s", "vpc.create.>=5",
     "*=٣", "*=1e3", "=5", "*=0/s", "a.b.c=5=6"],
)  # fmt: skip
def test_what_is_no_limit_is_refused(text: str) -> None:
    """The message begins with the part that is wrong."""
    with pytest.raises(InvalidRule) as caught:
        parse_limits(f"*=5, {text}")
    assert str(caught.value).startswith(repr(text))


@pytest.mark.parametrize(
    "value", [5, None, [], {"vpc": 5}, {"*": True}, {"*": 1.5}, {"*": None}, {"*": 0}, {"*": "x"}, "vpc"]
)
def test_what_is_no_limit_of_a_build_is_refused(value: Any) -> None:
    """Neither another kind of JSON, nor a number that cannot be meant."""
    with pytest.raises(InvalidRule):
        read_limits(value)


def test_there_are_not_endlessly_many_limits() -> None:
    """Each costs something for every kind of request."""
    many = {f"t{number}.*.*": 1 for number in range(MOST_RULES + 1)}
    with pytest.raises(InvalidRule, match=f"at most {MOST_RULES}"):
        read_limits(many)
    many.popitem()
    assert len(read_limits(many)) == MOST_RULES


def test_a_build_may_write_limits_as_the_setting_does() -> None:
    """The text of the setting is good as `options.limits`."""
    assert read_limits("*=5") == (LimitRule("*.*.*", 5),)


# ---- retries


def test_retries_are_read_by_subject() -> None:
    """Behind the attempts stand seconds: of the first pause, of the longest, and in all."""
    retries = parse_retries("*.create.aws=5, vpc.*.*=3:2:30:600, *=2:0.5")
    assert retries == (
        ("*.create.aws", Retry(5)),
        ("vpc.*.*", Retry(3, 2, 30, 600)),
        ("*.*.*", Retry(2, 0.5)),
    )
    assert retry_for(retries, "vpc.create.aws") == Retry(5)
    assert retry_for(retries, "lb.delete.fake") == Retry(2, 0.5)
    assert retry_for((), "lb.delete.fake") is ONCE


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "vpc=5",
        "*=0",
        "*=x",
        "*=",
        "*=1.5",
        "*=1001",
        "*=5:-1",
        "*=5:nan",
        "*=5:inf",
        "*=5:1:2:3:4",
        "*=5:",
    ],
)
def test_what_is_no_rule_for_retries_is_refused(text: str) -> None:
    """The message begins with the part that is wrong."""
    with pytest.raises(InvalidRule) as caught:
        parse_retries(f"a.b.c=2, {text}")
    assert str(caught.value).startswith(repr(text))


def test_a_retry_is_read_from_json() -> None:
    """Each field may be left out."""
    assert read_retry({}) == ONCE
    given = {"attempts": 5, "backoff": 1.0, "max_backoff": 60, "total_timeout": 600}
    assert read_retry(given) == Retry(5, 1.0, 60, 600)


def test_a_pause_longer_than_the_longest_is_meant() -> None:
    """A rule with pauses of two minutes gets them, without raising the longest as well."""
    assert read_retry({"backoff": 120}).max_backoff == 120


@pytest.mark.parametrize(
    "value",
    [None, 5, [], {"attempts": 0}, {"attempts": True}, {"attempts": 1.0}, {"attempts": "5"}, {"backoff": -1},
     {"backoff": math.nan}, {"backoff": True}, {"max_backoff": math.inf}, {"total_timeout": -1},
     {"tries": 3}],
)  # fmt: skip
def test_what_is_no_retry_is_refused(value: Any) -> None:
    """A field that there is not, another kind of JSON, and numbers that cannot be meant."""
    with pytest.raises(InvalidRule):
        read_retry(value)


RETRY_FORM = 'an object such as {"attempts": 5, "backoff": 1.0, "max_backoff": 60}'
RETRY_NAMES = "{!r} is none of attempts, backoff, max_backoff, total_timeout"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            3,
            RETRY_FORM + '; it is 3: write {"attempts": 3}',
        ),
        ("x", RETRY_FORM + "; it is 'x'"),
        ({"attempts": "3"}, "attempts: a whole number from 1 to 1,000; it is '3'"),
        ({"backoff": "1m30s"}, "backoff: seconds, from 0 to 2592000; it is '1m30s': write 90"),
        ({"max_backoff": -1}, "max_backoff: seconds, from 0 to 2592000; it is -1"),
        ({"total_timeout": []}, "total_timeout: seconds, from 0 to 2592000; it is a list"),
        (
            {"max_backof": 3},
            RETRY_NAMES.format("max_backof") + "; did you mean 'max_backoff'?",
        ),
        ({"tries": 3}, RETRY_NAMES.format("tries")),
    ],
)
def test_what_is_wrong_with_a_retry_is_told_with_the_cure(value: Any, message: str) -> None:
    """What was written is shown, and what to write in its place where that is known."""
    with pytest.raises(InvalidRule) as caught:
        read_retry(value)
    assert str(caught.value) == message


@given(st.integers(1, 1_000), st.floats(0, 1))
def test_a_pause_is_anything_up_to_a_growing_bound(failed: int, luck: float) -> None:
    """Doubled with each failure up to the longest, and chance decides below that."""
    retry = Retry(attempts=1_000, backoff=1.0, max_backoff=60.0)
    pause = retry.pause(failed, luck)
    assert 0 <= pause <= min(60.0, 2.0 ** min(failed - 1, 10))
    assert retry.pause(failed, 1.0) == min(60.0, 2.0 ** min(failed - 1, 10))


# ---- what a build says


def test_a_build_that_says_nothing_has_the_defaults() -> None:
    """The first error halts it, nothing is sent again, and there are no limits of its own."""
    for options in (None, {}, "text", {"retry": None, "limits": None}):
        assert Policy.of(options, 10) == (Policy(None, (), 0), [])


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"on_error": "drain"}, 0),
        ({"on_error": "continue"}, math.inf),
        ({"on_error": "continue", "max_failures": 3}, 3),
        ({"max_failures": 3}, 3),
        ({"max_failures": "10%"}, 2),
        ({"max_failures": "100%"}, 25),
        ({"max_failures": " 0.5 %"}, 0),
        ({"on_error": "drain", "max_failures": 0}, 0),
    ],
)
def test_failures_that_a_build_goes_on_with(options: dict[str, Any], most: float) -> None:
    """A number, a part of the changes rounded down, or all."""
    assert Policy.of(options, 25) == (Policy(most_failures=most), [])


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"retry": 5}, "options.retry"),
        ({"limits": 5}, "options.limits"),
        ({"on_error": "stop"}, "options.on_error"),
        ({"on_error": ["drain"]}, "options.on_error"),
        ({"max_failures": -1}, "options.max_failures"),
        ({"max_failures": True}, "options.max_failures"),
        ({"max_failures": "101%"}, "options.max_failures"),
        ({"max_failures": "many"}, "options.max_failures"),
        ({"on_error": "drain", "max_failures": 3}, "options.max_failures"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(options: dict[str, Any], place: str) -> None:
    """One problem, at the option that has it."""
    _, problems = Policy.of(options, 25)
    assert [problem.place for problem in problems] == [place]


def test_everything_wrong_is_said_at_once() -> None:
    """Four mistakes are reported for one submission."""
    _, problems = Policy.of({"retry": 5, "limits": 5, "on_error": 5, "max_failures": "x"}, 25)
    assert len(problems) == 4
