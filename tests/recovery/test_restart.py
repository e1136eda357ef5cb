"""What the next process makes of what an earlier one left in the log and in the stream of replies."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain, pairwise
from typing import Any

import pytest
import structlog
import trio
from support.durable import LOGS, Fate, Peer, Plant, Process, flat, log_of, until
from support.fake_bus import Published
from support.fake_jetstream import UNAVAILABLE
from support.fakes import JSON, Reply, change, document, encode, ignore, prepare, states, succeed, unmarked
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.definition.model import Resend
from scheduler.definition.reply_subjects import interest, is_secret, old_token, parse
from scheduler.definition.template import OnUnresolved, Templates
from scheduler.errors import IllegalTransition, JetStreamUnavailable, StoreError
from scheduler.fleet.fleet import Fleet
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import LOG, REPLIES, REPORTS
from scheduler.journal.events import (
    Accepted,
    Event,
    Finished,
    Loading,
    Rekeyed,
    Released,
    Reported,
    Resumed,
    Sent,
    Settled,
    Started,
    Suspended,
)
from scheduler.journal.history import History
from scheduler.journal.orders import Order
from scheduler.journal.records import Elsewhere, Position
from scheduler.plan import Plan, Request
from scheduler.recovery.crash_loops import MOST_LOADS, release
from scheduler.stores.log_reader import LogReader
from scheduler.walk import Walk

CHAIN = document("ab", [("a", "b")])
UNKNOWN = "outcome unknown"


async def abandon(plant: Plant, *values: JSON, seconds: float = 2.0) -> None:
    """A process that takes builds, sends what is due, and dies; nobody has answered."""
    async with plant.run(ignore) as process:
        for value in values or (CHAIN,):
            assert (await process.submit(value))["status"] == "accepted"
        await trio.sleep(seconds)


async def abandon_at_once(plant: Plant, *values: JSON) -> None:
    """As `abandon`, but nobody knows whether the first requests have left."""
    async with plant.run(ignore) as process:
        for value in values or (CHAIN,):
            assert (await process.submit(value))["status"] == "accepted"
        await wait_all_tasks_blocked()
    assert "sent a" not in flat(plant.broker.told())


def write(plant: Plant, *events: Event | Elsewhere, **options: Any) -> None:
    """Have an earlier process have said more."""
    plant.broker.write(*events, **options)


def start(name: str) -> Started:
    return Started(name, f"b1/{name}/1", b"")


def sent(name: str) -> Sent:
    return Sent(name, f"b1/{name}/1")


def outcome(name: str, state: str = "completed", **fields: Any) -> Settled:
    return Settled(name, {**change(name), "service": "b1", "_state": state, **fields})


def accept(value: JSON, digest: str = "00" * 16, **options: Any) -> Accepted:
    return Accepted(value, digest, "0123456789abcdef", **options)


def wire(process: Process) -> list[Published]:
    """The requests that this process sent."""
    return [one for one in process.bus.published if one.reply.startswith("scheduler.reply.")]


async def ended(process: Process, seconds: float = 5.0) -> JSON:
    """The one report that this process publishes within some time."""
    await trio.sleep(seconds)
    return process.report[1]


# ---- going on


@pytest.mark.parametrize("via", ["subject", "reply"])
async def test_a_reply_that_nobody_heard_counts(autojump_clock: MockClock, via: str) -> None:
    """What a connector answered between two processes is read; what was answered is not asked again."""
    plant = Plant()
    await abandon(plant)
    plant.answer("a", Reply(via=via))
    async with plant.run() as process:
        report = await ended(process)
        assert states(report) == {"a": "completed", "b": "completed"}
        assert process.requests == ["b"]
    assert plant.broker.told()[-1] == ["reported"]


async def test_the_next_process_goes_on_at_once(autojump_clock: MockClock) -> None:
    """A build is gone on with within two seconds of the start."""
    plant = Plant()
    await abandon(plant)
    plant.answer("a")
    began = trio.current_time()
    async with plant.run() as process:
        await until(lambda: process.reports)
        assert trio.current_time() - began < 2.0


async def test_what_an_earlier_process_found_out_is_used(autojump_clock: MockClock) -> None:
    """References see what connectors returned before the restart, and the report holds it."""
    value = document(
        ["a", change("b", vpc="{{ components['a'].vpc_id }}")], [("a", "b")], components=[change("old", x=1)]
    )
    plant = Plant()
    async with plant.run(ignore) as process:
        await process.submit(value)
        await trio.sleep(1)
        plant.answer("a", Reply(fields={"vpc_id": "vpc-7"}))
        await wait_all_tasks_blocked()
    assert flat(plant.broker.told())[-2:] == ["settled a", "started b"]
    async with plant.run() as process:
        report = await ended(process)
        assert json.loads(wire(process)[0].data)["vpc"] == "vpc-7"
        assert {one["_component_id"] for one in report["components"]} == {"old", "a", "b"}


async def test_many_builds_go_on(autojump_clock: MockClock) -> None:
    """All of them do, each with its own replies and its own report."""
    plant = Plant()
    values = [document("ab", [("a", "b")], build=f"b{number}") for number in range(30)]
    await abandon(plant, *values)
    for message, component in list(plant.requests):
        body = {**component, "_state": "completed"}
        plant.broker.publish(f"{message.subject}.done", json.dumps(body).encode())
    async with plant.run() as process:
        await trio.sleep(5)
        assert sorted(report["id"] for _, report in process.reports) == sorted(one["id"] for one in values)
        assert process.requests == ["b"] * 30


async def test_a_build_that_is_over_is_left_alone(autojump_clock: MockClock) -> None:
    """What is reported stays as it is."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(2)
    before = plant.broker.told()
    async with plant.run() as process:
        await trio.sleep(5)
        assert (process.reports, process.requests) == ([], [])
    assert plant.broker.told() == before


async def test_builds_are_taken_in_while_others_are_read(autojump_clock: MockClock) -> None:
    """A start with much to be read does not keep new builds waiting, and mixes nothing up."""
    plant = Plant()
    await abandon(plant)
    plant.answer("a")
    async with plant.run() as process:
        assert (await process.submit(document("ab", build="b2")))["status"] == "accepted"
        await trio.sleep(5)
        assert sorted(report["id"] for _, report in process.reports) == ["b1", "b2"]
        assert Counter(process.requests) == {"a": 1, "b": 2}


async def test_an_error_of_an_earlier_process_halts(autojump_clock: MockClock) -> None:
    """What had failed stays failed, nothing is sent for the first time, and the cause is reported."""
    plant = Plant(ignore)
    await abandon(plant, document("abc", [("a", "c")]))
    plant.answer("b", Reply("errored", fields={"error": "quota"}))
    async with plant.run() as process:
        await trio.sleep(5)
        assert process.reports == []
        plant.answer("a")
        report = await ended(process)
        assert report["error"] == "b: quota"
        assert states(report) == {"a": "completed", "b": "errored", "c": "waiting"}
        assert process.requests == []


async def test_a_build_is_read_as_it_was_accepted(autojump_clock: MockClock) -> None:
    """Other settings for references and limits do not change what was accepted under the old ones."""
    value = document([change("a"), change("b", text="{{ build.id }}", gone="$(nothing.there)")], [("a", "b")])
    plant = Plant()
    async with plant.run(ignore, unresolved=OnUnresolved.KEEP) as process:
        assert (await process.submit(value))["status"] == "accepted"
        await trio.sleep(1)
    plant.answer("a")
    async with plant.run(templates=Templates.ERNEST, unresolved=OnUnresolved.ERROR) as process:
        await trio.sleep(3)
        body = json.loads(wire(process)[0].data)
        assert (body["text"], body["gone"]) == ("b1", "$(nothing.there)")


async def test_a_large_build_goes_on(autojump_clock: MockClock) -> None:
    """A definition that was put elsewhere is fetched from there."""
    plant = Plant(ignore)
    plant.broker.bus.max_payload = 20_000
    value = document([change("a", text="x" * 9_000), change("b", text="y" * 9_000)], [("a", "b")])
    async with plant.run() as process:
        await process.submit(value)
        await trio.sleep(2)
    assert plant.broker.told()[0] == ["elsewhere"]
    plant.answer("a")
    async with plant.run() as process:
        # It is decoded in a thread, which takes no time of this clock.
        await until(lambda: process.requests)
        assert json.loads(wire(process)[0].data)["text"] == "y" * 9_000


async def test_a_second_restart_goes_on_as_well(autojump_clock: MockClock) -> None:
    """Every process adds its part, under its own epoch."""
    plant = Plant(ignore)
    value = document("abcd", pairwise("abcd"))
    await abandon(plant, value)
    for name in "abc":
        plant.answer(name)
        async with plant.run() as process:
            await trio.sleep(3)
            assert len(process.requests) == 1
    plant.answer("d")
    async with plant.run() as process:
        assert set(states(await ended(process)).values()) == {"completed"}
    epochs = [record.epoch for record in plant.broker.records()]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2, 3, 4, 5}
    assert [component["_component_id"] for _, component in plant.requests] == list("abcd")


# ---- what had started


def parted(message: Message | Published) -> tuple[str, dict[str, str]]:
    """The subject for heartbeats, which each process has of its own, and the other headers."""
    headers = dict(message.headers or {})
    return headers.pop("Scheduler-Heartbeat"), headers


async def test_what_may_not_have_left_is_sent_again_under_the_same_attempt(
    autojump_clock: MockClock,
) -> None:
    """A start without a word that it left goes out at once, with the same attempt id and reply token."""
    plant = Plant()
    await abandon_at_once(plant)
    async with plant.run(ignore) as process:
        await trio.sleep(1)
        [again] = wire(process)
    [first, second] = [message for message, _ in plant.requests]
    assert unmarked((again.headers or {})["Nats-Msg-Id"]) == "b1/a/1"
    heartbeats, headers = zip(parted(first), parted(second), parted(again), strict=True)
    assert headers[0] == headers[1] == headers[2]
    assert heartbeats[0] != heartbeats[1] == heartbeats[2]
    assert (first.subject, first.data) == (second.subject, second.data)
    mine, theirs = parse(first.reply), parse(second.reply)
    assert mine is not None
    assert theirs is not None
    assert mine[1:] == theirs[1:]
    assert mine.owner != theirs.owner


async def test_what_was_answered_is_not_sent_again(autojump_clock: MockClock) -> None:
    """Captured replies come first: what has one had left."""
    plant = Plant()
    await abandon_at_once(plant)
    plant.answer("a")
    async with plant.run() as process:
        report = await ended(process)
        assert set(states(report).values()) == {"completed"}
        assert process.requests == ["b"]


async def test_what_has_left_is_awaited(autojump_clock: MockClock) -> None:
    """A request that is known to have left is not sent again."""
    plant = Plant(ignore)
    await abandon(plant)
    assert "sent a" in flat(plant.broker.told())
    async with plant.run() as process:
        await trio.sleep(10)
        assert process.requests == []
        plant.answer("a")
        await trio.sleep(1)
        assert process.requests == ["b"]


async def test_what_is_sent_again_is_noted_as_sent(autojump_clock: MockClock) -> None:
    """So that the process after the next one does not send it a third time."""
    plant = Plant(ignore)
    await abandon_at_once(plant)
    async with plant.run() as process:
        await trio.sleep(2)
        assert process.requests == ["a"]
    assert flat(plant.broker.told()).count("sent a") == 1
    async with plant.run() as process:
        await trio.sleep(2)
        assert process.requests == []


async def test_what_was_withdrawn_is_waiting(autojump_clock: MockClock) -> None:
    """A component whose request never left begins anew."""
    plant = Plant()
    async with plant.run(connectors=False) as process:
        await process.submit(document("a"))
        await trio.sleep(1)
        process.service.stop()
        await trio.sleep(1)
    assert flat(plant.broker.told()) == ["accepted", "started a", "withdrawn a"]
    async with plant.run() as process:
        assert states(await ended(process)) == {"a": "completed"}
        assert process.requests == ["a"]


# ---- deadlines


async def test_the_time_of_what_left_goes_on(autojump_clock: MockClock) -> None:
    """After a restart a request has what is left of its time, by the wall clock."""
    plant = Plant(ignore, attempt_timeout=100)
    began = trio.current_time()
    await abandon(plant, document("a"), seconds=10)
    await trio.sleep(50)
    async with plant.run() as process:
        await until(lambda: process.reports)
        assert 100 <= trio.current_time() - began <= 103
        assert process.report[1]["error"] == "a: timed out after 100 s"


async def test_what_is_sent_again_has_all_of_its_time(autojump_clock: MockClock) -> None:
    """A request that may never have left begins anew."""
    plant = Plant(ignore, attempt_timeout=100)
    await abandon_at_once(plant, document("a"))
    await trio.sleep(90)
    async with plant.run() as process:
        assert 98 <= await until(lambda: process.reports) <= 103


async def test_an_outage_moves_the_time_of_what_left(autojump_clock: MockClock) -> None:
    """What stood still in an earlier process does not count in the next one."""
    plant = Plant(ignore, attempt_timeout=100)
    began = trio.current_time()
    async with plant.run() as process:
        await process.submit(document("a"))
        await trio.sleep(10)
        process.bus.disconnect()
        await trio.sleep(1_000)
        process.bus.reconnect()
        await trio.sleep(10)
    assert flat(plant.broker.told())[-2:] == ["suspended", "resumed"]
    async with plant.run() as process:
        await until(lambda: process.reports)
        assert 1_097 <= trio.current_time() - began <= 1_104


async def test_a_reply_counts_although_its_time_is_over(autojump_clock: MockClock) -> None:
    """Deadlines that passed while nobody was there apply once the captured replies are read."""
    plant = Plant(attempt_timeout=100)
    await abandon(plant, document("ab"))
    plant.answer("a")
    await trio.sleep(5_000)
    async with plant.run() as process:
        report = await ended(process)
        assert states(report) == {"a": "completed", "b": "errored"}
        assert report["error"] == "b: timed out after 100 s"


@pytest.mark.parametrize("seconds", [0.0, 2.0])
async def test_every_captured_reply_comes_before_every_deadline(
    autojump_clock: MockClock, seconds: float
) -> None:
    """However many there are: nothing times out or is sent again that was answered."""
    names = [[f"c{build}-{number}" for number in range(150)] for build in range(5)]
    plant = Plant(attempt_timeout=100)
    async with plant.run(ignore) as process:
        for build in range(5):
            await process.submit(document(names[build], build=f"b{build}"))
        await wait_all_tasks_blocked()
        await trio.sleep(seconds)
    for name in reversed(list(chain(*names))):
        plant.answer(name)
    await trio.sleep(5_000)
    async with plant.run() as process:
        await trio.sleep(5)
        assert len(process.reports) == 5
        for _, report in process.reports:
            assert set(states(report).values()) == {"completed"}
        assert process.requests == []


async def test_what_is_sent_again_after_a_reconnect_has_all_of_its_time(autojump_clock: MockClock) -> None:
    """A deadline that passed before a lost request goes out again is not that of the next copy."""
    plant = Plant(ignore, attempt_timeout=100, resend=(("*.*.*", Resend.ALWAYS),))
    async with plant.run() as process:
        await trio.sleep(2)
        await process.submit(document("a"))
        await trio.sleep(99.9)
        ask = f"$JS.API.STREAM.MSG.GET.{REPLIES}"
        plant.broker.line.plan(ask, Fate.HOLD)
        await trio.sleep(1)
        process.bus.disconnect()
        process.bus.reconnect()
        await trio.sleep(1)
        plant.broker.line.release(ask)
        await trio.sleep(90)
        assert process.requests == ["a", "a"]
        assert process.reports == []
        await until(lambda: process.reports)
        assert process.report[1]["error"] == "a: timed out after 100 s"


async def test_what_was_captured_during_an_outage_comes_before_the_deadline(
    autojump_clock: MockClock,
) -> None:
    """A deadline that passes while captured replies are being read times out nothing that was answered."""
    names = [f"c{number}" for number in range(200)]
    plant = Plant(ignore, attempt_timeout=100)
    async with plant.run() as process:
        await trio.sleep(2)
        await process.submit(document([*names, "z"]))
        await trio.sleep(99.9)
        create = f"$JS.API.CONSUMER.CREATE.{REPLIES}.*"
        plant.broker.line.plan(create, Fate.HOLD)
        process.bus.disconnect()
        for name in names:
            plant.answer(name)
        # The clock looks at the connection once a second: to it this was no outage.
        process.bus.reconnect()
        await trio.sleep(1)
        plant.broker.line.release(create)
        await trio.sleep(10)
        assert states(process.report[1]) == {**dict.fromkeys(names, "completed"), "z": "errored"}
        assert process.report[1]["error"] == "z: timed out after 100 s"


async def test_what_was_captured_before_a_build_is_no_reply_to_it(autojump_clock: MockClock) -> None:
    """Also where the stream is read from further back, for another build."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document("z", build="b0"))
        await trio.sleep(1)
        plant.broker.publish("vpc.create.aws.error", encode(outcome("a", "errored", error="old").body))
        await trio.sleep(1)
        await process.submit(document("a"))
        await trio.sleep(1)
    assert (plant.broker.positions("b0")[-1], plant.broker.positions("b1")[-1]) == (0, 1)
    async with plant.run() as process:
        await trio.sleep(3)
        assert process.reports == []
        plant.answer("a")
        await trio.sleep(3)
        assert states(process.report[1]) == {"a": "completed"}


async def test_positions_go_on_after_a_restart(autojump_clock: MockClock) -> None:
    """Once the captured replies are read, records say so: the next process begins there."""
    plant = Plant(ignore)
    await abandon(plant, document("abc", pairwise("abc")))
    plant.answer("a")
    async with plant.run() as process:
        await trio.sleep(3)
        assert plant.broker.positions()[-1] == plant.broker.replies == 1
        plant.answer("b")
        await trio.sleep(3)
        assert plant.broker.positions()[-1] == plant.broker.replies == 2
        assert process.requests == ["b", "c"]


# ---- resending


@pytest.mark.parametrize(
    ("resend", "left", "again"),
    [
        ("unsent", False, True),
        ("unsent", True, False),
        ("always", False, True),
        ("always", True, True),
        ("never", True, False),
    ],
)
async def test_what_is_sent_again_is_a_setting(
    autojump_clock: MockClock, resend: str, left: bool, again: bool
) -> None:
    """By default what is not known to have left, with ``always`` whatever is unanswered; once."""
    plant = Plant(ignore)
    await (abandon if left else abandon_at_once)(plant, document("a"))
    async with plant.run(resend=(("*.*.*", Resend(resend)),)) as process:
        await trio.sleep(5)
        assert process.requests == (["a"] if again else [])
        plant.answer("a")
        report = await ended(process)
        assert states(report) == {"a": "completed"}


async def test_with_never_what_may_have_left_is_unknown(autojump_clock: MockClock) -> None:
    """It fails, with what to do, and the rest is not begun."""
    plant = Plant()
    await abandon_at_once(plant)
    async with plant.run(resend=(("*.*.*", Resend.NEVER),)) as process:
        report = await ended(process)
        assert states(report) == {"a": "errored", "b": "waiting"}
        assert report["error"].startswith(f"a: {UNKNOWN}")
        assert "new build" in report["error"]
        assert process.requests == []


async def test_with_never_a_captured_reply_counts(autojump_clock: MockClock) -> None:
    """What was answered is not unknown."""
    plant = Plant()
    await abandon_at_once(plant)
    plant.answer("a")
    async with plant.run(resend=(("*.*.*", Resend.NEVER),)) as process:
        assert set(states(await ended(process)).values()) == {"completed"}


async def test_resending_goes_by_subject(autojump_clock: MockClock) -> None:
    """The first pattern that fits decides."""
    plant = Plant(ignore)
    await abandon(plant, document(["a", change("n", kind="network")]))
    async with plant.run(resend=(("network.*.*", Resend.ALWAYS), ("*.*.*", Resend.UNSENT))) as process:
        await trio.sleep(3)
        assert process.requests == ["n"]


async def test_a_halted_build_sends_nothing_again_that_may_not_have_left(autojump_clock: MockClock) -> None:
    """After an error, a captured one too, nothing goes out for what may be the first time: it is unknown."""
    plant = Plant(ignore)
    names = [*(f"a{number}" for number in range(10)), "b", *(f"c{number}" for number in range(10))]
    async with plant.run() as process:
        await process.submit(document(names))
        # It is killed before it can know that they have left.
        for _ in range(1_000):
            if len(process.requests) < len(names):
                await trio.lowlevel.checkpoint()
        assert len(process.requests) == len(names)
    plant.answer("b", Reply("errored", fields={"error": "quota"}))
    async with plant.run() as process:
        await trio.sleep(5)
        assert process.requests == []
        report = process.report[1]
        assert report["error"] == "b: quota"
        errors = {one["_component_id"]: one["error"] for one in report["changes"]}
        assert errors["b"] == "quota"
        assert all(errors[name].startswith(UNKNOWN) for name in names if name != "b")


# ---- after a new connection


async def test_what_may_be_lost_with_a_connection_is_sent_again(autojump_clock: MockClock) -> None:
    """A request that is not known to have arrived goes out again over the next connection, and once."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await trio.sleep(2)
        await process.submit(document("a"))
        await wait_all_tasks_blocked()
        process.bus.disconnect()
        process.bus.reconnect()
        await trio.sleep(5)
        assert process.requests == ["a", "a"]
        assert len({one.headers["Nats-Msg-Id"] for one in wire(process) if one.headers}) == 1
        plant.answer("a")
        assert states(await ended(process)) == {"a": "completed"}


@pytest.mark.parametrize(("resend", "again"), [("unsent", False), ("always", True), ("never", False)])
async def test_what_arrived_is_sent_again_after_a_reconnect_only_on_demand(
    autojump_clock: MockClock, resend: str, again: bool
) -> None:
    """What the broker is known to have had is awaited, unless connectors know an attempt again."""
    plant = Plant(ignore, resend=(("*.*.*", Resend(resend)),))
    async with plant.run() as process:
        await trio.sleep(2)
        await process.submit(document("a"))
        await trio.sleep(3)
        process.bus.disconnect()
        process.bus.reconnect()
        await trio.sleep(5)
        assert process.requests == (["a", "a"] if again else ["a"])


async def test_what_was_answered_during_an_outage_is_not_sent_again(autojump_clock: MockClock) -> None:
    """The captured replies are read before anything is taken for lost."""
    plant = Plant(ignore, resend=(("*.*.*", Resend.ALWAYS),))
    async with plant.run() as process:
        await trio.sleep(2)
        await process.submit(CHAIN)
        await wait_all_tasks_blocked()
        process.bus.disconnect()
        await trio.sleep(30)
        plant.answer("a")
        process.bus.reconnect()
        await trio.sleep(5)
        assert process.requests == ["a", "b"]


async def test_a_halted_build_sends_nothing_again_after_a_reconnect(autojump_clock: MockClock) -> None:
    """What may be lost of a build that has failed is awaited, and not sent for what may be the first time."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await trio.sleep(2)
        await process.submit(document("ab"))
        await wait_all_tasks_blocked()
        plant.broker.line.plan(LOGS, Fate.HOLD)
        plant.answer("b", Reply("errored", fields={"error": "quota"}))
        await wait_all_tasks_blocked()
        process.bus.disconnect()
        process.bus.reconnect()
        await trio.sleep(10)
        assert Counter(process.requests) == {"a": 1, "b": 1}


def close_connectors(process: Process) -> None:
    """From now on nobody takes requests."""
    for one in list(process.bus.interests.values()):
        if one.subject == "*.create.*":
            process.bus.end(one)


@pytest.mark.parametrize("resend", ["unsent", "always"])
async def test_a_second_copy_that_nobody_hears_takes_nothing_back(
    autojump_clock: MockClock, resend: str
) -> None:
    """A request that may have left once is awaited, and not withdrawn, though nobody heard its repetition."""
    plant = Plant(ignore, resend=(("*.*.*", Resend(resend)),), attempt_timeout=60)
    async with plant.run() as process:
        await trio.sleep(2)
        await process.submit(document("ab"))
        await wait_all_tasks_blocked()
        await trio.sleep(2 if resend == "always" else 0)
        close_connectors(process)
        process.bus.disconnect()
        process.bus.reconnect()
        await trio.sleep(1)
        plant.answer("b", Reply("errored", fields={"error": "quota"}))
        await trio.sleep(20)
        assert process.reports == []
        plant.answer("a")
        assert states(await ended(process)) == {"a": "completed", "b": "errored"}
    assert "withdrawn a" not in flat(plant.broker.told())


async def test_what_an_earlier_process_may_have_sent_is_not_withdrawn(autojump_clock: MockClock) -> None:
    """That nobody hears it now does not say that nobody has it."""
    plant = Plant(ignore, grace=0)
    await abandon_at_once(plant, document("a"))
    async with plant.run(connectors=False) as process:
        await trio.sleep(5)
        assert len(process.requests) > 1
        process.service.stop()
        await trio.sleep(5)
    assert "withdrawn a" not in flat(plant.broker.told())
    plant.answer("a")
    async with plant.run() as process:
        assert states(await ended(process)) == {"a": "completed"}


# ---- the end, and what comes after it


async def test_a_build_that_had_finished_is_reported(autojump_clock: MockClock) -> None:
    """A process that dies before the report is stored leaves it to the next; it is finished once."""
    plant = Plant()
    async with plant.run() as process:
        plant.broker.line.plan("scheduler.report.*.*", *[Fate.LOSE] * 100)
        await process.submit(CHAIN)
        await trio.sleep(2)
        assert process.reports == []
    plant.broker.line._fates.clear()
    assert flat(plant.broker.told())[-1] == "finished"
    async with plant.run() as process:
        report = await ended(process)
        assert set(states(report).values()) == {"completed"}
        assert process.requests == []
    assert flat(plant.broker.told()).count("finished") == 1
    assert plant.broker.told()[-1] == ["reported"]


async def test_a_report_that_is_stored_is_published_as_it_is(autojump_clock: MockClock) -> None:
    """A process that dies before the report is out has the next one publish the same bytes."""
    plant = Plant()
    async with plant.run() as process:
        process.bus.lose = lambda message: message.subject == "build.create.done"
        plant.broker.line.plan(LOGS, *[Fate.PASS] * 4, *[Fate.LOSE] * 100)
        await process.submit(CHAIN)
        await trio.sleep(2)
    plant.broker.line._fates.clear()
    assert flat(plant.broker.told())[-1] == "finished"
    [stored] = plant.broker.messages(REPORTS)
    async with plant.run() as process:
        await trio.sleep(5)
        [out] = [one for one in process.bus.published if one.subject == "build.create.done"]
        assert out.data == stored.data
        assert out.headers
        assert out.headers["Nats-Msg-Id"] in stored.headers.values()
    assert plant.broker.told()[-1] == ["reported"]
    assert len(plant.broker.messages(REPORTS)) == 1


@pytest.mark.parametrize("deaths", [1, 2, 3])
async def test_deaths_between_the_end_and_the_report(autojump_clock: MockClock, deaths: int) -> None:
    """However many processes die there, the build is reported in the end, and its log stays readable."""
    plant = Plant()
    async with plant.run() as process:
        plant.broker.line.plan("scheduler.report.*.*", *[Fate.LOSE] * 10_000)
        await process.submit(document("a"))
        await trio.sleep(2)
    for _ in range(deaths):
        async with plant.run() as process:
            await trio.sleep(3)
            assert process.reports == []
    plant.broker.line._fates.clear()
    async with plant.run() as process:
        assert states(await ended(process)) == {"a": "completed"}


# ---- poison


@pytest.fixture
def poisoned() -> Plant:
    """A plant whose build b2 is sound, and whose build b1 says what a test adds."""
    return Plant()


async def leave_another(plant: Plant) -> None:
    """Leave b2 to be gone on with."""
    await abandon(plant, document("ab", [("a", "b")], build="b2"))
    plant.answer("a")


async def check_quarantined(plant: Plant, *words: str) -> None:
    """The next process leaves b1 alone, says why, and finishes b2."""
    with structlog.testing.capture_logs() as logs:
        async with plant.run() as process:
            report = await ended(process)
            assert (report["id"], set(states(report).values())) == ("b2", {"completed"})
            assert "b1" in process.service.roster.quarantined
            # It goes on taking builds, too.
            assert (await process.submit(document("c", build="b3")))["status"] == "accepted"
            await trio.sleep(3)
            assert [one["id"] for _, one in process.reports] == ["b2", "b3"]
    [line] = [line for line in logs if "quarantined" in line["event"]]
    assert line["build"] == "b1"
    for part in words:
        assert part in line["reason"]


async def test_an_unknown_version_is_quarantined(autojump_clock: MockClock, poisoned: Plant) -> None:
    """A log that another version wrote is left as it is."""
    await leave_another(poisoned)
    write(poisoned, accept(document("a")))
    message = poisoned.broker.messages(LOG, log_of("b1"))[0]
    data = message.data.replace(b'"v":1', b'"v":2')
    headers = {**message.headers, "Scheduler-Record": "x"}
    poisoned.broker.jetstream.take(Published(log_of("b1"), data, "", headers))
    await check_quarantined(poisoned, "version 2")
    assert len(poisoned.broker.messages(LOG, log_of("b1"))) == 2


async def test_a_log_that_cannot_have_happened_is_quarantined(
    autojump_clock: MockClock, poisoned: Plant
) -> None:
    """Outcomes before the build was accepted, or twice, are not gone on with."""
    await leave_another(poisoned)
    write(poisoned, accept(document("a")))
    write(poisoned, start("a"))
    write(poisoned, outcome("a"))
    write(poisoned, outcome("a"))
    await check_quarantined(poisoned, "settled a second time")


async def test_a_foreign_message_in_the_log_is_quarantined(
    autojump_clock: MockClock, poisoned: Plant
) -> None:
    """What has none of the headers is none of our records."""
    await leave_another(poisoned)
    poisoned.broker.publish(log_of("b1"), b"hello")
    await check_quarantined(poisoned, "Scheduler-Record")


async def test_a_log_about_other_components_is_quarantined(
    autojump_clock: MockClock, poisoned: Plant
) -> None:
    """A step of a component that the build does not have cannot be replayed."""
    await leave_another(poisoned)
    write(poisoned, accept(document("a")))
    write(poisoned, start("zzz"))
    await check_quarantined(poisoned)


async def test_a_build_that_is_no_longer_valid_is_quarantined(
    autojump_clock: MockClock, poisoned: Plant
) -> None:
    """A definition that this version refuses costs nobody else anything."""
    await leave_another(poisoned)
    write(poisoned, accept(document([change("a", action="explode")])))
    await check_quarantined(poisoned)


async def test_a_part_that_is_gone_is_quarantined(autojump_clock: MockClock, poisoned: Plant) -> None:
    """An event that was put elsewhere and is not there any more makes the log unreadable."""
    await leave_another(poisoned)
    write(poisoned, Elsewhere("scheduler.log.b1/gone"))
    await check_quarantined(poisoned, "is gone")


@pytest.mark.parametrize("token", ["=ZZ", "=FF", "=", "a=00b"])
async def test_a_log_of_no_build_is_no_matter(autojump_clock: MockClock, poisoned: Plant, token: str) -> None:
    """Whatever somebody publishes under a name that is none of a build's stops nothing."""
    await leave_another(poisoned)
    poisoned.broker.publish(f"scheduler.log.{token}", b"{}")
    async with poisoned.run() as process:
        assert (await ended(process))["id"] == "b2"


async def test_a_bug_in_the_first_step_is_quarantined(
    autojump_clock: MockClock, poisoned: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that cannot be set going is left to a later version, with what went wrong in the log."""
    await leave_another(poisoned)
    write(poisoned, accept(document("a")))
    original = Walk.prepare

    async def broken(walk: Walk) -> None:
        if walk.id == "b1":
            raise IllegalTransition("no way")
        await original(walk)

    monkeypatch.setattr(Walk, "prepare", broken)
    await check_quarantined(poisoned, "IllegalTransition: no way")


async def test_a_quarantined_build_can_be_gone_on_with_later(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that could not changes nothing: one that can finds every reply that came meanwhile."""
    plant = Plant()
    await abandon(plant)
    plant.answer("a")
    with monkeypatch.context() as patch:

        async def broken(_: Walk) -> None:
            raise IllegalTransition("no way")

        patch.setattr(Walk, "prepare", broken)
        # More often than a process may die of it: this is no death.
        for _ in range(4):
            async with plant.run() as process:
                await trio.sleep(3)
                assert "no way" in process.service.roster.quarantined["b1"]
    async with plant.run() as process:
        report = await ended(process)
        assert set(states(report).values()) == {"completed"}
        assert process.requests == ["b"]


async def test_a_reply_to_a_quarantined_build_is_kept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that leaves a build alone does not claim to have dealt with its replies."""
    plant = Plant()
    await abandon(plant)
    with monkeypatch.context() as patch:

        async def broken(_: Walk) -> None:
            raise IllegalTransition("no way")

        patch.setattr(Walk, "prepare", broken)
        async with plant.run() as process:
            await trio.sleep(3)
            plant.answer("a")
            await trio.sleep(1)
    async with plant.run() as process:
        report = await ended(process)
        assert set(states(report).values()) == {"completed"}
        assert process.requests == ["b"]


# ---- processes that die of a build


class Death(BaseException):
    """What ends a process."""


async def die_while_loading(plant: Plant, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Processes that end between their mark in b1's log and their first commit in it."""
    original = Walk.prepare

    async def fatal(walk: Walk) -> None:
        if walk.id == "b1":
            raise Death
        await original(walk)

    for _ in range(times):
        with monkeypatch.context() as patch:
            patch.setattr(Walk, "prepare", fatal)
            with pytest.raises(BaseExceptionGroup) as caught:
                async with plant.run():
                    await trio.sleep(3)
            assert caught.group_contains(Death)


async def test_three_deaths_of_one_build_alone_quarantine_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two deaths single out who may have been the cause, three more leave it alone; the others go on."""
    plant = Plant()
    await abandon(plant, document("ab", [("a", "b")], build="b2"), document("x"))
    plant.answer("a")
    await die_while_loading(plant, monkeypatch, MOST_LOADS - 1)
    async with plant.run() as process:
        await trio.sleep(3)
        assert process.service.roster.quarantined == {}
        assert plant.broker.told("b2")[-1] == ["reported"]
    await abandon(plant, document("y", build="b3"))
    await die_while_loading(plant, monkeypatch, MOST_LOADS)
    async with plant.run() as process:
        await trio.sleep(3)
        assert list(process.service.roster.quarantined) == ["b1"]


async def test_a_build_that_kills_with_its_first_step_is_quarantined(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is read without harm, and a process dies of what it does then; the others go on."""
    plant = Plant(ignore)
    others = [document("ab", [("a", "b")], build=f"b{number}") for number in range(2, 8)]
    await abandon(plant, *others[:3], document("x"), *others[3:])
    original = Plan.resume

    def fatal(plan: Plan, vertex: int) -> Request | Settled:
        if plan.build.id == "b1":
            raise Death
        return original(plan, vertex)

    with monkeypatch.context() as patch:
        patch.setattr(Plan, "resume", fatal)
        for _ in range(MOST_LOADS):
            with pytest.raises(BaseExceptionGroup) as caught:
                async with plant.run():
                    await trio.sleep(30)
            assert caught.group_contains(Death)
        async with plant.run() as process:
            await trio.sleep(30)
            assert list(process.service.roster.quarantined) == ["b1"]
            plant.answer("a")
            await trio.sleep(1)
            assert process.requests == ["b"]
            assert len(process.service.roster) == len(others)


async def test_two_deaths_in_a_row_do_not(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third process goes on, and with its first commit nobody counts any more."""
    plant = Plant(ignore)
    await abandon(plant, document("x"))
    await die_while_loading(plant, monkeypatch, 2)
    async with plant.run() as process:
        await trio.sleep(3)
        assert process.service.roster.quarantined == {}
    assert plant.broker.headers()[-1]["Scheduler-Loads"] == "0"
    await die_while_loading(plant, monkeypatch, 2)
    plant.answer("x")
    async with plant.run() as process:
        assert states(await ended(process)) == {"x": "completed"}


async def test_a_good_start_is_noted_without_any_other_commit(autojump_clock: MockClock) -> None:
    """A build that only waits is released after a second: the process did not die of it."""
    plant = Plant(ignore)
    await abandon(plant, document("x"))
    for _ in range(5):
        async with plant.run() as process:
            await trio.sleep(3)
            assert process.service.roster.quarantined == {}
    assert plant.broker.told()[-2:] == [["loading"], ["released"]]


async def test_a_death_of_something_else_counts_against_nobody(autojump_clock: MockClock) -> None:
    """Processes that end long after their start may do so as often as they like."""
    plant = Plant(ignore)
    await abandon(plant, document("ab"))
    for _ in range(6):
        async with plant.run() as process:
            await trio.sleep(60)
    plant.answer("a")
    plant.answer("b")
    async with plant.run() as process:
        assert set(states(await ended(process)).values()) == {"completed"}


# ---- bad health at the start


async def test_without_jetstream_the_restart_waits(autojump_clock: MockClock) -> None:
    """Logs that cannot be read yet are read when they can be; nothing is quarantined or given up."""
    plant = Plant()
    await abandon(plant)
    plant.answer("a")
    async with plant.run() as process:
        plant.broker.jetstream.refusal = UNAVAILABLE
        await trio.sleep(100)
        assert process.reports == []
        plant.broker.jetstream.refusal = None
        report = await ended(process, 10)
        assert set(states(report).values()) == {"completed"}
        assert process.service.roster.quarantined == {}


async def test_a_log_that_cannot_be_read_for_a_while_is_read_later(autojump_clock: MockClock) -> None:
    """PendingCommit between the mark and the reading of a log costs time, and not the build."""
    plant = Plant()
    await abandon(plant)
    plant.answer("a")
    async with plant.run() as process:
        plant.broker.line.plan(f"$JS.API.CONSUMER.CREATE.{LOG}.*", Fate.PASS, *[Fate.LOSE] * 4)
        await trio.sleep(60)
        assert [subject for subject, _ in process.reports] == ["build.create.done"]


async def test_one_process_counts_once_however_often_it_begins_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble between the mark and the reading of a log is no death, and is not counted as several."""
    plant = Plant()
    await abandon(plant)
    plant.answer("a")
    history, looks = LogReader.history, 0

    async def shaky(logs: LogReader, subject: str) -> History:
        nonlocal looks
        looks += 1
        if looks <= 2 * MOST_LOADS:
            raise JetStreamUnavailable("the log is away")
        return await history(logs, subject)

    monkeypatch.setattr(LogReader, "history", shaky)
    async with plant.run() as process:
        await trio.sleep(60)
        assert [subject for subject, _ in process.reports] == ["build.create.done"]
    assert plant.broker.told().count(["loading"]) == looks
    assert {one["Scheduler-Loads"] for one in plant.broker.headers()} == {"0", "1"}


async def test_a_released_build_is_taken_up_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What processes died of goes on once a person has said so; what is in no such state is left alone."""
    plant = Plant(ignore)
    await abandon(plant, document("x"))
    with pytest.raises(StoreError, match="needs no release"):
        await release(JetStream(plant.broker.plug()), "b1", Order("release"))
    with pytest.raises(StoreError, match="no build 'b9'"):
        await release(JetStream(plant.broker.plug()), "b9", Order("release"))
    await die_while_loading(plant, monkeypatch, MOST_LOADS)
    async with plant.run() as process:
        await trio.sleep(3)
        assert list(process.service.roster.quarantined) == ["b1"]
    await release(JetStream(plant.broker.plug()), "b1", Order("release"))
    plant.answer("x")
    async with plant.run() as process:
        assert states(await ended(process)) == {"x": "completed"}


async def test_a_stream_of_replies_that_lost_its_end_is_read_by_time(autojump_clock: MockClock) -> None:
    """Numbers that were given out again are not taken for replies that were dealt with."""
    plant = Plant(ignore)
    value = document(["a", "b", *(f"c{number}" for number in range(10))], [("a", "b")])
    async with plant.run() as process:
        await process.submit(value)
        await trio.sleep(1)
        for number in range(10):
            plant.answer(f"c{number}")
        await trio.sleep(1)
    assert plant.broker.positions()[-1] == 10
    plant.broker.jetstream.streams[REPLIES].lose_tail(10)
    await trio.sleep(10)
    plant.answer("a")
    assert plant.broker.replies == 1
    async with plant.run() as process:
        await trio.sleep(5)
        assert process.requests == ["b"]


async def test_replies_that_an_earlier_process_dealt_with_are_not_replies_again(
    autojump_clock: MockClock,
) -> None:
    """What came before the position is none to what was sent since."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document("ab"))
        await trio.sleep(1)
        plant.answer("a")
        await trio.sleep(1)
    # Somebody repeats it, and then says something else.
    plant.answer("a", Reply("errored", fields={"error": "no"}))
    plant.answer("b")
    async with plant.run() as process:
        report = await ended(process)
        assert set(states(report).values()) == {"completed"}


# ---- somebody else


async def test_a_build_that_another_process_takes_meanwhile_is_left_to_it(autojump_clock: MockClock) -> None:
    """Of two that work one is fenced, and does nothing for the build while the other one is there."""
    plant = Plant(ignore)
    await abandon(plant)
    async with plant.run() as process:
        await Peer(process).open()
        await trio.sleep(3)
        write(plant, Loading(), epoch=9)
        plant.answer("a")
        await trio.sleep(100)
        assert process.requests == []
        assert process.reports == []
        assert not process.service.roster.holds("b1")
    assert flat(plant.broker.told())[-1] == "loading"


async def test_a_build_that_nobody_works_on_is_taken_up_when_it_is_submitted_again(
    autojump_clock: MockClock,
) -> None:
    """Whoever says that it is accepted sees to it that somebody works on it, soon."""
    plant = Plant(ignore)
    value = document("a")
    async with plant.run() as process:
        await trio.sleep(100)
        # Stored so late that nobody was there any more who knew of it.
        digest = prepare(value).digest.hex()
        write(plant, accept(value, digest), digest=digest)
        assert (await process.submit(value))["status"] == "accepted"
        assert await until(lambda: process.requests) < 10
        plant.answer("a")
        await trio.sleep(3)
        assert states(process.report[1]) == {"a": "completed"}


async def test_a_build_that_nobody_works_on_is_found(autojump_clock: MockClock) -> None:
    """Sooner or later, without anybody's word."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await trio.sleep(100)
        write(plant, accept(document("a")), digest="00" * 16)
        await trio.sleep(700)
        assert process.requests == ["a"]


async def test_a_head_start_of_others_delays_no_other_build(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is another instance's to take first is waited for; what is ours is taken at the first word."""
    plant = Plant(ignore)
    monkeypatch.setattr(Fleet, "is_first_for", lambda _, build: build == "ours")
    async with plant.run() as process:
        roster, orphans = process.service.roster, process.service.persistence.orphans
        await trio.sleep(100)
        write(plant, accept(document("a", build="theirs")), digest="00" * 16, build="theirs")
        orphans.note()
        await trio.sleep(1.5)
        write(plant, accept(document("a", build="ours")), digest="00" * 16, build="ours")
        orphans.note()
        assert await until(lambda: roster.holds("ours")) < 2
        assert not roster.holds("theirs")
        assert await until(lambda: roster.holds("theirs")) < 4


async def test_the_builds_of_a_process_that_has_gone_are_adopted(autojump_clock: MockClock) -> None:
    """Who sees another process go takes its builds over, with the replies that came meanwhile."""
    plant = Plant(ignore)
    value = document("ab", [("a", "b")])
    async with plant.run() as process:
        peer = Peer(process)
        await peer.open()
        await process.submit(document("z", build="b2"))
        await trio.sleep(30)
        digest = "00" * 16
        write(plant, accept(value, digest), digest=digest)
        write(plant, start("a"), sent("a"), position=Position(plant.broker.replies))
        body = {**outcome("a").body, "_state": "completed"}
        plant.broker.publish("vpc.create.aws.done", encode(body))
        plant.answer("z")
        await trio.sleep(30)
        assert "b" not in process.requests
        assert [report["id"] for _, report in process.reports] == ["b2"]
        peer.there = False
        await trio.sleep(60)
        assert process.requests == ["z", "b"]
        plant.answer("b")
        await trio.sleep(3)
        assert [report["id"] for _, report in process.reports] == ["b2", "b1"]


READ = f"$JS.API.CONSUMER.CREATE.{LOG}.*"
GET = f"$JS.API.STREAM.MSG.GET.{LOG}"


class Submission:
    """A build that is handed in beside everything else."""

    def __init__(self, process: Process, nursery: trio.Nursery) -> None:
        self.answers: list[JSON] = []
        self._process = process
        self._nursery = nursery

    async def begin(self) -> None:
        """Hand it in, and wait until it has got as far as it gets."""
        self._nursery.start_soon(self._run)
        await wait_all_tasks_blocked()

    async def _run(self) -> None:
        self.answers.append(await self._process.submit(CHAIN))


@asynccontextmanager
async def open_race(*held: tuple[str, Sequence[Fate]]) -> AsyncIterator[tuple[Plant, Process, Submission]]:
    """A restart, and the same build submitted meanwhile; some of what they ask waits on its way."""
    plant = Plant(ignore)
    await abandon(plant)
    plant.answer("a")
    for subject, fates in held:
        plant.broker.line.plan(subject, *fates)
    async with plant.run() as process, trio.open_nursery() as nursery:
        yield plant, process, Submission(process, nursery)
        await trio.sleep(3)
        assert process.requests == ["b"]
        plant.answer("b")
        await trio.sleep(3)
        assert [subject for subject, _ in process.reports] == ["build.create.done"]
        assert flat(plant.broker.told()).count("reported") == 1
        # Nothing of it is left, and the service goes on.
        assert not process.service.roster.holds("b1")
        assert (await process.submit(document([], build="b2")))["status"] == "accepted"


async def test_submitted_again_before_its_log_is_found(autojump_clock: MockClock) -> None:
    """The log settles that it is accepted already, whoever asks first; it is gone on with all the same."""
    async with open_race((READ, [Fate.HOLD])) as (plant, _, submission):
        await plant.broker.line.reached(READ)
        await submission.begin()
        assert submission.answers == [{"id": "b1", "status": "accepted"}]
        plant.broker.line.release()


async def test_submitted_again_when_it_is_about_to_be_taken_up(autojump_clock: MockClock) -> None:
    """A submission that is being settled does not keep the build from being gone on with."""
    async with open_race((READ, [Fate.HOLD])) as (plant, _, submission):
        await plant.broker.line.reached(READ)
        plant.broker.line.plan(LOGS, Fate.HOLD)
        await submission.begin()
        plant.broker.line.release(READ)
        await trio.sleep(0.5)
        plant.broker.line.release()
        await trio.sleep(1)
        assert submission.answers == [{"id": "b1", "status": "accepted"}]


async def test_submitted_again_while_it_is_taken_up(autojump_clock: MockClock) -> None:
    """A submission that is settled after the build was taken up leaves it alone."""
    async with open_race((READ, [Fate.PASS, Fate.HOLD])) as (plant, _, submission):
        await plant.broker.line.reached(READ)
        plant.broker.line.plan(GET, Fate.HOLD)
        await submission.begin()
        plant.broker.line.release(READ)
        await trio.sleep(0.5)
        plant.broker.line.release()
        await trio.sleep(1)
        assert submission.answers == [{"id": "b1", "status": "accepted"}]


async def test_submitted_again_while_its_log_is_marked(autojump_clock: MockClock) -> None:
    """The log that the restart writes on is not closed with that of the submission."""
    async with open_race((GET, [Fate.PASS, Fate.HOLD])) as (plant, _, submission):
        await plant.broker.line.reached(GET)
        plant.broker.line.plan(LOGS, Fate.HOLD)
        await submission.begin()
        plant.broker.line.release(GET)
        await trio.sleep(0.5)
        plant.broker.line.release()
        await trio.sleep(1)
        assert submission.answers == [{"id": "b1", "status": "accepted"}]


# ---- leaving


async def leave(process: Process) -> None:
    """Stop it in order, and let it end."""
    process.service.stop()
    await trio.sleep(60)


async def test_a_process_that_stops_leaves_what_is_captured_to_the_next(autojump_clock: MockClock) -> None:
    """With no grace it ends at once, without a report; the next one reads the replies and goes on."""
    plant = Plant(ignore, grace=0)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(1)
        await leave(process)
        assert process.reports == []
    assert plant.broker.told()[-1] == ["sent a"]
    plant.answer("a")
    async with plant.run() as process:
        await trio.sleep(2)
        assert process.requests == ["b"]


async def test_what_left_in_the_last_moment_is_noted(autojump_clock: MockClock) -> None:
    """A process that ends in order writes down what it sent just before, so that it is not sent again."""
    plant = Plant(ignore, grace=0)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await wait_all_tasks_blocked()
        await leave(process)
    assert "sent a" in flat(plant.broker.told())
    async with plant.run() as process:
        await trio.sleep(3)
        assert process.requests == []


async def test_what_is_answered_while_a_process_leaves_is_not_lost(autojump_clock: MockClock) -> None:
    """A reply that comes when nobody waits for it any more is not claimed by what is still written."""
    plant = Plant(ignore, grace=0)
    async with plant.run() as process:
        await process.submit(document("axc", [("x", "c"), ("a", "c")]))
        await process.submit(document("axc", [("x", "c")], build="b2"))
        await trio.sleep(1)
        plant.broker.line.plan(log_of("b2"), Fate.HOLD)
        plant.answer("x")
        await wait_all_tasks_blocked()
        process.service.stop()
        # What was under way keeps the build for a moment after it has stopped waiting for replies.
        await trio.sleep(0.6)
        plant.answer("a")
        await trio.sleep(0.1)
        plant.broker.line.release()
        await trio.sleep(5)
        assert not process.service.roster.holds("b2")
    assert flat(plant.broker.told("b2"))[-1] == "withdrawn c"
    async with plant.run(script=succeed) as process:
        await trio.sleep(3)
        assert [report["id"] for _, report in process.reports] == ["b2"]
        assert "a" not in process.requests


async def test_what_is_still_written_of_a_build_that_was_left_claims_nothing(
    autojump_clock: MockClock,
) -> None:
    """Outcomes that are committed after waiting has ended say nothing of replies that came after that."""
    plant = Plant(ignore, grace=0)
    async with plant.run() as process:
        await process.submit(document("xc", [("x", "c")]))
        await process.submit(document("axyd", [("a", "d")], build="b2"))
        await trio.sleep(1)
        for build in ("b1", "b2"):
            plant.broker.line.plan(log_of(build), Fate.HOLD)
        for message, component in list(plant.requests):
            if (component["service"], component["_component_id"]) in {("b1", "x"), ("b2", "y")}:
                plant.broker.publish(f"{message.subject}.done", encode({**component, "_state": "completed"}))
        await wait_all_tasks_blocked()
        # The next record of b2, which waits for the one that is under way.
        plant.answer("x")
        await wait_all_tasks_blocked()
        process.service.stop()
        await trio.sleep(0.6)
        plant.answer("a")
        await trio.sleep(0.05)
        plant.broker.line.release(log_of("b2"))
        await trio.sleep(5)
    assert flat(plant.broker.told("b2"))[-1] == "settled x"
    async with plant.run(succeed) as process:
        await trio.sleep(3)
        assert "a" not in process.requests
        assert "b2" in [report["id"] for _, report in process.reports]


async def test_a_stop_during_the_restart_loses_nothing(autojump_clock: MockClock) -> None:
    """What is taken up and left again at once goes on in the process after that."""
    plant = Plant(grace=0)
    await abandon_at_once(plant)
    async with plant.run() as process:
        await leave(process)
    plant.answer("a")
    async with plant.run() as process:
        report = await ended(process)
        assert set(states(report).values()) == {"completed"}


@pytest.mark.parametrize("said", [Suspended(), Released()])
async def test_what_processes_say_of_themselves_is_no_step(autojump_clock: MockClock, said: Event) -> None:
    """Outages and releases change nothing of the build."""
    plant = Plant()
    await abandon(plant)
    write(plant, *([said, Resumed(3.0)] if isinstance(said, Suspended) else [said]))
    plant.answer("a")
    async with plant.run() as process:
        assert set(states(await ended(process)).values()) == {"completed"}


async def test_a_position_from_before_everything_is_none(autojump_clock: MockClock) -> None:
    """A build that was accepted when no reply had ever been captured reads them from the beginning."""
    plant = Plant()
    await plant.broker.set_up()
    write(plant, accept(document("ab", [("a", "b")])), position=Position())
    write(plant, start("a"), sent("a"))
    plant.broker.publish("vpc.create.aws.done", json.dumps(outcome("a").body).encode())
    async with plant.run() as process:
        report = await ended(process)
        assert set(states(report).values()) == {"completed"}
        assert process.requests == ["b"]


async def test_a_finished_log_of_a_failed_build_is_reported_as_failed(autojump_clock: MockClock) -> None:
    """The first cause is kept for whichever process reports."""
    plant = Plant()
    await plant.broker.set_up()
    write(plant, accept(document("ab")))
    write(plant, start("a"), sent("a"), outcome("a", "errored", error="quota"))
    write(plant, Finished("a: quota"), status="finished")
    async with plant.run() as process:
        await trio.sleep(5)
        subject, report = process.report
        assert (subject, report["error"]) == ("build.create.error", "a: quota")
        assert states(report) == {"a": "errored", "b": "waiting"}


# ---- reply subjects of earlier processes

OLD_KEY = "0123456789abcdef"


def old_reply(vertex: int) -> str:
    """The reply subject of a first attempt, as an earlier version made it."""
    return f"scheduler.reply.{old_token(OLD_KEY, vertex, 0)}"


async def upgraded(plant: Plant, value: JSON, *names: str) -> None:
    """An earlier version accepted a build, and these components have left."""
    await plant.broker.set_up()
    write(plant, accept(value, mark="00ff"))
    write(plant, *(Started(name, f"b1/{name}/1/00ff", b"") for name in names))
    write(plant, *(Sent(name, f"b1/{name}/1/00ff") for name in names))


@pytest.mark.parametrize("captured", [False, True])
async def test_a_request_of_an_earlier_version_is_answered_on_its_old_subject(
    autojump_clock: MockClock, captured: bool
) -> None:
    """Directly or captured; what is sent from now on has the new form, and a key that nobody has seen."""
    plant = Plant()
    await upgraded(plant, document("ab", [("a", "b")]), "a")
    answer = encode({**change("a"), "service": "b1", "_state": "completed"})
    if captured:
        plant.broker.publish(old_reply(0), answer)
    async with plant.run() as process:
        await trio.sleep(2)
        if not captured:
            assert process.requests == []
            plant.broker.publish(old_reply(0), answer)
        assert states(await ended(process)) == {"a": "completed", "b": "completed"}
        [request] = wire(process)
        assert parse(request.reply) is not None
        assert OLD_KEY not in request.reply
        assert "scheduler.reply.*" not in process.bus.subjects
    [rekeyed] = [
        one for record in plant.broker.records() for one in record.events if isinstance(one, Rekeyed)
    ]
    assert is_secret(rekeyed.key)
    assert rekeyed.key not in request.reply


async def test_an_old_subject_is_none_of_what_was_started_later(autojump_clock: MockClock) -> None:
    """Who has seen the old key can make the old subject of any component: it ends nothing."""
    plant = Plant(ignore)
    await upgraded(plant, document("abc", [("a", "b")]), "a", "c")
    async with plant.run() as process:
        await trio.sleep(2)
        plant.broker.publish(old_reply(0), encode({"_state": "completed"}))
        await trio.sleep(2)
        assert process.requests == ["b"]
        # It is still heard, because of c.
        assert "scheduler.reply.*" in process.bus.subjects
        plant.broker.publish(old_reply(1), encode({"_state": "completed"}))
        await trio.sleep(2)
        assert process.reports == []
        assert "settled b" not in flat(plant.broker.told())


async def test_whoever_takes_over_hears_all_that_may_have_sent(autojump_clock: MockClock) -> None:
    """One sent, the next one took over and ended: the third hears the first, also where nothing captures."""
    plant = Plant(ignore)
    await abandon(plant, document("ab"))
    [first, other] = [message.reply for message, _ in plant.requests]
    async with plant.run():
        await trio.sleep(3)
    async with plant.run() as process:
        await trio.sleep(3)
        plant.broker.jetstream.leaderless.add("SCHEDULER_REPLIES")
        address = parse(first)
        assert address is not None
        theirs = interest(address.owner)
        assert theirs in process.bus.subjects
        plant.broker.publish(first, encode({"_state": "completed"}))
        await trio.sleep(1)
        assert "settled a" in flat(plant.broker.told())
        assert theirs in process.bus.subjects
        plant.broker.publish(other, encode({"_state": "completed"}))
        assert states(await ended(process)) == {"a": "completed", "b": "completed"}
        assert theirs not in process.bus.subjects


async def test_a_build_whose_key_is_replaced_is_still_one_that_processes_may_die_of(
    autojump_clock: MockClock,
) -> None:
    """The record with the key counts the loading as the one before it does."""
    plant = Plant(ignore)
    await upgraded(plant, document("a"), "a")
    async with plant.run():
        await trio.sleep(0.05)
    loads = [one["Scheduler-Loads"] for one in plant.broker.headers()]
    told = plant.broker.told()
    assert told[3:5] == [["loading"], ["rekeyed"]]
    assert loads[3:5] == ["1", "1"]


async def test_a_run_that_retry_begins_of_an_old_build_has_a_new_key(autojump_clock: MockClock) -> None:
    """And what was answered late, on the old subject, is found."""
    plant = Plant()
    await upgraded(plant, document("ab"), "a", "b")
    failed = [outcome(name, "errored", error="timed out") for name in "ab"]
    write(plant, *failed, Finished("a: timed out"), status="finished")
    write(plant, Reported(1), status="reported")
    plant.broker.publish(old_reply(0), encode({"_state": "completed", "vpc_id": "vpc-7"}))
    async with plant.run() as process:
        process.bus.deliver("scheduler.build.retry", encode({"id": "b1"}), reply=process.bus.new_inbox())
        await until(lambda: process.reports)
        report = process.report[1]
        sent_now = wire(process)
    assert "rekeyed" in flat(plant.broker.told())
    assert all(OLD_KEY not in one.reply for one in sent_now)
    first = next(one for one in report["changes"] if one["_component_id"] == "a")
    assert "vpc-7" in json.dumps(first)


async def test_a_late_success_is_found_by_the_token_of_any_attempt(autojump_clock: MockClock) -> None:
    """Captured after the build was over, under the provider that was asked, and under no other."""
    plant = Plant(ignore)
    value = document([change("a", _timeout=10), change("b", _timeout=10)])
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: process.reports)
        replies = {component["_component_id"]: message.reply for message, component in plant.requests}
    plant.broker.publish(replies["a"], encode({"_state": "completed", "vpc_id": "vpc-7"}))
    plant.broker.publish(
        replies["b"].replace(".aws.", ".gcp."), encode({"_state": "completed", "vpc_id": "x"})
    )
    plant.requests.clear()
    async with plant.run() as process:
        process.bus.deliver("scheduler.build.retry", encode({"id": "b1"}), reply=process.bus.new_inbox())
        await trio.sleep(5)
        assert process.requests == ["b"]
