"""What tells an attempt from every other: its id, and the key that all attempts of a component share."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import re

import trio
from structlog.testing import capture_logs
from support.durable import Plant, log_of, until
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from support.fakes import JSON, Reply, Site, change, document, encode, ignore, open_service, states
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.commands.export import read_out
from scheduler.jetstream.api import JetStream
from scheduler.journal.events import Accepted, Finished, Rekeyed, Reported, Settled, Started
from scheduler.journal.records import decode_event, encode_event
from scheduler.stores.ernest import ErnestStore

FAILS = Reply("errored", fields={"error": "busy"})


def names(requests: list[tuple[Message, JSON]]) -> list[tuple[str, str]]:
    """The attempt id and the component key of each request, in order."""
    headers = [message.headers or {} for message, _ in requests]
    return [(one["Nats-Msg-Id"], one["Scheduler-Component-Key"]) for one in headers]


async def done(site: Site, build: JSON) -> None:
    """Submit a build and await its end."""
    before = len(site.reports)
    assert (await site.submit(build))["status"] == "accepted"
    await until(lambda: len(site.reports) > before)
    await wait_all_tasks_blocked()


async def test_an_id_that_is_used_again_has_other_attempts_at_once(autojump_clock: MockClock) -> None:
    """In memory as well: nothing that a connector remembers of the first run is of the second."""
    async with open_service() as site:
        await done(site, document("ab", [("a", "b")]))
        await done(site, document("ab", [("a", "b")]))
        asked = names(site.cloud.requests)
    assert [one.split("/")[:3] for one, _ in asked] == 2 * [["b1", "a", "1"], ["b1", "b", "1"]]
    assert len({one for one, _ in asked}) == len({key for _, key in asked}) == 4
    marks = [one.split("/")[3] for one, _ in asked]
    assert [re.fullmatch("[0-9a-f]{16}", mark) is not None for mark in marks] == 4 * [True]
    assert marks[0] == marks[1] != marks[2] == marks[3]
    assert [key for _, key in asked] == [f"b1/{name}/{m}" for name, m in zip("abab", marks, strict=True)]


async def test_all_attempts_of_a_component_have_one_key(autojump_clock: MockClock) -> None:
    """Tried again, sent again by the next process, and in the run that ``retry`` begins."""

    def script(_: JSON) -> list[Reply]:
        return [FAILS if len(plant.requests) < 3 else Reply()]

    plant = Plant(script)
    build = document([change("a", _retry={"attempts": 2, "backoff": 0.5})])
    async with plant.run() as process:
        await process.submit(build)
        await until(lambda: process.reports)
        assert states(process.report[1]) == {"a": "errored"}
        await trio.sleep(1)
    async with plant.run() as process:
        inbox = process.bus.new_inbox()
        process.bus.deliver("scheduler.build.retry", encode({"id": "b1"}), reply=inbox)
        await until(lambda: process.reports)
        assert states(process.report[1]) == {"a": "completed"}
    asked = names(plant.requests)
    assert [one.split("/")[2] for one, _ in asked] == ["1", "2", "3"]
    [key] = {key for _, key in asked}
    assert {one.split("/")[3] for one, _ in asked} == {key.split("/")[2]}


async def test_an_id_that_is_used_again_after_its_log_is_gone(autojump_clock: MockClock) -> None:
    """With the durable store that is when ``--keep`` has passed."""
    plant = Plant(keep=0.0)
    async with plant.run() as process:
        await done(process, document("a"))
        await trio.sleep(60)
        await done(process, document("a"))
    [(first, one), (second, other)] = names(plant.requests)
    assert first.startswith("b1/a/1/")
    assert second.startswith("b1/a/1/")
    assert first != second
    assert one != other


async def test_with_a_store_that_keeps_no_mark_there_is_none(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Ernest's: the next process could not know it, and its mapper never uses an id twice."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus) as site:
        await done(site, document("a"))
        assert names(site.cloud.requests) == [("b1/a/1", "b1/a")]


async def test_a_log_without_a_mark_goes_on_without_one(autojump_clock: MockClock) -> None:
    """As earlier versions wrote it, byte for byte."""
    old = Accepted(document("ab", [("a", "b")]), "d1", "k1")
    assert b"mark" not in encode_event(old)
    plant = Plant()
    await plant.broker.set_up()
    plant.broker.write(old)
    plant.broker.write(Started("a", "b1/a/1", b""))
    async with plant.run() as process:
        await until(lambda: process.reports)
    assert names(plant.requests) == [("b1/a/1", "b1/a"), ("b1/b/1", "b1/b")]


async def test_a_run_that_retry_begins_of_a_log_without_a_mark(autojump_clock: MockClock) -> None:
    """It has none either: a key that changed on the way would make things twice."""
    plant = Plant()
    await plant.broker.set_up()
    failed = {"_component_id": "a", "_state": "errored", "error": "busy"}
    plant.broker.write(Accepted(document("a"), "d1", "k1"))
    plant.broker.write(Started("a", "b1/a/1", b""))
    plant.broker.write(Settled("a", failed), Finished("a: busy"), status="finished")
    plant.broker.write(Reported(1), status="reported")
    async with plant.run() as process:
        process.bus.deliver("scheduler.build.retry", encode({"id": "b1"}), reply=process.bus.new_inbox())
        await until(lambda: process.reports)
    assert names(plant.requests) == [("b1/a/2", "b1/a")]


async def test_the_mark_stands_in_the_log_and_is_not_the_key_of_reply_subjects(
    autojump_clock: MockClock,
) -> None:
    """Connectors see the mark; what reply subjects are made of they must not learn from it."""
    plant = Plant()
    async with plant.run() as process:
        await done(process, document("a"))
    [first, *_] = plant.broker.records()
    [accepted, *_] = first.events
    assert isinstance(accepted, Accepted)
    again = decode_event(encode_event(accepted))
    assert isinstance(again, Accepted)
    assert again.mark == accepted.mark
    [(identity, _)] = names(plant.requests)
    assert identity.endswith(f"/{accepted.mark}")
    assert accepted.key not in identity
    assert accepted.mark not in accepted.key
    assert plant.broker.messages("SCHEDULER_LOG", log_of("b1"))


async def test_what_reply_subjects_are_made_with_is_shown_to_nobody(autojump_clock: MockClock) -> None:
    """It stands in the log alone: not in what is published, answered, logged or exported, nor in any repr.

    Tokens are told to the connector that is asked, and not even they to anybody else.
    """
    plant = Plant(ignore)
    questions = ("list", "get", "why", "plan", "pause", "resume", "cancel")
    answers: list[bytes] = []
    with capture_logs() as lines:
        await plant.broker.set_up()
        plant.broker.write(Accepted(document("x", build="old"), "d1", "0123456789abcdef"), build="old")
        async with plant.run() as process:
            await process.submit(document([change("a"), change("b", _timeout=5)], [("a", "b")]))
            inbox = process.bus.new_inbox()
            await process.bus.subscribe(inbox, lambda message: answers.append(message.data))
            await trio.sleep(1)
            plant.answer("a")
            await trio.sleep(1)
            to = plant.requests[-1][0].reply
            process.bus.deliver(f"{to}0", b"{}")
            process.bus.deliver(to.replace(".aws.", ".gcp."), b"{}")
            for question in questions:
                body = encode({"id": "b1", "components": True})
                process.bus.deliver(f"scheduler.build.{question}", body, reply=inbox)
                await trio.sleep(1)
            await trio.sleep(10)
            records = [one for build in ("b1", "old") for one in plant.broker.records(build)]
            exported: list[bytes] = []

            async def put(line: bytes) -> None:
                exported.append(line)

            for build in ("b1", "old"):
                await read_out(JetStream(process.bus), build, put)
            published = [one for one in process.bus.published if not one.subject.startswith("scheduler.log.")]
    events = [event for record in records for event in record.events]
    keys = {event.key for event in events if isinstance(event, Accepted | Rekeyed)}
    assert len(keys) == 3
    tokens = {message.reply.rpartition(".")[2] for message, _ in plant.requests}
    # A request names the subject for heartbeats to the connector that gets it, as it does that for replies.
    headers = [{**(one.headers or {}), "Scheduler-Heartbeat": ""} for one in published]
    told = [
        one.data + one.subject.encode() + repr(rest).encode()
        for one, rest in zip(published, headers, strict=True)
    ]
    shown = b"\n".join([*answers, *exported, repr(lines).encode(), repr(events).encode(), *told])
    assert b'"b1"' in shown
    assert len(answers) == len(questions)
    assert not [key for key in keys if key.encode() in shown]
    assert not [token for token in tokens if token.encode() in b"\n".join([*answers, *exported, *told])]
