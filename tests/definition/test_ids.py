"""Ids that are made up: readable, valid, and in the order of time."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.converter import BUILD_ID
from scheduler.definition.ids import NOISE, base_of, new_id

WHEN = datetime(2026, 11, 30, 11, 42, 33, 123_456, tzinfo=UTC)
BASES = st.text("abc-.:/@_09", min_size=1, max_size=140)


def test_an_id_says_what_and_when() -> None:
    """The base, the time in UTC, and five characters: two for the millisecond, three by chance."""
    assert new_id("prod", WHEN, 0) == "prod-20261130-114233-3v000"
    assert (
        new_id("prod", WHEN.astimezone(timezone(timedelta(hours=2))), NOISE - 1)
        == "prod-20261130-114233-3vzzz"
    )


@given(BASES, st.integers(0, NOISE), st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))  # noqa: DTZ001
def test_an_id_is_one_of_a_build(base: str, noise: int, when: datetime) -> None:
    """However long its base is; made of another it replaces that one's time."""
    found = new_id(base, when, noise)
    assert BUILD_ID.fullmatch(found)
    assert len(new_id(found, when, noise)) == len(found)


@given(st.integers(0, NOISE - 1), st.integers(0, NOISE - 1), st.integers(1, 10**9))
def test_ids_sort_by_time(first: int, second: int, later: int) -> None:
    """To the millisecond."""
    assert new_id("b", WHEN, first) < new_id("b", WHEN + timedelta(milliseconds=later), second)


@pytest.mark.parametrize(
    ("id_", "name", "base"),
    [
        ("prod", "x", "prod"),
        (None, "Staging (EU)", "Staging-EU"),
        ("", "web", "web"),
        (3, None, "build"),
        (None, "***", "build"),
    ],
)
def test_the_base_is_the_id_or_the_name(id_: object, name: object, base: str) -> None:
    """What no id may hold is left out."""
    assert base_of(id_, name) == base
