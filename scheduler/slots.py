"""How many requests may be in flight: per build and for the instance, shared fairly between builds."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeAlias

import trio

_Queue: TypeAlias = OrderedDict[trio.Event, None]


class Slots:
    """Counts requests in flight and queues those beyond the limits.

    Within a build slots are handed out in the order of asking. Between builds whoever waits takes turns,
    one slot a turn, so that a small build beside a huge one is not kept waiting behind all of it.

    Args:
        per_instance: at most this many slots are taken at a time.
        per_build: at most this many of them by one build.
    """

    def __init__(self, *, per_instance: int = 2_000, per_build: int = 500) -> None:
        self.per_instance = per_instance
        self.per_build = per_build
        self.taken = 0
        self._by_build: dict[Hashable, int] = {}
        self._queues: OrderedDict[Hashable, _Queue] = OrderedDict()
        self._dismissed: set[trio.Event] = set()

    def try_take(self, build: Hashable) -> bool:
        """Take a slot if there is one and nobody of the same build was earlier; never waits."""
        mine = self._by_build.get(build, 0)
        if self.taken >= self.per_instance or mine >= self.per_build or build in self._queues:
            return False
        self.taken += 1
        self._by_build[build] = mine + 1
        return True

    async def take(self, build: Hashable) -> bool:
        """Take a slot, waiting for one; cancelled while waiting, it takes none.

        Returns:
            Whether a slot was taken: not where the build was dismissed meanwhile.
        """
        if self.try_take(build):
            return True
        turn = trio.Event()
        queue = self._queues.setdefault(build, OrderedDict())
        queue[turn] = None
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn in self._dismissed:
                self._dismissed.discard(turn)
            elif turn.is_set():
                self.release(build)
            else:
                del queue[turn]
                if not queue:
                    self._queues.pop(build, None)
            raise
        if turn in self._dismissed:
            self._dismissed.discard(turn)
            return False
        return True

    def release(self, build: Hashable) -> None:
        """Give a slot back; it goes to the next in turn at once."""
        self.taken -= 1
        mine = self._by_build[build] - 1
        if mine:
            self._by_build[build] = mine
        else:
            del self._by_build[build]
        self._hand_out()

    def dismiss(self, build: Hashable) -> None:
        """Nobody of this build needs a slot any more: those who wait go on without one."""
        for turn in self._queues.pop(build, ()):
            self._dismissed.add(turn)
            turn.set()

    def _hand_out(self) -> None:
        # One pass at most over the builds that wait: those at their own limit are passed over.
        for _ in range(len(self._queues)):
            if self.taken >= self.per_instance:
                return
            build, queue = next(iter(self._queues.items()))
            self._queues.move_to_end(build)
            mine = self._by_build.get(build, 0)
            if mine >= self.per_build:
                continue
            turn, _ = queue.popitem(last=False)
            if not queue:
                del self._queues[build]
            self.taken += 1
            self._by_build[build] = mine + 1
            turn.set()
