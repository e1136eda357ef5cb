"""Work in threads lets the loop have the interpreter: how long it computes, and where."""

import json
import threading
from collections.abc import Callable
from itertools import pairwise
from time import thread_time
from typing import Any

import pytest
from support.builds import build, change, prepare

from scheduler.control.questions import read_object
from scheduler.definition.codec import parse_build
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.strictjson import decode, decode_in_pieces, list_chunks
from scheduler.definition.template import Work
from scheduler.definition.validation import Prepared
from scheduler.forecast import forecast
from scheduler.forecast.durations import Durations
from scheduler.forecast.preview import preview
from scheduler.plan import Plan
from scheduler.plan.summary import report_of
from scheduler.runtime.executor import ThreadExecutor, TimeSlices, clock_of_this_thread
from scheduler.runtime.yielding import YieldHook, current, yield_now, yielding

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
            yield_now()
            if len(time.slept) > before:
                paused.append(time.now)
        return "done"

    assert TimeSlices(threading.Lock(), time.clock, time.sleep).run(job) == "done"
    assert sum(time.slept) == pytest.approx(0.1, rel=0.15)
    assert max(b - a for a, b in pairwise(paused)) < 0.0023


@pytest.mark.parametrize(("computes", "slept"), [(0.0, 0.0002), (0.0001, 0.0011)])
def test_a_job_pauses_for_long_only_beside_a_loop_that_has_something_to_do(
    computes: float, slept: float
) -> None:
    time = Time()

    def job() -> None:
        time.now += 1
        yield_now()

    TimeSlices(threading.Lock(), time.clock, time.sleep, lambda: len(time.slept) * computes).run(job)
    assert sum(time.slept) == pytest.approx(slept)


async def test_how_long_the_loop_has_computed_is_known_beside_it() -> None:
    clock = clock_of_this_thread()

    def look() -> tuple[float | None, float | None, float]:
        # The loop waits meanwhile, and this thread computes.
        own, before = thread_time(), clock()
        sum(range(1_000_000))
        return before, clock(), thread_time() - own

    before, after, own = await ThreadExecutor().run("b", look)
    while (now := clock()) == after and now is not None:
        pass
    if before is not None and after is not None and now is not None:
        assert now > after
        assert after - before < own / 2


def test_a_job_that_ends_soon_has_no_pause() -> None:
    time = Time()
    TimeSlices(threading.Lock(), time.clock, time.sleep).run(yield_now)
    assert time.slept == []


def test_the_turn_is_held_while_a_job_computes_and_free_in_the_second_half_of_its_pause() -> None:
    turn, time = threading.Lock(), Time()
    held: list[bool] = []

    def sleep(_: float) -> None:
        held.append(turn.locked())

    def job() -> None:
        held.append(turn.locked())
        time.now += 1
        yield_now()
        held.append(turn.locked())

    TimeSlices(turn, time.clock, sleep).run(job)
    assert held == [True, True, True, False, True]
    assert not turn.locked()


def test_a_job_that_fails_lets_go_of_the_turn() -> None:
    turn = threading.Lock()
    with pytest.raises(ZeroDivisionError):
        TimeSlices(turn).run(lambda: 1 // 0)
    assert not turn.locked()


def test_a_job_goes_on_beside_one_that_does_not_pause_and_leaves_it_its_turn() -> None:
    turn = threading.Lock()
    with turn:
        assert TimeSlices(turn).run(lambda: "done") == "done"
        assert turn.locked()


def test_outside_of_a_job_nothing_happens() -> None:
    yields: list[None] = []
    with yielding(lambda: yields.append(None)):
        yield_now()
    yield_now()
    assert len(yields) == 1


def test_another_thread_does_not_yield_for_this_one() -> None:
    yields: list[None] = []
    with yielding(lambda: yields.append(None)):
        thread = threading.Thread(target=yield_now)
        thread.start()
        thread.join(_DEADLINE)
    assert yields == []


async def test_a_job_beside_the_loop_yields() -> None:
    """The executor says what happens there; on the loop nothing does."""
    here: YieldHook = current()
    there = await ThreadExecutor().run("b", current)
    slices = getattr(there, "__self__", None)
    assert isinstance(slices, TimeSlices)
    assert (slices._loop() is None) == (clock_of_this_thread()() is None)
    assert current() is here


def _build() -> bytes:
    components = [change(f"e{n}", _state="completed") for n in range(100)]
    edges = [("start", f"a{n}") for n in range(160)]
    changes = [change(f"a{n}", text="x" * 500) for n in range(160)]
    return json.dumps(build(*changes, components=components, edges=edges)).encode()


def _prepared() -> Prepared:
    """One of 200 components, each with a reference."""
    return prepare(build(*[change(f"a{number}", x="$(name)") for number in range(200)]))


def _yields(job: Callable[[], object]) -> int:
    yields: list[None] = []
    with yielding(lambda: yields.append(None)):
        job()
    return len(yields)


_PREPARED = _prepared()
_VALUES: Any = [{"text": "x" * 1_000}] * 2_000


@pytest.mark.parametrize(
    ("job", "least"),
    [
        pytest.param(lambda: parse_build(_build()), 100 + 160 + 160 // 32, id="reading"),
        pytest.param(lambda: decode(json.dumps([[1]] * 10_000).encode()), 20, id="looking for what is deep"),
        pytest.param(lambda: read_object(json.dumps({"x": _VALUES}).encode()), 10, id="a question"),
        pytest.param(lambda: report_of(Plan(_PREPARED)), 200, id="reporting"),
        pytest.param(lambda: _foreseen(_PREPARED), 200, id="foreseeing"),
        pytest.param(lambda: preview(_PREPARED, Durations()), 200 + 200, id="planning"),
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
def test_long_work_yields_all_along(job: Callable[[], object], least: int) -> None:
    assert _yields(job) >= least


def _foreseen(prepared: Prepared) -> None:
    forecast(prepared.graph, [float(number) for number in range(1, 201)], ["a.b.c"] * 200)


def _spend(work: Work, units: int) -> None:
    for _ in range(units // 1_000):
        work.spend(1_000)
