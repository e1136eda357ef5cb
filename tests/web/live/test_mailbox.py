"""What waits for one viewer."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from trio.testing import MockClock

from scheduler.web.live.mailbox import STILL_HERE, Mailbox, event_of


def mailbox() -> Mailbox:
    return Mailbox(lambda: b"<all>")


async def test_a_viewer_first_gets_everything() -> None:
    """What came before it reads is in that."""
    box = mailbox()
    box.put(b"<1>")
    assert await box.next() == b"<all>"
    box.put(b"<2>")
    box.put(b"<3>")
    assert await box.next() == b"<2><3>"


async def test_one_that_is_slow_gets_everything_in_place_of_what_it_missed() -> None:
    """However much there is, a viewer holds no more than the bounds."""
    box = mailbox()
    await box.next()
    for number in range(1_000):
        box.put(b"x" * number)
        assert box.size <= 8 * 1_000
    box.put(b"<last>")
    found = await box.next()
    assert found is not None
    assert found.startswith(b"<all>")
    assert len(found) < 9_000


async def test_large_events_are_bounded_by_their_bytes() -> None:
    """Two of them are too many already."""
    box = mailbox()
    await box.next()
    for _ in range(3):
        box.put(bytes(200_000))
        assert box.size <= 256 * 1024
    assert (await box.next() or b"").startswith(b"<all>")


async def test_after_the_last_event_there_is_nothing() -> None:
    """It comes whatever waits, and once."""
    box = mailbox()
    box.end(b"<end>")
    box.end(b"<again>")
    box.put(b"<late>")
    assert await box.next() == b"<all><end>"
    assert await box.next() is None


async def test_a_quiet_stream_says_that_it_is_there(autojump_clock: MockClock) -> None:
    """So a dead connection is noticed, by either side."""
    box = mailbox()
    await box.next()
    began = trio.current_time()
    assert await box.next() == STILL_HERE == b"event: ping\ndata: {}\n\n"
    assert trio.current_time() - began == pytest.approx(15.0)


def test_an_event_is_one_block() -> None:
    """As browsers read it."""
    assert event_of("update", 7, b'{"a":1}') == b'id: 7\nevent: update\ndata: {"a":1}\n\n'
