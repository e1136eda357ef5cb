"""What finished builds leave behind, and when it is removed."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from support.durable import Broker, Fate, Plant, log_of, wall_clock
from support.fake_bus import Published
from support.fake_jetstream import UNAVAILABLE
from support.fakes import JSON, document
from trio.testing import MockClock

from scheduler.errors import BusError
from scheduler.jetstream.streams import LOG, OBJECTS, REPORTS
from scheduler.journal.events import Accepted, Event, Finished, Reported, Settled
from scheduler.journal.records import Elsewhere, is_tombstone
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.retention import Retention

DAY = 86_400.0


class Attic:
    """Builds in several stages, and who removes them."""

    def __init__(self, broker: Broker, store: JetStreamStore, keep: float) -> None:
        self.broker = broker
        self.store = store
        self.retention = Retention(store, keep)

    def log(self, build: str, *, end: str = "reported", objects: bool = False) -> None:
        """A build that has come so far."""
        elsewhere = Elsewhere(f"{log_of(build)}/large")
        first: Event | Elsewhere = elsewhere if objects else Accepted(document("a", build=build))
        self.broker.write(first, build=build)
        self.broker.write(Settled("a", {"_component_id": "a", "_state": "completed"}), build=build)
        if end != "open":
            self.broker.write(Finished(None), build=build, status="finished")
        if end == "reported":
            self.broker.publish(f"scheduler.report.{build}.1", b"{}")
            self.broker.write(Reported(1), build=build, status="reported")

    async def put(self, *names: str) -> None:
        """Objects with a little in them."""
        for name in names:
            await self.store.objects.put(name, b"x" * 1_000)

    @property
    def logs(self) -> set[str]:
        """The builds that have a log: more than a tombstone."""
        kept = [one for one in self.broker.messages(LOG) if not is_tombstone(one.headers or {})]
        return {one.subject.rpartition(".")[2] for one in kept}

    @property
    def tombstones(self) -> list[str]:
        """The builds whose logs were removed of late."""
        kept = [one for one in self.broker.messages(LOG) if is_tombstone(one.headers or {})]
        return [one.subject.rpartition(".")[2] for one in kept]

    @property
    def reports(self) -> set[str]:
        """The builds that have a report."""
        return {one.subject.split(".")[2] for one in self.broker.messages(REPORTS)}


@asynccontextmanager
async def open_attic(keep: float = 7 * DAY) -> AsyncIterator[Attic]:
    broker = Broker()
    await broker.set_up()
    # It need not run: nothing is written here but by others.
    yield Attic(broker, JetStreamStore(broker.bus, instance="me", wall_clock=wall_clock), keep)


async def test_what_was_reported_long_ago_is_removed(autojump_clock: MockClock) -> None:
    """Log, report and objects; how many builds that were is said."""
    async with open_attic(keep=DAY) as attic:
        await attic.put("scheduler.log.b1/large", "scheduler.report.b2.1.json")
        attic.log("b1", objects=True)
        attic.log("b2")
        await trio.sleep(DAY + 1)
        assert await attic.retention.sweep() == 2
        assert (attic.logs, attic.reports, attic.broker.objects) == (set(), set(), [])
        assert attic.broker.messages(OBJECTS) == []
        assert await attic.retention.sweep() == 0


async def test_it_counts_from_the_report(autojump_clock: MockClock) -> None:
    """Not from when the build was accepted, and not a moment too early."""
    async with open_attic(keep=DAY) as attic:
        attic.log("b1", end="finished")
        await trio.sleep(5 * DAY)
        attic.broker.write(Reported(1), build="b1", status="reported")
        await trio.sleep(DAY - 2)
        assert await attic.retention.sweep() == 0
        await trio.sleep(2)
        assert await attic.retention.sweep() == 1


@pytest.mark.parametrize("end", ["open", "finished"])
async def test_what_is_not_reported_stays(autojump_clock: MockClock, end: str) -> None:
    """However long ago its last record was written."""
    async with open_attic(keep=0) as attic:
        attic.log("b1", end=end, objects=True)
        attic.broker.publish("scheduler.report.b1.1", b"{}")
        await attic.put("scheduler.log.b1/large")
        await trio.sleep(3_650 * DAY)
        assert await attic.retention.sweep() == 0
        assert (attic.logs, attic.reports) == ({"b1"}, {"b1"})
        assert attic.broker.objects == ["scheduler.log.b1/large"]


async def test_what_cannot_be_read_stays(autojump_clock: MockClock) -> None:
    """Whoever left it there, it is not ours to remove."""
    async with open_attic(keep=0) as attic:
        attic.broker.publish(log_of("b1"), b"rubbish")
        headers = {"Scheduler-Record": "x", "Scheduler-Status": "archived", "Scheduler-Loads": "0"}
        attic.broker.publish(log_of("b2"), b"{}", headers)
        await trio.sleep(30 * DAY)
        assert await attic.retention.sweep() == 0
        assert attic.logs == {"b1", "b2"}


async def test_with_nothing_to_be_kept_it_goes_at_once(autojump_clock: MockClock) -> None:
    """A retention of 0 means within seconds."""
    async with open_attic(keep=0) as attic, trio.open_nursery() as nursery:
        attic.log("b1")
        nursery.start_soon(attic.retention.run)
        await trio.sleep(15)
        assert attic.logs == set()
        nursery.cancel_scope.cancel()


async def test_it_is_looked_after_from_time_to_time(autojump_clock: MockClock) -> None:
    """At least once an hour, or ten times within what is kept; trouble is said, and costs a turn only."""
    async with open_attic(keep=7 * DAY) as attic, trio.open_nursery() as nursery:
        attic.log("b1")
        nursery.start_soon(attic.retention.run)
        await trio.sleep(6.9 * DAY)
        attic.broker.jetstream.refusal = UNAVAILABLE
        with structlog.testing.capture_logs() as lines:
            await trio.sleep(0.3 * DAY)
        assert {line["log_level"] for line in lines} >= {"warning"}
        assert attic.logs == {"b1"}
        attic.broker.jetstream.refusal = None
        await trio.sleep(3_700)
        assert attic.logs == set()
        nursery.cancel_scope.cancel()


async def test_the_log_goes_last(autojump_clock: MockClock) -> None:
    """Who dies in the middle leaves to the next what says that there is something to be removed."""
    async with open_attic(keep=0) as attic:
        await attic.put("scheduler.log.b1/large", "scheduler.report.b1.1.json")
        attic.log("b1", objects=True)
        order: list[str] = []
        original = attic.broker.line.take

        def take(message: Published) -> bool:
            if ".PURGE." in message.subject:
                order.append(message.subject.rpartition(".")[2])
            return original(message)

        attic.broker.bus.taps[:] = [take]
        await attic.retention.sweep()
        assert order[-1] == LOG
        assert order.count(LOG) == 1
        assert set(order[:-1]) == {REPORTS, OBJECTS}


@pytest.mark.parametrize("stream", [OBJECTS, REPORTS, LOG])
async def test_what_was_left_in_the_middle_is_finished_later(autojump_clock: MockClock, stream: str) -> None:
    """Wherever it stopped."""
    async with open_attic(keep=0) as attic:
        await attic.put("scheduler.log.b1/large", "scheduler.report.b1.1.json")
        attic.log("b1", objects=True)
        attic.broker.line.plan(f"$JS.API.STREAM.PURGE.{stream}", Fate.LOSE)
        with pytest.raises(BusError):
            await attic.retention.sweep()
        assert attic.logs == {"b1"}
        assert await attic.retention.sweep() == 1
        assert (attic.logs, attic.reports, attic.broker.objects) == (set(), set(), [])


async def test_builds_with_similar_names_are_told_apart(autojump_clock: MockClock) -> None:
    """What one build leaves is removed, and nothing of those whose ids begin alike."""
    async with open_attic(keep=0) as attic:
        await attic.put("scheduler.log.b1/large")
        attic.log("b1", objects=True)
        for other in ("b10", "b1=2Ex", "b"):
            attic.log(other.replace("=2E", "."), end="finished")
            attic.broker.publish(f"scheduler.report.{other}.1", b"{}")
            await attic.put(f"scheduler.log.{other}/large", f"scheduler.report.{other}.1.json")
        await attic.retention.sweep()
        assert attic.logs == attic.reports == {"b10", "b1=2Ex", "b"}
        assert len(attic.broker.objects) == 6


async def test_an_id_that_is_in_use_again_is_left_alone(autojump_clock: MockClock) -> None:
    """Between the look and the removal another process may have removed the log, and a new build begun."""
    async with open_attic(keep=0) as attic, trio.open_nursery() as nursery:
        attic.log("b1")
        attic.broker.line.plan(f"$JS.API.STREAM.PURGE.{LOG}", Fate.HOLD)
        nursery.start_soon(attic.retention.sweep)
        await attic.broker.line.reached(f"$JS.API.STREAM.PURGE.{LOG}")
        await attic.store.js.purge(LOG, log_of("b1"))
        attic.log("b1", end="open")
        attic.broker.line.release()
    assert attic.logs == {"b1"}


async def test_what_a_build_puts_there_under_an_id_that_was_used_before_stays(
    autojump_clock: MockClock,
) -> None:
    """What is younger than the log that is removed belongs to another one."""
    async with open_attic(keep=0) as attic:
        await attic.put("scheduler.log.b1/old")
        attic.log("b1", objects=True)
        await attic.put("scheduler.log.b1/new")
        await attic.retention.sweep()
        assert attic.broker.objects == ["scheduler.log.b1/new"]


async def test_an_id_can_be_used_again(autojump_clock: MockClock) -> None:
    """Once its log is removed, a build under it is a new one, whose report is its own."""
    plant = Plant(keep=0)
    async with plant.run() as process:
        for name in ("a", "z"):
            answer = await process.submit(document([name]))
            assert answer == {"id": "b1", "status": "accepted"}
            await trio.sleep(60)
        reports: list[JSON] = [report for _, report in process.reports]
        out = [one for one in process.bus.published if one.subject == "build.create.done"]
        assert len({(one.headers or {})["Nats-Msg-Id"] for one in out}) == 2
        assert [[one["_component_id"] for one in report["changes"]] for report in reports] == [["a"], ["z"]]


# ---- objects of nobody


async def test_an_upload_that_nobody_removed_is_removed(autojump_clock: MockClock) -> None:
    """After a day, not before: a build may be about to be read from it."""
    async with open_attic() as attic:
        await attic.put("upload/1.json")
        await trio.sleep(DAY - 10)
        await attic.put("upload/2.json")
        await attic.retention.sweep()
        assert len(attic.broker.objects) == 2
        await trio.sleep(20)
        await attic.retention.sweep()
        assert attic.broker.objects == ["upload/2.json"]


async def test_what_belongs_to_no_log_is_removed(autojump_clock: MockClock) -> None:
    """Parts of a log that was never committed, and the report of one that is gone."""
    async with open_attic() as attic:
        attic.log("b1", end="open")
        kept = ["scheduler.log.b1/x", "scheduler.report.b1.1.json"]
        await attic.put(*kept, "scheduler.log.b9/x", "scheduler.report.b9.1.json")
        await attic.retention.sweep()
        assert len(attic.broker.objects) == 4
        await trio.sleep(DAY + 10)
        await attic.retention.sweep()
        assert attic.broker.objects == kept


async def test_what_somebody_else_put_there_stays(autojump_clock: MockClock) -> None:
    """Names that we do not give are none of our business."""
    async with open_attic(keep=0) as attic:
        attic.log("b1")
        names = ["backup.tar", "scheduler.logbook", "uploads-of-mine", "scheduler/b1"]
        await attic.put(*names)
        await trio.sleep(30 * DAY)
        await attic.retention.sweep()
        assert attic.broker.objects == names


async def test_chunks_of_nothing_are_removed(autojump_clock: MockClock) -> None:
    """What a process that was killed in the middle of an upload left, after a day."""
    async with open_attic() as attic:
        attic.broker.publish("$O.SCHEDULER_OBJECTS.C.0123456789", b"x" * 1_000)
        await attic.put("upload/1.json")
        await attic.retention.sweep()
        assert len(attic.broker.messages(OBJECTS)) == 3
        await trio.sleep(DAY + 10)
        attic.log("b1", end="open")
        await attic.put("scheduler.log.b1/x")
        await attic.retention.sweep()
        assert len(attic.broker.messages(OBJECTS)) == 2
