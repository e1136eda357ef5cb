"""Copies that are still to come."""

from scheduler.dispatch.duplicates import DuplicateFilter


def test_a_copy_is_taken_once() -> None:
    """A third one is a new message, and so is one with another key."""
    copies = DuplicateFilter[str](10)
    assert not copies.expected
    copies.expect("a")
    assert copies.expected
    assert not copies.take("b")
    assert copies.take("a")
    assert not copies.take("a")
    assert not copies.expected


def test_the_same_key_twice_has_two_copies() -> None:
    """Two attempts may fail alike."""
    copies = DuplicateFilter[str](10)
    copies.expect("a")
    copies.expect("a")
    assert [copies.take("a") for _ in range(3)] == [True, True, False]


def test_what_never_comes_is_forgotten() -> None:
    """Only so many are expected, the oldest is forgotten first."""
    copies = DuplicateFilter[int](10_000)
    for number in range(10_001):
        copies.expect(number)
    assert not copies.take(0)
    assert copies.take(1)


def test_a_copy_is_expected_for_a_time() -> None:
    """What is equal to something of long ago is new; what is forgotten takes no room."""
    now = 0.0
    copies = DuplicateFilter[str](10, patience=30.0, clock=lambda: now)
    copies.expect("a")
    copies.expect("b")
    now = 29.0
    assert copies.take("a")
    now = 31.0
    assert not copies.take("b")
    copies.expect("c")
    now = 62.0
    copies.expect("d")
    assert not copies.take("c")
    assert copies.take("d")
