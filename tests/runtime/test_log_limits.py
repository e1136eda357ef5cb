"""The log that input cannot flood."""

import structlog
from hypothesis import given
from hypothesis import strategies as st

from scheduler.runtime.log_limits import RateLimitedLog


class Clock:
    """Says what time the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_line_of_each_event_is_logged_at_once_and_in_full() -> None:
    """However many of another there were."""
    log = RateLimitedLog(clock=Clock())
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            log.warning("one", build="b1")
        log.info("two", code="x")
    assert lines == [
        {"event": "one", "build": "b1", "log_level": "warning"},
        {"event": "two", "code": "x", "log_level": "info"},
    ]


def test_what_was_left_out_is_counted_in_the_next_line() -> None:
    """And from then on anew."""
    clock = Clock()
    log = RateLimitedLog(clock=clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            log.warning("refused")
        clock.now = 1.0
        log.warning("refused")
        clock.now = 2.5
        log.warning("refused")
    assert [line.get("left_out") for line in lines] == [None, 3, None]


def test_an_exception_is_logged_with_its_traceback() -> None:
    """As structlog does."""
    error = ValueError("x")
    with structlog.testing.capture_logs() as lines:
        try:
            raise error
        except ValueError:
            RateLimitedLog(clock=Clock()).exception("a fault")
    assert lines == [{"event": "a fault", "exc_info": error, "log_level": "error"}]


@given(st.lists(st.floats(0, 0.9) | st.floats(1, 30), min_size=1, max_size=60), st.integers(1, 5))
def test_in_any_time_there_are_no_more_than_a_burst_and_one_a_second(pauses: list[float], burst: int) -> None:
    """Whenever the lines come; and each one is logged or counted."""
    clock = Clock()
    log = RateLimitedLog(burst=burst, clock=clock)
    logged: list[float] = []
    counted = 0
    left_over = 0
    for pause in pauses:
        clock.now += pause
        with structlog.testing.capture_logs() as lines:
            log.warning("x")
        logged += [clock.now] * len(lines)
        counted += sum(1 + line.get("left_out", 0) for line in lines)
        left_over = 0 if lines else left_over + 1
    assert counted + left_over == len(pauses)
    for first, begin in enumerate(logged):
        for last in range(first, len(logged)):
            assert last - first + 1 <= burst + (logged[last] - begin) + 1e-6


def test_whether_a_line_is_left_out_can_be_asked_before_it_is_made_up() -> None:
    """It counts as one that was left out."""
    clock = Clock()
    log = RateLimitedLog(clock=clock)
    assert not log.leaves_out("x")
    with structlog.testing.capture_logs() as lines:
        log.warning("x")
        assert [log.leaves_out("x"), log.leaves_out("x"), log.leaves_out("y")] == [True, True, False]
        clock.now += 1
        assert not log.leaves_out("x")
        log.warning("x")
    assert [line.get("left_out", 0) for line in lines] == [0, 2]
