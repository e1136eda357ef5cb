"""The journal for stores that are told step by step."""

from collections.abc import Sequence

import pytest
import trio
from support.fakes import FakeStore, settled
from trio.testing import wait_all_tasks_blocked

from scheduler.errors import StoreError, StoreUnavailable
from scheduler.journal.events import Event, Settled, Started, Withdrawn
from scheduler.stores.step_journal import StepJournal


def outcome(name: str) -> Settled:
    return Settled(name, {"_component_id": name, "_state": "completed"})


def told(store: FakeStore) -> Sequence[Event]:
    return store.of("b1")


class Bench:
    """A journal, and what it calls."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.called: list[str] = []
        self.journal = StepJournal("b1", self.store.append, lambda error: self.called.append(str(error)))

    def end(self, name: str) -> None:
        self.journal.end(outcome(name), lambda: self.called.append(name))


async def test_what_follows_from_an_outcome_may_be_given_once_that_is_persisted() -> None:
    """Not before, and in the order in which the outcomes were given."""
    bench = Bench()
    gate = bench.store.hold(settled("a"))
    bench.end("a")
    bench.end("b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.journal.ended)
        await gate.reached.wait()
        assert bench.called == []
        gate.open()
    assert bench.called == ["a", "b"]
    assert told(bench.store) == [outcome("a"), outcome("b")]


async def test_the_task_that_comes_first_writes_for_those_behind_it() -> None:
    """They return when theirs is persisted; there is one append at a time."""
    bench = Bench()
    gate = bench.store.hold(settled("a"))
    bench.end("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.journal.ended)
        await gate.reached.wait()
        bench.end("b")
        nursery.start_soon(bench.journal.ended)
        await wait_all_tasks_blocked()
        assert bench.called == []
        gate.open()
    assert bench.called == ["a", "b"]
    await bench.journal.ended()
    assert bench.journal.ends == 2


async def test_a_store_that_does_not_answer_is_not_asked_for_those_that_have_waited() -> None:
    """The handler is told once, and what was to follow from each of them is called all the same."""
    bench = Bench()
    bench.store.fail(settled("a"), StoreUnavailable("no answer"))
    for name in "abc":
        bench.end(name)
    await bench.journal.ended()
    assert bench.called == ["no answer", "a", "b", "c"]
    assert told(bench.store) == []


async def test_an_outcome_that_is_refused_does_not_take_the_others_along() -> None:
    """The next one is persisted."""
    bench = Bench()
    bench.store.fail(settled("a"), StoreError("no"))
    bench.end("a")
    bench.end("b")
    await bench.journal.ended()
    assert bench.called == ["no", "a", "b"]
    assert told(bench.store) == [outcome("b")]


async def test_a_start_is_persisted_when_it_returns() -> None:
    """So there is nothing more to be awaited; where it fails, it raises."""
    bench = Bench()
    start = Started("a", "b1/a/1", b"{}")
    assert await bench.journal.begin(start) == (0, True)
    await bench.journal.persisted(0)
    await bench.journal.commit(Withdrawn("a", b"{}"))
    assert told(bench.store) == [start, Withdrawn("a", b"{}")]
    bench.store.fail(lambda _: True, StoreError("no"))
    with pytest.raises(StoreError, match="no"):
        await bench.journal.begin(start)
    with pytest.raises(StoreError, match="no"):
        await bench.journal.commit(start)
    assert bench.called == [], "whoever asked for it was told"


async def test_what_only_a_log_can_keep_is_refused() -> None:
    """It is a mistake of the caller's."""
    bench = Bench()
    with pytest.raises(AssertionError, match="step by step"):
        bench.journal.record(outcome("a"))


async def test_a_closed_journal_calls_its_handler_no_more() -> None:
    """Closing it may be repeated."""
    bench = Bench()
    bench.end("a")
    bench.journal.close()
    bench.journal.close()
    bench.store.fail(settled("b"), StoreError("no"))
    bench.end("b")
    await bench.journal.ended()
    assert bench.called == ["b"]
