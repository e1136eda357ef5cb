"""Values that are made for each component."""

from typing import Any

import pytest

from scheduler.runtime.values import Value


class Point(Value, frozen=True):
    UNSHOWN = frozenset({"secret"})
    UNCOMPARED = frozenset({"time"})

    x: int
    secret: str = "s3cret"
    time: float | None = None


class Other(Value, frozen=True):
    x: int


def test_values_are_equal_by_what_is_compared() -> None:
    assert Point(1, time=1.0) == Point(1, time=2.0)
    assert hash(Point(1, time=1.0)) == hash(Point(1, time=2.0))
    assert Point(1) != Point(2)
    assert Point(1) != Point(1, "another")
    different: Any = Other(1)
    assert Point(1) != different


def test_a_value_shows_no_more_than_it_may() -> None:
    assert repr(Point(1)) == "Point(x=1, time=None)"


def test_a_value_does_not_change() -> None:
    point: Any = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2


def test_equal_values_are_not_unequal() -> None:
    """What is written as "is not equal" says the opposite of "is equal"."""
    assert not Point(1, time=1.0) != Point(1, time=2.0)  # noqa: SIM202
    assert Point(1) != Point(2)
