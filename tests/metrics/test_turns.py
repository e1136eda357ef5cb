"""The turns of the loop, and the longest of them."""

from scheduler.metrics.turns import LATELY, Turns


def test_the_longest_turn_is_remembered_for_a_minute_or_two() -> None:
    """Whoever looks once a minute misses none, and none is shown for ever."""
    turns = Turns()
    turns.note(1_000.0, 0.001)
    turns.note(1_001.0, 0.5)
    turns.note(1_002.0, 0.002)
    assert turns.longest == 0.5
    turns.note(1_000.0 + LATELY + 1.0, 0.003)
    assert turns.longest == 0.5
    turns.note(1_000.0 + 2 * LATELY + 3.0, 0.004)
    assert turns.longest == 0.004
    assert turns.seconds.copy().total == 5


def test_after_a_long_silence_nothing_old_is_shown() -> None:
    """The half before counts only if it is the one just before."""
    turns = Turns()
    turns.note(1_000.0, 0.5)
    turns.note(1_000.0 + 10 * LATELY, 0.003)
    assert turns.longest == 0.003
