"""How a report leaves: stored once, published until it is known to have left, and noted then."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from support.builds import Run, build, change
from support.durable import LOGS, Broker, Fate, flat, open_store, stored
from support.fake_bus import FakeBus, Published
from support.fakes import JSON
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Outgoing
from scheduler.errors import BusFull, Fenced, MessageTooLarge, StoreError
from scheduler.jetstream.streams import REPORTS
from scheduler.journal.events import Accepted, Finished, Loading
from scheduler.plan.report import Report
from scheduler.plan.summary import report_of
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.reporting import Publisher, Recorder

DONE = "build.create.done"
STORED = "scheduler.report.*.*"


def finished(*, size: int = 0, error: str | None = None, name: str = "b1") -> Report:
    """The report of a build with one change."""
    run = Run(build(change("a", text="x" * size), id=name))
    run.send("a")
    if error is None:
        run.reply("a")
    else:
        run.fail("a", error)
    return report_of(run.plan)


class Desk:
    """A recorder on a broker in memory, and a build that is finished."""

    def __init__(self, broker: Broker, store: JetStreamStore) -> None:
        self.broker = broker
        self.bus = broker.bus
        self.store = store
        self.recorder = Recorder(broker.bus, store)

    @property
    def out(self) -> list[Published]:
        """What was published as reports, in order."""
        return [one for one in self.bus.published if one.subject.startswith("build.")]

    @property
    def told(self) -> list[str]:
        return flat(self.broker.told())


@asynccontextmanager
async def open_desk(broker: Broker | None = None) -> AsyncIterator[Desk]:
    broker = broker or Broker()
    async with open_store(broker) as store:
        await store.append("b1", [Accepted({"id": "b1"}, "d1")])
        await store.append("b1", [Finished(None)])
        yield Desk(broker, store)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as desk:
        yield desk


# ---- stored, published, noted


async def test_a_report_is_stored_published_and_noted(desk: Desk) -> None:
    """In this order; what goes out is what is stored, byte for byte."""
    order: list[str] = []
    original = desk.broker.line.take

    def take(message: Published) -> bool:
        order.append(message.subject)
        return original(message)

    desk.bus.taps[:] = [take]
    await desk.recorder.report("b1", finished())
    [message] = desk.broker.messages(REPORTS)
    [out] = desk.out
    assert out.data == message.data == b"".join(finished().chunks())
    assert (message.subject, out.subject) == ("scheduler.report.b1.1", DONE)
    wanted = ["scheduler.report.b1.1", DONE, "scheduler.log.b1"]
    assert [one for one in order if one in wanted] == wanted
    assert desk.told[-1] == "reported"


async def test_a_failed_build_is_reported_as_failed(desk: Desk) -> None:
    """On the other subject."""
    await desk.recorder.report("b1", finished(error="quota"))
    assert [one.subject for one in desk.out] == ["build.create.error"]


async def test_every_copy_has_the_same_message_id(autojump_clock: MockClock) -> None:
    """By it others can tell that it is one report; of two builds it is not the same."""
    async with open_desk() as desk:
        await desk.recorder.report("b1", finished())
        await desk.recorder.publish_stored("b1", 1)
        await desk.store.append("b2", [Accepted({"id": "b2"}, "d1")])
        await desk.store.append("b2", [Finished(None)])
        await desk.recorder.report("b2", finished(name="b2"))
        ids = [(one.headers or {})["Nats-Msg-Id"] for one in desk.out]
        assert ids[0] == ids[1] != ids[2]


async def test_the_report_of_a_run_is_what_was_stored_first(autojump_clock: MockClock) -> None:
    """Whatever the next process would report: there is one, and it is the one that may be out already."""
    async with open_desk() as desk:
        desk.broker.line.plan(LOGS, *[Fate.LOSE] * 100)
        with trio.move_on_after(20):
            await desk.recorder.report("b1", finished(error="first"))
    first = desk.out
    async with open_store(desk.broker, instance="you") as store:
        desk.broker.line.clear()
        message = desk.broker.messages("SCHEDULER_LOG")[-1]
        store.open("b1", sequence=message.sequence, n=len(desk.broker.records()), epoch=2)
        await Recorder(desk.bus, store).report("b1", finished(error="second"))
    assert [one.data for one in desk.out[len(first) :]] == [first[0].data]
    assert len(desk.broker.messages(REPORTS)) == 1


@pytest.mark.parametrize("fate", [Fate.MUTE, Fate.LOSE, Fate.HOLD])
async def test_storing_it_may_take_several_tries(autojump_clock: MockClock, fate: Fate) -> None:
    """It is stored once, however often that was tried and whenever a copy arrives."""
    async with open_desk() as desk:
        desk.broker.line.plan(STORED, fate, Fate.LOSE)
        await desk.recorder.report("b1", finished())
        desk.broker.line.release()
        assert len(desk.broker.messages(REPORTS)) == 1
        assert len(desk.out) == 1
        assert desk.told[-1] == "reported"


async def test_whether_it_is_stored_can_be_asked(autojump_clock: MockClock) -> None:
    """Also while JetStream takes its time to say so."""
    async with open_desk() as desk:
        assert not await desk.recorder.is_stored("b1", 1)
        assert not await desk.recorder.publish_stored("b1", 1)
        await desk.recorder.report("b1", finished())
        desk.broker.line.plan(f"$JS.API.STREAM.MSG.GET.{REPORTS}", Fate.LOSE)
        assert await desk.recorder.is_stored("b1", 1)


# ---- known to have left


async def test_it_is_noted_when_the_broker_has_it(desk: Desk) -> None:
    """And not before."""
    release = trio.Event()
    original = desk.bus.flush

    async def slow() -> None:
        await release.wait()
        await original()

    desk.bus.flush = slow  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.recorder.report, "b1", finished())
        await wait_all_tasks_blocked()
        assert len(desk.out) == 1
        assert desk.told[-1] == "finished"
        release.set()
    assert desk.told[-1] == "reported"


async def test_what_may_be_lost_with_a_connection_is_published_again(autojump_clock: MockClock) -> None:
    """A flush that another connection answers says nothing of what was written to the one before."""
    async with open_desk() as desk:
        original = desk.bus.flush
        losses = 2

        async def across() -> None:
            nonlocal losses
            await wait_all_tasks_blocked()
            if losses:
                losses -= 1
                desk.bus.disconnect()
                desk.bus.reconnect()
            await original()

        desk.bus.flush = across  # type: ignore[method-assign]
        await desk.recorder.report("b1", finished())
        assert len(desk.out) == 3
        assert len({one.data for one in desk.out}) == 1
        assert desk.told.count("reported") == 1


async def test_what_waits_for_a_connection_leaves_once(autojump_clock: MockClock) -> None:
    """A broker that is away when the report is due gets it when it is back, in one copy."""
    async with open_desk() as desk, trio.open_nursery() as nursery:
        desk.broker.line.plan(f"$JS.API.STREAM.MSG.GET.{REPORTS}", Fate.HOLD)
        nursery.start_soon(desk.recorder.report, "b1", finished())
        await desk.broker.line.reached(f"$JS.API.STREAM.MSG.GET.{REPORTS}")
        desk.broker.line.release()
        desk.bus.disconnect()
        await trio.sleep(60)
        assert desk.out == []
        desk.bus.reconnect()
        await trio.sleep(10)
        assert len(desk.out) == 1
        assert desk.told[-1] == "reported"


async def test_a_flush_that_takes_its_time_is_waited_for(autojump_clock: MockClock) -> None:
    """A second copy would be one too many."""
    async with open_desk() as desk:
        original = desk.bus.flush

        async def slow() -> None:
            await trio.sleep(20)
            await original()

        calls = 0

        async def flush() -> None:
            nonlocal calls
            calls += 1
            await (slow() if calls < 3 else original())

        desk.bus.flush = flush  # type: ignore[method-assign]
        await desk.recorder.report("b1", finished())
        assert len(desk.out) == 1


async def test_a_full_queue_is_waited_for(autojump_clock: MockClock) -> None:
    """A report is not lost over much else that waits."""
    async with open_desk() as desk:
        original = desk.bus.publish
        full = 3

        def publish(subject: str, data: bytes, **options: object) -> Outgoing:
            nonlocal full
            if subject == DONE and full:
                full -= 1
                raise BusFull("no room")
            return original(subject, data, **options)  # type: ignore[arg-type]

        desk.bus.publish = publish  # type: ignore[method-assign]
        await desk.recorder.report("b1", finished())
        assert len(desk.out) == 1
        assert desk.told[-1] == "reported"


async def test_trouble_is_waited_for(autojump_clock: MockClock) -> None:
    """Without room for reports nothing is published, and the builds' clocks stand still; then it is."""
    async with open_desk() as desk, trio.open_nursery() as nursery:
        desk.broker.jetstream.no_room = True
        nursery.start_soon(desk.recorder.report, "b1", finished())
        await trio.sleep(100)
        assert desk.out == []
        assert not desk.store.available
        desk.broker.jetstream.no_room = False
        await trio.sleep(3)
        assert len(desk.out) == 1
        assert desk.store.available


# ---- somebody else


async def test_who_has_lost_the_build_learns_of_it(desk: Desk) -> None:
    """The one who has it now notes it as reported."""
    desk.broker.write(Loading(), epoch=2, status="finished")
    with pytest.raises(Fenced):
        await desk.recorder.report("b1", finished())
    assert desk.told[-1] == "loading"


async def test_a_stored_report_that_is_none_of_ours_is_not_published(desk: Desk) -> None:
    """Whoever put it there: it is said, as an error of this build."""
    desk.broker.publish("scheduler.report.b1.1", b"{}")
    with pytest.raises(StoreError, match="b1"):
        await desk.recorder.publish_stored("b1", 1)
    with pytest.raises(StoreError, match="b1"):
        await desk.recorder.report("b1", finished())
    assert desk.out == []
    assert desk.told[-1] == "finished"


async def test_a_closed_bus_is_an_error_of_the_store(desk: Desk) -> None:
    """There is no waiting for it."""
    desk.bus.close()
    with pytest.raises(StoreError):
        await desk.recorder.report("b1", finished())


# ---- large ones


async def test_a_report_beyond_a_message_goes_out_by_name(autojump_clock: MockClock) -> None:
    """All of it is an object; what is published has the head of it, and says where the rest is."""
    async with open_desk() as desk:
        desk.bus.max_payload = 50_000
        report = finished(size=80_000, error="quota")
        await desk.recorder.report("b1", report)
        [out] = desk.out
        reduced: JSON = json.loads(out.data)
        assert reduced["object"] in desk.broker.objects
        assert await stored(desk.broker, reduced["object"]) == b"".join(report.chunks())
        assert (reduced["id"], reduced["error"]) == ("b1", "a: quota")
        assert "changes" not in reduced
        assert reduced["states"] == {"errored": 1}


async def test_a_report_that_just_fits_is_published_whole(autojump_clock: MockClock) -> None:
    """Headers are counted: what does not fit with them goes by name, and nothing is refused by the broker."""
    size = len(b"".join(finished().chunks()))
    ways = set()
    for extra in range(0, 2_000, 100):
        async with open_desk() as desk:
            desk.bus.max_payload = 20_000
            await desk.recorder.report("b1", finished(size=(20_000 - size - extra) // 2))
            [out] = desk.out
            assert ("object" in json.loads(out.data)) is bool(desk.broker.objects)
            assert desk.told[-1] == "reported"
            ways.add(bool(desk.broker.objects))
    assert ways == {True, False}


async def test_a_stored_report_that_has_become_too_large_goes_out_by_name(autojump_clock: MockClock) -> None:
    """A broker that takes less than it did when the report was stored does not keep it from leaving."""
    async with open_desk() as desk:
        await desk.recorder.report("b1", finished(size=80_000))
        desk.bus.max_payload = 50_000
        assert await desk.recorder.publish_stored("b1", 1)
        reduced: JSON = json.loads(desk.out[-1].data)
        assert reduced["id"] == "b1"
        assert await stored(desk.broker, reduced["object"]) == desk.out[0].data


# ---- where nothing is stored


async def test_a_publisher_publishes_once(fake_bus: FakeBus) -> None:
    """Without a store of its own there is nothing else to do."""
    await Publisher(fake_bus).report("b1", finished())
    await wait_all_tasks_blocked()
    assert [(one.subject, one.headers) for one in fake_bus.published] == [(DONE, None)]


async def test_a_publisher_leaves_the_lists_out_where_it_must(fake_bus: FakeBus) -> None:
    """It says so, as an error, since the rest is lost."""
    fake_bus.max_payload = 20_000
    await Publisher(fake_bus).report("b1", finished(size=40_000))
    await wait_all_tasks_blocked()
    [out] = fake_bus.published
    assert "max_payload" in json.loads(out.data)["error"]


async def test_what_cannot_be_made_small_enough_is_an_error(fake_bus: FakeBus) -> None:
    """There is no third way."""
    fake_bus.max_payload = 100
    with pytest.raises(MessageTooLarge):
        await Publisher(fake_bus).report("b1", finished())


async def test_a_publisher_waits_for_room(autojump_clock: MockClock) -> None:
    """A full queue costs time."""
    bus = FakeBus(max_queued_messages=1)
    bus.disconnect()
    bus.publish("x", b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Publisher(bus).report, "b1", finished())
        await trio.sleep(30)
        bus.reconnect()
    await wait_all_tasks_blocked()
    assert [one.subject for one in bus.published] == ["x", DONE]
