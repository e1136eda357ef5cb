"""Following a build whose owner is away, or becomes another one."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from support.desks import FakeDesk
from support.durable import until
from support.fake_bus import FakeBus
from support.fakes import encode
from trio.testing import MockClock

from scheduler.errors import Refused
from scheduler.web.live.following import Following
from scheduler.web.page.discarding import Discarded
from scheduler.web.page.wholes import Wholes

AWAY = Refused("unavailable", "b1 is owned by beta, which does not answer")


@asynccontextmanager
async def followed() -> AsyncIterator[tuple[Following, FakeDesk, FakeBus]]:
    """A build that is followed, and was fetched once."""
    get = {"source": "alpha", "seq": 1, "status": "running", "total": 1}
    desk = FakeDesk({"get": get | {"components": [{"id": "a", "state": "running"}]}})
    bus = FakeBus()
    wholes = Wholes(desk, Discarded())  # type: ignore[arg-type]
    following = Following("b1", bus, desk, wholes, lambda: None)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(following.run)
        await until(lambda: following.fetched == 1, 10)
        yield following, desk, bus
        nursery.cancel_scope.cancel()


async def test_a_build_is_fetched_soon_after_its_owner_is_back(autojump_clock: MockClock) -> None:
    """However long those questions took that nobody answered."""
    async with followed() as (following, desk, bus):
        desk.seconds, desk.refusal = 8.0, AWAY
        bus.reconnect()
        await trio.sleep(30.0)
        assert following.trouble == str(AWAY)
        desk.seconds, desk.refusal = 0.0, None
        assert await until(lambda: following.fetched > 1, 200) < 15.0


async def test_a_build_is_fetched_at_once_when_another_one_has_it(autojump_clock: MockClock) -> None:
    """Its next event tells, and no question needs to be waited for."""
    async with followed() as (following, desk, bus):
        # Between two questions.
        await trio.sleep(4.5)
        desk.answers["get"]["source"] = "beta"
        told = {"build": "b1", "source": "beta", "events": [{"seq": 2, "event": "taken_over", "time": 1.0}]}
        bus.deliver("scheduler.event.b1", encode(told))
        await trio.sleep(0.1)
        await following.read()
        assert await until(lambda: following.fetched > 1, 10) < 0.1


async def test_it_is_followed_until_its_report_is_out(autojump_clock: MockClock) -> None:
    """Otherwise the page would say for ever that the report waits, and nothing of when the build ended."""
    async with followed() as (following, desk, bus):

        async def look(seconds: float) -> bool:
            with trio.move_on_after(seconds):
                while not following.ended:
                    await following.read()
                    await trio.sleep(0.1)
            return following.ended

        desk.answers["get"] |= {"status": "done", "seq": 2, "report": "waits: it is being stored"}
        told = {
            "build": "b1",
            "source": "alpha",
            "events": [{"seq": 2, "event": "finished", "status": "done"}],
        }
        bus.deliver("scheduler.event.b1", encode(told))
        assert not await look(5.0)
        assert following.summary["status"] == "done"
        del desk.answers["get"]["report"]
        desk.answers["get"]["ended"] = 1_800_000_000.0
        assert await look(1.0)
