"""Progress on `scheduler.event.<build>`: how often, in what order, and that nothing is lost."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json

import pytest
import trio
from fake_bus import FakeBus
from fakes import JSON
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.feed import Feed, Track
from scheduler.model import State


@pytest.fixture
async def feed(fake_bus: FakeBus, nursery: trio.Nursery) -> Feed:
    feed = Feed(fake_bus)
    nursery.start_soon(feed.run)
    return feed


def messages(bus: FakeBus, build: str = "b1") -> list[JSON]:
    """What was published about a build, in order."""
    return [json.loads(one.data) for one in bus.published if one.subject == f"scheduler.event.{build}"]


def told(bus: FakeBus, build: str = "b1") -> list[str]:
    """The components of all events, in order."""
    return [event["component"] for message in messages(bus, build) for event in message["events"]]


async def test_a_message_says_where_the_build_stands_and_what_happened(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A message has the version, the build, its number, the totals, and the events with their errors."""
    track = feed.follow("b1", 3, 1)
    track.note("a", State.RUNNING, None)
    track.note("a", State.COMPLETED, None)
    track.note("b", State.ERRORED, "x" * 5_000)
    await trio.sleep(1)
    [message] = messages(fake_bus)
    events = message.pop("events")
    assert message.pop("time") >= events[-1]["time"]
    assert message == {"v": 1, "build": "b1", "seq": 1, "total": 3, "done": 2}
    assert [(event["component"], event["state"]) for event in events] == [
        ("a", "running"),
        ("a", "completed"),
        ("b", "errored"),
    ]
    assert "error" not in events[1]
    assert events[2]["error"] == "x" * 1_000


async def test_a_build_id_is_one_token_of_the_subject(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Whatever a build is called, its events go out on one subject of three tokens."""
    feed.follow("a.b/c:d@e", 1, 0).note("a", State.RUNNING, None)
    await trio.sleep(1)
    [message] = fake_bus.published
    assert message.subject == "scheduler.event.a=2Eb=2Fc=3Ad=40e"


async def test_no_more_than_ten_messages_a_second_go_out_about_a_build(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """What happens within a tenth of a second travels together, numbered, and nothing of it is lost."""
    track = feed.follow("b1", 2_000, 0)
    names = []
    for number in range(2_000):
        await trio.sleep(0.001)
        track.note(f"c{number}", State.COMPLETED, None)
        names.append(f"c{number}")
    await trio.sleep(1)
    sent = messages(fake_bus)
    assert 15 <= len(sent) <= 21
    assert [message["seq"] for message in sent] == list(range(1, len(sent) + 1))
    assert told(fake_bus) == names
    assert sent[-1]["done"] == 2_000


async def test_very_many_events_at_once_go_out_in_messages_of_bounded_size(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A message holds a thousand events at most."""
    track = feed.follow("b1", 2_500, 0)
    for number in range(2_500):
        track.note(f"c{number}", State.RUNNING, None)
    await trio.sleep(1)
    assert [len(message["events"]) for message in messages(fake_bus)] == [1_000, 1_000, 500]
    assert [message["seq"] for message in messages(fake_bus)] == [1, 2, 3]


async def test_builds_do_not_mix(feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """Each build has messages and numbers of its own."""
    tracks = {name: feed.follow(name, 1, 0) for name in ("one", "two")}
    for _ in range(3):
        for name, track in tracks.items():
            track.note(f"of-{name}", State.RUNNING, None)
        await trio.sleep(1)
    for name in tracks:
        assert told(fake_bus, name) == [f"of-{name}"] * 3
        assert [message["seq"] for message in messages(fake_bus, name)] == [1, 2, 3]


async def test_the_rest_goes_out_when_the_build_is_closed(feed: Feed, fake_bus: FakeBus) -> None:
    """What was not told yet is published at once, before whatever is published next, and only once."""
    track = feed.follow("b1", 1, 0)
    track.note("a", State.COMPLETED, None)
    feed.close(track)
    fake_bus.publish("build.create.done", b"{}")
    await wait_all_tasks_blocked()
    assert [one.subject for one in fake_bus.published] == ["scheduler.event.b1", "build.create.done"]
    assert feed._stirred == {}


async def test_nothing_is_published_where_nothing_happens(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A build in which nothing happens costs no message, and no look at the clock."""
    track = feed.follow("b1", 1, 0)
    await trio.sleep(10)
    feed.close(track)
    await wait_all_tasks_blocked()
    assert fake_bus.published == []
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


async def test_what_happens_while_the_broker_is_away_is_told_afterwards(
    feed: Feed, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """During an outage events are kept, and go out together once it is over."""
    track = feed.follow("b1", 100, 0)
    fake_bus.disconnect()
    for number in range(100):
        track.note(f"c{number}", State.RUNNING, None)
        await trio.sleep(0.3)
    assert fake_bus.queued == 0
    fake_bus.reconnect()
    await trio.sleep(1)
    assert len(messages(fake_bus)) == 1
    assert len(told(fake_bus)) == 100


async def test_a_bus_that_takes_nothing_more_stops_nobody(autojump_clock: MockClock) -> None:
    """The feed is a courtesy: where it cannot be published it is dropped, and others' go on."""
    bus = FakeBus(max_payload=300)
    async with trio.open_nursery() as nursery:
        feed = Feed(bus)
        nursery.start_soon(feed.run)
        large, small = feed.follow("large", 1, 0), feed.follow("small", 1, 0)
        large.note("x" * 500, State.RUNNING, None)
        small.note("a", State.RUNNING, None)
        await trio.sleep(1)
        assert told(bus, "small") == ["a"]
        large.note("b", State.RUNNING, None)
        await trio.sleep(1)
        assert told(bus, "large") == ["b"]
        nursery.cancel_scope.cancel()


async def test_a_note_is_synchronous_and_needs_no_loop_of_its_own(fake_bus: FakeBus) -> None:
    """Notes are taken before the feed runs, and closing tells them."""
    track = Track(Feed(fake_bus), "b1", 1, 0)
    track.note("a", State.RUNNING, None)
    track.flush(fake_bus)
    await wait_all_tasks_blocked()
    assert told(fake_bus) == ["a"]
