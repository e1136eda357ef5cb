"""Replies are dealt with in turns: a build to which hundreds come in at once does not delay the others.

A reply that is passed on wakes a component, which settles, and wakes dependents, which send requests: all of
it happens before anything else comes in. So only so many are passed on at a time; the rest waits here, by
build, and not in the connection, where the next build would stand behind all of it.
"""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable

import trio
from attrs import define

from scheduler.ratelimit import RateLimitedLog

_AT_ONCE = 16
"""Replies between two looks at everything else: 2 ms with all that follows from them."""
_MOST = 10_000
"""Replies of one build that wait for its turn."""


@define
class _Job:
    do: Callable[[], None]
    prepare: Callable[[], Awaitable[None]] | None = None


class Turns:
    """Calls back at once while there is little to do, otherwise build by build in turn."""

    def __init__(self) -> None:
        self._left = _AT_ONCE
        self._queues: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._preparing: dict[str, deque[_Job]] = {}
        """What waits until the first of it is prepared."""
        self._wake = trio.Event()
        self._moved = trio.Event()
        self._log = RateLimitedLog()

    async def done_with(self, builds: Iterable[str]) -> None:
        """Wait until nothing waits for its turn that was there for one of ``builds`` by now."""
        waiting = {build for build in builds if build in self._queues or build in self._preparing}
        while waiting:
            await self._moved.wait()
            waiting.intersection_update([*self._queues, *self._preparing])

    async def through(self) -> None:
        """Wait until nothing waits for its turn that was there by now."""
        await self.done_with([*self._queues, *self._preparing])

    def take(
        self, build: str, job: Callable[[], None], prepare: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Call ``job`` now or soon, in the order of asking within a build; it must not block.

        Args:
            build: whose it is.
            job: what is to be called.
            prepare: what takes long about it, to be awaited first; other builds do not wait for it.

        Returns:
            Whether it is yet to be called.
        """
        queue = self._queues.get(build) or self._preparing.get(build)
        if queue is None and self._left and prepare is None:
            self._left -= 1
            self._do(job)
            waits = False
        elif queue is None:
            self._queues[build] = deque([_Job(job, prepare)])
            waits = True
        elif len(queue) < _MOST:
            queue.append(_Job(job, prepare))
            waits = True
        else:
            # More than can be in flight: most of it is duplicates, which cost nothing.
            self._do(job)
            waits = False
        self._wake.set()
        return waits

    async def run(self) -> None:
        """Give the turns; never returns."""
        async with trio.open_nursery() as nursery:
            await self._run(nursery)

    async def _run(self, nursery: trio.Nursery) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._left = _AT_ONCE
            share = max(1, _AT_ONCE // max(1, len(self._queues)))
            for _ in range(min(_AT_ONCE, len(self._queues))):
                build, queue = self._queues.popitem(last=False)
                for _ in range(min(share, len(queue))):
                    if (prepare := queue[0].prepare) is not None:
                        self._preparing[build] = queue
                        nursery.start_soon(self._prepare, build, prepare)
                        break
                    self._left -= 1
                    self._do(queue.popleft().do)
                if queue and build not in self._preparing:
                    self._queues[build] = queue
            if self._queues:
                self._wake.set()
            moved, self._moved = self._moved, trio.Event()
            moved.set()

    async def _prepare(self, build: str, prepare: Callable[[], Awaitable[None]]) -> None:
        try:
            await prepare()
        except Exception:  # noqa: BLE001 - logged, and it must cost no other reply
            self._log.exception("a reply could not be read")
        queue = self._preparing.pop(build)
        queue[0].prepare = None
        self._queues[build] = queue
        self._wake.set()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001 - logged, and it must cost no other reply
            # As in the bus: here an exception would end the work on all replies.
            self._log.exception("a reply could not be handled")
