"""Text for people: cut, counted, in the right number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.text import agreeing, count, doing, printable, shortened


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
