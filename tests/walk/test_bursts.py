"""Many answers at one moment: what they make due is entered in turns, in the order of the answers."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio
from support.fakes import FakeStore, Reply, document, ignore, open_world, states
from support.stretches import measured_stretches
from support.walks import OrderedStore, Run, steering_of, tick
from trio.testing import MockClock

from scheduler.definition.graph import Vertex
from scheduler.dispatch.slots import Slots
from scheduler.plan.outcome import Outcome
from scheduler.stores import Store
from scheduler.stores.memory import MemoryStore
from scheduler.walk import Observer

_ROOTS = 12
_EACH = 199
_MOST_AT_ONCE = 400
"""Components that may become due between two turns of others: a few milliseconds."""


class Counter(Observer, trio.abc.Instrument):
    """Counts the components that become due in one step of a task."""

    def __init__(self) -> None:
        self.order: list[Vertex] = []
        self.most = 0
        self._before = 0

    def due(self, vertex: Vertex) -> None:
        self.order.append(vertex)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = len(self.order)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most = max(self.most, len(self.order) - self._before)


def _fans(each: int) -> tuple[list[str], list[tuple[str, str]]]:
    roots = [f"r{number}" for number in range(_ROOTS)]
    edges = [(root, f"{root}.{number}") for root in roots for number in range(each)]
    return [*roots, *(name for _, name in edges)], edges


def _names(run: Run, vertices: Sequence[Vertex]) -> list[str]:
    return [run.plan.graph.ids[vertex] for vertex in vertices]


@pytest.mark.parametrize("store", [MemoryStore, FakeStore, OrderedStore])
@pytest.mark.parametrize("slots", [50, 5_000])
async def test_answers_that_come_at_once_do_not_keep_the_loop(
    store: type[Store], slots: int, autojump_clock: MockClock
) -> None:
    """A dozen roots end in one step, and each makes 199 components due: others have turns in between."""
    names, edges = _fans(_EACH)
    room = Slots(per_instance=slots, per_build=slots)
    async with open_world(script=ignore, store=store(), slots=room) as world, trio.open_nursery() as nursery:
        run = Run(world, document(names, edges))
        run.told.to = counter = Counter()
        await run.start(nursery)
        trio.lowlevel.add_instrument(counter)
        for root in names[:_ROOTS]:
            world.cloud.answer(root)
        await tick(1)
        trio.lowlevel.remove_instrument(counter)
        assert counter.most <= _MOST_AT_ONCE
        assert _names(run, counter.order) == names, "in the order of the answers, and of the edges"
        for name in names[_ROOTS:]:
            while name not in world.cloud.asked:
                await tick(1)
            world.cloud.answer(name)
        await tick(1)
        assert set(states(run.done).values()) == {"completed"}
        run.check_end()


@pytest.mark.parametrize("turns", [0, 2, 4])
@pytest.mark.parametrize("ending", ["halted", "stopped", "supplied"])
async def test_what_is_not_entered_yet_may_still_not_begin(
    ending: str, turns: int, autojump_clock: MockClock
) -> None:
    """The build is held, or an operator settles one, between the answers and the turn of their dependents."""
    names, edges = _fans(_EACH)
    async with open_world(script=ignore, store=MemoryStore()) as world, trio.open_nursery() as nursery:
        run = Run(world, document(names, edges))
        await run.start(nursery)
        for root in names[:_ROOTS]:
            call = run.walk.call_of(run.plan.graph.index[root])
            assert call is not None
            call.deliver(Outcome(completed=True, body={"x": 1}))
        run.walk._outcomes.book()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        assert run.walk._lineup._backlog, "most of them are to be entered in later turns"
        last = names[-1]
        if ending == "halted":
            run.walk.halt("enough")
        elif ending == "stopped":
            run.walk.stop()
        else:
            await run.walk.steer().supply(run.plan.graph.index[last], {"x": 1})
        await tick(1)
        begun = [name for name in world.cloud.asked if name not in names[:_ROOTS]]
        assert last not in begun
        if ending == "supplied":
            while begun:
                for name in begun:
                    world.cloud.answer(name)
                before = len(world.cloud.asked)
                await tick(1)
                begun = world.cloud.asked[before:]
        else:
            for name in begun:
                world.cloud.answer(name)
            await tick(1)
        assert run.ends == 1
        run.check_end()


_ENDED_AT_ONCE = 1_000
"""Waits for slots that may end between two turns of others."""


class Waits(trio.abc.Instrument):
    """Notes how many waits end in one step of a task, at most."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.count = count
        self.most = 0
        self._before = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = self.count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most = max(self.most, self._before - self.count())


@contextmanager
def watched(count: Callable[[], int]) -> Iterator[Waits]:
    """Watch the steps of tasks meanwhile."""
    waits = Waits(count)
    trio.lowlevel.add_instrument(waits)
    try:
        yield waits
    finally:
        trio.lowlevel.remove_instrument(waits)


async def test_a_halt_of_thousands_that_wait_for_slots_does_not_keep_the_loop(
    autojump_clock: MockClock,
) -> None:
    """They are dismissed in slices, each within milliseconds, and nothing of them is sent."""
    names = [f"c{number}" for number in range(10_000)]
    room = Slots(per_instance=500, per_build=500)
    async with open_world(script=ignore, slots=room) as world, trio.open_nursery() as nursery:
        run = Run(world, document(names))
        await run.start(nursery)
        asked = list(world.cloud.asked)
        assert world.slots.waiters > 9_000
        with watched(lambda: world.slots.waiters) as waits, measured_stretches() as stretches:
            nursery.start_soon(stop, run)
            await tick(2)
        assert world.slots.waiters == 0
        assert 0 < waits.most <= _ENDED_AT_ONCE
        longest = [one for one in stretches.tasks if one.task in {stop.__name__, "dismiss", "send off"}]
        assert max(longest).seconds < 0.01
        for name in asked:
            world.cloud.answer(name)
        await tick(2)
        assert world.cloud.asked == asked
        assert run.ends == 1
        run.check_end()


async def test_a_halt_of_thousands_that_wait_for_another_attempt_does_not_keep_the_loop(
    autojump_clock: MockClock,
) -> None:
    """Their tasks are told in slices: each is woken by an exception."""
    names = [f"c{number}" for number in range(1_000)]
    room = Slots(per_instance=1_000, per_build=1_000)
    busy = Reply("errored", fields={"error": "busy", "retry_after": 500})
    options = {"retry": {"attempts": 2, "max_backoff": 1_000}}
    async with open_world(script=lambda _: [busy], slots=room) as world, trio.open_nursery() as nursery:
        run = Run(world, document(names, options=options))
        await run.start(nursery)
        waiting = run.walk._runs.waiting
        assert len(waiting) == len(names)
        with watched(lambda: len(waiting)), measured_stretches() as stretches:
            nursery.start_soon(stop, run)
            await tick(2)
        assert not waiting
        longest = [one for one in stretches.tasks if one.task in {stop.__name__, "end waits"}]
        assert max(longest).seconds < 0.01
        assert max(one for one in stretches.rounds if "Run.go" not in one.task).seconds < 0.02
        assert run.ends == 1
        run.check_end()


async def test_what_waits_for_slots_stays_where_the_halt_ends_at_once(autojump_clock: MockClock) -> None:
    """An operator's retry comes before all are dismissed: none is lost, and none begins twice."""
    names = [f"c{number}" for number in range(4_000)]
    room = Slots(per_instance=50, per_build=50)
    async with open_world(script=ignore, slots=room) as world, trio.open_nursery() as nursery:
        run = Run(world, document(names))
        await run.start(nursery)
        world.cloud.answer("c0", Reply("errored", fields={"error": "no"}))
        while world.slots.waiters > 3_500:
            await trio.lowlevel.checkpoint()
        assert world.slots.waiters > 0
        nursery.start_soon(retry, run)
        await tick(2)
        world.cloud.script = lambda _: [Reply()]
        for name in [one for one in world.cloud.asked if one != "c0"]:
            world.cloud.answer(name)
        await tick(20)
        assert set(states(run.done).values()) == {"completed"}
        assert sorted(world.cloud.asked) == sorted([*names, "c0"])
        run.check_end()


async def stop(run: Run) -> None:
    """Stop the walk, as the process stops."""
    run.walk.stop()


async def retry(run: Run) -> None:
    """Order what has failed to be tried again."""
    await steering_of(run).retry(None)
