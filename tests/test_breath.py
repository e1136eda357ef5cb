"""Work in threads lets the loop have the interpreter: how long it computes, and where."""

import json
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from builds import build, change

from scheduler.breath import Breath, breathe, breathing, current
from scheduler.codec import parse_build
from scheduler.executor import Stints, ThreadExecutor
from scheduler.masking import Secrets
from scheduler.strictjson import decode_in_pieces, list_chunks
from scheduler.template import Work

_DEADLINE = 20.0


class Time:
    """A clock that goes on where somebody works or sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_job_pauses_for_as_long_as_it_computes() -> None:
    time = Time()
    paused: list[float] = []

    def job() -> str:
        for _ in range(1_000):
            time.now += 0.0001
            before = len(time.slept)
            breathe()
            if len(time.slept) > before:
                paused.append(time.now)
        return "done"

    assert Stints(threading.Lock(), time.clock, time.sleep).run(job) == "done"
    assert sum(time.slept) == pytest.approx(0.1, rel=0.1)
    assert max(b - a for a, b in pairwise(paused)) < 0.0022


def test_a_job_that_ends_soon_has_no_pause() -> None:
    time = Time()
    Stints(threading.Lock(), time.clock, time.sleep).run(breathe)
    assert time.slept == []


def test_the_turn_is_held_while_a_job_computes_and_free_in_the_second_half_of_its_pause() -> None:
    turn, time = threading.Lock(), Time()
    held: list[bool] = []

    def sleep(_: float) -> None:
        held.append(turn.locked())

    def job() -> None:
        held.append(turn.locked())
        time.now += 1
        breathe()
        held.append(turn.locked())

    Stints(turn, time.clock, sleep).run(job)
    assert held == [True, True, False, True]
    assert not turn.locked()


def test_a_job_that_fails_lets_go_of_the_turn() -> None:
    turn = threading.Lock()
    with pytest.raises(ZeroDivisionError):
        Stints(turn).run(lambda: 1 // 0)
    assert not turn.locked()


def test_a_job_goes_on_beside_one_that_does_not_pause_and_leaves_it_its_turn() -> None:
    turn = threading.Lock()
    with turn:
        assert Stints(turn).run(lambda: "done") == "done"
        assert turn.locked()


def test_outside_of_a_job_nothing_happens() -> None:
    breaths: list[None] = []
    with breathing(lambda: breaths.append(None)):
        breathe()
    breathe()
    assert len(breaths) == 1


def test_another_thread_does_not_breathe_for_this_one() -> None:
    breaths: list[None] = []
    with breathing(lambda: breaths.append(None)):
        thread = threading.Thread(target=breathe)
        thread.start()
        thread.join(_DEADLINE)
    assert breaths == []


async def test_a_job_beside_the_loop_breathes() -> None:
    """The executor says what happens there; on the loop nothing does."""
    here: Breath = current()
    there = await ThreadExecutor().run("b", current)
    assert isinstance(getattr(there, "__self__", None), Stints)
    assert current() is here


def _build() -> bytes:
    components = [change(f"e{n}", _state="completed") for n in range(100)]
    edges = [("start", f"a{n}") for n in range(160)]
    changes = [change(f"a{n}", text="x" * 500) for n in range(160)]
    return json.dumps(build(*changes, components=components, edges=edges)).encode()


def _breaths(job: Callable[[], object]) -> int:
    breaths: list[None] = []
    with breathing(lambda: breaths.append(None)):
        job()
    return len(breaths)


_VALUES: Any = [{"text": "x" * 1_000}] * 2_000


@pytest.mark.parametrize(
    ("job", "least"),
    [
        pytest.param(lambda: parse_build(_build()), 100 + 160 + 160 // 16, id="reading"),
        pytest.param(lambda: decode_in_pieces(json.dumps(_VALUES).encode()), 10, id="decoding"),
        pytest.param(lambda: list(list_chunks(_VALUES)), 10, id="writing"),
        pytest.param(
            lambda: Secrets.of_document({"changes": [{"password": "x"}] * 100}), 100, id="learning secrets"
        ),
        pytest.param(lambda: _spend(Work(), 1_000_000), 40, id="work"),
        pytest.param(lambda: _spend(Work(expired=lambda: False), 1_000_000), 40, id="work by the clock"),
        pytest.param(lambda: _spend(Work().part(inline=False), 1_000_000), 40, id="a part of work"),
    ],
)
def test_long_work_breathes_all_along(job: Callable[[], object], least: int) -> None:
    assert _breaths(job) >= least


def _spend(work: Work, units: int) -> None:
    for _ in range(units // 1_000):
        work.spend(1_000)
