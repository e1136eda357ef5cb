"""Many answers at one moment: what they make due is entered in turns, in the order of the answers."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Sequence

import pytest
import trio
from support.fakes import FakeStore, document, ignore, open_world, states
from support.walks import OrderedStore, Run, tick
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
