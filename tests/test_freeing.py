"""A build is freed when it is over, by nothing but the counts of references, in whatever way it ended."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import ref

import pytest
import structlog
import trio
from support.asking import ask, refused
from support.durable import Peer, Plant
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from support.fakes import (
    JSON,
    FakeStore,
    Match,
    Reply,
    Script,
    Site,
    accepted,
    change,
    document,
    encode,
    ignore,
    open_service,
)
from support.fakes import settled as settles
from support.tracers import KeepingTracer
from trio.testing import MockClock

from scheduler.definition.validation import read_build
from scheduler.errors import BuildLost, InvalidBuild
from scheduler.journal.events import Event, Loading
from scheduler.plan import Plan
from scheduler.stores.ernest import ErnestStore
from scheduler.stores.memory import MemoryStore
from scheduler.supervision.feed import Track
from scheduler.supervision.planner import Planner
from scheduler.supervision.roster import Held
from scheduler.supervision.runner import Runner
from scheduler.walk import Walk
from scheduler.walk.outcomes import Outcomes
from scheduler.walk.starts import Starts

CHAIN = document("abc", [("a", "b"), ("b", "c")], options={"limits": {"vpc.*.*": 2, "*.create.*": "1000/h"}})
"""A build with limits of its own, one of them a rate."""
WIDE = document("abcdef", [("a", "f")], options={"limits": {"vpc.*.*": 2}})
"""A build of which four wait for a slot."""
RETRIED = document([change("a", _retry={"attempts": 3, "backoff": 1, "max_backoff": 1}), "b"], [("a", "b")])
TIMED = document([change("a", _timeout=1), "b"], [("a", "b")])


OF_BUILDS = {
    *(
        "ComponentRun",
        "ComponentTasks",
        "Context",
        "Granted",
        "Hold",
        "Lineup",
        "Start",
        "Starts",
        "Outcomes",
        "Recording",
        "Resumer",
        "Runs",
        "SlotQueue",
        "Steering",
        "Tasks",
    ),
    *(
        "Usage",
        "BuildLog",
        "Call",
        "Timings",
        "Graph",
        "Held",
        "InvalidBuild",
        "Resumption",
        "Ledger",
        "PriorityQueue",
        "BuildSpans",
        "LineIds",
    ),
    *(
        "Outcome",
        "Plan",
        "Prepared",
        "Rate",
        "Report",
        "Request",
        "BuildQueue",
        "Settled",
        "Started",
        "Track",
    ),
    *("Waiter", "Walk"),
}
"""Kinds of what belongs to a build; what a whole process has is freed with that."""


class LostStore(FakeStore):
    """A store that says of some events, in a new exception each time, that it does not know the build."""

    def __init__(self, lost: Match) -> None:
        super().__init__()
        self.lost = lost

    async def append(self, build: str, events: Sequence[Event]) -> None:
        await super().append(build, events)
        if any(map(self.lost, events)):
            raise BuildLost("record not found")


class Watch:
    """Weak references to whatever the builds of this process were made of."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, ref[Any]]] = []
        self.begun = 0
        """How many builds began."""

    def add(self, kind: str, part: object) -> None:
        self.parts.append((kind, ref(part)))

    def forget(self) -> None:
        """An earlier process has died, with all that it had."""
        self.parts.clear()
        gc.collect()

    def alive(self) -> list[str]:
        """The kinds of what is still there."""
        return sorted(kind for kind, part in self.parts if part() is not None)

    def check(self, begun: int = 1) -> None:
        """All of it is gone, and so many builds had begun."""
        assert self.begun == begun
        assert self.alive() == []
        assert garbage() == {}


def garbage() -> Counter[str]:
    """What of ours the collector would find: kinds, and how many of each."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(
            kind
            for one in gc.garbage
            if (kind := type(one).__name__) in OF_BUILDS and type(one).__module__.startswith("scheduler.")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """What began while the garbage collector does nothing."""
    seen = Watch()
    start, make = Runner.start, Planner.make

    def start_and_watch(runner: Runner, held: Held, walk: Walk, track: Track) -> None:
        start(runner, held, walk, track)
        seen.begun += 1
        for part in (walk, walk.plan, walk.plan.prepared, walk.plan.build, walk.plan.graph, track):
            seen.add(type(part).__name__, part)
        usage = runner._slots.limiter.usages.get(walk.plan)
        assert usage is not None
        seen.add("Usage", usage)

    def make_and_watch(planner: Planner, *args: Any, **options: Any) -> Plan:
        # Those that are refused come no further than this.
        plan = make(planner, *args, **options)
        seen.add("Plan", plan)
        return plan

    monkeypatch.setattr(Runner, "start", start_and_watch)
    monkeypatch.setattr(Planner, "make", make_and_watch)
    gc.collect()
    gc.disable()
    try:
        yield seen
    finally:
        gc.enable()
        gc.collect()


@pytest.fixture(autouse=True)
def _log_without_locals() -> None:
    """As in the service: what shows local variables keeps the frames that they are of."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is no task: a clock that jumps would not wait for it."""

    async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", run_sync)


STORES = ("memory", "ernest", "jetstream")


@asynccontextmanager
async def open_site(store: str, script: Script = ignore, **settings: Any) -> AsyncIterator[Site]:
    """A service with this store."""
    if store == "jetstream":
        async with Plant(script).run(**settings) as process:
            yield process
    elif store == "ernest":
        bus = FakeBus()
        await ServiceStore().attach(bus)
        async with open_service(store=ErnestStore(bus), bus=bus, script=script, **settings) as site:
            yield site
    else:
        async with open_service(store=MemoryStore(), script=script, **settings) as site:
            yield site


def failing(_component: JSON) -> Sequence[Reply]:
    return [Reply("errored", fields={"error": "quota"})]


async def ended(site: Site, watch: Watch) -> None:
    """Let it come to its end, and everything settle that follows from it."""
    with trio.fail_after(100):
        while watch.alive():
            await trio.sleep(0.05)
            if not len(site.service.roster):
                # Whatever waits for company, or for its turn, has had its time.
                await trio.sleep(0.5)
                return


Ending = Callable[[Site], Any]


async def done(site: Site) -> None:
    """Everything is answered."""
    for name in "abc":
        site.cloud.answer(name)
        await trio.sleep(0.5)


async def errored_and_drained(site: Site) -> None:
    """One fails while another is in flight, and others wait for a slot."""
    site.cloud.answer("a", Reply("errored", fields={"error": "quota"}))
    await trio.sleep(0.5)
    site.cloud.answer("b")


async def cancelled(site: Site) -> None:
    await ask(site, "cancel", reason="no more")
    for name in "ab":
        site.cloud.answer(name)


async def cancelled_now(site: Site) -> None:
    await ask(site, "cancel", now=True)


async def paused_then_cancelled(site: Site) -> None:
    await ask(site, "pause")
    site.cloud.answer("a")
    await trio.sleep(0.5)
    await ask(site, "cancel")
    site.cloud.answer("b")


async def paused_then_resumed(site: Site) -> None:
    await ask(site, "pause")
    site.cloud.answer("a")
    await trio.sleep(0.5)
    await ask(site, "resume")
    await trio.sleep(0.5)
    await cancelled_now(site)


async def limited_again(site: Site) -> None:
    """Its limits are changed while components wait for them, one of them a rate with its alarm set."""
    await ask(site, "limit", limits={"vpc.*.*": "1/h", "*": 1})
    site.cloud.answer("a")
    await trio.sleep(0.5)
    await ask(site, "limit", limits={"vpc.*.*": 2, "*.create.*": "2/h"})
    await trio.sleep(0.5)
    await cancelled_now(site)


async def skipped(site: Site) -> None:
    """An operator says what became of it, component after component."""
    for name in "abcdef":
        await ask(site, "skip", component=name)
        await trio.sleep(0.1)


async def asked_about(site: Site) -> None:
    """Operators have looked at it in every way."""
    await ask(site, "get")
    await ask(site, "why")
    await ask(site, "why", component="c")
    await ask(site, "list")
    await ask(site, "extend", component="a", seconds=5)
    assert (await refused(site, "retry"))[0] == "conflict"
    await cancelled_now(site)


async def submitted_again(site: Site) -> None:
    """The same again is accepted, another content refused."""
    assert (await site.submit(WIDE))["status"] == "accepted"
    assert (await site.submit(document("z")))["status"] == "rejected"
    await cancelled_now(site)


async def answered_twice(site: Site) -> None:
    """Late, double and foreign replies come in, also after its end."""
    for _ in range(3):
        site.cloud.answer("a")
        site.cloud.answer("a", Reply("errored", fields={"error": "no"}))
    await trio.sleep(0.5)
    await cancelled_now(site)
    await trio.sleep(0.5)
    for name in "ab":
        site.cloud.answer(name)


ENDINGS = (
    errored_and_drained,
    cancelled,
    cancelled_now,
    paused_then_cancelled,
    paused_then_resumed,
    limited_again,
    skipped,
    asked_about,
    submitted_again,
    answered_twice,
)


@pytest.mark.parametrize("store", STORES)
async def test_done(autojump_clock: MockClock, watch: Watch, store: str) -> None:
    """A build whose components were all completed."""
    async with open_site(store) as site:
        await site.submit(CHAIN)
        await trio.sleep(0.5)
        await done(site)
        await ended(site, watch)
        assert site.report[0] == "build.create.done"
        watch.check()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
async def test_steered_to_its_end(
    autojump_clock: MockClock, watch: Watch, store: str, ending: Ending
) -> None:
    """A build of which two are in flight and others wait for a slot, then ended in this way."""
    async with open_site(store) as site:
        await site.submit(WIDE)
        await trio.sleep(0.5)
        await ending(site)
        await ended(site, watch)
        assert len(site.reports) == 1
        watch.check()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("options", [{"on_error": "continue"}, {"max_failures": 2}])
async def test_failures_that_do_not_halt(
    autojump_clock: MockClock, watch: Watch, store: str, options: JSON
) -> None:
    """A build that goes on after errors."""
    async with open_site(store, failing) as site:
        await site.submit(document("abcdef", [("a", "f")], options=options))
        await ended(site, watch)
        assert site.report[0] == "build.create.error"
        watch.check()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("value", [RETRIED, TIMED], ids=["failed", "timed out"])
async def test_tried_again(autojump_clock: MockClock, watch: Watch, store: str, value: JSON) -> None:
    """A component that is tried again, or given up on, and answered after all, while others go on."""
    async with open_site(store, failing if value is RETRIED else ignore) as site:
        await site.submit(value)
        await trio.sleep(1.2)
        site.cloud.answer("a")
        await ended(site, watch)
        watch.check()


@pytest.mark.parametrize("store", STORES)
async def test_given_up_and_answered_late(autojump_clock: MockClock, watch: Watch, store: str) -> None:
    """A success that comes when the attempt was given up, and another component still runs."""
    async with open_site(store) as site:
        await site.submit(document([change("a", _timeout=1), "b"]))
        await trio.sleep(2)
        site.cloud.answer("a")
        await trio.sleep(1)
        site.cloud.answer("b")
        await ended(site, watch)
        assert site.report[1]["changes"][0]["adoptable"]["_component_id"] == "a"
        watch.check()


@pytest.mark.parametrize("store", STORES)
async def test_a_reference_to_nothing(autojump_clock: MockClock, watch: Watch, store: str) -> None:
    """A component that cannot be rendered fails without being sent."""
    bad = change("b", x='{{ components["a"].nothing.at.all }}')
    async with open_site(store) as site:
        await site.submit(document(["a", bad], [("a", "b")]))
        await trio.sleep(0.5)
        site.cloud.answer("a")
        await ended(site, watch)
        assert "nothing" in site.report[1]["error"]
        watch.check()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("part", [(Starts, "token"), (Outcomes, "end_attempt"), (Outcomes, "tell")])
async def test_a_fault_of_ours(
    autojump_clock: MockClock,
    watch: Watch,
    store: str,
    part: tuple[type, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A build that ends by an exception in one of its tasks."""

    def broken(*_: object, **__: object) -> Any:
        msg = "a bug"
        raise RuntimeError(msg)

    async with open_site(store) as site:
        await site.submit(WIDE)
        await trio.sleep(0.5)
        monkeypatch.setattr(*part, broken)
        site.cloud.answer("a")
        await trio.sleep(0.5)
        site.cloud.answer("b")
        await ended(site, watch)
        assert site.report[0] == "build.create.error"
        watch.check()


@pytest.mark.parametrize("store", STORES)
async def test_a_report_that_cannot_be_made(
    autojump_clock: MockClock, watch: Watch, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that ends without a report, by a fault of ours outside its walk."""

    def broken(_: Plan) -> Any:
        msg = "a bug"
        raise RuntimeError(msg)

    async with open_site(store) as site:
        await site.submit(CHAIN)
        await trio.sleep(0.5)
        monkeypatch.setattr("scheduler.walk.walk.report_of", broken)
        await done(site)
        await ended(site, watch)
        assert site.reports == []
        watch.check()


async def test_a_store_that_fails(autojump_clock: MockClock, watch: Watch) -> None:
    """A build whose outcome cannot be persisted."""
    async with open_service(store=LostStore(settles("a")), script=ignore) as site:
        await site.submit(WIDE)
        await trio.sleep(0.5)
        site.cloud.answer("a")
        site.cloud.answer("b")
        await ended(site, watch)
        assert "store: " in site.report[1]["error"]
        watch.check()


async def test_an_ernest_store_that_is_silent(autojump_clock: MockClock, watch: Watch) -> None:
    """A build that its store does not answer for."""
    bus = FakeBus()
    subscription = await ServiceStore().attach(bus)
    async with open_service(store=ErnestStore(bus), bus=bus, script=ignore) as site:
        await site.submit(WIDE)
        await trio.sleep(0.5)
        await subscription.unsubscribe()
        site.cloud.answer("a")
        site.cloud.answer("b")
        await ended(site, watch)
        assert "store: " in site.report[1]["error"]
        watch.check()


@pytest.mark.parametrize("paused", [False, True])
async def test_fenced(autojump_clock: MockClock, watch: Watch, paused: bool) -> None:
    """A build that another process has taken."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await Peer(process).open()
        await process.submit(WIDE)
        await trio.sleep(1)
        if paused:
            await ask(process, "pause")
        plant.broker.write(Loading(), epoch=9)
        plant.answer("a")
        await ended(process, watch)
        assert process.reports == []
        watch.check()


async def test_a_log_that_cannot_be_written(
    autojump_clock: MockClock, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build whose end cannot be committed is left to the next process."""
    async with Plant(ignore).run() as process:
        await process.submit(WIDE)
        await trio.sleep(1)

        async def broken(*_: object) -> Any:
            await trio.lowlevel.checkpoint()
            msg = "a bug"
            raise RuntimeError(msg)

        monkeypatch.setattr("scheduler.stores.event_queue.EventQueue.take", broken)
        process.cloud.answer("a")
        process.cloud.answer("b")
        await ended(process, watch)
        assert "b1" in process.service.roster.quarantined
        watch.check()


@pytest.mark.parametrize("store", STORES)
async def test_the_process_ends(autojump_clock: MockClock, watch: Watch, store: str) -> None:
    """A build that is left to the next process, or given up, when the grace is over."""
    async with open_site(store, grace=1) as site:
        await site.submit(WIDE)
        await trio.sleep(0.5)
        site.service.stop()
        await trio.sleep(5)
        watch.check()


async def test_rejected(autojump_clock: MockClock, watch: Watch) -> None:
    """Builds that are refused: by the store, for their id, or for what is wrong with them."""
    async with open_service(store=LostStore(accepted)) as site:
        for value in (document("a"), document("a", [("a", "a")]), document("a", build=" ")):
            assert (await site.submit(value))["status"] == "rejected"
        await trio.sleep(1)
        watch.check(begun=0)
        assert len(watch.parts) == 1
    async with Plant().run() as process:
        await process.submit(document("a"))
        await ended(process, watch)
        answer = await process.submit(document("b"))
        assert answer["error"]["code"] == "finished"
        await trio.sleep(1)
        watch.check()


async def test_taken_up_and_retried_in_a_new_run(autojump_clock: MockClock, watch: Watch) -> None:
    """A build that an earlier process left, with what it had sent; and a second run of it after its end."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(WIDE)
        await trio.sleep(1)
        plant.answer("a")
        await trio.sleep(1)
    watch.forget()
    async with plant.run() as process:
        await trio.sleep(2)
        first, *others = {one["_component_id"] for _, one in plant.requests} - {"a"}
        plant.answer(first, Reply("errored", fields={"error": "quota"}))
        await trio.sleep(1)
        for name in others:
            plant.answer(name)
        await ended(process, watch)
        assert len(process.reports) == 1
        watch.check(2)
        await ask(process, "retry")
        await trio.sleep(1)
        assert watch.begun == 3
        await ask(process, "cancel", now=True)
        await ended(process, watch)
        assert len(process.reports) == 2
        watch.check(3)


async def test_taken_up_from_ernest(autojump_clock: MockClock, watch: Watch) -> None:
    """A build that the store calls in progress, with a component in flight, answered as a stray."""
    store = FakeStore(resumable=True)
    left = document([change("a", _state="running"), "b"], [("a", "b")])
    store.documents, store.unfinished_ids = {"b1": left}, ["b1"]
    async with open_service(store=store) as site:
        await trio.sleep(1)
        body = {"service": "b1", "_component_id": "a", "_state": "completed"}
        site.bus.deliver("vpc.create.aws.done", encode(body))
        await ended(site, watch)
        assert site.report[0] == "build.create.done"
        watch.check()


async def test_quarantined(autojump_clock: MockClock, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that cannot be set going is left alone, and freed."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(1)
    watch.forget()

    def broken(_: Walk) -> None:
        msg = "no way"
        raise RuntimeError(msg)

    monkeypatch.setattr(Walk, "prepare", broken)
    async with plant.run() as process:
        await trio.sleep(5)
        assert "b1" in process.service.roster.quarantined
        watch.check()


async def test_others_hold_the_limits(autojump_clock: MockClock, watch: Watch) -> None:
    """Builds that waited for a slot that another one has, and never had one."""
    async with open_site("memory", max_in_flight=1) as site:
        await site.submit(document("a", build="first"))
        await trio.sleep(0.5)
        first, watch.parts = watch.parts, []
        for number in range(5):
            build = f"b{number}"
            await site.submit(document("abc", build=build))
            await trio.sleep(0.5)
            await ask(site, "cancel", build)
        await trio.sleep(0.5)
        watch.check(6)
        watch.parts = first
        site.cloud.answer("a")
        await ended(site, watch)
        watch.check(6)


QUERIES = ['[tag="t1"].tag', '[tag="t9"].tag', '[tag!="t1"].tag', "#.tag"]
"""What an index answers, what nothing fits, what every component is looked at for, and all of them."""


@pytest.mark.parametrize("query", QUERIES)
def test_one_that_is_only_read_leaves_nothing_to_the_collector(query: str) -> None:
    there = [{**change(f"e{number}"), "tag": f"t{number}", "_state": "completed"} for number in range(3)]
    path = query if query.startswith("#") else f"#{query}"
    data = encode({"id": "b", "components": there, "changes": [change("a", x=f"$(components.{path})")]})
    gc.collect()
    gc.disable()
    try:
        try:
            read_build(data)
        except InvalidBuild:
            assert "t9" in query
        assert gc.collect() == 0
    finally:
        gc.enable()


async def test_a_build_with_spans_is_freed_after_a_restart_too(
    watch: Watch, autojump_clock: MockClock
) -> None:
    """Those of its components that another process has told of are told once more, and kept by nobody."""
    plant = Plant(ignore)
    plant.tracer = KeepingTracer()
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(0.5)
        plant.answer("a")
        await trio.sleep(0.5)
    watch.forget()
    plant.tracer = tracer = KeepingTracer()
    async with plant.run() as process:
        await trio.sleep(1)
        for name in "bc":
            plant.answer(name)
            await trio.sleep(0.5)
        await ended(process, watch)
        watch.check(begun=2)
    assert len(tracer.spans) == 4
