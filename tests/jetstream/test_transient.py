"""What JetStream's errors lead to: asked again with the same bytes, or said, where only a person can help."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json

import pytest
import structlog
import trio
from support.durable import LOGS, Broker, Plant, flat, log_of, open_store, until
from support.fake_bus import Published
from support.fake_jetstream import Refusal
from support.fakes import document, encode, ignore
from trio.testing import MockClock

from scheduler.config import Settings
from scheduler.diagnosis import Diagnosis, Level
from scheduler.diagnosis.jetstream import check_jetstream
from scheduler.jetstream import reading
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.codes import Meaning, meaning
from scheduler.jetstream.reading import StreamFollower
from scheduler.jetstream.streams import LOG, REPLIES
from scheduler.journal.events import Accepted, Finished
from scheduler.journal.records import Position

IN_PROCESS = [
    Refusal(409, 10158, "duplicate message id is in process"),
    Refusal(400, 10164, "wrong last sequence"),
    Refusal(503, 10008, "JetStream system temporarily unavailable"),
    Refusal(500, 10009, "JetStream cluster can not handle request"),
]


@pytest.mark.parametrize("refusal", IN_PROCESS, ids=lambda refusal: str(refusal.err_code))
async def test_what_is_in_process_is_asked_again_with_the_same_bytes(
    autojump_clock: MockClock, refusal: Refusal
) -> None:
    """It is read back, and sent as before: no build is fenced, and no error is logged."""
    broker = Broker()
    async with open_store(broker) as store:
        await store.append("b1", [Accepted({"id": "b1"}, "d1")])
        broker.jetstream.refusals.extend([refusal, refusal])
        with structlog.testing.capture_logs() as lines:
            await store.append("b1", [Finished(None)])
        assert flat(broker.told()) == ["accepted", "finished"]
        assert not lines
        sent = [one for one in broker.bus.published if one.subject == log_of("b1")][1:]
        assert len(sent) == 3
        assert len({one.data for one in sent}) == 1


async def test_a_stream_whose_requests_are_refused_is_asked_now_and_then(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker takes each consumer, and refuses what is asked of it: that is asked a few times a second."""
    # Less than two heartbeats: the broker refuses that.
    monkeypatch.setattr(reading, "_EXPIRES", 1)
    broker = Broker()
    await broker.set_up()
    asked = 0

    def count(message: Published) -> bool:
        nonlocal asked
        asked += message.subject.startswith("$JS.API.CONSUMER.MSG.NEXT.")
        if asked > 1_000:
            nursery.cancel_scope.cancel()
        return False

    broker.bus.taps.append(count)
    follower = StreamFollower(JetStream(broker.bus), REPLIES, lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run, Position())
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert 10 <= asked <= 50


@pytest.mark.parametrize("refusal", IN_PROCESS, ids=lambda refusal: str(refusal.err_code))
async def test_a_report_in_process_is_asked_again(autojump_clock: MockClock, refusal: Refusal) -> None:
    """That nothing was stored yet is no word that it was."""
    plant = Plant()
    async with plant.run(ignore) as process:
        await process.submit(document("a"))
        await until(lambda: plant.requests)
        await trio.sleep(1)
        take = plant.broker.line.take
        plant.answer("a")

        def refuse(message: Published) -> bool:
            if message.subject.startswith("scheduler.report.") and not done:
                done.append(True)
                plant.broker.jetstream.refusals.append(refusal)
            return take(message)

        done: list[bool] = []
        process.bus.taps[:] = [refuse]
        await until(lambda: process.reports)
        assert done
        assert plant.broker.reports() == [process.report[1]]


@pytest.mark.parametrize(
    ("code", "number", "words", "expected"),
    [
        (503, 10077, "message too large", Meaning.TOO_LARGE),
        (503, 10077, "maximum bytes exceeded", Meaning.FULL),
        (503, 10077, "maximum messages exceeded", Meaning.FULL),
        (503, 10077, "write msgs/1.blk: no space left on device", Meaning.LATER),
        (400, 10054, "message size exceeds maximum allowed", Meaning.TOO_LARGE),
        (409, 10158, "duplicate message id is in process", Meaning.AGAIN),
        (400, 10164, "wrong last sequence", Meaning.AGAIN),
        (400, 10071, "wrong last sequence: 7", Meaning.OTHER_SEQUENCE),
        (404, 10059, "stream not found", Meaning.NO_STREAM),
        (503, 99_999, "what nobody knows", Meaning.LATER),
        (400, 99_999, "what nobody knows", Meaning.NO),
    ],
)
def test_what_numbers_mean(code: int, number: int, words: str, expected: Meaning) -> None:
    """One table; of a store that failed its words tell more than its number."""
    assert meaning(code, number, words) is expected


async def test_a_failed_storage_is_said(autojump_clock: MockClock) -> None:
    """A stream that can be read, and answers no writes: the log says so, and so does `why`."""
    plant = Plant()
    async with plant.run(ignore) as process:
        await process.submit(document("ab", [("a", "b")]))
        await until(lambda: plant.requests)
        await trio.sleep(1)
        plant.broker.jetstream.broken.add(LOG)
        plant.answer("a")
        with structlog.testing.capture_logs() as lines:
            await trio.sleep(1_000)
        answer = await process.bus.request("scheduler.build.why", encode({"id": "b1"}))
        texts = [one["text"] for one in json.loads(answer.data)["reasons"]]
        assert any("storage has failed" in text and "restarted" in text for text in texts)
        said = [line["reason"] for line in lines if line["log_level"] == "error" and "reason" in line]
        assert said
        assert all("storage has failed" in reason for reason in said)
        # Nothing is lost: with the broker's restart it goes on.
        plant.broker.jetstream.broken.clear()
        await until(lambda: len(plant.requests) == 2)
        plant.answer("b")
        await until(lambda: process.reports)
        assert process.report[0] == "build.create.done"


async def test_a_broker_without_quorum_has_no_failed_storage(autojump_clock: MockClock) -> None:
    """It does not answer reads either."""
    broker = Broker()
    async with open_store(broker) as store, trio.open_nursery() as nursery:
        await store.append("b1", [Accepted({"id": "b1"}, "d1")])
        broker.jetstream.silent = True
        nursery.start_soon(store.append, "b1", [Finished(None)])
        await trio.sleep(100)
        assert "storage" not in store.trouble
        assert store.trouble
        broker.jetstream.silent = False


@pytest.mark.parametrize("broken", [False, True])
async def test_doctor_tells_a_failed_storage(autojump_clock: MockClock, broken: bool) -> None:
    """It writes a record of no build, and removes it."""
    broker = Broker()
    await broker.set_up()
    if broken:
        broker.jetstream.broken.add(LOG)
    diagnosis = Diagnosis()
    await check_jetstream(diagnosis, broker.bus, Settings())
    failed = [one for one in diagnosis.findings if one.level is Level.FAILURE]
    assert [("storage has failed" in one.text, "restarted" in one.cure) for one in failed] == broken * [
        (True, True)
    ]
    assert broker.messages(LOG, LOGS) == []
