"""The tasks of components are woken when there is something to do for them, and not otherwise."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections import Counter
from itertools import pairwise

import trio
from support.fakes import change, document, open_world
from support.walks import Run
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.graph import Graph
from scheduler.dispatch.slots import Slots
from scheduler.stores.memory import MemoryStore
from scheduler.walk.tasks import Tasks


class Steps(trio.abc.Instrument):
    """Counts how often each task is run, by its name."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count it."""
        self.of[task.name] += 1


async def test_a_task_is_run_four_times_at_most(autojump_clock: MockClock) -> None:
    """It starts, its dependencies have settled, it has its slot, and it is answered; mostly two are one."""
    names = [f"c{number}" for number in range(200)]
    changes = [change("first"), *(change(name) for name in names)]
    edges = [("first", name) for name in names] + [("c0", name) for name in names[100:]]
    steps = Steps()
    async with open_world(cloud=True, store=MemoryStore(), slots=Slots(per_build=40)) as world:
        trio.lowlevel.add_instrument(steps)
        run = Run(world, document(changes, edges))
        await run.go()
        trio.lowlevel.remove_instrument(steps)
    run.check_end()
    assert sum(steps.of[name] for name in names) < 4 * len(names)


async def test_what_was_cancelled_is_not_woken_as_well() -> None:
    """Trio takes it badly if a task is woken twice."""
    tasks, ended = Tasks(Graph.of(["a", "b"], [])), 0

    async def wait(vertex: int) -> None:
        nonlocal ended
        try:
            await tasks.news(vertex)
        finally:
            ended += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 0)
        nursery.start_soon(wait, 1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        tasks.wake(0)
        tasks.wake(1)
    assert ended == 2


async def test_many_dependents_are_woken_in_slices() -> None:
    """Others have a turn in between."""
    names = [str(one) for one in range(171)]
    tasks, woken, seen = Tasks(Graph.of(names, [("0", name) for name in names[1:]])), 0, [0]

    async def wait(vertex: int) -> None:
        nonlocal woken
        await tasks.event(0, vertex).wait()
        woken += 1

    async def never(_: int) -> None:
        """Stand in for the task of a component."""

    async with trio.open_nursery() as nursery:
        tasks.open(nursery, never, lambda: None)
        for vertex in range(1, len(names)):
            nursery.start_soon(wait, vertex)
        await wait_all_tasks_blocked()
        tasks.wake_dependents(0)
        while woken < len(names) - 1:
            await trio.lowlevel.checkpoint()
            seen.append(woken)
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 2 * 50
