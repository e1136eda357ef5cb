"""Replies are dealt with in turns: a build to which hundreds come in at once does not delay the others.

A reply that is passed on wakes a component, which settles, and wakes dependents, which send requests: all of
it happens before anything else comes in. So only so many are passed on at a time; the rest waits here, by
build, and not in the connection, where the next build would stand behind all of it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

import trio

from scheduler.ratelimit import RateLimitedLog

_AT_ONCE = 16
"""Replies between two looks at everything else: 2 ms with all that follows from them."""
_MOST = 10_000
"""Replies of one build that wait for its turn."""


class Turns:
    """Calls back at once while there is little to do, otherwise build by build in turn."""

    def __init__(self) -> None:
        self._left = _AT_ONCE
        self._queues: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._wake = trio.Event()
        self._moved = trio.Event()
        self._log = RateLimitedLog()

    async def done_with(self, builds: Iterable[str]) -> None:
        """Wait until nothing waits for its turn that was there for one of ``builds`` by now."""
        waiting = {build for build in builds if build in self._queues}
        while waiting:
            await self._moved.wait()
            waiting.intersection_update(self._queues)

    async def through(self) -> None:
        """Wait until nothing waits for its turn that was there by now."""
        await self.done_with(list(self._queues))

    def take(self, build: str, job: Callable[[], None]) -> None:
        """Call ``job`` now or soon, in the order of asking within a build; it must not block."""
        queue = self._queues.get(build)
        if queue is None and self._left:
            self._left -= 1
            self._do(job)
        elif queue is None:
            self._queues[build] = deque([job])
        elif len(queue) < _MOST:
            queue.append(job)
        else:
            # More than can be in flight: most of it is duplicates, which cost nothing.
            self._do(job)
        self._wake.set()

    async def run(self) -> None:
        """Give the turns; never returns."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._left = _AT_ONCE
            share = max(1, _AT_ONCE // max(1, len(self._queues)))
            for _ in range(min(_AT_ONCE, len(self._queues))):
                build, queue = self._queues.popitem(last=False)
                for _ in range(min(share, len(queue))):
                    self._left -= 1
                    self._do(queue.popleft())
                if queue:
                    self._queues[build] = queue
            if self._queues:
                self._wake.set()
            moved, self._moved = self._moved, trio.Event()
            moved.set()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001 - logged, and it must cost no other reply
            # As in the bus: here an exception would end the work on all replies.
            self._log.exception("a reply could not be handled")
