"""What changes a plan's state is what its log says: each event is told to the store once, in its order.

`PlanState.apply` is the only writer. So where the events that were applied to a build that runs are those
that its log gets, component by component, whoever replays the log, or any beginning of it, stands where the
first process stood.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

from scheduler.journal.events import (
    Cancelled,
    Event,
    Finished,
    Limited,
    Paused,
    Retried,
    Retrying,
    Settled,
    Started,
    Supplied,
    Unpaused,
    Withdrawn,
)
from scheduler.journal.orders import Order
from scheduler.plan.state import PlanState
from scheduler.stores.log import BuildLog
from scheduler.stores.log_journal import LogJournal
from scheduler.walk import Walk

_COMPARED = (
    *(Cancelled, Limited, Paused, Retried, Retrying, Settled),
    *(Started, Supplied, Unpaused, Withdrawn),
)
"""All that changes a plan's state but `Sent`, which is noted later, and `Finished`, which ends it."""


class Shadow:
    """Compares what plans do with what their logs are told.

    Args:
        tell: is told of each difference, once a build.
    """

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._pending: dict[int, dict[str, deque[Event]]] = {}
        """By a plan's state, what was applied and not told yet: by component, of the build under no name."""
        self._states: list[PlanState] = []
        """Kept alive, so that no two have the same id."""
        self._lived: WeakKeyDictionary[BuildLog, PlanState] = WeakKeyDictionary()
        """States of builds that run, by their log; a log of later must not be taken for one that is gone."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all plans and stores within this."""
        patches: list[AbstractContextManager[Any]] = [
            mock.patch.object(PlanState, "apply", self._applying(PlanState.apply)),
            mock.patch.object(PlanState, "take_back", self._taking_back(PlanState.take_back)),
            mock.patch.object(Walk, "__init__", self._beginning(Walk.__init__)),
            mock.patch.object(BuildLog, "note", self._noting(BuildLog.note)),
        ]
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield

    def _applying(self, apply: Callable[..., None]) -> Callable[..., None]:
        def applied(state: PlanState, event: Event) -> None:
            apply(state, event)
            pending = self._pending.get(id(state))
            if pending is not None and isinstance(event, _COMPARED):
                pending.setdefault(_key(event), deque()).append(event)

        return applied

    def _taking_back(self, take_back: Callable[..., None]) -> Callable[..., None]:
        def taken_back(state: PlanState, vertex: int) -> None:
            take_back(state, vertex)
            pending = self._pending.get(id(state))
            if pending is not None:
                last = pending[state._graph.ids[vertex]].pop()
                if not isinstance(last, Started):
                    self._tell(state._build.id, f"{last} was taken back")

        return taken_back

    def _beginning(self, init: Callable[..., None]) -> Callable[..., None]:
        def begun(walk: Walk, *args: Any, **options: Any) -> None:
            init(walk, *args, **options)
            state = walk.plan.state
            self._states.append(state)
            self._pending[id(state)] = {}
            journal = walk._recording._journal
            if isinstance(journal, LogJournal):
                self._lived[journal._log] = state

        return begun

    def _noting(self, note: Callable[..., int]) -> Callable[..., int]:
        def noted(log: BuildLog, *events: Event, order: Order | None = None) -> int:
            self._compare(log, events)
            return note(log, *events, order=order)

        return noted

    def _compare(self, log: BuildLog, events: Iterable[Event]) -> None:
        state, build = self._lived.get(log), log.build
        if state is None:
            return
        pending = self._pending[id(state)]
        for event in events:
            if isinstance(event, _COMPARED):
                self._match(build, pending.get(_key(event), deque()), event)
            elif isinstance(event, Finished):
                left = [one for queue in pending.values() for one in queue if not _is_late(one)]
                if left:
                    self._tell(build, f"it ends, and its log was never told of {left[:3]}")
                del self._lived[log]

    def _match(self, build: str, queue: deque[Event], event: Event) -> None:
        # Of a component that is reopened a late success that was not persisted yet is forgotten.
        while queue and queue[0] != event and _is_late(queue[0]):
            queue.popleft()
        if not queue or queue[0] != event:
            self._tell(build, f"its log is told of {event}, and its plan has {list(queue)[:2]}")
        else:
            queue.popleft()


def _key(event: Event) -> str:
    return getattr(event, "component", "")


def _is_late(event: Event) -> bool:
    return isinstance(event, Settled) and "adoptable" in event.body
