"""A component's task: it waits for its dependencies, then for its turn, begins, and is in flight.

What is due is lined up for slots in the order of the edges, and begun in the order in which it has them.

See `scheduler.walk.walk` for what depends on that.
"""

import heapq
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Final, TypeAlias

import trio

from scheduler.definition.graph import Vertex
from scheduler.definition.template import INLINE_WORK, Laborious
from scheduler.dispatch.slots import Slots, Waiter
from scheduler.plan import Phase, Plan
from scheduler.runtime.executor import Executor
from scheduler.runtime.pace import drained, paced
from scheduler.stores import Store
from scheduler.walk.attempts import Attempts, Departure
from scheduler.walk.frontier import Frontier
from scheduler.walk.ports import Observer, Resending, Resumption, Sender

_SPAWNED_AT_ONCE = 25
"""Tasks started between two looks at everything else: a millisecond or two, where they begin at once."""
_BEGUN_AT_ONCE = 25
"""Components begun between two looks at everything else: a millisecond or two."""
_WORK_OF_ONE = 2_500
"""Units of work in rendering that count as beginning one component more."""
_WOKEN_AT_ONCE = 50
"""Dependents that go on between two looks at everything else."""
_ENTERED_AT_ONCE = 200
"""Components entered into the queue for slots between two looks at everything else: about a millisecond."""
GivenBack: TypeAlias = tuple[str, int] | None
"""Slots that were held: the subject of their request, and its bytes in flight."""
_OVER: Final = frozenset({Phase.COMPLETED, Phase.ERRORED, Phase.SKIPPED})


class Beginning(Attempts):
    """The tasks of one build's components.

    Args:
        plan: decides.
        connectors: as for `Attempts`.
        store: as for `Attempts`.
        slots: as for `Attempts`.
        observer: as for `Attempts`.
        priorities: by vertex: of those that wait for a slot the highest goes first.
        key: as for `Attempts`.
        resumption: as for `Attempts`.
        resending: as for `Attempts`.
        executor: as for `Attempts`.
    """

    __slots__ = (
        "_awaited",
        "_beginning",
        "_begun",
        "_begun_in_a_row",
        "_called",
        "_due",
        "_entering",
        "_frontier",
        "_granted",
        "_laborious",
        "_looks",
        "_may_begin",
        "_no_room",
        "_numbers",
        "_nursery",
        "_parked",
        "_priorities",
        "_queued",
        "_sent_off",
        "_slots_of",
        "_subjects",
        "_tasks",
        "_turns",
    )

    def __init__(
        self,
        plan: Plan,
        connectors: Sender,
        store: Store,
        slots: Slots,
        observer: Observer | None,
        *,
        priorities: Sequence[float],
        key: str,
        resumption: Resumption | None,
        resending: Resending,
        executor: Executor,
    ) -> None:
        super().__init__(
            plan,
            connectors,
            store,
            slots,
            observer,
            key=key,
            resumption=resumption,
            resending=resending,
            executor=executor,
        )
        self._priorities = priorities
        self._frontier = Frontier(plan.graph, ())
        self._nursery: trio.Nursery | None = None
        self._tasks: set[Vertex] = set()
        """What has a task: whatever has not settled."""
        self._awaited: dict[Vertex, list[trio.Event]] = {}
        """What the tasks wait for whose components depend on one, by that one."""
        self._due: set[Vertex] = set()
        """What is due and has not settled."""
        self._entering = 0
        """Tasks that are about to enter others into the queue for slots."""
        self._numbers = count()
        self._queued: dict[Vertex, tuple[int, Waiter]] = {}
        """What waits for its slots: the number under which it was entered, and its place in the queue."""
        self._granted: list[tuple[int, Vertex]] = []
        """What may begin: a heap, by the number under which it was entered."""
        # Dicts, as they are empty mostly: a set takes three times as much then.
        self._may_begin: dict[Vertex, None] = {}
        """The same, to be looked up."""
        self._called: dict[Vertex, None] = {}
        """Of these, those whose tasks were called up: no more than begin in a row."""
        self._begun_in_a_row = 0
        """How many have begun since the last look at everything else."""
        self._looks = 0
        """How many of these looks there were."""
        self._beginning = False
        """Whether a task is beginning what was granted."""
        self._begun: dict[Vertex, Departure | None] = {}
        """What has begun, or turned out not to, until its task takes it."""
        self._laborious: dict[Vertex, int] = {}
        """What may begin as soon as its task has had it rendered: the number under which it was entered."""
        self._subjects: dict[Vertex, str] = {}
        """The subjects of what is due, where references supply them."""
        self._parked: dict[Vertex, int] = {}
        """What could begin, were the build not paused."""
        self._slots_of: dict[Vertex, str] = {}
        """The subjects of those that have slots."""
        self._no_room = False
        """Whether one was `_unsent`, and none had its slots since: what had them before gives them back."""
        self._turns: dict[Vertex, trio.Event] = {}
        """What the tasks wait for that wait for their turn."""
        self._sent_off: list[Vertex] = []
        """What will not begin, and whose tasks are still to be told."""

    @abstractmethod
    def _note_the_end(self) -> None:
        """No task is left, and none is about to be started."""

    @property
    def under_way(self) -> bool:
        """Whether tasks are there, or are about to be: otherwise nothing begins any more, or yet."""
        return self._nursery is not None and bool(self._tasks or self._entering)

    # ---- what is due

    def _land(self, vertex: Vertex) -> None:
        """Its attempt is over: enter what that makes due, then give back its slots. Idempotent.

        That is how what has waited for long does not overtake something more urgent that is due only now.
        """
        given_back = self._take_slots_of(vertex)
        due: list[Vertex] = []
        if self.plan.phase(vertex) in _OVER and vertex not in self._rescued:
            # A late success is to be persisted first. Before the walk has begun nothing is due: it will see.
            settled = self._frontier.settle(vertex)
            due = [one for one in settled if self._is_new(one)] if self.under_way else []
        if len(due) > _ENTERED_AT_ONCE or (
            self.plan.requests.has_open_subjects and any(map(self._is_open, due))
        ):
            self._enter_soon(due, given_back)
        elif due:
            self._line_up([one for one in due if self._admit(one)], given_back)
        elif given_back is not None:
            self._slots.release(self, *given_back)
        if self._frontier.settled[vertex]:
            self._wake_dependents(vertex)

    def _is_new(self, vertex: Vertex) -> bool:
        """Whether something whose dependencies have settled is to begin, and nobody has seen to it."""
        if vertex in self._due or self._frontier.settled[vertex]:
            return False
        plan = self.plan
        return (
            plan.is_due(vertex)
            or vertex in self._resumed
            or vertex in self._rescued
            or plan.is_to_be_given_up(vertex)
        )

    def _admit(self, vertex: Vertex, *, again: bool = False) -> bool:
        """See to something that is due (``again``: after a pause); whether it is to be lined up for slots."""
        plan = self.plan
        self._due.add(vertex)
        if self._is_unusual(vertex):
            self._look_at(vertex)
            return False
        if not again:
            self._observer.due(vertex)
        if plan.paused:
            self._parked[vertex] = next(self._numbers)
            return False
        if plan.is_instant(vertex):
            self._grant(vertex, next(self._numbers))
            return False
        return True

    def _grant(self, vertex: Vertex, number: int) -> None:
        """It has what it takes to begin, once what was entered before it has begun."""
        heapq.heappush(self._granted, (number, vertex))
        self._may_begin[vertex] = None
        if len(self._called) < _BEGUN_AT_ONCE:
            # The others are called by those, one after another.
            self._called[vertex] = None
            self._call_up(vertex)

    def _is_unusual(self, vertex: Vertex) -> bool:
        """Whether something that is due does not simply wait for its slots."""
        return (
            self.plan.phase(vertex) is not Phase.WAITING
            or vertex in self._resumed
            or vertex in self._retry_at
            or vertex in self._rescued
        )

    def _line_up(self, vertices: Sequence[Vertex], given_back: GivenBack = None) -> None:
        """Have these begin as soon as there are slots for them; then those of ``given_back`` are free."""
        slots = self._slots
        if given_back is not None and not slots.waiters:
            # Nobody else could have them.
            slots.release(self, *given_back)
            given_back = None
        subjects = [self._subject(vertex) for vertex in vertices]
        if slots.take_all(self, subjects):
            for vertex, subject in zip(vertices, subjects, strict=True):
                self._slots_of[vertex] = subject
                self._grant(vertex, next(self._numbers))
        else:
            for vertex, subject in zip(vertices, subjects, strict=True):
                self._queue(vertex, subject)
        if given_back is not None:
            slots.release(self, *given_back)
        if self._queued:
            slots.serve(self)

    def _is_open(self, vertex: Vertex) -> bool:
        """Whether its subject is to be found out before it is lined up."""
        plan = self.plan
        return (
            plan.requests.has_open_subject(vertex)
            and not plan.is_instant(vertex)
            and vertex not in self._subjects
        )

    def _subject(self, vertex: Vertex) -> str:
        """What a component goes out on; found out before (`_find_subject`) where references supply it."""
        return self._subjects.pop(vertex, None) or self.plan.requests.subject(vertex)

    async def _find_subject(self, vertex: Vertex) -> str:
        """What something that is due goes out on; a guess where that cannot be told."""
        await trio.lowlevel.checkpoint()
        try:
            return self.plan.requests.due_subject(vertex)
        except Laborious:
            await self.render(vertex)
        try:
            return self.plan.requests.due_subject(vertex)
        except Laborious:
            # There is news of the build.
            return self.plan.requests.subject(vertex)
        finally:
            # It is rendered again when it begins: thousands may be waiting for slots.
            self.plan.requests.let_go(vertex)

    def _queue(self, vertex: Vertex, subject: str, again: int | None = None) -> None:
        priority = self._priorities[vertex] if self._priorities else 0.0
        ended = partial(self._waited, vertex)
        size = self._unsent.size(vertex)
        waiter = self._slots.queue(self, subject, priority, ended, size=size, again=again)
        self._queued[vertex] = next(self._numbers) if again is None else again, waiter

    def _queue_again(self, number: int, vertex: Vertex) -> None:
        """Have one wait that has its slots and no room for its bytes; or one that is behind it."""
        given_back = self._take_slots_of(vertex)
        assert given_back is not None, "it is about to begin"
        self._no_room = True
        # Before anybody else can have them, the build is at the place that it had.
        self._queue(vertex, given_back[0], number)
        self._slots.release(self, *given_back)
        self._slots.serve(self)

    def _waited(self, vertex: Vertex, served: bool) -> None:
        number, waiter = self._queued.pop(vertex)
        if served:
            self._no_room = False
            self._slots_of[vertex] = waiter.subject
            if waiter.size:
                self._bytes_of[vertex] = waiter.size
            self._grant(vertex, number)
        else:
            self._send_off(vertex)

    def _send_off(self, vertex: Vertex) -> None:
        """It is not to begin any more: its task is told so soon."""
        self._due.discard(vertex)
        if not self.under_way:
            # Nobody is left to be told.
            return
        if not self._sent_off:
            assert self._nursery is not None, "it is under way"
            self._nursery.start_soon(self._tell_the_sent_off, name="send off")
        self._sent_off.append(vertex)

    async def _tell_the_sent_off(self) -> None:
        """Thousands may have waited when a build is halted: other builds have their turn between them."""
        async for vertex in paced(drained(self._sent_off), every=_WOKEN_AT_ONCE):
            self._call_up(vertex)

    def _enter_soon(
        self, vertices: Iterable[Vertex], given_back: GivenBack = None, *, again: bool = False
    ) -> None:
        assert self._nursery is not None, "the walk has begun"
        self._entering += 1
        self._nursery.start_soon(partial(self._enter, vertices, given_back, again=again), name="enter")

    async def _enter(
        self, vertices: Iterable[Vertex], given_back: GivenBack = None, *, again: bool = False
    ) -> None:
        """As `_admit` and `_line_up`, of many: other builds have their turn between them.

        Of these, those that are due; nobody is served before all of them stand in the queue. Those that have
        no task are given one.
        """
        vertices = list(vertices)
        try:
            every = paced(vertices, every=_ENTERED_AT_ONCE)
            due = [one async for one in every if self._is_new(one) and self._frontier.is_ready(one)]
            unusual = [vertex for vertex in due if self._is_unusual(vertex)]
            async for vertex in paced(unusual, every=_BEGUN_AT_ONCE):
                if self._is_new(vertex):
                    self._admit(vertex, again=again)
            for vertex in due:
                if self._is_open(vertex) and self._is_new(vertex):
                    self._subjects[vertex] = await self._find_subject(vertex)
            if len(due) <= _ENTERED_AT_ONCE:
                new = [one for one in due if self._is_new(one) and self._admit(one, again=again)]
                self._line_up(new, given_back)
            else:
                async for vertex in paced(due, every=_ENTERED_AT_ONCE):
                    if self._is_new(vertex) and self._admit(vertex, again=again):
                        self._queue(vertex, self._subject(vertex))
                if given_back is not None:
                    self._slots.release(self, *given_back)
                self._slots.serve(self)
            async for vertex in paced(vertices, every=_SPAWNED_AT_ONCE):
                if not self._frontier.settled[vertex]:
                    self._start_task(vertex)
                    if vertex not in self._due:
                        # It may have waited for this, and the build was halted meanwhile.
                        self._call_up(vertex)
        finally:
            self._entering -= 1
            self._look_for_the_end()

    # ---- a component

    def _start_task(self, vertex: Vertex) -> None:
        assert self._nursery is not None, "the walk has begun"
        if vertex not in self._tasks and self.under_way:
            self._tasks.add(vertex)
            self._nursery.start_soon(self._component, vertex, name=self.plan.graph.ids[vertex])

    def _call_up(self, vertex: Vertex) -> None:
        """Have its task look whether its turn has come, where it waits for that."""
        turn = self._turns.pop(vertex, None)
        if turn is not None:
            turn.set()

    def _look_at(self, vertex: Vertex) -> None:
        """Have a task look at a component that does not simply wait for its slots."""
        self._call_up(vertex)
        self._start_task(vertex)

    async def _component(self, vertex: Vertex) -> None:
        """See to one component, from its dependencies to its end."""
        try:
            await self._dependencies(vertex)
            resumed = self._resumed.pop(vertex, None)
            if resumed is not None:
                self._due.add(vertex)
                await self._resume(vertex, resumed)
            elif (departure := await self._turn(vertex)) is not None:
                await self._see_through(departure)
            if vertex in self._slots_of:
                self._land(vertex)
            # While its end is persisted an operator may have it done again.
            while await self._go_further(vertex):
                pass
        finally:
            self._end_task(vertex)

    async def _dependencies(self, vertex: Vertex) -> None:
        """Wait until all have settled at once: an operator may have had one of them done again."""
        settled = self._frontier.settled
        waited = True
        while waited:
            waited = False
            for dependency in self.plan.graph.dependencies[vertex]:
                if not settled[dependency]:
                    waited = True
                    await self._settled_event(dependency, vertex).wait()

    def _settled_event(self, dependency: Vertex, dependent: Vertex) -> trio.Event:
        """What ``dependent`` waits for: one event for about `_WOKEN_AT_ONCE` of those that wait."""
        events = self._awaited.get(dependency)
        if events is None:
            turns = -(-len(self.plan.graph.dependents[dependency]) // _WOKEN_AT_ONCE)
            events = self._awaited[dependency] = [trio.Event() for _ in range(turns)]
        if len(events) == 1:
            return events[0]
        # Those that begin one after another are to be awake at the same time: a fan is often in their order.
        return events[dependent * len(events) // len(self.plan.graph.ids)]

    def _wake_dependents(self, vertex: Vertex) -> None:
        events = self._awaited.pop(vertex, None)
        if events:
            events[0].set()
            del events[0]
        if events:
            assert self._nursery is not None, "whoever waits does so in it"
            self._nursery.start_soon(self._wake, events, name="wake")

    async def _wake(self, events: list[trio.Event]) -> None:
        """Let thousands of dependents go on little by little: other builds have their turn between them."""
        try:
            for event in events:
                await trio.lowlevel.checkpoint()
                event.set()
        finally:
            for event in events:
                event.set()

    async def _turn(self, vertex: Vertex) -> Departure | None:
        """Wait until there are slots for it, and what was entered before it has begun; then it begins.

        Returns:
            What is to be seen through; None where it ended without being sent, where something else is to be
            done about it, or nothing at all.
        """
        while vertex not in self._begun:
            if vertex in self._laborious:
                number = self._laborious.pop(vertex)
                await self.render(vertex)
                if not self.plan.requests.is_rendered(vertex) and not self.plan.held:
                    return None
                self._grant(vertex, number)
            if vertex in self._due:
                if vertex in self._may_begin:
                    if not self._beginning:
                        await self._begin_up_to(vertex)
                        continue
                elif vertex not in self._queued and vertex not in self._parked:
                    return None
            elif not self._is_new(vertex):
                return None
            elif not self._entering:
                # Nobody else sees to it.
                if self._is_open(vertex):
                    self._subjects[vertex] = await self._find_subject(vertex)
                else:
                    self._line_up([vertex] if self._admit(vertex) else [])
                continue
            turn = self._turns[vertex] = trio.Event()
            await turn.wait()
        return self._begun.pop(vertex)

    async def _begin_up_to(self, vertex: Vertex) -> None:
        """Begin what may begin, in the order in which it was entered, until this one has, or many have."""
        self._beginning = True
        try:
            while self._begun_in_a_row < _BEGUN_AT_ONCE:
                if vertex in self._begun or not self._granted:
                    return
                work = self.plan.requests.work_left
                await self._begin_one(*heapq.heappop(self._granted))
                self._begun_in_a_row += 1 + (work - self.plan.requests.work_left) // _WORK_OF_ONE
        finally:
            self._beginning = False
            if self._granted:
                head = self._granted[0][1]
                self._called[head] = None
                self._call_up(head)
        # This task comes back to it, should no other one have come so far by then.
        looks = self._looks
        await trio.lowlevel.checkpoint()
        if looks == self._looks:
            self._looks += 1
            self._begun_in_a_row = 0

    async def _begin_one(self, number: int, vertex: Vertex) -> None:
        plan = self.plan
        due = plan.is_due(vertex)
        if due and plan.paused:
            self._parked[vertex] = number
            self._unsent.let_go(vertex)
            self._give_back(vertex)
        elif due and self._no_room and vertex in self._slots_of:
            self._queue_again(number, vertex)
        else:
            try:
                departure = await self._start(vertex) if due else None
            except Laborious:
                self._laborious[vertex] = number
                self._begun_in_a_row += INLINE_WORK // _WORK_OF_ONE
                self._call_up(vertex)
            else:
                if due and vertex in self._unsent:
                    self._queue_again(number, vertex)
                else:
                    self._begun[vertex] = departure
                    self._call_up(vertex)
        plan.requests.let_go(vertex)
        self._called.pop(vertex, None)
        self._may_begin.pop(vertex, None)

    def _give_back(self, vertex: Vertex) -> None:
        given_back = self._take_slots_of(vertex)
        if given_back is not None:
            self._slots.release(self, *given_back)

    def _take_slots_of(self, vertex: Vertex) -> GivenBack:
        """What a component holds, to be given back."""
        subject = self._slots_of.pop(vertex, None)
        return None if subject is None else (subject, self._bytes_of.pop(vertex, 0))

    def _end_task(self, vertex: Vertex) -> None:
        settled = self._frontier.settled
        if not settled[vertex] or vertex in self._slots_of:
            self._land(vertex)
        self._due.discard(vertex)
        self._tasks.discard(vertex)
        if not settled[vertex]:
            # Whatever became of it: nobody may wait for it for ever.
            settled[vertex] = True
            self._wake_dependents(vertex)
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if not self._tasks and not self._entering:
            self._note_the_end()

    async def _go_further(self, vertex: Vertex) -> bool:
        """One step of a component whose dependencies are settled; whether there was one to be made."""
        if self.plan.is_due(vertex):
            await self._try(vertex)
        elif self.plan.is_to_be_given_up(vertex):
            await self._keep(self.plan.give_up_retrying(vertex))
        elif vertex in self._rescued:
            await self._keep(self._rescued.pop(vertex))
        else:
            return False
        return True

    async def _try(self, vertex: Vertex) -> None:
        """One attempt, if it comes to that; whether there is to be another one is the plan's to say."""
        plan = self.plan
        if plan.is_instant(vertex) and not plan.paused:
            await self._begin(vertex)
            return
        if vertex in self._retry_at:
            await self._back_off(vertex)
            return
        if plan.paused:
            with self._wait(vertex):
                if self._unpaused is None:
                    self._unpaused = trio.Event()
                await self._unpaused.wait()
            return
        subject = await self._find_subject(vertex) if self._is_open(vertex) else self._subject(vertex)
        priority = self._priorities[vertex] if self._priorities else 0.0
        size = self._unsent.size(vertex)
        taken = self._slots.try_take(self, subject, priority, size)
        if not taken:
            with self._wait(vertex):
                taken = await self._slots.take(self, subject, priority, size)
        if taken:
            self._slots_of[vertex] = subject
            if size:
                self._bytes_of[vertex] = size
            try:
                if plan.is_due(vertex):
                    await self._begin(vertex)
            finally:
                self._land(vertex)

    async def _back_off(self, vertex: Vertex) -> None:
        at = self._retry_at[vertex]
        with self._wait(vertex):
            await trio.sleep_until(at)
        if trio.current_time() >= at:
            self._retry_at.pop(vertex, None)

    @contextmanager
    def _wait(self, vertex: Vertex) -> Iterator[None]:
        """What is awaited in here ends when there is news of the component."""
        wait = self._waits[vertex] = trio.CancelScope()
        try:
            with wait:
                yield
        finally:
            del self._waits[vertex]

    # ---- news of operators

    def stir(self, vertex: Vertex) -> None:
        """Look at a component again: there is news of it, whatever it waits for."""
        super().stir(vertex)
        if self._unsent:
            self._unsent.pop(vertex)
        queued = self._queued.pop(vertex, None)
        if queued is not None:
            self._slots.leave(queued[1])
            self._look_at(vertex)
        elif self._parked.pop(vertex, None) is not None:
            self._look_at(vertex)
        elif vertex in self._rescued and vertex not in self._tasks:
            # Its task has ended, as the build was halted while it waited for another attempt.
            self._frontier.reopen([vertex])
            self._due.add(vertex)
            self._start_task(vertex)

    def respawn(self) -> None:
        """See to it that whatever is to be done and is due begins: it may have been given up."""
        unsettled = self.plan.unsettled()
        # Also what its own task has not looked at since it failed.
        self._frontier.reopen(unsettled)
        missing = [vertex for vertex in unsettled if vertex not in self._due]
        if missing and self.under_way:
            self._enter_soon(missing)

    def end(self, vertex: Vertex) -> None:
        """An operator has said what became of a component."""
        self._observer.settled(vertex, self.plan.attempt(vertex), None)
        self.stir(vertex)
        if vertex not in self._due:
            self._land(vertex)

    def unpause(self) -> None:
        """Let go on who waits for the end of a pause, or of the build."""
        super().unpause()
        if self._parked and (self.plan.halted or not self.plan.paused):
            parked, self._parked = self._parked, {}
            if self.plan.halted:
                for vertex in parked:
                    self._send_off(vertex)
                return
            self._due.difference_update(parked)
            if self.under_way:
                self._enter_soon(sorted(parked, key=parked.__getitem__), again=True)
