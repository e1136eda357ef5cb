"""What was kept vanishes while the service runs: logs that are purged, streams that are removed."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from support.durable import Broker, Plant, Process, flat, log_of, open_store, until, wall_clock
from support.fake_bus import Published
from support.fakes import JSON, change, document, encode, ignore, states, succeed
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.errors import AlreadyLogged, Fenced, LogMissing, LogRemoved
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.setup import set_up
from scheduler.jetstream.streams import LOG, OBJECTS, REPLIES, REPORTS, SENTINEL, StreamLayout
from scheduler.journal.events import Accepted, Finished, Loading, Reported
from scheduler.journal.records import REMOVED_HEADER, is_tombstone
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.retention import Retention

DAY = 86_400.0
CHAIN = document("ab", [("a", "b")])
GET = "$JS.API.STREAM.MSG.GET.SCHEDULER_LOG"


async def ask(process: Process, verb: str, build: str | None = "b1", **fields: Any) -> JSON:
    """What an operator is answered."""
    body = {**fields} if build is None else {"id": build, **fields}
    answer: JSON = json.loads((await process.bus.request(f"scheduler.build.{verb}", encode(body))).data)
    return answer


@asynccontextmanager
async def waiting(plant: Plant, *builds: JSON) -> AsyncIterator[Process]:
    """A process with builds whose first requests are not answered yet."""
    async with plant.run(ignore) as process:
        await process.store.sentinel.place()
        for build in builds:
            assert (await process.submit(build))["status"] == "accepted"
        await until(lambda: len(plant.requests) >= len(builds))
        await trio.sleep(1)
        yield process


def texts(lines: list[Any], level: str = "error") -> list[str]:
    """What was logged at a level."""
    return [line["event"] for line in lines if line["log_level"] == level]


# ---- a build's log is purged


async def test_a_build_whose_log_is_purged_is_reported_as_failed(autojump_clock: MockClock) -> None:
    """From what this process holds: what is in flight is awaited, and nothing new is sent."""
    plant = Plant()
    async with waiting(plant, CHAIN, document("z", build="b2")) as process:
        await process.store.js.purge(LOG, log_of("b1"))
        with structlog.testing.capture_logs() as lines:
            plant.answer("a")
            await until(lambda: process.reports)
        subject, report = process.report
        assert subject == "build.create.error"
        assert states(report) == {"a": "completed", "b": "waiting"}
        assert "removed" in report["error"]
        assert not any("another process" in line["event"] for line in lines)
        assert len(texts(lines)) == 1
        # The other one is not concerned.
        plant.answer("z")
        await until(lambda: len(process.reports) == 2)
        assert process.reports[1][0] == "build.create.done"


async def test_what_is_purged_while_several_are_in_flight_is_reported_when_none_is(
    autojump_clock: MockClock,
) -> None:
    """Once, and with what came of all of them."""
    plant = Plant()
    async with waiting(plant, document("abc", [("a", "c")])) as process:
        await process.store.js.purge(LOG, log_of("b1"))
        plant.answer("a")
        await trio.sleep(5)
        assert process.reports == []
        plant.answer("b")
        await until(lambda: process.reports)
        await trio.sleep(60)
        assert len(process.reports) == 1
        assert states(process.report[1]) == {"a": "completed", "b": "completed", "c": "waiting"}


async def test_an_id_can_be_used_again_after_its_log_was_purged(autojump_clock: MockClock) -> None:
    """The report of the one is not taken for that of the other."""
    plant = Plant()
    async with waiting(plant, CHAIN) as process:
        await process.store.js.purge(LOG, log_of("b1"))
        plant.answer("a")
        await until(lambda: process.reports)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        assert process.report[0] == "build.create.done"
        assert plant.broker.reports()[-1] == process.report[1]


async def test_a_finished_build_whose_log_is_purged_leaves_a_report_that_is_replaced(
    autojump_clock: MockClock,
) -> None:
    """A build of that id is a new one; its report is its own."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(document("a"))
        await until(lambda: process.reports)
        await trio.sleep(1)
        await process.store.js.purge(LOG, log_of("b1"))
        await process.submit(document("z"))
        await until(lambda: len(process.reports) == 2)
        assert states(process.reports[1][1]) == {"z": "completed"}


async def test_purged_while_its_end_is_being_committed(autojump_clock: MockClock) -> None:
    """There is still a report; and none of ours says that it could not be made."""
    plant = Plant()
    async with waiting(plant, document("a")) as process:
        await process.store.js.purge(LOG, log_of("b1"))
        with structlog.testing.capture_logs() as lines:
            plant.answer("a")
            await until(lambda: process.reports)
            await trio.sleep(1)
        assert process.report[0] == "build.create.error"
        assert not any("internal error" in line["event"] for line in lines)
        assert (await ask(process, "list", None))["builds"] == []


async def test_purged_when_the_process_is_stopped(autojump_clock: MockClock) -> None:
    """No next process can know of it: this one says how it stands."""
    plant = Plant(grace=1.0)
    async with waiting(plant, document("ab")) as process:
        await process.store.js.purge(LOG, log_of("b1"))
        plant.answer("a")
        await trio.sleep(1)
        process.service.stop()
        await until(lambda: process.reports, 10)
        assert process.report[0] == "build.create.error"
        assert states(process.report[1]) == {"a": "completed", "b": "errored"}


async def test_a_build_that_another_scheduler_has_is_left_to_it(autojump_clock: MockClock) -> None:
    """Also where it has ended, and its log was removed since: a tombstone says so."""
    plant = Plant()
    async with waiting(plant, document("z", build="b2")) as process:
        plant.broker.write(Loading(), build="b2", epoch=2)
        plant.broker.write(Finished(None), build="b2", epoch=2, status="finished")
        plant.broker.write(Reported(1), build="b2", epoch=2, status="reported")
        # The server's times are a little ahead: each message has one of its own.
        await trio.sleep(0.1)
        other = JetStreamStore(process.bus, instance="other", wall_clock=wall_clock)
        assert await Retention(other, 0).sweep() == 1
        plant.answer("z")
        await trio.sleep(60)
        assert process.reports == []
        assert process.bus.connected


# ---- tombstones


async def test_what_removes_a_log_leaves_a_tombstone_for_a_day(autojump_clock: MockClock) -> None:
    """Small, and no build: no list, no restart and no question takes it for one."""
    plant = Plant(keep=0.0)
    async with plant.run() as process:
        await process.submit(document("a"))
        await trio.sleep(60)
        [message] = plant.broker.messages(LOG, log_of("b1"))
        assert is_tombstone(message.headers)
        assert len(message.data) < 300
        assert (await ask(process, "get"))["error"]["code"] == "unknown"
        assert (await ask(process, "retry"))["error"]["code"] == "unknown"
        assert (await ask(process, "list", None, all=True))["builds"] == []
    async with plant.run() as process:
        await trio.sleep(60)
        assert not process.requests
        assert not process.reports
    retention = Retention(JetStreamStore(plant.broker.plug(), instance="p", wall_clock=wall_clock), 0)
    await trio.sleep(DAY - 600)
    assert await retention.sweep() == 0
    assert len(plant.broker.messages(LOG, log_of("b1"))) == 1
    await trio.sleep(600)
    assert await retention.sweep() == 0
    assert plant.broker.messages(LOG, log_of("b1")) == []


async def test_earlier_versions_take_a_tombstone_for_a_build_that_is_over(
    autojump_clock: MockClock,
) -> None:
    """They leave it alone, and remove it when it has been kept for long enough."""
    broker = Broker()
    await broker.set_up()
    broker.write(Accepted(document("a")))
    broker.write(Finished(None), status="finished")
    broker.write(Reported(1), status="reported")
    store = JetStreamStore(broker.bus, instance="me", wall_clock=wall_clock)
    await Retention(store, 0).sweep()
    [headers] = broker.headers()
    assert headers["Scheduler-Status"] == "reported"
    assert headers["Scheduler-Loads"] == "0"
    assert [record.events for record in broker.records()] == [()]


async def test_an_id_goes_on_behind_its_tombstone(autojump_clock: MockClock) -> None:
    """Its log is whole without the earlier part, for a restart and for another submission."""
    plant = Plant(keep=0.0)
    async with plant.run() as process:
        await process.submit(document("a"))
        await trio.sleep(60)
    async with plant.run(ignore, keep=DAY) as process:
        with structlog.testing.capture_logs() as lines:
            assert (await process.submit(CHAIN))["status"] == "accepted"
        assert not texts(lines)
        assert not texts(lines, "warning")
        await until(lambda: len(plant.requests) == 2)
        await trio.sleep(1)
        [tombstone, first, *_] = plant.broker.messages(LOG, log_of("b1"))
        assert first.headers["Nats-Expected-Last-Subject-Sequence"] == str(tombstone.sequence)
    async with plant.run(ignore, keep=DAY) as process:
        await trio.sleep(5)
        plant.answer("a")
        await trio.sleep(1)
        plant.answer("b")
        await until(lambda: process.reports)
        await trio.sleep(1)
        assert await process.submit(CHAIN) == {"id": "b1", "status": "accepted", "finished": True}
        other = await process.submit(document("x"))
        assert other["error"]["code"] == "finished"
        assert (await ask(process, "get"))["status"] == "done"


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_log_of_which_only_the_end_was_removed(autojump_clock: MockClock, size: int) -> None:
    """The process that removed it died between the tombstone and the rest: a new build reads none of that."""
    broker = Broker()
    async with open_store(broker) as store:
        broker.write(Accepted(document("a")), digest="old")
        broker.write(Finished(None), status="finished")
        broker.write(Reported(1), status="reported")
        [*_, last] = broker.messages(LOG, log_of("b1"))
        headers = {**last.headers, REMOVED_HEADER: "kept for long enough"}
        broker.publish(log_of("b1"), last.data, headers)
        new = Accepted(document([change("b", text="x" * size)]), "new")
        broker.bus.max_payload = 200_000
        await store.append("b1", [new])
        assert flat(broker.told()[1:]) == ["accepted" if size == 10 else "elsewhere"]
        history = await store.logs.history(log_of("b1"))
        assert history.accepted is not None
        assert history.accepted.digest == "new"
        with pytest.raises(AlreadyLogged) as refused:
            await store.append("b1", [new])
        assert (refused.value.digest, refused.value.status) == ("new", "open")


async def test_a_tombstone_that_expires_while_a_build_begins_is_no_obstacle(
    autojump_clock: MockClock,
) -> None:
    """It is looked again at what stands there."""
    broker = Broker()
    async with open_store(broker) as store:
        headers = {"Scheduler-Record": "x", "Scheduler-Status": "reported", "Scheduler-Loads": "0"}
        broker.publish(log_of("b1"), b"{}", {**headers, REMOVED_HEADER: "x"})
        purge = store.js.purge

        async def late(stream: str, subject: str, *, before: int | None = None) -> int:
            return await purge(stream, subject)

        store.js.purge = late  # type: ignore[method-assign]
        await store.append("b1", [Accepted(document("a"), "d1")])
        assert broker.told() == [["accepted"]]


async def test_of_a_removal_and_another_run_one_wins(autojump_clock: MockClock) -> None:
    """An operator resumes a build in the moment in which it is removed: its log is whole, or gone."""
    broker = Broker()
    await broker.set_up()
    broker.write(Accepted(document("a")))
    broker.write(Finished(None), status="finished")
    broker.write(Reported(1), status="reported")
    store = JetStreamStore(broker.bus, instance="me", wall_clock=wall_clock)
    [[entry]] = [entries async for entries in store.logs.entries()]
    broker.write(Loading(), status="reported", epoch=2)
    await Retention(store, 0)._remove(entry, wall_clock())
    assert flat(broker.told()) == ["accepted", "finished", "reported", "loading"]


async def test_a_log_that_a_later_process_finds_removed_is_nobodys(autojump_clock: MockClock) -> None:
    """The process that had it is fenced; a writer behind the tombstone is refused as well."""
    broker = Broker()
    async with open_store(broker) as store:
        await store.append("b1", [Accepted(document("a"), "d1")])
        headers = {"Scheduler-Record": "x", "Scheduler-Status": "reported", "Scheduler-Loads": "0"}
        broker.publish(log_of("b1"), b"{}", {**headers, REMOVED_HEADER: "x"})
        with pytest.raises(Fenced, match="has ended b1"):
            await store.append("b1", [Finished(None)])


# ---- the whole log is purged


@pytest.mark.parametrize("busy", [False, True])
async def test_a_purged_stream_ends_the_process(autojump_clock: MockClock, busy: bool) -> None:
    """As one that is missing: loudly; also where nothing is to be written for now."""
    plant = Plant()
    gone = pytest.RaisesExc(LogMissing, match="purged")
    with pytest.RaisesGroup(gone, allow_unwrapped=True, flatten_subgroups=True):
        async with waiting(plant, CHAIN, document("z", build="b2")) as process:
            await process.store.js.purge(LOG, ">")
            if busy:
                plant.answer("a")
            await trio.sleep(30)
    assert plant.requests[-1][1]["_component_id"] == "z"


async def test_that_the_log_was_purged_is_noticed_at_the_start(autojump_clock: MockClock) -> None:
    """Reports without any log: it does not start, and says what to do."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(document("a"))
        await until(lambda: process.reports)
        await trio.sleep(1)
        await process.store.js.purge(LOG, ">")
    with pytest.raises(LogMissing, match=f"nats stream purge {REPORTS}"):
        await set_up(JetStream(plant.broker.plug()), StreamLayout())


async def test_a_sentinel_alone_that_is_removed_is_put_back(autojump_clock: MockClock) -> None:
    """The logs are there: nothing is lost."""
    plant = Plant()
    async with waiting(plant, CHAIN) as process:
        await process.store.js.purge(LOG, SENTINEL)
        await trio.sleep(30)
        assert len(plant.broker.messages(LOG, SENTINEL)) == 1
        plant.answer("a")
        plant.script = succeed
        await trio.sleep(1)
        plant.answer("b")
        await until(lambda: process.reports)
        assert process.report[0] == "build.create.done"


async def test_the_sentinel_is_no_build(autojump_clock: MockClock) -> None:
    """Neither a restart nor retention has to do with it."""
    plant = Plant(keep=0.0)
    async with plant.run() as process:
        await process.store.sentinel.place()
        await process.store.sentinel.place()
        await trio.sleep(60)
    store = JetStreamStore(plant.broker.plug(), instance="p", wall_clock=wall_clock)
    await trio.sleep(3 * DAY)
    assert await Retention(store, 0).sweep() == 0
    async with plant.run() as process:
        await trio.sleep(60)
        assert [entries async for entries in process.store.logs.entries()] == [[]]
        assert len(plant.broker.messages(LOG, SENTINEL)) == 1


# ---- streams beside the log are removed


async def remove(process: Process, stream: str) -> None:
    await process.store.js.call(f"STREAM.DELETE.{stream}")


async def test_reports_that_are_removed_are_made_again(autojump_clock: MockClock) -> None:
    """The report waits, which is told on request, and goes out; other builds notice nothing."""
    plant = Plant()
    async with waiting(plant, document("a")) as process:
        await remove(process, REPORTS)
        with structlog.testing.capture_logs() as lines:
            plant.answer("a")
            await trio.sleep(2.5)
            assert process.reports == []
            status = await ask(process, "get")
            assert status["status"] == "done"
            assert "SCHEDULER_REPORTS is gone" in status["report"]
            reasons = [one["text"] for one in (await ask(process, "why"))["reasons"]]
            assert any("its report waits: the stream SCHEDULER_REPORTS is gone" in one for one in reasons)
            assert [one["id"] for one in (await ask(process, "list", None, all=True))["builds"]] == ["b1"]
            assert process.store.available
            await until(lambda: process.reports)
            await trio.sleep(1)
        assert process.report[0] == "build.create.done"
        assert plant.broker.reports() == [process.report[1]]
        assert "report" not in await ask(process, "get")
        assert texts(lines) == [
            "a stream is missing: what needs it waits",
            "a stream was removed: it was made again, and what it held is lost",
        ]
        assert plant.broker.jetstream.streams[REPORTS].config["subjects"] == ["scheduler.report.*.*"]


async def test_a_report_waits_for_as_long_as_its_stream_cannot_be_made(autojump_clock: MockClock) -> None:
    """The reason is logged, repeatedly; the rest of the service continues."""
    plant = Plant()
    async with waiting(plant, document("a"), document("z", build="b2")) as process:
        await remove(process, REPORTS)
        await process.store.js.call(
            "STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["scheduler.report.>"], "no_ack": True}
        )
        with structlog.testing.capture_logs() as lines:
            plant.answer("a")
            await trio.sleep(200)
        assert process.reports == []
        assert "overlaps with stream OTHER" in (await ask(process, "get"))["report"]
        said = [line["reason"] for line in lines if line["log_level"] == "error"]
        assert 2 <= len(said) <= 5
        assert process.store.available
        await process.store.js.call("STREAM.DELETE.OTHER")
        await until(lambda: process.reports)
        assert process.report[0] == "build.create.done"


@pytest.mark.parametrize("stream", [REPLIES, OBJECTS])
async def test_other_streams_are_made_again(autojump_clock: MockClock, stream: str) -> None:
    """Replies are captured again; what is too large for a record can be kept again."""
    plant = Plant()
    async with waiting(plant, CHAIN) as process:
        process.bus.max_payload = 20_000
        await remove(process, stream)
        large = document([change(name, text="x" * 8_000) for name in "xyz"], build="b2")
        await trio.sleep(1)
        if stream == OBJECTS:
            assert (await process.submit(large))["status"] == "accepted"
        await trio.sleep(10)
        assert stream in plant.broker.jetstream.streams
        plant.answer("a")
        await trio.sleep(1)
        plant.answer("b")
        await until(lambda: process.reports)
        assert process.report[0] == "build.create.done"


async def test_the_log_itself_is_not_made_again(autojump_clock: MockClock) -> None:
    """A new one would forget every build."""
    plant = Plant()
    with pytest.RaisesGroup(LogMissing, allow_unwrapped=True, flatten_subgroups=True):
        async with waiting(plant, CHAIN) as process:
            await remove(process, LOG)
            await trio.sleep(60)
    assert LOG not in plant.broker.jetstream.streams


async def test_removed_by_hand_is_no_store_failure_of_others(autojump_clock: MockClock) -> None:
    """The error names what happened."""
    broker = Broker()
    async with open_store(broker) as store:
        await store.append("b1", [Accepted(document("a"), "d1")])
        await store.append("b2", [Accepted(document("a", build="b2"), "d1")])
        await store.js.purge(LOG, log_of("b1"))
        with pytest.raises(LogRemoved, match="the log of b1 was removed from SCHEDULER_LOG"):
            await store.append("b1", [Finished(None)])
        await wait_all_tasks_blocked()
        await store.append("b2", [Finished(None)])


async def test_replies_that_are_removed_while_it_starts(autojump_clock: MockClock) -> None:
    """It begins once there is a stream for them again."""
    plant = Plant()
    await plant.broker.set_up()
    await JetStream(plant.broker.bus).call(f"STREAM.DELETE.{REPLIES}")
    with trio.fail_after(30):
        async with plant.run() as process:
            await process.submit(CHAIN)
            await until(lambda: process.reports)
            assert process.report[0] == "build.create.done"


async def test_a_log_that_is_late_in_coming_back_quarantines_nothing(autojump_clock: MockClock) -> None:
    """A broker that restarts again and again may not know its streams for long: builds are taken up then."""
    plant = Plant()
    async with waiting(plant, CHAIN):
        pass
    streams = plant.broker.jetstream.streams
    log = streams[LOG]
    line, take = plant.broker.line, plant.broker.line.take

    def remove_it(message: Published) -> bool:
        if message.subject == GET and b"scheduler.log.b1" in message.data:
            streams.pop(LOG, None)
        return take(message)

    line.take = remove_it  # type: ignore[method-assign]
    async with plant.run() as process:
        for _ in range(5):
            await trio.sleep(2)
            process.bus.disconnect()
            process.bus.reconnect()
        process.bus.taps[:] = [take]
        streams[LOG] = log
        await trio.sleep(10)
        assert process.service.roster.quarantined == {}
        plant.answer("a")
        await until(lambda: process.reports)
        assert process.report[0] == "build.create.done"
