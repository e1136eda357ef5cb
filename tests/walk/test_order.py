"""In which order requests leave and outcomes are kept: that of edges, of slots, of replies."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from support.asking import ask
from support.durable import Plant, flat
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from support.fakes import JSON, FakeStore, Reply, Site, change, document, ignore, open_service, open_world
from support.walks import OrderedStore
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.graph import Graph
from scheduler.definition.model import Edge
from scheduler.definition.rules import parse_limits
from scheduler.dispatch.slots import Slots
from scheduler.forecast import forecast
from scheduler.plan import Plan
from scheduler.stores import Store
from scheduler.stores.ernest import ErnestStore
from scheduler.stores.memory import MemoryStore
from scheduler.walk import Walk
from scheduler.walk.frontier import Frontier, from_the_start

STORES = ("memory", "step by step", "ernest", "in order", "jetstream")


@define
class Case:
    """A build whose edges stand in any order, and the order in which it is answered."""

    names: list[str]
    edges: list[tuple[str, str]]
    luck: int
    """Of which things are answered together, and in which order."""

    @property
    def value(self) -> JSON:
        return document(self.names, self.edges)


@st.composite
def cases(draw: st.DrawFn, most: int = 9) -> Case:
    size = draw(st.integers(1, most))
    names = [f"c{number}" for number in range(size)]
    pairs = [(names[a], names[b]) for b in range(size) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=16)) if pairs else []
    first = draw(st.lists(st.sampled_from(names), unique=True))
    edges += [("start", name) for name in first]
    changes = draw(st.permutations(names))
    return Case(list(changes), list(draw(st.permutations(edges))), draw(st.integers(0, 2**32)))


@define
class Expected:
    """What is to be sent, by the words of the wire and nothing else."""

    case: Case
    sent: list[str] = field(factory=list)
    done: list[str] = field(factory=list)

    def begin(self) -> None:
        first = [destination for source, destination in self.case.edges if source == "start"]
        self._send([*first, *self.case.names])

    def answer(self, name: str) -> None:
        self.done.append(name)
        self._send([destination for source, destination in self.case.edges if source == name])

    def _send(self, candidates: Sequence[str]) -> None:
        for name in candidates:
            needed = {source for source, destination in self.case.edges if destination == name} - {"start"}
            if name not in self.sent and needed <= set(self.done):
                self.sent.append(name)


# ---- synchronously


@given(cases(most=12))
def test_what_settles_names_its_dependents_in_the_order_of_the_edges(case: Case) -> None:
    """Each once, when the last that it waits for has settled; the first ones by the edges from the start."""
    graph = Graph.of(case.names, case.edges)
    every = from_the_start(graph, [Edge(*edge) for edge in case.edges])
    assert sorted(every) == list(range(len(case.names)))
    frontier = Frontier(graph, range(len(case.names)))
    expected = Expected(case)
    expected.begin()
    sent = [case.names[vertex] for vertex in every if frontier.is_ready(vertex)]
    luck = random.Random(case.luck)
    while waiting := [name for name in sent if name not in expected.done]:
        assert sent == expected.sent
        name = luck.choice(waiting)
        expected.answer(name)
        sent += [case.names[vertex] for vertex in frontier.settle(graph.index[name])]
        assert frontier.settle(graph.index[name]) == []
    assert sent == expected.sent
    assert sorted(sent) == sorted(case.names)


def test_a_vertex_with_thousands_of_dependencies_is_looked_at_once_for_each() -> None:
    """Each that settles does not have all of them looked at again."""
    looks = 0

    class Counting(tuple[int, ...]):
        __slots__ = ()

        def __getitem__(self, index: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(index)

    size = 5_000
    names = [str(number) for number in range(size + 1)]
    graph = Graph.of(names, [(name, names[-1]) for name in names[:-1]])
    dependencies = (*graph.dependencies[:-1], Counting(graph.dependencies[-1]))
    graph = Graph(graph.ids, graph.index, dependencies, graph.dependents)
    frontier = Frontier(graph, range(size + 1))
    order = list(range(size))
    random.Random(1).shuffle(order)
    found = [frontier.settle(vertex) for vertex in order]
    assert found[-1] == [size]
    assert looks < 3 * size


# ---- over a bus in memory


@define
class Stand:
    """Where a build runs, whatever its store."""

    asked: Callable[[], list[str]]
    """What was asked for, in order."""
    answer: Callable[[str], None]
    report: Callable[[], JSON | None]
    kept: Callable[[], list[str]]
    """What the store was told to be completed, in order; empty where it keeps nothing."""


@asynccontextmanager
async def walking(value: JSON, store: Store, slots: Slots | None = None) -> AsyncIterator[Stand]:
    async with open_world(script=ignore, store=store, slots=slots) as world, trio.open_nursery() as nursery:
        walk = Walk(world.plan(value), world.connectors, store, world.slots)
        reports: list[JSON] = []

        async def run() -> None:
            report = await walk.run()
            assert report is not None
            reports.append(json.loads(b"".join(report.chunks())))

        nursery.start_soon(run)

        def kept() -> list[str]:
            events = getattr(store, "events", ())
            return [event.component for _, event in events if type(event).__name__ == "Settled"]

        yield Stand(
            lambda: world.cloud.asked, world.cloud.answer, lambda: reports[0] if reports else None, kept
        )
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(value: JSON, site: Site, kept: Callable[[], list[str]]) -> AsyncIterator[Stand]:
    assert (await site.submit(value))["status"] == "accepted"
    yield Stand(
        lambda: site.cloud.asked,
        site.cloud.answer,
        lambda: site.reports[0][1] if site.reports else None,
        kept,
    )


@asynccontextmanager
async def standing(store: str, value: JSON, **options: Any) -> AsyncIterator[Stand]:
    """A build that has begun, with this store."""
    if store == "jetstream":
        plant = Plant(ignore)
        async with plant.run(**options) as process:

            def settled() -> list[str]:
                told = [one.split() for one in flat(plant.broker.told())]
                return [one[1] for one in told if one[0] == "settled"]

            async with serving(value, process, settled) as stand:
                yield stand
    elif store == "ernest":
        bus, ernest = FakeBus(), ServiceStore()
        await ernest.attach(bus)
        async with open_service(store=ErnestStore(bus), bus=bus, script=ignore, **options) as site:

            def made() -> list[str]:
                return [one["_component_id"] for one in ernest.mapping("b1")["components"]]

            async with serving(value, site, made) as stand:
                yield stand
    else:
        kinds = {"memory": MemoryStore, "step by step": FakeStore, "in order": OrderedStore}
        async with walking(value, kinds[store]()) as stand:
            yield stand


async def play(store: str, case: Case) -> None:
    """Answer a build as chance has it, and compare what is sent and kept with what is to be."""
    luck, expected = random.Random(case.luck), Expected(case)
    expected.begin()
    async with standing(store, case.value) as stand:
        await wait_all_tasks_blocked()
        while waiting := [name for name in expected.sent if name not in expected.done]:
            assert stand.asked() == expected.sent
            # Several come in before anything else happens.
            for name in luck.sample(waiting, luck.randint(1, len(waiting))):
                stand.answer(name)
                expected.answer(name)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked(0.01)
        assert stand.asked() == expected.sent
        report = stand.report()
        assert report is not None
        assert [one["_component_id"] for one in report["components"]] == expected.done
        if store != "memory":
            assert stand.kept() == expected.done


@pytest.mark.parametrize("store", STORES)
@given(case=cases())
@settings(max_examples=40)
def test_requests_leave_in_the_order_of_the_edges(store: str, case: Case) -> None:
    """What a reply makes due by its edges; of replies that come together the first comes first."""
    trio.run(partial(play, store, case))


@pytest.mark.parametrize("store", STORES)
async def test_a_fan_of_hundreds_leaves_in_order(store: str, autojump_clock: MockClock) -> None:
    """More than are entered, begun or persisted at a time."""
    names = [f"c{number:03}" for number in range(450)]
    random.Random(2).shuffle(names)
    value = document(["a", *sorted(names)], [("a", name) for name in names])
    async with standing(store, value) as stand:
        await wait_all_tasks_blocked(0.01)
        stand.answer("a")
        await wait_all_tasks_blocked(0.01)
        await trio.sleep(1)
        assert stand.asked() == ["a", *names]


async def test_a_fan_of_thousands_does_not_keep_others_waiting(autojump_clock: MockClock) -> None:
    """Between two looks at everything else only so many are entered and begun."""
    names = [f"c{number}" for number in range(3_000)]
    turns = 0
    looks: list[int] = []

    class Looking(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal turns
            turns += 1

    async with standing("memory", document(["a", *names], [("a", name) for name in names])) as stand:
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(instrument := Looking())
        stand.answer("a")
        for _ in range(60):
            looks.append(len(stand.asked()))
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(instrument)
        steps = [after - before for before, after in pairwise(looks)]
        # A few slices, as Trio may have it; not the 500 that may be in flight.
        assert max(steps) <= 100
        assert turns >= 3_000 / 200
        # As many as a build may have in flight.
        assert stand.asked() == ["a", *names[:500]]


@pytest.mark.parametrize("store", ["ernest", "jetstream"])
async def test_after_a_pause_they_leave_in_order_too(store: str, autojump_clock: MockClock) -> None:
    """What was held back by an operator is not shuffled by that."""
    names = [f"c{number:02}" for number in range(40)]
    random.Random(3).shuffle(names)
    plant, value = Plant(ignore), document(["a", *sorted(names)], [("a", name) for name in names])
    bus = FakeBus()
    await ServiceStore().attach(bus)
    opened = (
        plant.run() if store == "jetstream" else open_service(store=ErnestStore(bus), bus=bus, script=ignore)
    )
    async with opened as site:
        await site.submit(value)
        await trio.sleep(1)
        await ask(site, "pause")
        site.cloud.answer("a")
        await trio.sleep(1)
        assert site.cloud.asked == ["a"]
        await ask(site, "resume")
        await trio.sleep(1)
        assert site.cloud.asked == ["a", *names]


# ---- limits


CHAIN = [f"k{number}" for number in range(1, 10)]
SINGLES = [f"s{number}" for number in range(5)]


async def answer_one_by_one(stand: Stand) -> list[str]:
    """Answer each request when nothing else happens any more; what was asked for, in order."""
    answered = 0
    while answered < len(stand.asked()):
        stand.answer(stand.asked()[answered])
        answered += 1
        await wait_all_tasks_blocked(0.001)
        await trio.sleep(0.5)
    return stand.asked()


@pytest.mark.parametrize("own", [True, False], ids=["the build's limit", "the instance's limit"])
@pytest.mark.parametrize("store", ["ernest", "jetstream"])
async def test_a_slot_is_given_out_when_the_dependents_stand_in_the_queue(
    store: str, own: bool, autojump_clock: MockClock
) -> None:
    """With one slot the chain that all waits for goes first, link by link; the singles fill what is left."""
    edges = list(pairwise(CHAIN))
    limits: JSON = {"options": {"limits": {"slot.*.*": 1}}} if own else {}
    value = document([change(name, kind="slot") for name in [*SINGLES, *CHAIN]], edges, **limits)
    options = {} if own else {"rules": parse_limits("slot.*.*=1")}
    async with standing(store, value, **options) as stand:
        await trio.sleep(1)
        order = await answer_one_by_one(stand)
        # The last link is as urgent as a single: of these what has asked first goes first.
        assert order[: len(CHAIN) - 1] == CHAIN[:-1]
        assert sorted(order) == sorted([*CHAIN, *SINGLES])


async def test_a_limit_of_one_costs_one_commit_a_component(autojump_clock: MockClock) -> None:
    """The start of what has the slot next is in the record of the outcome that has freed it."""
    plant = Plant(ignore)
    edges = list(pairwise(CHAIN))
    value = document([change(name, kind="slot") for name in [*SINGLES, *CHAIN]], edges)
    async with plant.run(rules=parse_limits("slot.*.*=1")) as process:
        await process.submit(value)
        await trio.sleep(1)
        answered = 0
        while answered < len(process.cloud.asked):
            process.cloud.answer(process.cloud.asked[answered])
            answered += 1
            # Not so long that what can wait for company has a record of its own.
            await wait_all_tasks_blocked()
    told = [[one for one in record if not one.startswith("sent")] for record in plant.broker.told()]
    steps = [record for record in told if record and record[0].startswith("settled")]
    assert len(steps) == len(CHAIN) + len(SINGLES)
    for record, following in zip(steps, process.cloud.asked[1:], strict=False):
        assert record[1] == f"started {following}"
    assert steps[-1][1] == "finished"


async def test_other_builds_do_not_wait_for_a_fan_to_be_entered(autojump_clock: MockClock) -> None:
    """A build that shares no limit begins while thousands of another's are lined up for theirs."""
    names = [f"c{number}" for number in range(4_000)]
    async with open_world(script=ignore, store=MemoryStore()) as world, trio.open_nursery() as nursery:
        slots = world.slots
        large = Walk(
            world.plan(document(names, options={"limits": {"*": 1}})), world.connectors, world.store, slots
        )
        small = Walk(world.plan(document(["x"], build="b2")), world.connectors, world.store, slots)
        slots.open(large.plan, large.plan.state.rules)
        nursery.start_soon(large.run)
        nursery.start_soon(small.run)
        for _ in range(8):
            await trio.lowlevel.checkpoint()
        assert "x" in world.cloud.asked
        assert slots.waiters < len(names)
        nursery.cancel_scope.cancel()


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Case, dict[str, float], dict[str, str], dict[str, int], int]:
    case = draw(cases(most=10))
    luck = random.Random(draw(st.integers(0, 2**32)))
    # No two sums of them are equal.
    seconds = {name: luck.uniform(0.5, 5.0) for name in case.names}
    kinds = {name: draw(st.sampled_from(["slot", "disk", "vpc"])) for name in case.names}
    limits = draw(
        st.dictionaries(
            st.sampled_from(["slot.*.*", "disk.*.*", "*", "*.create.*"]), st.integers(1, 3), max_size=3
        )
    )
    return case, seconds, kinds, limits, draw(st.integers(1, 4))


@given(schedules())
@settings(max_examples=150)
def test_the_walk_takes_the_order_that_was_forecast(
    schedule: tuple[Case, dict[str, float], dict[str, str], dict[str, int], int],
) -> None:
    """With durations as expected each component begins when the forecast says, under any limits."""
    case, seconds, kinds, limits, cap = schedule
    value = document(
        [change(name, kind=kinds[name]) for name in case.names], case.edges, options={"limits": limits}
    )

    async def run() -> None:
        began: dict[str, float] = {}

        def script(component: JSON) -> Sequence[Reply]:
            name = component["_component_id"]
            began[name] = trio.current_time()
            return [Reply(after=seconds[name])]

        async with open_world(script=script, store=MemoryStore(), slots=Slots(per_build=cap)) as world:
            plan: Plan = world.plan(value)
            lasting = [seconds[name] for name in plan.graph.ids]
            subjects = [plan.requests.subject(vertex) for vertex in range(len(lasting))]
            found = forecast(plan.graph, lasting, subjects, plan.state.rules, cap=cap)
            walk = Walk(
                plan,
                world.connectors,
                world.store,
                world.slots,
                priorities=plan.graph.remaining(lasting),
            )
            world.slots.open(plan, plan.state.rules)
            start = trio.current_time()
            await walk.run()
            for vertex, name in enumerate(plan.graph.ids):
                assert began[name] - start == pytest.approx(found.starts[vertex], abs=1e-6), name

    trio.run(run, clock=MockClock(autojump_threshold=0.0))
