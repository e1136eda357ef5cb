"""A build whose log is beyond this version: it is left to other instances, and nothing else suffers."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager

import pytest
import structlog
import trio
from support.durable import Plant, Process, log_of, until, wall_clock
from support.fake_bus import Published
from support.fakes import document, ignore
from support.instances import Other
from trio.testing import MockClock

from scheduler.config import parse_rules
from scheduler.definition.strictjson import Raw
from scheduler.fleet.lease import Standing
from scheduler.fleet.news import NEWS
from scheduler.fleet.sharing import Sharing
from scheduler.jetstream.streams import LOG
from scheduler.journal.events import Accepted, Event, Finished, Loading, Released, Reported, Sent, Started
from scheduler.journal.records import Elsewhere, Position, compose, headers_of, instance_of, record
from scheduler.journal.records.wire import encode_event, read_event
from scheduler.recovery.loader import CURE, LEFT, MORE
from scheduler.recovery.reviewing import ENDED, HAS_IT

CHAIN = document("ab", [("a", "b")])
DIGEST = "00" * 16


def write_strange(plant: Plant, event: bytes, build: str = "b1", process: str = "other") -> None:
    """Append a record with an event to a log, as another process that has gone would, and one behind it."""
    for one in (event, encode_event(Sent("a", "b1/a/1") if process == "other" else Released())):
        n = len(plant.broker.messages(LOG, log_of(build))) + 1
        record_id = f"{process}-1-{n}-0123abcd"
        data = compose(
            n=n,
            epoch=1,
            instance=process,
            record_id=record_id,
            at=int(wall_clock() * 1_000),
            position=Position(),
            events=[one],
        )
        headers = headers_of(record_id, "open", 0)
        plant.broker.jetstream.take(Published(log_of(build), data, "", headers))


async def strange() -> Plant:
    """A plant with a log that has an event which this version does not know."""
    plant = Plant(ignore)
    await plant.broker.set_up()
    plant.broker.write(Accepted(CHAIN, DIGEST, "0123456789abcdef"), digest=DIGEST)
    plant.broker.write(Started("a", "b1/a/1", b""))
    write_strange(plant, b'{"event":"annotated","text":"hello"}')
    return plant


def owner(plant: Plant) -> str:
    """The process that has the build, as its log says."""
    return instance_of(plant.broker.headers()[-1]["Scheduler-Record"])


def is_shown(process: Process) -> bool:
    return "b1" in process.service.roster.quarantined


async def take(plant: Plant, process: Process, nursery: trio.Nursery) -> Other:
    """Have another instance come, and take the build."""
    other = Other(plant.broker)
    await other.open(nursery)
    fleet = process.service.persistence.fleet
    assert fleet is not None
    await until(fleet.others, 10)
    plant.broker.write(Loading(), epoch=3)
    return other


async def test_nobody_has_it_and_the_others_are_told(autojump_clock: MockClock) -> None:
    """The error names the build, the event and the cure; what is asked about it is answered so, too."""
    plant = await strange()
    with structlog.testing.capture_logs() as logs:
        async with plant.run() as process:
            await until(lambda: is_shown(process), 5)
            await trio.sleep(1)
            told = [one.data for one in process.bus.published if one.subject == NEWS]
            assert owner(plant) == ""
            assert told[-1] == b"orphans"
            assert plant.requests == []
            reason = process.service.roster.quarantined["b1"]
            assert "'annotated'" in reason
            assert reason.endswith(CURE)
            assert (await process.submit(document("c", build="b3")))["status"] == "accepted"
    [line] = [line for line in logs if line["event"] == LEFT]
    assert (line["build"], line["cure"]) == ("b1", CURE)
    assert "the event 'annotated' is not known here" in line["reason"]


async def test_many_builds_that_are_left_are_no_storm(autojump_clock: MockClock) -> None:
    """The log names some and counts the others, and the others are told once; all can be asked about."""
    plant = Plant(ignore)
    await plant.broker.set_up()
    builds = [f"b{number}" for number in range(100)]
    for build in builds:
        plant.broker.write(Accepted({**CHAIN, "id": build}, DIGEST, "0" * 16), build=build, digest=DIGEST)
        write_strange(plant, b'{"event":"annotated","text":"hello"}', build=build)
    with structlog.testing.capture_logs() as logs:
        async with plant.run() as process:
            await until(lambda: len(process.service.roster.quarantined) == len(builds), 20)
            await trio.sleep(5)
            told = [one for one in process.bus.published if (one.subject, one.data) == (NEWS, b"orphans")]
            assert 1 <= len(told) <= 3
    assert len([line for line in logs if line["event"] == LEFT]) == 20
    [more] = [line for line in logs if line["event"] == MORE]
    assert more["builds"] == 80
    assert len(logs) < 60


async def test_a_status_that_is_not_known_here_is_beyond_this_version_too(autojump_clock: MockClock) -> None:
    """It is shown with the same cure. Nothing is written behind such a record."""
    plant = Plant(ignore)
    await plant.broker.set_up()
    plant.broker.write(Accepted(CHAIN, DIGEST, "0123456789abcdef"), digest=DIGEST, status="resting")
    async with plant.run() as process:
        await until(lambda: is_shown(process), 5)
        assert process.service.roster.quarantined["b1"].endswith(CURE)
        assert len(plant.broker.headers()) == 1


async def test_a_later_build_of_its_id_is_in_no_quarantine(autojump_clock: MockClock) -> None:
    """It was submitted here soon after the other one was removed, and runs."""
    plant = Plant(ignore)
    async with plant.run() as process:
        roster = process.service.roster
        roster.quarantined["b1"] = roster.left["b1"] = "beyond this version"
        assert (await process.submit(document("c", build="b1")))["status"] == "accepted"
        await trio.sleep(4)
        assert not is_shown(process)
        assert not roster.set_aside("b1")
        assert roster.ids() == ["b1"]


@pytest.mark.parametrize("passing", [True, False])
async def test_what_failed_for_a_while_may_be_tried_again(autojump_clock: MockClock, passing: bool) -> None:
    """Once another instance has had it for half a minute: when that one ends, this one takes it up."""
    plant = Plant(ignore)
    async with plant.run() as process, trio.open_nursery() as nursery:
        roster = process.service.roster
        plant.broker.write(Accepted(CHAIN, DIGEST, "0123456789abcdef"), digest=DIGEST)
        roster.quarantined["b1"] = roster.left["b1"] = "the log could not be read"
        if passing:
            roster.passing.add("b1")
        other = await take(plant, process, nursery)
        await trio.sleep(20)
        assert "b1" in roster.left
        await trio.sleep(20)
        assert ("b1" in roster.left) is not passing
        other.renews = False
        # The renewal that is under way is through.
        await trio.sleep(3)
        await other.renew(Standing.GONE)
        process.bus.deliver(NEWS, b"")
        await trio.sleep(10)
        assert (roster.walk("b1") is not None) is passing
        nursery.cancel_scope.cancel()


async def test_it_is_tried_once_by_each(autojump_clock: MockClock) -> None:
    """Two that cannot read it do not pass it to each other for ever."""
    plant = await strange()
    async with plant.run() as process, trio.open_nursery() as nursery:
        await until(lambda: is_shown(process), 5)
        other = await take(plant, process, nursery)
        await until(lambda: not is_shown(process), 10)
        length = len(plant.broker.headers())
        other.renews = False
        await until(lambda: is_shown(process), 60)
        await trio.sleep(2_000)
        assert len(plant.broker.headers()) == length
        nursery.cancel_scope.cancel()


async def test_once_another_instance_has_it_it_is_in_quarantine_no_more(autojump_clock: MockClock) -> None:
    """Nor is anybody who asks here for its report told so once it has ended."""
    plant = await strange()
    with structlog.testing.capture_logs() as logs:
        async with plant.run() as process, trio.open_nursery() as nursery:
            await until(lambda: is_shown(process), 5)
            await take(plant, process, nursery)
            await until(lambda: not is_shown(process), 5)
            plant.broker.write(Finished("no more"), epoch=3, status="finished")
            plant.broker.write(Reported(1), epoch=3, status="reported")
            await until(lambda: not process.service.roster.left, 5)
            assert not is_shown(process)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs if line["event"] in {HAS_IT, ENDED}] == [HAS_IT, ENDED]


@pytest.mark.parametrize("news", [b"orphans", b""])
async def test_word_of_a_build_that_was_left_is_heard_at_once(autojump_clock: MockClock, news: bytes) -> None:
    """The logs are looked at for that; other news is of leases alone."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await trio.sleep(100)
        digest = "00" * 16
        plant.broker.write(Accepted(CHAIN, digest, "0123456789abcdef"), digest=digest)
        process.bus.deliver(NEWS, news)
        took = await until(lambda: process.service.roster.see("b1"), 700)
        assert (took < 5) is (news == b"orphans")


async def test_what_is_in_flight_of_a_build_that_is_left_counts_until_another_instance_counts_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the limits over the fleet: each that leaves it names the process which counted it last."""
    plant = Plant(ignore, rules=parse_rules("vpc.*.*=2"))
    async with plant.run() as first:
        assert (await first.submit(document("ab")))["status"] == "accepted"
        await trio.sleep(2)
    write_strange(plant, b'{"event":"annotated","text":"hello"}', process="p1")
    async with plant.run() as second:
        await until(lambda: is_shown(second), 20)
        await trio.sleep(1)
        assert plant.broker.headers()[-1]["Scheduler-Counted-By"] == "p1"
    async with plant.run() as third:
        await until(lambda: is_shown(third), 20)
        await trio.sleep(1)
        assert owner(plant) == ""
        assert plant.broker.headers()[-1]["Scheduler-Counted-By"] == "p1"
        assert (await third.submit(document("cd", build="b2")))["status"] == "accepted"
        await trio.sleep(100)
        assert [one["_component_id"] for _, one in plant.requests] == ["a", "b"]
    monkeypatch.setattr(record, "read_event", lambda data, place: known(data, place, read_event))
    counted: list[str] = []
    taking_over = Sharing.taking_over

    def watch(sharing: Sharing, owners: Iterable[str]) -> AbstractAsyncContextManager[None]:
        named = list(owners)
        counted.extend(named)
        return taking_over(sharing, named)

    monkeypatch.setattr(Sharing, "taking_over", watch)
    async with plant.run() as fourth:
        await until(lambda: fourth.service.roster.holds("b1"), 20)
        # Its part is freed only once what is in flight is counted here.
        assert "p1" in counted
        await trio.sleep(30)
        assert len(plant.requests) == 2
        plant.answer("a")
        await trio.sleep(30)
        assert len(plant.requests) == 3


def known(
    data: bytes | Raw, place: str, read: Callable[[bytes | Raw, str], Event | Elsewhere]
) -> Event | Elsewhere:
    """Read an event as a version that knows one more, without an effect."""
    return Released() if b"annotated" in bytes(data) else read(data, place)
