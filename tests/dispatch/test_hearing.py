"""Whose replies are heard beside our own, and for how long."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from structlog.testing import capture_logs
from support.fake_bus import FakeBus, FakeListener
from trio.testing import wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.dispatch.hearing import MOST, Hearing
from scheduler.dispatch.second_copies import SecondCopies


class Ears:
    """A hearing on a bus and a listener."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.listener = FakeListener()
        self.heard: list[str] = []
        self.beats: list[str] = []
        doubles = SecondCopies(lambda: self.bus.connected, self.listener)
        self.hearing = Hearing(
            self.bus, doubles, self._hear, lambda message: self.beats.append(message.subject)
        )

    def _hear(self, message: Message) -> None:
        self.heard.append(message.subject)

    @property
    def subjects(self) -> set[str]:
        """What both connections listen to."""
        assert set(self.bus.subjects) == set(self.listener.subjects)
        return set(self.bus.subjects)


@asynccontextmanager
async def open_ears() -> AsyncIterator[Ears]:
    ears = Ears()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ears.hearing.run)
        yield ears
        nursery.cancel_scope.cancel()


async def test_what_is_held_is_heard_on_both_connections() -> None:
    """Once it is returned; until nobody holds it any more."""
    async with open_ears() as ears:
        held = await ears.hearing.hear(["r.a.*", "r.b.*"])
        assert ears.subjects == set(held) == {"r.a.*", "r.b.*"}
        ears.bus.deliver("r.a.1", b"")
        await wait_all_tasks_blocked()
        assert ears.heard == ["r.a.1"]
        again = await ears.hearing.hear(["r.a.*"])
        ears.hearing.release(held)
        await wait_all_tasks_blocked()
        assert ears.subjects == {"r.a.*"}
        ears.hearing.hold(again)
        ears.hearing.release(again)
        await wait_all_tasks_blocked()
        assert ears.subjects == {"r.a.*"}
        ears.hearing.release(again)
        await wait_all_tasks_blocked()
        assert ears.subjects == set()


async def test_heartbeats_are_no_replies() -> None:
    """What comes on a subject for heartbeats is taken as one, and needs no second connection."""
    async with open_ears() as ears:
        await ears.hearing.hear(["scheduler.beat.a.*.*"])
        assert ears.listener.subjects == []
        ears.bus.deliver("scheduler.beat.a.aws.1", b"")
        await wait_all_tasks_blocked()
        assert (ears.heard, ears.beats) == ([], ["scheduler.beat.a.aws.1"])


async def test_so_many_are_heard_at_a_time() -> None:
    """Those named first; the others are left, and may be heard when there is room."""
    async with open_ears() as ears:
        wanted = [f"r.{number}.*" for number in range(MOST + 5)]
        held = await ears.hearing.hear(wanted)
        assert list(held) == wanted[:MOST]
        assert len(ears.subjects) == MOST
        assert await ears.hearing.hear([wanted[-1]]) == ()
        assert await ears.hearing.hear([wanted[0]]) == (wanted[0],)
        ears.hearing.release(held[1:])
        await wait_all_tasks_blocked()
        assert await ears.hearing.hear([wanted[-1]]) == (wanted[-1],)


async def test_what_is_not_permitted_is_left_out_and_said() -> None:
    """The others are heard; nobody is kept from going on with a build by it."""
    async with open_ears() as ears:
        ears.bus.forbidden = {"r.b.*"}
        with capture_logs() as lines:
            assert await ears.hearing.hear(["r.a.*", "r.b.*", "r.c.*"]) == ("r.a.*", "r.c.*")
        assert ears.subjects == {"r.a.*", "r.c.*"}
        assert [one for one in lines if one["log_level"] == "error" and "r.b.*" in one["reason"]]


async def test_whoever_is_cancelled_holds_nothing() -> None:
    """What it had got so far is given up."""
    async with open_ears() as ears:
        ears.bus.disconnect()
        with trio.move_on_after(0):
            await ears.hearing.hear(["r.a.*"])
        ears.bus.reconnect()
        await wait_all_tasks_blocked()
        assert ears.subjects == set()
