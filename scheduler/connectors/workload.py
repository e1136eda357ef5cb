"""Which requests are worked on, which wait, and which belong together; synchronous, without a clock.

Requests with the same key are one *work*: the first one begins it, later ones join, and all get its reply.
Works of a handler have *slots*, as many as its concurrency; others wait in a line, which has a bound. A work
is *given up* when the scheduler cancelled all its attempts, or its time is over. It may go on for a while, as
a thread cannot be ended. It then has no slot, and what comes for its key is a work of its own, which begins
when that one has ended. No handler has more such works than slots: beyond that its requests are refused.
"""

from collections import deque
from typing import Final, NamedTuple

from attrs import define, field

from scheduler.connectors.attempts import Attempt
from scheduler.connectors.handlers import Handler
from scheduler.connectors.outcomes import Outcome, busy
from scheduler.text import count, doing

MOST_WAITING: Final = 10_000
"""Requests that wait for a slot."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""Bytes of requests that wait for a slot: twice what a scheduler has in flight by default."""
_MOST_JOINED: Final = 100
"""Attempts of one work."""
_BUSY: Final = 5.0
_STUCK: Final = 30.0
_STOPPING: Final = 1.0
"""Seconds after which a refused request may come again."""


@define(eq=False)
class Work:
    """Work on one component."""

    handler: Handler
    identity: str
    """Key, or attempt id where there is none; empty where there is neither."""
    first: Attempt
    attempts: list[Attempt]
    """Attempts that get its reply."""
    previous: "Work | None" = None
    """Work on the same component that was given up, and had not ended when this came; see `before`."""
    has_slot: bool = False
    in_line: bool = False
    """Whether it waits for a slot."""
    abandoned: bool = False
    """Whether it goes on without a slot."""
    ended: bool = False
    given_up: str = ""
    """Reason why nobody waits for it any more; empty while somebody does."""

    @property
    def before(self) -> "Work | None":
        """Work on the same component that has to end before this acts; None where there is none."""
        while self.previous is not None and self.previous.ended:
            # One that never acted may itself have waited for another.
            self.previous = self.previous.previous
        return self.previous

    @property
    def key(self) -> str:
        """Key in a store: of the component, and of what is done with it. Empty without a key."""
        return f"{self.first.subject} {self.first.key}" if self.first.key else ""


class Taken(NamedTuple):
    """A request that was taken."""

    attempt: Attempt
    """The attempt that stands for it: an earlier one, where the same attempt was sent again."""
    work: Work
    begins: Work | None = None
    """The same, where it has its slot and is to begin."""


@define
class _Lane:
    """Works of one handler."""

    waiting: deque[Work] = field(factory=deque)
    slots_taken: int = 0
    abandoned: int = 0


@define(eq=False)
class Workload:
    """All works of a process."""

    most_waiting: int = MOST_WAITING
    most_bytes: int = MOST_BYTES
    stopping: bool = False
    """Whether nothing new is taken."""
    waiting: int = 0
    """Number of requests that wait for a slot."""
    waiting_bytes: int = 0
    _lanes: dict[Handler, _Lane] = field(factory=dict)
    _works: dict[str, Work] = field(factory=dict)
    """Latest work of each identity."""
    _by_attempt: dict[str, Work] = field(factory=dict)

    def offer(self, handler: Handler, attempt: Attempt) -> Taken | Outcome:
        """Take a request, or return the outcome with which it is refused."""
        identity = f"{attempt.subject} {attempt.key or attempt.id}" if attempt.key or attempt.id else ""
        known = self._works.get(identity)
        if known is not None and not known.given_up:
            return self._join(known, attempt)
        if self.stopping:
            return busy("the connector is stopping", _STOPPING)
        lane = self._lane(handler)
        if lane.abandoned >= handler.concurrency:
            calls = count(lane.abandoned, "call")
            return busy(f"the connector is stuck: {calls} of {handler.name} did not end in time", _STUCK)
        work = Work(handler, identity, attempt, [attempt], previous=known)
        if lane.slots_taken >= handler.concurrency:
            # One that is larger than the bound waits, if it does so alone.
            full = self.waiting >= self.most_waiting or self.waiting_bytes + attempt.size > self.most_bytes
            if self.waiting and full:
                return busy(f"the connector is busy: {doing(self.waiting, 'request', 'wait')}", _BUSY)
            lane.waiting.append(work)
            work.in_line = True
            self._count(work, 1)
        if identity:
            self._works[identity] = work
        if attempt.id:
            self._by_attempt[attempt.id] = work
        if work.in_line:
            return Taken(attempt, work)
        return Taken(attempt, work, begins=self._begun(lane, work))

    def _join(self, work: Work, attempt: Attempt) -> Taken | Outcome:
        for one in work.attempts:
            if one.id and one.id == attempt.id:
                # Sent again, maybe by a scheduler that took the build over: it names its own subjects.
                one.reply, one.heartbeat, one.within = attempt.reply, attempt.heartbeat, attempt.within
                return Taken(one, work)
        if len(work.attempts) >= _MOST_JOINED:
            return busy(f"{len(work.attempts)} attempts for one component wait already", _BUSY)
        # Only the first one is read.
        attempt.data = b""
        work.attempts.append(attempt)
        if attempt.id:
            self._by_attempt[attempt.id] = work
        return Taken(attempt, work)

    def cancel(self, attempt: str, reason: str) -> Work | None:
        """Note that the scheduler gave up an attempt; return its work if it gave up all attempts of that."""
        work = self._by_attempt.get(attempt)
        if work is None or work.given_up:
            return None
        for one in work.attempts:
            if one.id == attempt and one.cancelled is None:
                one.cancelled = reason
        if any(one.cancelled is None for one in work.attempts):
            return None
        work.given_up = reason
        return work

    def abandon(self, work: Work, reason: str) -> Work | None:
        """Take the slot of a work that goes on although its time is over; return the work that gets it."""
        work.given_up = work.given_up or reason
        work.abandoned = True
        self._lane(work.handler).abandoned += 1
        return self._release(work)

    def end(self, work: Work) -> Work | None:
        """Forget a work that has ended, or that waits; return the work that gets its slot."""
        lane = self._lane(work.handler)
        work.ended = True
        if work.abandoned:
            work.abandoned = False
            lane.abandoned -= 1
        if self._works.get(work.identity) is work:
            del self._works[work.identity]
            if (before := work.before) is not None:
                # It never acted; what comes next has to wait for the same one.
                self._works[work.identity] = before
        for attempt in work.attempts:
            if self._by_attempt.get(attempt.id) is work:
                del self._by_attempt[attempt.id]
        if work.has_slot:
            return self._release(work)
        if work.in_line:
            lane.waiting.remove(work)
            work.in_line = False
            self._count(work, -1)
        return None

    def stop(self) -> list[Work]:
        """Take nothing from now on; return the works that wait, which are forgotten."""
        self.stopping = True
        left = [work for lane in self._lanes.values() for work in lane.waiting]
        for work in left:
            self.end(work)
        return left

    def _lane(self, handler: Handler) -> _Lane:
        lane = self._lanes.get(handler)
        if lane is None:
            lane = self._lanes[handler] = _Lane()
        return lane

    def _begun(self, lane: _Lane, work: Work) -> Work:
        lane.slots_taken += 1
        work.has_slot = True
        return work

    def _release(self, work: Work) -> Work | None:
        lane = self._lane(work.handler)
        if not work.has_slot:
            return None
        work.has_slot = False
        lane.slots_taken -= 1
        if not lane.waiting or lane.slots_taken >= work.handler.concurrency:
            return None
        following = lane.waiting.popleft()
        following.in_line = False
        self._count(following, -1)
        return self._begun(lane, following)

    def _count(self, work: Work, by: int) -> None:
        self.waiting += by
        self.waiting_bytes += by * work.first.size
