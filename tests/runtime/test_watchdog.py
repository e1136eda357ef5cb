"""Work that holds the loop up is interrupted, while it is under way; a stopped process is no hang."""

import ast
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

import scheduler
from scheduler.errors import Hung
from scheduler.runtime.interruptible import Interruptible
from scheduler.runtime.watchdog import (
    END_AFTER,
    END_LOOP_AFTER,
    EXIT_HUNG,
    INTERRUPT_AFTER,
    SILENT_AFTER,
    Watchdog,
)


class Ended(Exception):
    """The process would have ended."""


class Loop:
    """A watchdog that is told the time, and what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.work = Interruptible()
        self.dog = Watchdog(self.work)
        self.dog._loop_thread = 0
        self.interruptions: list[int] = []
        self.recorded: list[str] = []
        monkeypatch.setattr(signal, "pthread_kill", self._kill)
        monkeypatch.setattr(os, "_exit", self._exit)

    def _kill(self, _thread: int, number: int) -> None:
        assert number == signal.SIGURG
        self.interruptions.append(self.work.interrupted)

    def _exit(self, code: int) -> NoReturn:
        raise Ended(code)

    def turn(self) -> None:
        self.dog._turns += 1

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.dog._look(1.0)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop(monkeypatch)
    with loop.dog.recording(loop.recorded.append):
        yield loop


@contextmanager
def said() -> Iterator[list[str]]:
    with capture_logs() as logs:
        events: list[str] = []
        yield events
        events += [line["event"] for line in logs]


def test_a_loop_that_turns_is_left_alone(loop: Loop) -> None:
    """However much work there is."""
    with said() as events:
        for _ in range(100):
            loop.work("b1")
            loop.turn()
            loop.pass_time(1)
    assert events == []
    assert loop.interruptions == []


def test_work_that_takes_five_seconds_is_interrupted_and_named(loop: Loop) -> None:
    """Once a second, as it may be caught by what it was to end; then the process ends, which is on record."""
    loop.work("b1")
    loop.pass_time(1)
    with capture_logs() as logs:
        loop.pass_time(INTERRUPT_AFTER - 1)
        assert loop.interruptions == []
        loop.pass_time(1)
        assert loop.interruptions == [1]
        loop.pass_time(END_AFTER - INTERRUPT_AFTER - 1)
        assert loop.interruptions == [1] * 5
        with pytest.raises(Ended) as ended:
            loop.pass_time(1)
    assert ended.value.args == (EXIT_HUNG,)
    assert loop.recorded == ["b1"]
    assert [(line["build"], line["log_level"]) for line in logs] == [("b1", "error"), ("b1", "critical")]


def test_many_small_pieces_of_work_are_not_one_that_hangs(loop: Loop) -> None:
    """The loop does not turn, and that is said; but none of them is to blame."""
    with said() as events:
        for number in range(20):
            loop.work(f"b{number}")
            loop.pass_time(1)
    assert loop.interruptions == []
    assert events == ["the loop does not turn"]


def test_the_loop_may_turn_again(loop: Loop) -> None:
    """What was counted is forgotten."""
    with said() as events:
        loop.pass_time(INTERRUPT_AFTER)
        loop.turn()
        loop.pass_time(1)
        assert loop.dog.still == 0
        loop.pass_time(INTERRUPT_AFTER - 1)
    assert events == ["the loop does not turn", "the loop turns again"]


def test_what_is_not_declared_is_never_interrupted_and_ends_the_process_late(loop: Loop) -> None:
    """Nobody knows whose work it is."""
    loop.pass_time(END_LOOP_AFTER - 1)
    assert loop.interruptions == []
    with pytest.raises(Ended) as ended:
        loop.pass_time(1)
    assert ended.value.args == (EXIT_HUNG,)
    assert loop.recorded == []


def test_it_counts_as_gone_after_fifteen_seconds_until_it_turns(loop: Loop) -> None:
    """That is when nobody says any more that we are there."""
    loop.pass_time(SILENT_AFTER - 1)
    assert not loop.dog.is_silent()
    loop.pass_time(1)
    assert loop.dog.is_silent()
    loop.turn()
    loop.pass_time(1)
    assert not loop.dog.is_silent()


def test_time_in_which_the_process_was_stopped_does_not_count(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the loop nor the watchdog had a turn then."""
    now = iter([0.0, 3_600.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(loop.dog, "_heard", lambda _: b"")
    loop.work("b1")
    loop.dog._watch()
    assert loop.dog.still <= 2


def interrupt(work: Interruptible) -> None:
    """What the signal does."""
    work.handle_signal(0, None)


def test_only_the_piece_that_was_named_is_interrupted() -> None:
    """Not the next one, nothing after its end, and once."""
    work = Interruptible()
    with work("b1"):
        interrupt(work)
        work.interrupt(work.number, "too long")
    interrupt(work)
    with work("b2"):
        interrupt(work)
        work.interrupt(work.number, "too long")
        with pytest.raises(Hung, match="too long"):
            interrupt(work)
        interrupt(work)


def test_what_is_ending_is_left_to_end() -> None:
    """The handler may run within the very step that ends the work."""
    work = Interruptible()
    frames: list[FrameType] = []

    work("b1")
    work.interrupt(work.number, "too long")

    def trace(frame: FrameType, _event: str, _argument: object) -> None:
        frames.append(frame)

    sys.setprofile(trace)
    try:
        work.__exit__(None, None, None)
    finally:
        sys.setprofile(None)
    ending = next(frame for frame in frames if frame.f_code is Interruptible.__exit__.__code__)
    work.build = "b1"
    work.handle_signal(0, ending)
    with pytest.raises(Hung):
        work.handle_signal(0, None)


def test_a_signal_interrupts_what_runs_in_this_thread() -> None:
    """In the middle of a loop in Python."""
    work = Interruptible()
    before = signal.signal(signal.SIGURG, work.handle_signal)
    try:
        with pytest.raises(Hung), work("b1"):
            _strike_and_go_on(work)
    finally:
        signal.signal(signal.SIGURG, before)


def _strike_and_go_on(work: Interruptible) -> NoReturn:
    work.interrupt(work.number, "too long")
    signal.raise_signal(signal.SIGURG)
    pytest.fail("it was not interrupted")


def test_nothing_is_awaited_in_what_may_be_interrupted() -> None:
    """What is raised must never come out inside Trio."""
    found = 0
    for path in Path(scheduler.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With) and any(_declares(item.context_expr) for item in node.items):
                found += 1
                waits = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)
                assert not [inner for inner in ast.walk(node) if isinstance(inner, waits)], path
    assert found >= 5


def _declares(expression: ast.expr) -> bool:
    return (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Name)
        and expression.func.id == "interruptible"
    )
