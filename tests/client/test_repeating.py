"""Asking again what gets no answer."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import gc
import json
import time

import pytest
import trio
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.client.ask import ORDER_LIFE, ask, give_order
from scheduler.client.repeating import ONCE, request_again
from scheduler.errors import BusClosed, NoResponders, NotPermitted, SteeringError

SUBJECT = "scheduler.build.pause"


class Listener:
    """Answers each try so many seconds after it came; None: never."""

    def __init__(self, bus: FakeBus, *delays: float | None) -> None:
        self.bus = bus
        self.delays = list(delays)
        self.came: list[float] = []
        self.inboxes: list[str] = []
        self.data: list[bytes] = []

    async def listen(self, nursery: trio.Nursery) -> "Listener":
        async def answer(reply: str, number: int, delay: float) -> None:
            await trio.sleep(delay)
            self.bus.deliver(reply, b'{"try": %d}' % number)

        def handle(message: Message) -> None:
            number = len(self.came)
            self.came.append(trio.current_time())
            self.inboxes.append(message.reply)
            self.data.append(message.data)
            delay = self.delays[number] if number < len(self.delays) else None
            if delay is not None:
                nursery.start_soon(answer, message.reply, number, delay)

        self.subscription = await self.bus.subscribe(SUBJECT, handle)
        return self


async def test_what_is_answered_is_asked_once(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """And no place is kept for a second answer."""
    listener = await Listener(fake_bus, 0).listen(nursery)
    assert (await request_again(fake_bus, SUBJECT, b"x")).data == b'{"try": 0}'
    assert len(listener.came) == 1
    assert len(fake_bus.inbox) == 0


async def test_what_gets_no_answer_is_asked_again_on_the_same_subject(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """Every two seconds, with the same bytes, and an inbox of its own for each try."""
    listener = await Listener(fake_bus, None, None, 0.5).listen(nursery)
    began = trio.current_time()
    assert (await request_again(fake_bus, SUBJECT, b"x")).data == b'{"try": 2}'
    assert [at - began for at in listener.came] == pytest.approx([0, 2, 4])
    assert listener.data == [b"x"] * 3
    assert len(set(listener.inboxes)) == 3


async def test_a_late_answer_to_the_first_try_counts(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """It comes while the third one is under way, and ends the asking."""
    listener = await Listener(fake_bus, 5).listen(nursery)
    began = trio.current_time()
    assert (await request_again(fake_bus, SUBJECT, b"x")).data == b'{"try": 0}'
    assert trio.current_time() - began == pytest.approx(5)
    assert len(listener.came) == 3
    assert len(fake_bus.inbox) == 0


async def test_after_five_tries_it_is_silent(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """The error names the subject, and where to look."""
    listener = await Listener(fake_bus).listen(nursery)
    began = trio.current_time()
    with pytest.raises(SteeringError) as caught:
        await ask(fake_bus, "pause", {"id": "b1"})
    assert caught.value.code == "silent"
    for part in (SUBJECT, "5 times within 10 s", "`scheduler instances`", "`scheduler doctor`"):
        assert part in str(caught.value)
    assert trio.current_time() - began == pytest.approx(10)
    assert len(listener.came) == 5
    assert len(fake_bus.inbox) == 0


async def test_one_try_is_one(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """Whoever asks from time to time anyway does not repeat each question."""
    listener = await Listener(fake_bus).listen(nursery)
    with pytest.raises(SteeringError, match="asked once within 2 s"):
        await request_again(fake_bus, SUBJECT, b"x", ONCE)
    assert len(listener.came) == 1


async def test_that_nobody_is_there_is_said_at_once(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """Nothing is repeated where the server says of the first try that nobody subscribes."""
    began = trio.current_time()
    with pytest.raises(NoResponders):
        await request_again(fake_bus, SUBJECT, b"x")
    assert trio.current_time() == pytest.approx(began)
    assert len(fake_bus.published) == 1


async def test_one_that_has_just_unsubscribed_may_still_answer(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """That nobody subscribes when it is asked again does not end the wait for what was asked before."""
    listener = await Listener(fake_bus, 3).listen(nursery)

    async def leave() -> None:
        await trio.sleep(1)
        await listener.subscription.unsubscribe()

    nursery.start_soon(leave)
    assert (await request_again(fake_bus, SUBJECT, b"x")).data == b'{"try": 0}'


async def test_a_scheduler_that_starts_meanwhile_is_asked(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """One was killed with the question, and the next one subscribes between two tries."""
    first = await Listener(fake_bus).listen(nursery)

    async def restart() -> None:
        await trio.sleep(1)
        await first.subscription.unsubscribe()
        await trio.sleep(2)
        await Listener(fake_bus, 0).listen(nursery)

    nursery.start_soon(restart)
    began = trio.current_time()
    assert (await request_again(fake_bus, SUBJECT, b"x")).data == b'{"try": 0}'
    assert trio.current_time() - began == pytest.approx(4)


async def test_that_all_have_gone_is_said_in_the_end(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """Rather than that they are silent."""
    listener = await Listener(fake_bus).listen(nursery)

    async def leave() -> None:
        await trio.sleep(1)
        await listener.subscription.unsubscribe()

    nursery.start_soon(leave)
    with pytest.raises(NoResponders):
        await request_again(fake_bus, SUBJECT, b"x")


async def test_what_is_forbidden_is_not_asked_again(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """Nor is what the bus cannot send."""
    fake_bus.forbidden.add(SUBJECT)
    with pytest.raises(NotPermitted):
        await request_again(fake_bus, SUBJECT, b"x")
    fake_bus.close()
    with pytest.raises(BusClosed):
        await request_again(fake_bus, SUBJECT, b"x")


async def test_an_error_leaves_no_cycle_behind(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """What was refused is freed without the collector."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(NoResponders):
                await request_again(fake_bus, SUBJECT, b"x")
        found = [one for one in gc.get_objects() if isinstance(one, NoResponders)]
    finally:
        gc.enable()
    assert not found


async def test_an_order_keeps_its_id_over_its_tries(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """And its expiry; another order has an id of its own."""
    listener = await Listener(fake_bus, None, None, 0, 0).listen(nursery)
    began = time.time()
    await give_order(fake_bus, "pause", {"id": "b1"})
    assert listener.data[0] == listener.data[1] == listener.data[2]
    await give_order(fake_bus, "pause", {"id": "b1"})
    first, second = json.loads(listener.data[0]), json.loads(listener.data[3])
    assert first["id"] == "b1"
    assert first["order"] != second["order"]
    assert began + ORDER_LIFE - 0.01 <= first["expires"] <= time.time() + ORDER_LIFE + 0.01


async def test_of_an_order_without_an_answer_it_is_said_that_it_may_be_carried_out(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """For as long as a copy of it is valid."""
    await Listener(fake_bus).listen(nursery)
    with pytest.raises(
        SteeringError, match=r"may still be carried out, up to 30 s after it was given"
    ) as caught:
        await give_order(fake_bus, "pause", {"id": "b1"})
    assert caught.value.code == "silent"
