"""A build that processes hang over is taken up last, and in the end left alone; the others go on."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import pytest
import trio
from support.durable import Plant
from support.fakes import document, ignore
from trio.testing import MockClock

from scheduler.errors import StoreError
from scheduler.jetstream.api import JetStream
from scheduler.journal.orders import Order
from scheduler.recovery.crash_loops import MOST_HANGS, record_hang, release
from scheduler.recovery.loader import Loader


async def hang(plant: Plant, build: str = "b1") -> None:
    """A process has ended as it hung over a build."""
    await record_hang(JetStream(plant.broker.plug()), build)


async def accepted(plant: Plant, *builds: str) -> None:
    async with plant.run(ignore) as process:
        for build in builds:
            assert (await process.submit(document("x", build=build)))["status"] == "accepted"
        await trio.sleep(1)


async def test_it_is_taken_up_alone_and_last(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first hang already; what is in flight is awaited as ever."""
    plant = Plant(ignore)
    await accepted(plant, "b1", "b2", "b3")
    await hang(plant)
    order: list[str] = []
    original = Loader._begin

    async def begin(self: Loader, held, history, loaded, heard, *, owner):  # type: ignore[no-untyped-def]
        order.append(held.build)
        assert held.build != "b1" or [one for one, _ in loaded.unproven] == []
        await original(self, held, history, loaded, heard, owner=owner)

    monkeypatch.setattr(Loader, "_begin", begin)
    async with plant.run() as process:
        await trio.sleep(5)
        assert process.service.roster.quarantined == {}
        assert order[-1] == "b1"
        assert sorted(order) == ["b1", "b2", "b3"]


async def test_it_is_counted_whatever_is_written_meanwhile(autojump_clock: MockClock) -> None:
    """A hang comes late: no good start, and no step of the build, makes it forgotten."""
    plant = Plant(ignore)
    await accepted(plant, "b1")
    for number in range(1, MOST_HANGS):
        await hang(plant)
        async with plant.run() as process:
            await trio.sleep(5)
            assert process.service.roster.quarantined == {}
        last = plant.broker.headers()[-1]
        assert (last["Scheduler-Hangs"], last["Scheduler-Loads"]) == (str(number), "0")


async def test_of_many_hangs_it_is_quarantined_until_it_is_released(autojump_clock: MockClock) -> None:
    """The others go on; `release` has it tried again."""
    plant = Plant(ignore)
    await accepted(plant, "b1", "b2")
    for _ in range(MOST_HANGS):
        await hang(plant)
    async with plant.run() as process:
        await trio.sleep(5)
        [(build, why)] = process.service.roster.quarantined.items()
        assert build == "b1"
        assert f"{MOST_HANGS} processes hung over it" in why
        assert "scheduler release b1" in why
    await release(JetStream(plant.broker.plug()), "b1", Order("release"))
    assert "Scheduler-Hangs" not in plant.broker.headers()[-1]
    async with plant.run() as process:
        await trio.sleep(5)
        assert process.service.roster.quarantined == {}


async def test_what_the_process_had_under_way_comes_in_between(autojump_clock: MockClock) -> None:
    """The record follows whatever stands there by then."""
    plant = Plant(ignore)
    await accepted(plant, "b1")
    bus = plant.broker.plug()
    js = JetStream(bus)
    last = js.last

    async def and_then_one_more(stream: str, subject: str):  # type: ignore[no-untyped-def]
        js.last = last  # type: ignore[method-assign]
        found = await last(stream, subject)
        plant.broker.write()
        return found

    js.last = and_then_one_more  # type: ignore[method-assign]
    await record_hang(js, "b1")
    assert plant.broker.headers()[-1]["Scheduler-Hangs"] == "1"


async def test_no_log_is_begun_by_it_nor_one_that_is_over_revived(autojump_clock: MockClock) -> None:
    """Both are told."""
    plant = Plant(ignore)
    await accepted(plant, "b1")
    with pytest.raises(StoreError, match="no build 'b9'"):
        await hang(plant, "b9")
    plant.answer("x")
    async with plant.run():
        await trio.sleep(5)
    assert plant.broker.told()[-1] == ["reported"]
    with pytest.raises(StoreError, match="b1 is finished"):
        await hang(plant)
