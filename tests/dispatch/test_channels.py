"""Channels that are used again: nobody gets what was meant for another."""

import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.dispatch.channels import Channels, OnePlace


async def test_a_channel_is_used_again_when_its_item_was_received() -> None:
    """Making one is dear."""
    channels: Channels[int] = Channels()
    first = channels.take()
    first.put(1)
    assert await first.receive() == 1
    channels.give_back(first)
    assert channels.take() is first
    assert channels.take() is not first, "it is in use"


async def test_what_nobody_has_received_is_gone_when_it_is_used_again() -> None:
    """The next one must not get it."""
    channels: Channels[int] = Channels()
    channel = channels.take()
    channel.put(1)
    channels.give_back(channel)
    assert channels.take() is channel
    async with trio.open_nursery() as nursery:
        got: list[int] = []
        nursery.start_soon(receive, channel, got)
        await wait_all_tasks_blocked()
        assert got == []
        channel.put(2)
    assert got == [2]


async def test_a_channel_with_a_task_at_it_is_not_used_again() -> None:
    """Nor is one whose item was handed to a task that did not run since."""
    channels: Channels[int] = Channels()
    channel = channels.take()
    async with trio.open_nursery() as nursery:
        got: list[int] = []
        nursery.start_soon(receive, channel, got)
        await wait_all_tasks_blocked()
        assert not channel.reusable
        channel.put(1)
        assert not channel.reusable
    assert got == [1]
    assert channel.reusable


async def test_a_channel_whose_wait_was_cut_off_is_not_used_again() -> None:
    """What became of its place is not worth finding out."""
    channels: Channels[int] = Channels()
    channel = channels.take()
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.receive()
    channels.give_back(channel)
    assert channels.take() is not channel
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive()


async def test_a_full_channel_takes_nothing_more_but_a_replacement() -> None:
    """There is one place."""
    channel: OnePlace[int] = OnePlace()
    channel.put(1)
    with pytest.raises(trio.WouldBlock):
        channel.put(2)
    channel.replace(3)
    assert await channel.receive() == 3
    channel.put(4)


async def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are closed."""
    monkeypatch.setattr("scheduler.dispatch.channels._MOST", 2)
    channels: Channels[int] = Channels()
    taken = [channels.take() for _ in range(3)]
    for channel in taken:
        channels.give_back(channel)
    with pytest.raises(trio.ClosedResourceError):
        await taken[2].receive()
    assert [channels.take() for _ in range(2)] == [taken[1], taken[0]]


async def receive(channel: OnePlace[int], got: list[int]) -> None:
    got.append(await channel.receive())


@given(st.integers(0, 2**32))
def test_each_task_gets_its_own_items(seed: int) -> None:
    """However their puts, waits, cut waits and returns come together."""
    luck = random.Random(seed)
    channels: Channels[int] = Channels()

    async def use(number: int) -> None:
        channel = channels.take()

        async def put() -> None:
            for _ in range(luck.randrange(4)):
                await trio.sleep(luck.randrange(3))
                try:
                    channel.put(number)
                except trio.WouldBlock:
                    channel.replace(number)

        async def get() -> None:
            for _ in range(luck.randrange(3)):
                await trio.sleep(luck.randrange(3))
                with trio.move_on_after(luck.randrange(1, 4)):
                    assert await channel.receive() == number

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            nursery.start_soon(get)
        channels.give_back(channel)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                await trio.sleep(luck.randrange(3))
                nursery.start_soon(use, number)

    trio.run(main, clock=MockClock(autojump_threshold=0))
