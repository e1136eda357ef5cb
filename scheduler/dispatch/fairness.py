"""Turns for replies: a build that gets hundreds at once does not delay the others.

A reply that is passed on wakes a component, which settles, and wakes dependents, which send requests: all
that happens before anything else comes in. So only a few are passed on at a time. The rest waits here, by
sender and build, and not in the connection, where the next build would stand behind all of it. Senders take
turns, and so do the builds of a sender: thousands of builds of one sender do not delay that of another.
"""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import trio

from scheduler.dispatch.senders import UNKNOWN
from scheduler.runtime.log_limits import RateLimitedLog

_AT_ONCE = 12
"""Small replies passed on before other tasks have a turn: 2 ms with all that follows from them. A small build
needs a dozen turns, and waits for as much in each; half as many replies make a turn hardly dearer."""
_FEW = _AT_ONCE // 2
"""Room for small replies from which on there is a turn to make more: a turn costs as much as a reply."""
_MOST = 10_000
"""Replies of one build that wait for its turn, at most."""


_Job: TypeAlias = tuple[Callable[..., None], tuple[Any, ...], Callable[[], Awaitable[None]] | None, int]
"""Callback; its arguments; preparation that is awaited before it; weight, in small replies."""


class FairDispatcher:
    """Calls back at once while there is little to do; otherwise senders, and builds of each, have turns.

    Args:
        sender_of: tells the sender of the build of an id; `senders.UNKNOWN` where that is not known.
    """

    def __init__(self, sender_of: Callable[[str], str] = lambda _: UNKNOWN) -> None:
        self._sender_of = sender_of
        self._left = _AT_ONCE
        self._queues: dict[str, deque[_Job]] = {}
        """Waiting jobs by build; of some builds the first job is being prepared."""
        self._rotation: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        """Builds by sender whose first job is prepared; those whose turn is next come first."""
        self._ready = 0
        """Number of these builds."""
        self._wake = trio.Event()
        self._moved = trio.Event()
        """Set after each round of turns."""
        self._log = RateLimitedLog()

    async def done_with(self, builds: Iterable[str]) -> None:
        """Wait until every reply that waits by now for a turn of one of ``builds`` has had it."""
        waiting = {build for build in builds if build in self._queues}
        while waiting:
            await self._moved.wait()
            waiting.intersection_update(self._queues)

    async def through(self) -> None:
        """Wait until every reply that waits by now has had its turn."""
        await self.done_with(list(self._queues))

    def take(
        self,
        build: str,
        job: Callable[..., None],
        *args: Any,
        prepare: Callable[[], Awaitable[None]] | None = None,
        weight: int = 1,
    ) -> bool:
        """Call ``job`` now or soon, in the order of asking within a build; it must not block.

        Args:
            build: id of the build whose turn it takes.
            job: callback.
            args: its arguments.
            prepare: slow part of it, to be awaited first; other builds do not wait for that.
            weight: number of small replies that it counts as.

        Returns:
            Whether ``job`` is yet to be called.
        """
        queue = self._queues.get(build)
        if queue is None and self._left > 0 and prepare is None:
            self._left -= weight
            self._do(job, args)
            if self._left <= _FEW:
                self._wake.set()
            return False
        if queue is None:
            self._queues[build] = deque([(job, args, prepare, weight)])
            self._enter(build)
            waits = True
        elif len(queue) < _MOST:
            queue.append((job, args, prepare, weight))
            waits = True
        else:
            # More than can be in flight: most of them are duplicates, which cost nothing.
            self._do(job, args)
            waits = False
        self._wake.set()
        return waits

    async def run(self) -> None:
        """Give turns; never returns."""
        async with trio.open_nursery() as nursery:
            await self._run(nursery)

    async def _run(self, nursery: trio.Nursery) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._left = _AT_ONCE
            for _ in range(min(_AT_ONCE, self._ready)):
                if self._left <= 0:
                    break
                build, most = self._next()
                self._serve(nursery, build, most)
            if self._ready:
                self._wake.set()
            moved, self._moved = self._moved, trio.Event()
            moved.set()

    def _enter(self, build: str) -> None:
        """Queue a build for its turn, behind all others of its sender."""
        self._rotation.setdefault(self._sender_of(build), OrderedDict())[build] = None
        self._ready += 1

    def _next(self) -> tuple[str, int]:
        """Take the build whose turn it is, and the number of small replies that it may have in it."""
        senders = len(self._rotation)
        sender, builds = self._rotation.popitem(last=False)
        most = max(1, _AT_ONCE // (senders * len(builds)))
        build, _ = builds.popitem(last=False)
        if builds:
            self._rotation[sender] = builds
        self._ready -= 1
        return build, most

    def _serve(self, nursery: trio.Nursery, build: str, most: int) -> None:
        queue = self._queues[build]
        while queue and most > 0:
            job, args, prepare, weight = queue[0]
            if prepare is not None:
                nursery.start_soon(self._prepare, build, prepare)
                return
            queue.popleft()
            most -= weight
            self._left -= weight
            self._do(job, args)
        if queue:
            self._enter(build)
        else:
            del self._queues[build]

    async def _prepare(self, build: str, prepare: Callable[[], Awaitable[None]]) -> None:
        try:
            await prepare()
        except Exception:  # noqa: BLE001 - logged, and it must cost no other reply
            self._log.exception("a reply could not be read")
        queue = self._queues[build]
        job, args, _, weight = queue[0]
        queue[0] = job, args, None, weight
        self._enter(build)
        self._wake.set()

    def _do(self, job: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            job(*args)
        except Exception:  # noqa: BLE001 - logged, and it must cost no other reply
            # As in the bus: here an exception would end the work on all replies.
            self._log.exception("a reply could not be handled")
