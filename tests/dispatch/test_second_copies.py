"""What comes over two connections is passed on once, whichever was faster, or away."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.bench import SUBJECT, Bench, request
from support.fake_bus import FakeBus, FakeListener
from support.fakes import change, encode, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.dispatch.second_copies import SecondCopies

FAILED = f"{SUBJECT}.error"


class Twin:
    """A bus and a listener, and what is passed on of what they bring."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.listener = FakeListener()
        self.passed: list[bytes] = []
        doubles = SecondCopies(lambda: self.bus.connected, self.listener)
        self.first = doubles.listen("a", lambda message: self.passed.append(message.data))

    def come(self, data: bytes, *, second: bool = False) -> None:
        """Have a copy come in."""
        if second:
            self.listener.hear("a", data)
        else:
            self.first(Message("a", data))


async def test_the_second_copy_is_dropped() -> None:
    """Over whichever connection it comes."""
    twin = Twin()
    twin.listener.connect()
    for second in (False, True):
        twin.come(b"one", second=second)
        twin.come(b"one", second=not second)
    assert twin.passed == [b"one", b"one"]


async def test_before_there_is_a_second_connection_nothing_is_awaited() -> None:
    """On a single server each message is passed on, and none is remembered."""
    twin = Twin()
    for _ in range(3):
        twin.come(b"one")
    assert len(twin.passed) == 3
    twin.listener.connect()
    twin.come(b"one", second=True)
    assert len(twin.passed) == 4


async def test_a_connection_that_is_away_owes_nothing() -> None:
    """What came meanwhile over the other one does not come any more: the next message is a new one."""
    twin = Twin()
    twin.listener.connect()
    twin.bus.disconnect()
    twin.come(b"one", second=True)
    twin.bus.reconnect()
    twin.come(b"one")
    twin.listener.connected = False
    twin.come(b"two")
    twin.listener.connect()
    twin.come(b"two", second=True)
    assert twin.passed == [b"one", b"one", b"two", b"two"]


async def test_a_copy_is_awaited_for_as_long_as_a_connection_may_hang(autojump_clock: MockClock) -> None:
    """Not longer: what is equal to something of long ago is new."""
    twin = Twin()
    twin.listener.connect()
    twin.come(b"one", second=True)
    await trio.sleep(20)
    twin.come(b"one")
    twin.come(b"two", second=True)
    await trio.sleep(40)
    twin.come(b"two")
    assert twin.passed == [b"one", b"two", b"two"]


async def test_what_nobody_is_there_for_is_told_to_the_first_alone() -> None:
    """The server's word that nobody listens has no copy, however often it comes."""
    twin = Twin()
    twin.listener.connect()
    for _ in range(2):
        twin.first(Message("a", b"", headers={"Status": "503"}))
    twin.come(b"", second=True)
    assert len(twin.passed) == 3


@given(
    sent=st.lists(st.sampled_from([b"x", b"y"]), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_each_message_is_passed_on_once(sent: list[bytes], order: object) -> None:
    """Equal ones too, however the two connections are ahead of each other."""

    async def run() -> None:
        twin = Twin()
        twin.listener.connect()
        left = {False: list(sent), True: list(sent)}
        while left[False] or left[True]:
            second = order.choice([way for way in (False, True) if left[way]])  # type: ignore[attr-defined]
            twin.come(left[second].pop(0), second=second)
        assert sorted(twin.passed) == sorted(sent)

    trio.run(run)


# ---- where connectors answer


def body(**fields: object) -> bytes:
    return encode({**change("a"), "service": "b1", "_state": "completed", **fields})


async def test_a_reply_counts_that_only_the_second_connection_brings() -> None:
    """On the shared subject as on the request's own."""
    listener = FakeListener()
    async with open_world(cloud=False, listener=listener) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        await bench.take_requests()
        listener.connect()
        shared = await bench.send()
        world.bus.disconnect()
        listener.hear(f"{SUBJECT}.done", body())
        await wait_all_tasks_blocked()
        assert shared.outcome.completed
        world.bus.reconnect()
        own = await bench.send(request("z"))
        world.bus.disconnect()
        listener.hear(bench.requests[-1].reply, body(_component_id="z"))
        await wait_all_tasks_blocked()
        assert own.outcome.completed
        assert not world.connectors.dropped
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("second_first", [False, True])
async def test_a_failure_does_not_end_the_next_attempt_as_well(second_first: bool) -> None:
    """Its copy is none of that one's; an equal failure of the next attempt is."""
    listener = FakeListener()
    data = body(_state="errored", error="throttled")

    async def say(bench: Bench, second: bool) -> None:
        if second:
            listener.hear(FAILED, data)
        else:
            bench.bus.deliver(FAILED, data)
        await wait_all_tasks_blocked()

    async with open_world(cloud=False, listener=listener) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        await bench.take_requests()
        listener.connect()
        first = await bench.send()
        await say(bench, second_first)
        assert first.failed == "throttled"
        first.call.close()
        again = await bench.send()
        await say(bench, not second_first)
        assert again.ended == []
        await say(bench, second_first)
        assert again.failed == "throttled"
        nursery.cancel_scope.cancel()
