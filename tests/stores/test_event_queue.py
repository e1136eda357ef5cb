"""The division of a build's events into records."""

import pytest
import trio

from scheduler.journal.records import Status
from scheduler.stores.event_queue import EventQueue


def add(queue: EventQueue, *events: bytes, status: Status | None = None) -> None:
    """Queue events; the status comes with the last one."""
    for event in events[:-1]:
        queue.add(event)
    queue.add(events[-1], status)


async def kept(event: bytes) -> bytes:
    """Store an event elsewhere; the reference to it is one byte."""
    await trio.lowlevel.checkpoint()
    return event[:1].upper()


async def test_lazy_events_come_first_and_ask_for_no_record() -> None:
    """A queue with nothing but lazy events is false; a record begins with them."""
    queue = EventQueue()
    queue.add_lazily([b"l"])
    assert not queue
    assert queue.has_lazy
    add(queue, b"a", b"b")
    assert queue.put == 2
    assert queue
    draft = await queue.take(100, kept)
    assert (draft.lazy, draft.queued, draft.events) == ([b"l"], [b"a", b"b"], [b"l", b"a", b"b"])
    assert not queue
    assert not queue.has_lazy


async def test_a_record_has_as_many_events_as_fit() -> None:
    """The rest waits for the next one, and an event beyond a record's size begins one of its own."""
    queue = EventQueue()
    add(queue, b"aaa", b"bbb", b"c" * 20, b"d")
    assert (await queue.take(8, kept)).queued == [b"aaa", b"bbb"]
    assert (await queue.take(8, kept)).queued == [b"C", b"d"]


async def test_an_outcome_does_not_overtake_a_lazy_event() -> None:
    """While lazy events fill a record, queued ones wait for the next."""
    queue = EventQueue()
    add(queue, b"a")
    queue.add_lazily([b"l" * 9, b"m" * 9])
    draft = await queue.take(10, kept)
    assert (draft.lazy, draft.queued) == ([b"l" * 9], [])
    draft = await queue.take(100, kept)
    assert (draft.lazy, draft.queued) == ([b"m" * 9], [b"a"])


async def test_a_status_comes_with_its_event() -> None:
    """It is in the draft that has the event to which it belongs."""
    queue = EventQueue()
    add(queue, b"a")
    add(queue, b"b" * 9, status=Status.FINISHED)
    assert (await queue.take(8, kept)).statuses == []
    queue.committed = 1
    assert (await queue.take(100, kept)).statuses == [(2, Status.FINISHED)]


@pytest.mark.parametrize("again", [False, True])
async def test_a_draft_is_put_back_or_dropped(again: bool) -> None:
    """Put back, its events are taken in the same order; dropped after that, only later ones are left."""
    queue = EventQueue()
    queue.add_lazily([b"l", b"m"])
    add(queue, b"a", b"b", status=Status.FINISHED)
    draft = await queue.take(100, kept)
    add(queue, b"c", status=Status.REPORTED)
    queue.put_back(draft)
    if again:
        queue.drop(draft)
        queue.committed += len(draft.queued)
        assert (await queue.take(100, kept)).events == [b"c"]
    else:
        later = await queue.take(100, kept)
        assert later.events == [b"l", b"m", b"a", b"b", b"c"]
        assert later.statuses == [(2, Status.FINISHED), (3, Status.REPORTED)]


async def test_an_order_goes_with_its_first_event() -> None:
    """Neither without it nor behind it; what comes before it may go alone."""
    queue = EventQueue()
    add(queue, b"aaa")
    queue.add_order("one", follows=True)
    add(queue, b"bbb", b"c")
    first = await queue.take(4, kept)
    queue.committed += len(first.queued)
    second = await queue.take(4, kept)
    assert (first.queued, first.headers) == ([b"aaa"], {})
    assert (second.queued, second.headers) == ([b"bbb"], {"Scheduler-Orders": "[one]"})


async def test_a_record_has_two_orders_at_most() -> None:
    """The third goes into the next one, and so do its events and all behind them."""
    queue = EventQueue()
    for word in ("one", "two", "three"):
        queue.add_order(word, follows=True)
        add(queue, word.encode())
    add(queue, b"x")
    first = await queue.take(100, kept)
    queue.committed += len(first.queued)
    assert ([order for _, order in first.orders], first.queued) == (["one", "two"], [b"one", b"two"])
    second = await queue.take(100, kept)
    assert ([order for _, order in second.orders], second.queued) == (["three"], [b"three", b"x"])


async def test_an_order_that_nothing_follows_from_asks_for_a_record() -> None:
    """One without events, where none are queued."""
    queue = EventQueue()
    queue.add_order("one", follows=False)
    assert queue
    draft = await queue.take(100, kept)
    assert (draft.events, draft.headers) == ([], {"Scheduler-Orders": "[one]"})
    assert not queue


async def test_a_draft_with_orders_can_be_put_back() -> None:
    """And dropped again, with them."""
    queue = EventQueue()
    for word in ("one", "two", "three"):
        queue.add_order(word, follows=True)
        add(queue, word.encode())
    draft = await queue.take(100, kept)
    queue.put_back(draft)
    again = await queue.take(100, kept)
    assert (again.queued, again.orders) == (draft.queued, draft.orders)
    queue.put_back(again)
    queue.drop(again)
    queue.committed += len(again.queued)
    last = await queue.take(100, kept)
    assert (last.queued, [order for _, order in last.orders]) == ([b"three"], ["three"])
