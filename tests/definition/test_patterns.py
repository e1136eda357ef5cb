"""Patterns of request subjects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.patterns import EVERY, first_match, matches, read_pattern

words = st.text("abz019_-", min_size=1, max_size=5)
subjects = st.tuples(words, words, words)


@pytest.mark.parametrize("text", ["vpc.create.aws", "*.create.*", "*.*.*", "a_b-1.X.9", "a" * 64 + ".b.c"])
def test_three_words_or_stars_are_a_pattern(text: str) -> None:
    """Each word is one of a subject's, or a star."""
    assert read_pattern(text) == text


def test_a_star_alone_is_every_subject() -> None:
    """A pattern for everything need not be written three times."""
    assert read_pattern("*") == EVERY


@pytest.mark.parametrize(
    "text",
    ["", "vpc", "vpc.create", "a.b.c.d", "a..c", ".b.c", "a.b.", "a*.b.c", "**.b.c", ">", "a.b.>", "a b.c.d",
     " a.b.c", "a.b.c\n", "ä.b.c", "a" * 65 + ".b.c"],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    """Neither the broker's wildcards, nor spaces, nor parts of words."""
    assert read_pattern(text) is None


@given(subjects, st.lists(st.booleans(), min_size=3, max_size=3))
def test_a_star_stands_for_any_word(subject: tuple[str, str, str], stars: list[bool]) -> None:
    """A subject matches itself with any of its words replaced by stars."""
    pattern = ".".join("*" if star else word for word, star in zip(subject, stars, strict=True))
    assert read_pattern(pattern) == pattern
    assert matches(pattern, ".".join(subject))
    assert matches(EVERY, ".".join(subject))


@given(subjects, st.integers(0, 2))
def test_one_other_word_does_not_match(subject: tuple[str, str, str], place: int) -> None:
    """Words are compared whole."""
    other = [*subject]
    other[place] += "x"
    assert not matches(".".join(subject), ".".join(other))
    assert not matches(".".join(other), ".".join(subject))


def test_the_first_that_matches_counts() -> None:
    """Order decides, not how narrow a pattern is."""
    pairs = [("vpc.*.*", 1), ("*.create.*", 2), ("vpc.create.aws", 3)]
    assert first_match(pairs, "vpc.create.aws", 0) == 1
    assert first_match(pairs, "lb.create.aws", 0) == 2
    assert first_match(pairs, "lb.delete.aws", 0) == 0
