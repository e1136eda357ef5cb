"""When everything is collected: the decision, and the task that carries it out."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import gc
import sys
from collections import deque
from collections.abc import Iterator
from weakref import ref

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import Reply, Site, document, encode, ignore, open_service
from trio.testing import MockClock

from scheduler.runtime import collector
from scheduler.runtime.collector import (
    BETWEEN_FORCED,
    BETWEEN_RESTS,
    BLOCKS_A_BUILD,
    BLOCKS_A_COMPONENT,
    BYTES_A_BLOCK,
    MOST_OF_EXPLAINED,
    MOST_UNEXPLAINED,
    REST,
    CollectionReason,
    Collector,
    Load,
    Schedule,
    collect,
)
from scheduler.service import load_of

IDLE = Load()
BUSY = Load(builds=1, components=100)
BASE = 50_000
MUCH = BASE + BUSY.blocks + MOST_UNEXPLAINED + 1


def schedule() -> Schedule:
    return Schedule(0.0, BASE)


def test_who_has_done_nothing_has_nothing_to_collect() -> None:
    """A service that never had a build is left alone."""
    one = schedule()
    assert {one.decide(now, IDLE, BASE) for now in range(10_000)} == {None}


def test_after_work_it_is_done_once_when_nothing_has_happened_for_a_while() -> None:
    """Not in the pause between two builds, and not again before there was something to do."""
    one = schedule()
    assert one.decide(10.0, BUSY, BASE) is None
    assert one.decide(10.0 + REST / 2, IDLE, BASE) is None
    assert one.decide(10.0 + REST, IDLE, BASE) is CollectionReason.IDLE
    one.collected(10.0 + REST, CollectionReason.IDLE, IDLE, BASE)
    assert {one.decide(now, IDLE, BASE) for now in range(20, 10_000)} == {None}


def test_small_builds_now_and_then_do_not_cost_a_collection_each() -> None:
    """Between two of them there is a minute."""
    one = schedule()
    times = []
    for now in range(600):
        load = BUSY if now % 10 == 0 else IDLE
        reason = one.decide(float(now), load, BASE)
        if reason is not None:
            one.collected(float(now), reason, load, BASE)
            times.append(now)
    assert 9 <= len(times) <= 600 / BETWEEN_RESTS + 1


def test_a_build_that_is_being_read_keeps_it_from_resting() -> None:
    """What is about to be taken is work, too."""
    one = schedule()
    one.decide(1.0, BUSY, BASE)
    assert one.decide(100.0, Load(bytes=10), BASE) is None


def test_memory_that_no_build_explains_is_collected_while_builds_run() -> None:
    """A block above what may be left unexplained, and not at it."""
    assert schedule().decide(1.0, BUSY, MUCH - 1) is None
    assert schedule().decide(1.0, BUSY, MUCH) is CollectionReason.MEMORY


def test_what_builds_explain_is_no_reason() -> None:
    """Components that are there, and builds that are being read, take memory."""
    most = BLOCKS_A_BUILD + 10_000 * BLOCKS_A_COMPONENT + 8_000_000 // BYTES_A_BLOCK + MOST_UNEXPLAINED
    assert schedule().decide(1.0, Load(1, 10_000, 8_000_000), BASE + most) is None
    assert schedule().decide(1.0, BUSY, BASE + most) is CollectionReason.MEMORY


def test_ten_thousand_small_builds_are_no_reason() -> None:
    """Each takes more than its component; beside them a part of what they explain may be unexplained."""
    load = Load(10_000, 10_000)
    each = BLOCKS_A_BUILD + BLOCKS_A_COMPONENT
    assert each * 10_000 * MOST_OF_EXPLAINED > MOST_UNEXPLAINED
    most = int(each * 10_000 * (1 + MOST_OF_EXPLAINED))
    assert schedule().decide(1.0, load, BASE + most) is None
    assert schedule().decide(1.0, load, BASE + most + 1) is CollectionReason.MEMORY


async def test_what_a_small_build_explains_is_about_what_it_takes(autojump_clock: MockClock) -> None:
    """A build of one component that waits for its reply, and all that is kept of it."""
    count = 200
    async with open_service(script=ignore) as site:
        await site.submit(document("a", build="warm"))
        await trio.sleep(1)
        gc.collect()
        before = sys.getallocatedblocks()
        for number in range(count):
            await site.submit(document("a", build=f"b{number}"))
        await trio.sleep(1)
        gc.collect()
        each = (sys.getallocatedblocks() - before) / count
    explained = BLOCKS_A_BUILD + BLOCKS_A_COMPONENT
    assert explained / (1 + MOST_OF_EXPLAINED) < each < explained * (1 + MOST_OF_EXPLAINED)


def test_it_is_forced_once_in_ten_minutes_at_most() -> None:
    """However much there is, and whether or not it helps."""
    one, times = schedule(), []
    for now in range(3_000):
        blocks = MUCH + now * MOST_UNEXPLAINED
        if one.decide(float(now), BUSY, blocks) is CollectionReason.MEMORY:
            one.collected(float(now), CollectionReason.MEMORY, BUSY, blocks)
            times.append(now)
    assert times == list(range(0, 3_000, int(BETWEEN_FORCED)))


def test_what_a_collection_could_not_free_is_no_reason_for_the_next() -> None:
    """Memory that is in use for another reason does not have everything collected again and again."""
    one = schedule()
    assert one.decide(1.0, BUSY, MUCH) is CollectionReason.MEMORY
    one.collected(1.0, CollectionReason.MEMORY, BUSY, MUCH)
    assert one.decide(10_000.0, BUSY, MUCH) is None
    assert one.decide(10_000.0, BUSY, MUCH + MOST_UNEXPLAINED + 1) is CollectionReason.MEMORY


@given(st.lists(st.tuples(st.floats(0.1, 100), st.booleans(), st.integers(0, 10**8)), max_size=60))
def test_whatever_happens_pauses_are_rare(looks: list[tuple[float, bool, int]]) -> None:
    """Forced ones are ten minutes apart, and others come when nothing is there to wait for them."""
    one, now, forced = schedule(), 0.0, -BETWEEN_FORCED
    for step, busy, blocks in looks:
        now += step
        load = BUSY if busy else IDLE
        reason = one.decide(now, load, blocks)
        assert reason is not CollectionReason.IDLE or not busy
        if reason is CollectionReason.MEMORY:
            assert now - forced >= BETWEEN_FORCED
            forced = now
        if reason is not None:
            one.collected(now, reason, load, blocks)


class Knot:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def _collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


@pytest.mark.usefixtures("_collector_off")
def test_what_was_frozen_is_passed_over_unless_everything_is_collected() -> None:
    """What became garbage after it was frozen is found by a forced collection alone."""
    knot = Knot()
    there = ref(knot)
    collect(everything=False)
    del knot
    collect(everything=False)
    assert there() is not None
    found, seconds = collect(everything=True)
    assert there() is None
    assert found >= 1
    assert seconds > 0


@pytest.mark.usefixtures("_collector_off")
async def test_the_task_collects_when_the_service_rests(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage of a build goes when nothing else comes; how long that took is told."""
    load = BUSY
    monkeypatch.setattr(collector, "_LONG", 0.0)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(Collector(lambda: load).run)
            knot = Knot()
            there = ref(knot)
            # Until it counts as old.
            await trio.sleep(2)
            del knot
            await trio.sleep(100)
            assert there() is not None
            load = IDLE
            await trio.sleep(REST + 2)
            assert there() is None
            nursery.cancel_scope.cancel()
    [line] = [line for line in logs if line["event"] == "garbage collected"]
    assert line["reason"] == "idle"
    assert line["seconds"] > 0
    assert line["objects"] >= 1


@pytest.mark.usefixtures("_collector_off")
async def test_the_task_collects_while_builds_run_where_it_must(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage that piles up beside a build that never ends is found."""
    monkeypatch.setattr(collector, "MOST_UNEXPLAINED", 20_000)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(Collector(lambda: BUSY).run)
            for _ in range(100_000):
                Knot()
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
    [line] = [line for line in logs if line["event"] == "garbage collected"]
    assert (line["reason"], line["log_level"]) == ("memory that no build explains", "warning")
    assert line["objects"] >= 100_000
    assert line["blocks"] < line["blocks_before"] - 20_000


@pytest.mark.usefixtures("_collector_off")
async def test_young_objects_do_not_pile_up_while_builds_run(autojump_clock: MockClock) -> None:
    """Where as many old ones are freed as new ones are made, nothing else would have them walked."""
    async with trio.open_nursery() as nursery:
        await nursery.start(Collector(lambda: BUSY).run)
        kept = deque([[number] for number in range(20_000)])
        for _ in range(20):
            for number in range(1_000):
                kept.append([number])
                kept.popleft()
            await trio.sleep(1)
        await trio.sleep(1.5)
        assert not {id(one) for one in gc.get_objects(generation=0)} & {id(one) for one in kept}
        nursery.cancel_scope.cancel()


def load(site: Site) -> Load:
    """What a service has to do with that takes builds in at once."""
    return load_of(site.service.roster, site.service.connectors)


async def test_a_service_says_what_it_has_to_do_with(autojump_clock: MockClock) -> None:
    """Builds count from their acceptance to their end: their components, their bytes and replies."""
    async with open_service(script=ignore) as site:
        assert load(site) == IDLE
        data = encode(document("abc"))
        await site.submit(data)
        await trio.sleep(1)
        assert load(site) == Load(1, 3, len(data))
        site.cloud.answer("a", Reply(fields={"text": "x" * 10_000}))
        await trio.sleep(1)
        assert 10_000 < load(site).bytes - len(data) < 11_000
        for name in "bc":
            site.cloud.answer(name)
        await trio.sleep(1)
        assert load(site).idle
