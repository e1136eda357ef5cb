"""What a message may take: the store's own limit, and one that the broker lowers while the service runs."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from functools import partial

import pytest
import structlog
import trio
from attrs import evolve
from support.builds import Run, build
from support.builds import change as node
from support.durable import LOGS, Broker, Fate, Plant, Process, flat, log_of, open_store, stored, until
from support.fakes import JSON, change, document, ignore, states
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.errors import MessageTooLarge
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.codes import MOST_STORED
from scheduler.jetstream.streams import LOG, REPORTS
from scheduler.journal.events import Accepted, Finished, Settled, Started
from scheduler.plan.report import Report
from scheduler.plan.summary import report_of
from scheduler.supervision.reporting import Recorder

MIB = 1024 * 1024


def settle(name: str, size: int = 0) -> Settled:
    return Settled(name, {"_component_id": name, "_state": "completed", "x": "x" * size})


def report(size: int) -> Report:
    """That of a build with one change, and with so many bytes beside it."""
    run = Run(build(node("a"), id="b1"))
    run.send("a")
    run.reply("a")
    small = report_of(run.plan)
    return evolve(small, fields={**small.fields, "notes": "x" * size})


async def whole_of(plant: Plant, process: Process) -> JSON:
    """The report, from where it says that it is."""
    report: JSON = json.loads(await stored(plant.broker, process.report[1]["object"]) or b"{}")
    return report


# ---- what the file store takes


async def test_a_report_over_what_streams_take_goes_by_the_object_store(autojump_clock: MockClock) -> None:
    """Whatever ``max_payload`` says: the server's file store takes no message over 32 MiB."""
    broker = Broker()
    broker.bus.max_payload = 64 * MIB
    async with open_store(broker) as store:
        await store.append("b1", [Accepted({"id": "b1"}, "d1")])
        large = report(33 * MIB)
        await store.append("b1", [Finished(None)])
        await Recorder(broker.bus, store).report("b1", large)
        [out] = [one for one in broker.bus.published if one.subject == "build.create.done"]
        told = json.loads(out.data)
        assert told["omitted"] == ["components", "changes", "edges"]
        assert await stored(broker, told["object"]) == b"".join(large.chunks())
        assert flat(broker.told())[-1] == "reported"


@pytest.mark.parametrize("max_payload", [MIB, 31 * MIB, 64 * MIB])
async def test_the_most_bytes_of_a_message(max_payload: int) -> None:
    """The lower of both limits, less what stands beside the payload."""
    broker = Broker()
    broker.bus.max_payload = max_payload
    js = JetStream(broker.bus)
    assert js.most_bytes(0) < MOST_STORED
    assert js.most_bytes(1_000) == js.most_bytes(0) - 1_000
    assert js.most_bytes(0) == (max_payload if max_payload < MOST_STORED else MOST_STORED - 1_024)


async def test_what_no_stream_takes_is_told_before_it_is_sent(autojump_clock: MockClock) -> None:
    """And where the server says so, it is the same error."""
    broker = Broker()
    broker.bus.max_payload = 64 * MIB
    await broker.set_up()
    js = JetStream(broker.bus)
    with pytest.raises(MessageTooLarge, match="over what a stream takes"):
        await js.publish("scheduler.report.b1.1", b"x" * (33 * MIB))
    assert broker.bus.published[-1].subject != "scheduler.report.b1.1"
    broker.jetstream.streams[REPORTS].config["max_msg_size"] = 100
    with pytest.raises(MessageTooLarge):
        await js.publish("scheduler.report.b1.1", b"x" * 200)


# ---- lowered while it runs


async def test_a_record_over_a_lowered_limit_becomes_several(autojump_clock: MockClock) -> None:
    """What it was to say stands in smaller ones, in order, once."""
    broker = Broker()
    async with open_store(broker) as store:
        await store.append("b1", [Accepted({"id": "b1"}, "d1")])
        broker.bus.lowered = 30_000
        names = [f"c{number}" for number in range(60)]
        with structlog.testing.capture_logs() as lines:
            for name in names:
                store.journal("b1", lambda _: None).record(settle(name, 1_000))
            await store.append("b1", [Started("z", "b1/z/1", b"{}")])
        assert broker.bus.max_payload == 30_000
        assert flat(broker.told()) == ["accepted", *(f"settled {name}" for name in names), "started z"]
        assert len(broker.told()) > 3
        assert not [line for line in lines if line["log_level"] == "error"]


async def test_an_event_over_a_lowered_limit_goes_elsewhere(autojump_clock: MockClock) -> None:
    """As it would have from the beginning."""
    broker = Broker()
    async with open_store(broker) as store:
        await store.append("b1", [Accepted({"id": "b1"}, "d1")])
        broker.bus.lowered = 30_000
        await store.append("b1", [settle("a", 50_000)])
        assert broker.told() == [["accepted"], ["elsewhere"]]
        history = await store.logs.history(log_of("b1"))
        assert [type(step) for step in history.steps] == [Accepted, Settled]


async def test_a_build_over_a_lowered_limit_is_accepted(autojump_clock: MockClock) -> None:
    """The first record of a log as well."""
    broker = Broker()
    async with open_store(broker) as store:
        broker.bus.lowered = 30_000
        await store.append("b1", [Accepted(document([change("a", text="x" * 50_000)]), "d1")])
        assert broker.told() == [["elsewhere"]]
        assert broker.headers()[0]["Scheduler-Digest"] == "d1"


@pytest.mark.parametrize("first", [False, True])
async def test_a_copy_from_before_the_limit_was_lowered_counts(
    autojump_clock: MockClock, first: bool
) -> None:
    """It may have been under way: it is ours, its events are committed, and it fences no build."""
    broker = Broker()
    async with open_store(broker) as store:
        if not first:
            await store.append("b1", [Accepted({"id": "b1"}, "d1")])
        broker.line.plan(LOGS, Fate.HOLD)
        ends: list[str] = []

        async def append() -> None:
            event = (
                Accepted(document([change("a", text="x" * 50_000)]), "d1") if first else settle("a", 50_000)
            )
            await store.append("b1", [event])
            ends.append("done")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            await broker.line.reached(LOGS)
            # Its answer does not come; then the server takes less, and only then the first copy is stored.
            broker.bus.lowered = 30_000
            put = store.objects.put

            async def late(name: str, data: bytes) -> None:
                broker.line.release(LOGS, answered=False)
                await put(name, data)

            store.objects.put = late  # type: ignore[method-assign]
            await until(lambda: ends)
        assert broker.told() == ([["accepted"]] if first else [["accepted"], ["settled a"]])
        await store.append("b1", [Started("z", "b1/z/1", b"{}")])
        assert flat(broker.told())[-1] == "started z"
        assert [record.n for record in broker.records()] == list(range(1, len(broker.told()) + 1))


async def test_a_report_over_a_lowered_limit_goes_by_the_object_store(autojump_clock: MockClock) -> None:
    """Whether the limit is lowered before it is stored, or after."""
    plant = Plant()
    parts = [change(name, text="x" * 20_000) for name in "abc"]
    async with plant.run(ignore) as process:
        await process.submit(document(parts))
        await until(lambda: len(plant.requests) == 3)
        for name in "abc":
            plant.answer(name)
        process.bus.lowered = 40_000
        with structlog.testing.capture_logs() as lines:
            await until(lambda: process.reports)
            await trio.sleep(1)
        subject, told = process.report
        assert subject == "build.create.done"
        whole_report = json.loads(await stored(plant.broker, told["object"]) or b"{}")
        assert set(states(whole_report).values()) == {"completed"}
        assert not any("internal error" in line["event"] for line in lines)
        assert not [line for line in lines if line.get("exc_info")]


async def test_a_request_over_a_lowered_limit_fails_its_component(autojump_clock: MockClock) -> None:
    """Clearly, and no other."""
    plant = Plant()
    async with plant.run(ignore) as process:
        process.bus.lowered = 40_000
        both = document([change("a", text="x" * 60_000), "b"])
        await process.submit({**both, "options": {"on_error": "continue"}})
        await until(lambda: "b" in {body["_component_id"] for _, body in plant.requests})
        plant.answer("b")
        await until(lambda: process.reports)
        report = await whole_of(plant, process)
        assert states(report) == {"a": "errored", "b": "completed"}
        errors = {one["_component_id"]: one.get("error") for one in report["changes"]}
        assert "the request cannot be sent" in errors["a"]
        assert "max_payload of 40000 bytes" in errors["a"]


async def test_a_request_that_waited_for_a_broker_that_takes_less(autojump_clock: MockClock) -> None:
    """It never left: its component fails with the reason, and others on the subject do not."""
    plant = Plant()
    async with plant.run(ignore) as process:
        await process.submit(document([change("a", text="x" * 60_000), "b"]))
        await until(lambda: len(plant.requests) == 2)
        process.bus.disconnect()
        process.bus.max_payload = 40_000
        process.bus.reconnect()
        for call in process.service.connectors.router.by_token.values():
            if call.request.component == "a":
                process.bus.max_payload = 100_000
                process.bus.disconnect()
                call.publish()
                process.bus.max_payload = 40_000
                process.bus.reconnect()
                break
        await wait_all_tasks_blocked()
        plant.answer("b")
        await until(lambda: process.reports)
        told = await whole_of(plant, process)
        errors = {one["_component_id"]: one.get("error") for one in told["changes"]}
        assert "the request cannot be sent" in errors["a"]
        assert errors["b"] is None


async def test_an_object_is_put_again_where_the_limit_is_lowered_meanwhile(autojump_clock: MockClock) -> None:
    """In pieces that fit."""
    broker = Broker()
    async with open_store(broker) as store:
        broker.bus.lowered = 60_000
        put = partial(store.objects.put, "upload/x", b"x" * 300_000)
        await store.streams.ask("OBJ_SCHEDULER_OBJECTS", put)
        assert await stored(broker, "upload/x") == b"x" * 300_000
        assert LOG in broker.jetstream.streams
