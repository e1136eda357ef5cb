"""When heartbeats are due."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
import math

import trio
from hypothesis import given
from hypothesis import strategies as st
from support.fake_bus import FakeBus
from trio.testing import MockClock

from scheduler.connectors.attempts import Attempt
from scheduler.connectors.beats import FIRST, Beats, BeatSchedule, Voice


def attempt(within: float = float("inf"), subject: str = "scheduler.beat.o.aws.t") -> Attempt:
    return Attempt("vpc.create.aws", b"{}", heartbeat=subject, within=within)


def test_beats_come_in_the_period() -> None:
    """An attempt that wants heartbeats gets one every ten seconds."""
    schedule = BeatSchedule()
    schedule.add(attempt(), 100.0)
    assert schedule.take(109.9) is None
    assert schedule.take(110.0) == ("scheduler.beat.o.aws.t", {})
    assert schedule.next_at() == 120.0


def test_beats_come_three_times_in_the_time_within_which_one_is_wanted() -> None:
    """A scheduler that waits less than half a minute for one is not kept waiting."""
    schedule = BeatSchedule()
    schedule.add(attempt(within=6.0), 0.0)
    assert schedule.next_at() == 2.0


def test_an_attempt_that_names_no_subject_gets_none() -> None:
    """Schedulers before this had none."""
    schedule = BeatSchedule()
    schedule.add(attempt(subject=""), 0.0)
    assert schedule.next_at() is None


def test_progress_goes_out_at_once() -> None:
    """What a handler says does not wait for the period."""
    schedule, one = BeatSchedule(), attempt()
    schedule.add(one, 0.0)
    schedule.say(one, 0.4, "attaching", 3.0)
    assert schedule.take(3.0) == (one.heartbeat, {"progress": 0.4, "message": "attaching"})
    assert schedule.next_at() == 13.0


def test_of_progress_in_between_the_latest_goes_out() -> None:
    """A handler that speaks all the time is heard five times a second, and its last word is not lost."""
    schedule, one = BeatSchedule(), attempt()
    schedule.add(one, 0.0)
    for number in range(101):
        schedule.say(one, number / 100, "", number / 1_000)
    taken = [schedule.take(at / 1_000) for at in range(1_000)]
    assert [beat[1]["progress"] for beat in taken if beat is not None] == [1.0]
    schedule = BeatSchedule()
    schedule.add(one, 0.0)
    sent = []
    for number in range(1_000):
        schedule.say(one, number / 1_000, "", number / 1_000)
        sent.append(schedule.take(number / 1_000))
    assert len([beat for beat in sent if beat is not None]) == 5
    assert schedule.take(1.1) == (one.heartbeat, {"progress": 0.999})


def test_what_was_said_is_said_again() -> None:
    """A later beat carries the progress of before: its listener may be new."""
    schedule, one = BeatSchedule(), attempt()
    schedule.add(one, 0.0)
    schedule.say(one, 0.5, "half", 0.0)
    schedule.take(0.0)
    assert schedule.take(10.0) == (one.heartbeat, {"progress": 0.5, "message": "half"})


def test_a_message_is_cut_between_its_characters() -> None:
    """A message takes at most 1 KiB, and stays text."""
    schedule, one = BeatSchedule(), attempt()
    schedule.add(one, 0.0)
    schedule.say(one, None, "é" * 1_000 + "\ud800", 0.0)
    beat = schedule.take(0.0)
    assert beat is not None
    assert beat[1]["message"] == "é" * 512


def test_the_first_beat_of_a_work_that_begins_waits_a_moment() -> None:
    """A call that has ended by then leaves none; what it says goes out at once, and counts as the first."""
    schedule = BeatSchedule()
    short, long, speaking = (attempt(subject=f"scheduler.beat.o.aws.{n}") for n in range(3))
    for one in (short, long, speaking):
        schedule.add(one, 0.0, begins=True)
    assert schedule.next_at() == FIRST
    schedule.remove(short)
    schedule.say(speaking, 0.5, "", 0.1)
    assert schedule.take(0.1) == (speaking.heartbeat, {"progress": 0.5})
    assert schedule.next_at() == FIRST
    assert schedule.take(FIRST) == (long.heartbeat, {})
    assert schedule.next_at() == 10.1


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(("say", "take", "remove")), st.integers(0, 3))),
    st.tuples(*[st.tuples(st.booleans(), st.sampled_from((3.0, math.inf)))] * 4),
)
def test_no_attempt_beats_more_often_than_allowed_or_too_seldom(
    steps: list[tuple[int, str, int]], kinds: tuple[tuple[bool, float], ...]
) -> None:
    """Whatever is said and removed, beats of one attempt are 0.2 s apart, and come within the period."""
    schedule = BeatSchedule()
    attempts = [
        attempt(within=within, subject=f"scheduler.beat.o.aws.{n}") for n, (_, within) in enumerate(kinds)
    ]
    last = dict.fromkeys((one.heartbeat for one in attempts), 0.0)
    live = {one.heartbeat for one in attempts}
    for one, (begins, _) in zip(attempts, kinds, strict=True):
        schedule.add(one, 0.0, begins=begins)
    now = 0.0
    for which, what, tenths in steps:
        now += tenths / 10
        one = attempts[which]
        while (due := schedule.next_at()) is not None and due <= now:
            at = max(due, now - 0.3)
            beat = schedule.take(at)
            assert beat is not None
            assert at - last[beat[0]] >= 0.2 - 1e-9 or last[beat[0]] == 0.0
            assert beat[0] in live
            last[beat[0]] = at
        if what == "say":
            schedule.say(one, 0.5, "", now)
        elif what == "remove":
            schedule.remove(one)
            live.discard(one.heartbeat)
    assert len(schedule) == len(live)
    if not live:
        assert schedule.next_at() is None


async def test_beats_are_sent_with_the_instance(fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """A beat says whose it is; while the broker is away there is none."""
    beats = Beats(fake_bus, "host-1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beats.run)
        one = attempt()
        beats.add(one)
        beats.begin(one)
        await trio.sleep(5)
        fake_bus.disconnect()
        await trio.sleep(10)
        fake_bus.reconnect()
        beats.say(one, 1.0, "")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    said = [json.loads(message.data) for message in fake_bus.published]
    assert said == [{"instance": "host-1"}, {"instance": "host-1", "progress": 1.0}]


async def test_a_voice_is_heard_from_a_thread(autojump_clock: MockClock) -> None:
    """A handler in a thread speaks as often as it likes, and the loop hears the latest."""
    heard: list[tuple[float | None, str]] = []
    voice = Voice(lambda share, message: heard.append((share, message)))
    for number in range(1_000):
        voice.say(number / 1_000, "")
    voice.say(None, "done")
    await trio.sleep(0.01)
    assert heard == [(0.999, "done")]
    voice.end()
    voice.say(1.0, "late")
    await trio.sleep(0.01)
    assert len(heard) == 1
