"""Replies reach the broker, also where the connection is lost under them."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from support.connecting import open_connector
from support.fake_bus import FakeBus, Published
from trio.testing import MockClock

from scheduler.connectors import Connectors, MemoryStore
from scheduler.connectors.post import Post


def lose_with_connection(bus: FakeBus, times: int) -> Callable[[Published], bool]:
    """Lose messages by losing the connection under them, so many times."""

    def lose(_: Published) -> bool:
        nonlocal times
        if times <= 0:
            return False
        times -= 1
        bus.disconnect()
        trio.lowlevel.current_trio_token().run_sync_soon(bus.reconnect)
        return True

    return lose


async def test_a_reply_that_was_lost_with_its_connection_is_sent_again(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The broker had not confirmed it: it may come twice, which the scheduler drops, but not never."""
    fake_bus.lose = lose_with_connection(fake_bus, 2)
    async with trio.open_nursery() as nursery:
        post = Post(fake_bus, nursery)
        post.send("a.b", b"reply")
        await post.emptied()
        await trio.sleep(100)
    assert [message.subject for message in fake_bus.published] == ["a.b"] * 3


async def test_a_reply_that_was_confirmed_is_not_sent_again(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A connection that is lost later is no reason."""
    async with trio.open_nursery() as nursery:
        post = Post(fake_bus, nursery)
        post.send("a.b", b"reply")
        await post.emptied()
        fake_bus.disconnect()
        fake_bus.reconnect()
        await trio.sleep(100)
    assert len(fake_bus.published) == 1


async def test_a_connection_that_never_lasts_is_given_up_on(
    fake_bus: FakeBus, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log says that a reply may be lost, and nothing waits for it for ever."""
    fake_bus.lose = lose_with_connection(fake_bus, 1_000)
    async with trio.open_nursery() as nursery:
        post = Post(fake_bus, nursery)
        post.send("a.b", b"reply")
        with trio.fail_after(1_000):
            await post.emptied()
    assert "a reply may be lost" in capsys.readouterr().out


async def test_a_full_bus_is_waited_for(autojump_clock: MockClock) -> None:
    """The queue of a broker that is away has a bound; a reply waits until there is room."""
    bus = FakeBus(max_queued_messages=1)
    async with trio.open_nursery() as nursery:
        post = Post(bus, nursery)
        bus.disconnect()
        bus.publish("other", b"")
        post.send("a.b", b"reply")
        await trio.sleep(5)
        bus.reconnect()
        await post.emptied()
    assert [message.subject for message in bus.published] == ["other", "a.b"]


@pytest.mark.parametrize("wait", [0.0, 60.0])
async def test_a_reply_of_an_outage_leaves_some_seconds_after_the_reconnect(
    fake_bus: FakeBus, autojump_clock: MockClock, wait: float
) -> None:
    """By then its reader is back, or the stream that keeps it has a leader; core NATS would lose it."""
    async with trio.open_nursery() as nursery:
        post = Post(fake_bus, nursery)
        fake_bus.disconnect()
        post.send("a.b", b"reply")
        await trio.sleep(wait)
        fake_bus.reconnect()
        await trio.sleep(2.9)
        assert not fake_bus.published
        with trio.fail_after(5):
            await post.emptied()
    assert [message.subject for message in fake_bus.published] == ["a.b"]


@pytest.mark.parametrize(
    ("subject", "outage", "times"),
    [
        ("scheduler.reply.k.aws.1", True, 2),
        ("scheduler.reply.k.aws.1", False, 1),
        ("vpc.create.aws.done", True, 1),
    ],
)
async def test_a_reply_of_an_outage_is_sent_once_more(
    fake_bus: FakeBus, autojump_clock: MockClock, subject: str, outage: bool, times: int
) -> None:
    """When the stream that keeps it has a leader; not where it could be another attempt's."""
    async with trio.open_nursery() as nursery:
        post = Post(fake_bus, nursery)
        if outage:
            fake_bus.disconnect()
        post.send(subject, b"reply")
        if outage:
            fake_bus.reconnect()
        with trio.fail_after(5):
            await post.emptied()
        assert len(fake_bus.published) == 1
        await trio.sleep(11.9)
        assert len(fake_bus.published) == 1
        await trio.sleep(1)
    assert [message.subject for message in fake_bus.published] == [subject] * times


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("backend", ["trio", "thread", "asyncio"])
async def test_a_request_that_is_done_is_freed_by_reference_counts(
    fake_bus: FakeBus, backend: str, *, fails: bool
) -> None:
    """Nothing of it is left for the collector."""

    @attrs.define(weakref_slot=True, eq=False)
    class Vpc:
        name: str = ""

    connectors = Connectors("aws", timeout=10)
    seen: list[weakref.ref[Vpc]] = []

    def plain(request: Vpc) -> None:
        seen.append(weakref.ref(request))
        if fails:
            raise ValueError("no")

    async def asynchronous(request: Vpc) -> None:
        plain(request)

    connectors.create("vpc", backend=backend, request=Vpc)(  # type: ignore[arg-type]
        plain if backend == "thread" else asynchronous
    )
    gc.collect()
    gc.disable()
    try:
        async with open_connector(connectors, fake_bus) as peer:
            await peer.reply(peer.ask())
            with trio.fail_after(10):
                while seen[0]() is not None:  # noqa: ASYNC110 - nothing tells when it is freed
                    await trio.sleep(0.001)
    finally:
        gc.enable()


class Returning(MemoryStore):
    """A record of many attempts without an answer."""

    durable = True

    async def unanswered(self) -> list[str]:
        return [f"b/{'x' * 600}/{number}" for number in range(1_200)]


async def test_attempts_without_an_answer_are_told_in_messages_of_bounded_size(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """At most a thousand are in a message, and none is larger than a broker takes."""
    connectors = Connectors("aws", store=Returning(), instance="host-1")

    @connectors.create("vpc")
    async def create() -> None: ...

    async with open_connector(connectors, fake_bus):
        await trio.sleep(1)
    told: list[Any] = [one for one in fake_bus.published if one.subject == "scheduler.returned.aws"]
    assert all(len(message.data) < 300_000 for message in told)
    bodies = [json.loads(message.data) for message in told]
    assert {body["instance"] for body in bodies} == {"host-1"}
    assert [one for body in bodies for one in body["attempts"]] == await Returning().unanswered()
    assert all(len(body["attempts"]) <= 1_000 for body in bodies)


async def test_a_second_copy_waits_for_the_next_connection_to_settle(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """In another outage it would leave before anybody hears it again, and count for nothing."""
    async with trio.open_nursery() as nursery:
        post = Post(fake_bus, nursery)
        fake_bus.disconnect()
        post.send("scheduler.reply.k.aws.1", b"reply")
        fake_bus.reconnect()
        await post.emptied()
        await trio.sleep(10)
        fake_bus.disconnect()
        await trio.sleep(20)
        fake_bus.reconnect()
        await trio.sleep(2.9)
        assert len(fake_bus.published) == 1
        await trio.sleep(1)
    assert len(fake_bus.published) == 2


async def test_of_the_replies_of_an_outage_not_all_are_kept_for_a_second_time(
    fake_bus: FakeBus, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a bound in bytes, and once they are sent there is room again."""
    monkeypatch.setattr("scheduler.connectors.post._MOST_KEPT", 25)
    async with trio.open_nursery() as nursery:
        post = Post(fake_bus, nursery)
        for _ in range(2):
            fake_bus.published.clear()
            fake_bus.disconnect()
            for number in range(5):
                post.send(f"scheduler.reply.k.aws.{number}", b"ten bytes!")
            fake_bus.reconnect()
            with trio.fail_after(5):
                await post.emptied()
            await trio.sleep(60)
            assert len(fake_bus.published) == 5 + 2
        nursery.cancel_scope.cancel()
