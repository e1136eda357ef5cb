"""Tests of names that are nearly a known one."""

from collections.abc import Iterator

import pytest

from scheduler.definition.nearly import nearly

_OURS = ("component", "retry", "depends_on_all")


def _mistaken(name: str) -> Iterator[str]:
    """Yield a name with each single mistake: a letter missing, changed, too many, or two swapped."""
    for at in range(len(name)):
        before, letter, after = name[:at], name[at], name[at + 1 :]
        yield before + after
        yield f"{before}x{after}"
        yield f"{before}x{letter}{after}"
        if after:
            yield f"{before}{after[0]}{letter}{after[1:]}"


@pytest.mark.parametrize("name", _OURS)
def test_a_name_with_one_mistake_is_nearly_the_right_one(name: str) -> None:
    assert {nearly(wrong, _OURS) for wrong in _mistaken(name) if wrong != name} == {name}


def test_a_long_name_may_have_two_mistakes_and_no_more() -> None:
    assert nearly("cxmponenx", _OURS) == "component"
    assert nearly("cxmpxnenx", _OURS) is None


def test_a_short_name_may_have_one_mistake_and_no_more() -> None:
    assert nearly("rexry", _OURS) == "retry"
    assert nearly("xexry", _OURS) is None
