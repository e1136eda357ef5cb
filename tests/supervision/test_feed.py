"""Progress on `scheduler.event.<build>`: how often, in what order, and that nothing is lost."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.bench import Bench, open_bench
from support.builds import build, change, prepare
from support.fake_bus import FakeBus
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.reply_subjects import beat_subject
from scheduler.definition.strictjson import decode, encode
from scheduler.dispatch.call import Call
from scheduler.journal.timings import Timings
from scheduler.plan import Plan, Request
from scheduler.plan.outcome import failure
from scheduler.plan.steering import cancel
from scheduler.supervision.feed import Feed, Track

JSON = dict[str, Any]
NOW = 1_800_000_000.0


class Clock:
    """Seconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def follow(
    feed: Feed,
    name: str = "b1",
    size: int = 3,
    completed: Callable[[str, float], None] = lambda _subject, _seconds: None,
    clock: Clock | None = None,
    **fields: Any,
) -> Track:
    """What is told of a build of so many components, `c0` and following."""
    changes = [change(f"c{number}", **fields) for number in range(size)]
    plan = Plan(prepare(build(*changes, id=name)))
    return Track(feed, plan, Timings(size, NOW, clock or Clock()), completed)


@pytest.fixture
async def feed(fake_bus: FakeBus, nursery: trio.Nursery) -> Feed:
    feed = Feed(fake_bus)
    nursery.start_soon(feed.run)
    return feed


@pytest.fixture
def feed_less(fake_bus: FakeBus) -> Feed:
    """A feed that does not run."""
    return Feed(fake_bus)


def messages(bus: FakeBus, build: str = "b1") -> list[JSON]:
    """What was published about a build, in order."""
    return [json.loads(one.data) for one in bus.published if one.subject == f"scheduler.event.{build}"]


def events(bus: FakeBus, build: str = "b1") -> list[JSON]:
    """All events of a build, in order."""
    return [event for message in messages(bus, build) for event in message["events"]]


def told(bus: FakeBus, build: str = "b1") -> list[str]:
    """The components of all events, in order."""
    return [event["component"] for event in events(bus, build)]


def noted(track: Track) -> list[JSON]:
    """The events of a build that are not published yet, in order."""
    told: list[JSON] = decode(encode(track._events))
    return told


def numbers(bus: FakeBus, build: str = "b1") -> list[int]:
    return [event["seq"] for event in events(bus, build)]


async def test_a_message_says_where_the_build_stands_and_what_happened(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A message has the version, the build, the number of its last event, the counts, and the events."""
    clock = Clock()
    plan = Plan(prepare(build(*map(change, "abc"), id="b1", options={"on_error": "continue"})))
    track = Track(feed, plan, Timings(3, NOW, clock), lambda _subject, _seconds: None)
    requests = []
    for vertex in (0, 1):
        track.due(vertex)
        clock.now += 0.25
        request = plan.begin(vertex)
        assert isinstance(request, Request)
        requests.append(request)
        plan.sent(vertex)
        track.sent(vertex, 1)
    clock.now += 2
    plan.settle(requests[0], failure("no"))
    track.settled(0, 1, "x" * 5_000)
    await trio.sleep(1)
    [message] = messages(fake_bus)
    assert message == {
        "v": 2,
        "build": "b1",
        "source": track.source,
        "seq": 4,
        "time": NOW + 2.5,
        "total": 3,
        "done": 0,
        "counts": {
            "waiting": 1,
            "running": 1,
            "retrying": 0,
            "completed": 0,
            "errored": 1,
            "skipped": 0,
        },
        "events": [
            {
                "seq": 1,
                "time": NOW + 0.25,
                "component": "a",
                "state": "running",
                "attempt": 1,
                "waited": 0.25,
            },
            {"seq": 2, "time": NOW + 0.5, "component": "b", "state": "running", "attempt": 1, "waited": 0.25},
            {
                "seq": 3,
                "time": NOW + 2.5,
                "component": "a",
                "state": "errored",
                "attempt": 1,
                "seconds": 2.25,
                "error": "x" * 1_000,
            },
            {
                "seq": 4,
                "time": NOW + 2.5,
                "event": "failing",
                "component": "a",
                "error": "x" * 1_000,
            },
        ],
    }


def test_the_first_failure_is_an_event_of_its_own_and_the_second_is_not(feed_less: Feed) -> None:
    """Once a run, for who wants to know that, and not every error."""
    track = follow(feed_less)
    for vertex in (0, 1):
        track.plan.fail(vertex, "no")
        track.settled(vertex, 1, "no")
    assert [one["component"] for one in noted(track) if one.get("event") == "failing"] == ["c0"]


def test_a_failure_after_a_cancel_is_no_first_failure(feed_less: Feed) -> None:
    """Who cancelled knows that it does not end well."""
    track = follow(feed_less)
    cancel(track.plan)
    track.plan.fail(0, "no")
    track.settled(0, 1, "no")
    assert [one.get("event") for one in noted(track)] == [None]


def test_an_attempt_that_an_operator_gives_up_is_no_failure_of_the_build(feed_less: Feed) -> None:
    """Nothing of the build has failed: another attempt follows."""
    track = follow(feed_less)
    track.settled(0, 1, "given up by an operator")
    assert [one.get("event") for one in noted(track)] == [None]


@pytest.mark.parametrize(("status", "error"), [("done", None), ("errored", "c0: no")])
def test_the_end_is_the_last_event(feed_less: Feed, status: str, error: str | None) -> None:
    """It has the status of the report, and its error where there is one."""
    track = follow(feed_less)
    track.settled(0, 1, None)
    track.end(status, error)
    told = {"seq": 2, "time": NOW, "event": "finished", "status": status}
    assert noted(track)[-1] == (told if error is None else told | {"error": error})


def test_what_an_earlier_process_sent_runs_since_then(feed_less: Feed) -> None:
    """What it took is told whole; nothing is learnt from it, as it may have been answered long ago."""
    clock, learnt = Clock(), list[tuple[str, float]]()
    track = follow(feed_less, clock=clock, completed=lambda subject, took: learnt.append((subject, took)))
    track.timings.note_sent(0, NOW - 100)
    track.resumed(0, 1)
    track.resumed(1, 1)
    clock.now += 5
    # Of this one it is known that it left just now.
    track.departed(1)
    clock.now += 2
    track.settled(0, 1, None)
    track.settled(1, 1, None)
    ends = [event for event in noted(track) if event["state"] == "completed"]
    assert [event["seconds"] for event in ends] == [107, 2]
    assert [took for _, took in learnt] == [2]


def test_an_attempt_after_a_restart_is_learnt_from(feed_less: Feed) -> None:
    """It began and ended here."""
    clock, learnt = Clock(), list[float]()
    track = follow(feed_less, clock=clock, completed=lambda _, took: learnt.append(took))
    track.resumed(0, 1)
    track.retries(0, 1, "busy", 1.0)
    track.sent(0, 2)
    clock.now += 3
    track.settled(0, 2, None)
    assert learnt == [3]


def test_what_is_given_up_between_two_attempts_took_no_time(feed_less: Feed) -> None:
    """Its last attempt has been told; a late success took all the time since it was sent."""
    clock = Clock()
    track = follow(feed_less, clock=clock)
    for vertex in (0, 1):
        track.sent(vertex, 1)
    clock.now += 4
    for vertex in (0, 1):
        track.retries(vertex, 1, "timed out", 60.0)
    clock.now += 6
    track.settled(0, 1, "timed out")
    track.settled(1, 1, None)
    given_up, late = noted(track)[-2:]
    assert ("seconds" in given_up, late["seconds"]) == (False, 10)


async def test_an_attempt_that_is_followed_by_another(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """The event says how long it took, why it failed, and when the next one follows; that waits from then."""
    clock = Clock()
    track = follow(feed, clock=clock)
    track.due(0)
    track.sent(0, 1)
    clock.now += 3
    track.retries(0, 1, "503", 1.23456)
    clock.now += 2
    track.sent(0, 2)
    await trio.sleep(1)
    _, second, third = events(fake_bus)
    assert second == {
        "seq": 2,
        "time": NOW + 3,
        "component": "c0",
        "state": "retrying",
        "attempt": 1,
        "seconds": 3.0,
        "error": "503",
        "retry_in": 1.235,
    }
    assert (third["state"], third["attempt"]) == ("running", 2)


async def test_what_happens_to_the_whole_build(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """What an operator does is an event of its own, with the component where it is about one."""
    track = follow(feed)
    track.happened("paused")
    track.happened("extended", 1)
    track.skipped([1, 2])
    track.waits(1)
    await trio.sleep(1)
    assert events(fake_bus) == [
        {"seq": 1, "time": NOW, "event": "paused"},
        {"seq": 2, "time": NOW, "event": "extended", "component": "c1"},
        {"seq": 3, "time": NOW, "component": "c1", "state": "skipped"},
        {"seq": 4, "time": NOW, "component": "c2", "state": "skipped"},
        {"seq": 5, "time": NOW, "component": "c1", "state": "waiting"},
    ]


async def test_what_was_not_sent_took_no_time(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A component that completes without a request has no duration."""
    track = follow(feed)
    track.due(0)
    track.settled(0, 1, None)
    await trio.sleep(1)
    [event] = events(fake_bus)
    assert event == {"seq": 1, "time": NOW, "component": "c0", "state": "completed", "attempt": 1}


async def test_durations_of_what_completed_are_recorded(feed: Feed) -> None:
    """Of each request that was answered with a success, by its subject; not of failures."""
    clock, found = Clock(), []
    track = follow(feed, completed=lambda *one: found.append(one), clock=clock)
    for vertex in range(3):
        track.sent(vertex, 1)
    clock.now += 2
    track.settled(0, 1, None)
    track.settled(1, 1, "broken")
    track.retries(2, 1, "broken", 1.0)
    assert found == [("box.create.fake", 2.0)]


async def test_what_an_operator_supplied_is_no_duration(feed: Feed) -> None:
    """How long somebody took to lose patience says nothing of the connector."""
    clock, found = Clock(), []
    track = follow(feed, completed=lambda *one: found.append(one), clock=clock)
    track.sent(0, 1)
    track.sent(1, 1)
    track.settled(0, 1, "broken")
    clock.now += 3_600
    track.settled(0, 1, None)
    track.happened("skipped", 1)
    track.settled(1, 1, None)
    assert found == []


async def test_a_build_id_is_one_token_of_the_subject(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Whatever a build is called, its events go out on one subject of three tokens."""
    follow(feed, "a.b/c:d@e").sent(0, 1)
    await trio.sleep(1)
    [message] = fake_bus.published
    assert message.subject == "scheduler.event.a=2Eb=2Fc=3Ad=40e"


async def test_no_more_than_ten_messages_a_second_go_out_about_a_build(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """What happens within a tenth of a second travels together, numbered, and nothing of it is lost."""
    track = follow(feed, size=2_000)
    for number in range(2_000):
        await trio.sleep(0.001)
        track.settled(number, 1, None)
    await trio.sleep(1)
    sent = messages(fake_bus)
    assert 15 <= len(sent) <= 21
    assert numbers(fake_bus) == list(range(1, 2_001))
    assert [message["seq"] for message in sent] == [message["events"][-1]["seq"] for message in sent]
    assert told(fake_bus) == [f"c{number}" for number in range(2_000)]


async def test_very_many_events_at_once_go_out_in_messages_of_bounded_size(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A message holds a thousand events at most, and says which is its last."""
    track = follow(feed, size=2_500)
    for number in range(2_500):
        track.sent(number, 1)
    await trio.sleep(1)
    assert [len(message["events"]) for message in messages(fake_bus)] == [1_000, 1_000, 500]
    assert [message["seq"] for message in messages(fake_bus)] == [1_000, 2_000, 2_500]


async def test_builds_do_not_mix(feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """Each build has messages and numbers of its own."""
    tracks = {name: follow(feed, name) for name in ("one", "two")}
    for number in range(3):
        for track in tracks.values():
            track.sent(number, 1)
        await trio.sleep(1)
    for name in tracks:
        assert told(fake_bus, name) == ["c0", "c1", "c2"]
        assert numbers(fake_bus, name) == [1, 2, 3]


async def test_the_rest_goes_out_when_the_build_is_closed(feed: Feed, fake_bus: FakeBus) -> None:
    """What was not told yet is published at once, before whatever is published next, and only once."""
    track = follow(feed)
    track.settled(0, 1, None)
    feed.close(track)
    fake_bus.publish("build.create.done", b"{}")
    await wait_all_tasks_blocked()
    assert [one.subject for one in fake_bus.published] == ["scheduler.event.b1", "build.create.done"]
    assert feed._stirred == {}


async def test_nothing_is_published_where_nothing_happens(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A build in which nothing happens costs no message, and no look at the clock."""
    track = follow(feed)
    await trio.sleep(10)
    feed.close(track)
    await wait_all_tasks_blocked()
    assert fake_bus.published == []
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


async def test_what_happens_while_the_broker_is_away_is_told_afterwards(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """During an outage events are kept, and go out together once it is over."""
    track = follow(feed, size=100)
    fake_bus.disconnect()
    for number in range(100):
        track.sent(number, 1)
        await trio.sleep(0.3)
    assert fake_bus.queued == 0
    fake_bus.reconnect()
    await trio.sleep(1)
    assert len(messages(fake_bus)) == 1
    assert numbers(fake_bus) == list(range(1, 101))


async def test_a_bus_that_takes_nothing_more_stops_nobody(autojump_clock: MockClock) -> None:
    """The feed is a courtesy: where it cannot be published it is dropped, others' go on, the gap is seen."""
    bus = FakeBus(max_payload=1_000)
    async with trio.open_nursery() as nursery:
        feed = Feed(bus)
        nursery.start_soon(feed.run)
        large, small = follow(feed, "large"), follow(feed, "small")
        large.plan.fail(0, "x" * 1_000)
        large.settled(0, 1, "x" * 1_000)
        small.sent(0, 1)
        await trio.sleep(1)
        assert told(bus, "small") == ["c0"]
        large.sent(1, 1)
        await trio.sleep(1)
        assert numbers(bus, "large") == [3]
        nursery.cancel_scope.cancel()


async def test_an_event_is_synchronous_and_needs_no_loop_of_its_own(fake_bus: FakeBus) -> None:
    """Events are taken before the feed runs, and closing tells them."""
    track = follow(Feed(fake_bus))
    track.sent(0, 1)
    track.flush(fake_bus)
    await wait_all_tasks_blocked()
    assert told(fake_bus) == ["c0"]


async def test_no_secret_is_told(feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """Of what a build holds, an event says ids and masked errors."""
    plan = Plan(prepare(build(change("c", password="canary-4711"), id="b1")))
    track = Track(feed, plan, Timings(1, NOW, Clock()), lambda _subject, _seconds: None)
    request = plan.begin(0)
    assert isinstance(request, Request)
    plan.sent(0)
    track.sent(0, 1)
    settled = plan.settle(request, failure("cannot log in with canary-4711"))
    track.settled(0, 1, getattr(settled, "body", {})["error"])
    await trio.sleep(1)
    text = b"".join(one.data for one in fake_bus.published)
    assert b"canary" not in text
    assert b"cannot log in with ***" in text
    assert decode(request.body)["password"] == "canary-4711"


# ---- heartbeats


class Pulsing:
    """Calls of a build's components in flight, with heartbeats."""

    def __init__(self, bench: Bench, feed: Feed, size: int = 1) -> None:
        self.bench = bench
        self.track = follow(feed, size=size)
        self.calls = [self._send(vertex) for vertex in range(size)]

    def _send(self, vertex: int) -> Call:
        request = self.track.plan.begin(vertex)
        assert isinstance(request, Request)
        return self.bench.connectors.send(request)

    async def beat(self, vertex: int = 0, **said: Any) -> None:
        """Send a heartbeat as a connector, and tell the feed, as a roster does."""
        self.bench.bus.deliver(beat_subject(self.calls[vertex].reply), json.dumps(said).encode())
        await wait_all_tasks_blocked()
        self.track.beat(self.calls[vertex])


@asynccontextmanager
async def open_pulsing(size: int = 1) -> AsyncIterator[Pulsing]:
    async with open_bench() as bench:
        feed = Feed(bench.bus)
        bench.nursery.start_soon(feed.run)
        bench.nursery.start_soon(feed.beats.run)
        yield Pulsing(bench, feed, size)


async def test_what_connectors_say_is_published_once_a_second(autojump_clock: MockClock) -> None:
    """The last word of each component, without a number, beside no events."""
    async with open_pulsing() as pulsing:
        for number in range(30):
            await pulsing.beat(progress=number / 100, message=f"step {number}", instance="c-7")
            await trio.sleep(0.1)
        await trio.sleep(2)
        found = messages(pulsing.bench.bus)
        assert [len(one["beats"]) for one in found] == [1] * len(found)
        assert 3 <= len(found) <= 4
        beat = found[-1]["beats"][0]
        beat.pop("time")
        assert beat == {
            "component": "c0",
            "attempt": 1,
            "progress": 0.29,
            "message": "step 29",
            "instance": "c-7",
        }
        assert (found[-1]["events"], found[-1]["seq"]) == ([], 0)


async def test_secrets_in_what_connectors_say_are_masked(autojump_clock: MockClock) -> None:
    """As in errors; and a long message is cut."""
    async with open_bench() as bench:
        feed = Feed(bench.bus)
        bench.nursery.start_soon(feed.beats.run)
        pulsing = Pulsing.__new__(Pulsing)
        pulsing.bench, pulsing.track = bench, follow(feed, size=1, password="s3cret-word")
        pulsing.calls = [pulsing._send(0)]
        await pulsing.beat(message="login with s3cret-word " + "x" * 900)
        await trio.sleep(2)
        [message] = messages(bench.bus)
        assert "s3cret-word" not in json.dumps(message)
        assert len(message["beats"][0]["message"]) <= 300


async def test_nothing_is_said_of_what_has_ended(autojump_clock: MockClock) -> None:
    """Neither of an attempt that was answered, nor of a build whose report is out."""
    async with open_pulsing(2) as pulsing:
        await pulsing.beat(0, progress=0.5)
        pulsing.calls[0].deliver(failure("no"))
        await trio.sleep(2)
        await pulsing.beat(1, progress=0.5)
        pulsing.track._feed.close(pulsing.track)
        await trio.sleep(2)
        assert messages(pulsing.bench.bus) == []


async def test_thousands_of_heartbeats_share_messages(autojump_clock: MockClock) -> None:
    """Five hundred of them go into one."""
    async with open_pulsing(1_200) as pulsing:
        for vertex in range(1_200):
            await pulsing.beat(vertex, progress=0.5)
        await trio.sleep(2)
        sizes = [len(one["beats"]) for one in messages(pulsing.bench.bus)]
        assert sum(sizes) == 1_200
        assert max(sizes) == 500


async def test_a_build_that_was_taken_over_names_its_owner(
    autojump_clock: MockClock, fake_bus: FakeBus, feed: Feed
) -> None:
    """Where builds are shared; a watcher then knows where to look."""
    follow(feed).taken_over(2, "scheduler-1")
    follow(feed, "b2").taken_over(0, "")
    await trio.sleep(1)
    ((first,), (second,)) = (messages(fake_bus, build)[0]["events"] for build in ("b1", "b2"))
    assert (first["event"], first["text"], first["owner"]) == ("taken_over", "2 in flight", "scheduler-1")
    assert "owner" not in second
