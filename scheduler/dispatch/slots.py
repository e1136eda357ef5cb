"""The slots of this process: the limiter by Trio's clock, with alarms for rates and waits for tasks."""

import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import NoReturn

import trio

from scheduler.definition.rules import LimitRule
from scheduler.limiter import (
    MAX_BYTES,
    Limiter,
    Part,
    Use,
    Waiter,
    WaiterState,
    adopt,
    allot,
    blocking,
    counting,
    note_of,
    standing,
    use_of,
    waiting,
    wanting,
)
from scheduler.runtime.pace import paced

__all__ = ["Slots", "Waiter"]


class Slots:
    """Lets requests begin within the limits, when `Limiter` allows it.

    Args:
        rules: limits over all builds, by subject.
        per_instance: at most this many slots are taken at a time.
        per_build: at most this many of them by one build.
        max_bytes: bytes of requests in flight, over all builds.
    """

    def __init__(
        self,
        rules: Sequence[LimitRule] = (),
        *,
        per_instance: int = 2_000,
        per_build: int = 500,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.per_instance = per_instance
        self.per_build = per_build
        self._sooner = trio.Event()
        self.limiter = Limiter(
            rules,
            per_instance=per_instance,
            per_build=per_build,
            max_bytes=max_bytes,
            sooner=self._note_sooner,
        )
        self._dispenser = self.limiter.dispenser
        self.queue = self.limiter.queue
        """Queues a request for its slots (`Limiter.queue`); to be followed by `serve` before anything else
        happens."""
        self.budget = self.limiter.budget
        """Budget of bytes in flight."""

    @property
    def taken(self) -> int:
        """Requests in flight."""
        return self.limiter.taken

    @property
    def waiters(self) -> int:
        """Requests that wait for a slot."""
        # Asked with each request.
        return self._dispenser.waiters

    def open(self, build: Hashable, rules: Sequence[LimitRule] = (), sender: str = "") -> None:
        """Begin a build with limits of its own; ``sender`` sent it (empty: not known)."""
        self.limiter.open(build, rules, sender)
        self._hand_out()

    def change(self, build: Hashable, rules: Sequence[LimitRule]) -> None:
        """Give a build other limits of its own from now on; what is in flight stays, and counts."""
        self.limiter.change(build, rules)
        self._hand_out()

    def close(self, build: Hashable) -> None:
        """Forget a build: its waiters go on without a slot, what it holds is given back. Idempotent."""
        self.limiter.close(build)
        self._hand_out()

    def try_take(self, build: Hashable, subject: str, priority: float = 0.0, size: int = 0) -> bool:  # noqa: ARG002
        """Take the slots for a request if all are there and no other waits for the same; never waits.

        Args:
            build: whose it is.
            subject: its subject.
            priority: as in `take`; without a meaning where nothing waits.
            size: as in `Limiter.queue`.
        """
        limiter = self.limiter
        taken = None if size else limiter.try_counted(build, subject)
        return limiter.try_take(build, subject, size, trio.current_time()) if taken is None else taken

    async def take(self, build: Hashable, subject: str, priority: float = 0.0, size: int = 0) -> bool:
        """Take the slots for a request, waiting for them; cancelled while waiting, it takes none.

        Args:
            build: whose it is.
            subject: its subject.
            priority: the higher the more urgent; compared within the build.
            size: as in `Limiter.queue`.

        Returns:
            Whether they were taken: not where the build was dismissed meanwhile.
        """
        if self.try_take(build, subject, priority, size):
            return True
        ended = trio.Event()
        waiter = self.queue(build, subject, priority, lambda _: ended.set(), size=size)
        self.serve(build)
        try:
            await ended.wait()
        except trio.Cancelled:
            if waiter.state is WaiterState.SERVED:
                self.release(build, subject, size)
            else:
                self.leave(waiter)
            raise
        return waiter.state is WaiterState.SERVED

    def take_all(self, build: Hashable, subjects: Sequence[str]) -> bool:
        """Take the slots for several requests, as `try_take`, if there are some for all of them; or none."""
        limiter = self.limiter
        # Mostly there is one: that saves a call.
        one = len(subjects) == 1
        taken = limiter.try_counted(build, subjects[0]) if one else limiter.take_all(build, subjects)
        if taken is None:
            return limiter.try_take(build, subjects[0], 0, trio.current_time())
        if limiter.marked:
            self._hand_out()
        return taken

    def weigh(self, build: Hashable, size: int) -> bool:
        """Take room for a request of ``size`` bytes that has its slots; or none, where there is not so much.

        Then it is to be queued again, with its size, before its slots are released.
        """
        limiter = self.limiter
        fits = limiter.weigh(build, size)
        if limiter.marked:
            self._hand_out()
        return fits

    def serve(self, build: Hashable) -> None:
        """Serve the waiters beside those of a build, and these, as long as there is room."""
        self.limiter.call_all(build)
        self._hand_out()

    def leave(self, waiter: Waiter) -> None:
        """Let a waiter go that was not told so. Idempotent."""
        self.limiter.leave(waiter)
        self._hand_out()

    def occupy(self, build: Hashable, subject: str, size: int = 0) -> None:
        """Account for a request already in flight, even over the limit; consumes no rate."""
        self.limiter.occupy(build, subject, size)

    def recall(self, build: Hashable, subject: str, begun: float) -> None:
        """Count a request that an earlier process began under the build's own rates; as `Usages.recall`."""
        self.limiter.usages.recall(build, subject, begun)

    def release(self, build: Hashable, subject: str, size: int = 0) -> None:
        """Give the slots of a request back; they go to the next in turn at once.

        The arguments are those of `Limiter.give_back`.

        Raises:
            KeyError: the build has no request on ``subject`` in flight.
        """
        limiter = self.limiter
        if limiter.give_back(build, subject, size):
            limiter.hand_out(trio.current_time())

    def dismiss(self, build: Hashable, most: int = sys.maxsize) -> bool:
        """Send waiters of a build on without a slot, at most so many; returns whether others still wait."""
        return self.limiter.dismiss(build, most)

    def blocking(self, build: Hashable, subject: str) -> list[str]:
        """Return the limits that would keep such a request waiting now, as their settings write them."""
        return blocking(self.limiter.usages, build, subject, trio.current_time())

    def waiting(self, build: Hashable) -> Mapping[str, int]:
        """Return, by limit, how many components of this build wait and are kept by it."""
        return waiting(self.limiter.usages, build, trio.current_time())

    def told(self, label: str) -> str:
        """Return a limit of `blocking` or `waiting` with what is to be said of this instance's part of it."""
        return note_of(self.limiter, label)

    # ---- limits over all instances

    def use(self, waiting: Mapping[str, int]) -> dict[str, Use]:
        """Return what is used of each limit over all builds, and waits for it, by kind of the rule.

        Args:
            waiting: what waits, as `wanting` has counted it lately.
        """
        return use_of(self.limiter, trio.current_time(), waiting)

    async def wanting(self) -> Mapping[str, int]:
        """Count, by kind, the requests that wait for limits over all instances alone; in slices."""
        found: Mapping[str, int] = {}
        slices = wanting(self.limiter, trio.current_time())
        async for found in paced(slices, every=1):  # noqa: B007 - the last one is complete
            pass
        return found

    async def standing(self) -> dict[str, tuple[int, int, int]]:
        """Return size, use and queue of each limit over all builds, by kind of the rule; in slices."""
        waiting: Mapping[str, int] = {}
        async for waiting in paced(counting(self.limiter), every=1):  # noqa: B007 - the last one is complete
            pass
        limits = standing(self.limiter, trio.current_time())
        return {kind: (size, used, waiting.get(kind, 0)) for kind, (size, used) in limits.items()}

    def adopt(self, rules: Sequence[LimitRule]) -> None:
        """Replace the limits over all builds; what is in flight stays, and counts."""
        adopt(self.limiter, rules)
        self._hand_out()

    def allot(self, parts: Mapping[str, Part]) -> None:
        """Set this instance's parts of the limits over all builds, by kind of the rule."""
        allot(self.limiter, parts, trio.current_time())

    async def run(self) -> NoReturn:
        """Wake those that wait for a rate; where there are no rates there is nothing to do."""
        while True:
            await self._wait()
            await trio.lowlevel.checkpoint()
            self.limiter.follow_alarms(trio.current_time())

    def _hand_out(self) -> None:
        if self._dispenser.waiters:
            self.limiter.hand_out(trio.current_time())

    def _note_sooner(self) -> None:
        self._sooner.set()

    async def _wait(self) -> None:
        """Wait for the next alarm."""
        while self.limiter.due > trio.current_time():
            self._sooner = trio.Event()
            with trio.move_on_at(self.limiter.due):
                # A sooner alarm may be set while this one is awaited.
                await self._sooner.wait()
