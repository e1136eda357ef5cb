"""Between the broker and the reading of builds: what has come in waits here, and its senders take turns.

Large builds wait apart from small ones: they are read in threads, for seconds, and only so many at a time.
Small ones are few at a time as well: whoever comes next must not stand behind all that another has sent.
"""

import math
from collections.abc import Awaitable, Callable
from sys import intern
from typing import Final

import trio
from attrs import define

from scheduler.bus import Message
from scheduler.dispatch.senders import RoundRobinQueue, sender_of
from scheduler.supervision.intake import Receipts
from scheduler.supervision.refusals import refused, shutting_down

_MOST: Final = 20_000
"""Builds that have come in and are not looked at yet, small or large; one sender alone gets half of it."""
_MOST_SMALL_BYTES: Final = 256 * 1024 * 1024
_MOST_LARGE_BYTES: Final = 768 * 1024 * 1024
"""The same in bytes."""
_SMALL_AT_ONCE: Final = 16
"""Small builds that are being read and persisted at a time."""
_LARGE_AT_ONCE: Final = 2
"""As many as there are threads to read them."""
_SMALL_PATIENCE: Final = 1.0
_LARGE_PATIENCE: Final = 30.0
"""Seconds after which the next build has its turn while this one waits: for a store that is away, or for
another build of its id that is just being loaded."""
_MOST_WAITING: Final = 500
"""Builds that may wait like that."""
_OVERHEAD: Final = 512
"""Bytes that a message takes beside its content."""


@define(eq=False)
class _Worker:
    """Takes one build after another."""

    began: float = math.inf
    """With the present one, by Trio's clock."""
    replaced: bool = False
    """Whether it takes no more after that one."""


class _Lane:
    """A queue, and those who wait for something in it."""

    def __init__(self, most_bytes: int, at_once: int, patience: float) -> None:
        self.queue: RoundRobinQueue[tuple[Message, str]] = RoundRobinQueue(_MOST, most_bytes)
        """With the sender of each."""
        # One for each message in the queue, so that one that comes in wakes one worker.
        self.put, self.ready = trio.open_memory_channel[None](math.inf)
        self.door = trio.Lock()
        self.stirred = trio.Event()
        self.at_once = at_once
        self.patience = patience
        self.workers: list[_Worker] = []
        self.going = 0
        """Workers that have not ended, those included in whose place others were put."""
        self.watching = trio.CancelScope()


class Admission:
    """Takes builds in, in turns.

    Args:
        receipts: answers those that are refused here.
        take: reads a build, has it run and answers, and is told who sent it; must not raise.
        is_small: whether a message is soon read.
    """

    def __init__(
        self,
        receipts: Receipts,
        take: Callable[[Message, str], Awaitable[None]],
        is_small: Callable[[bytes], bool],
    ) -> None:
        self._receipts = receipts
        self._take = take
        self._is_small = is_small
        self._small = _Lane(_MOST_SMALL_BYTES, _SMALL_AT_ONCE, _SMALL_PATIENCE)
        self._large = _Lane(_MOST_LARGE_BYTES, _LARGE_AT_ONCE, _LARGE_PATIENCE)
        self.came = 0
        """How many messages have come in."""
        self._closed = False
        self._taken_bytes = 0
        self._waiting = 0

    @property
    def bytes(self) -> int:
        """Bytes of builds that have come in and are not dealt with yet."""
        return self._small.queue.bytes + self._large.queue.bytes + self._taken_bytes

    def on_build(self, message: Message) -> None:
        """Put a message into its sender's line, or refuse it. A handler: synchronous."""
        self.came += 1
        if not self._receipts.may_be_taken(message):
            return
        if self._closed:
            self._receipts.reject(message, shutting_down())
            return
        lane = self._small if self._is_small(message.data) else self._large
        # One may send thousands.
        sender = intern(sender_of(message.reply, message.headers))
        # Its headers are not needed any more, and its subject is one of ten.
        kept = Message(intern(message.subject), message.data, message.reply)
        if lane.queue.put(sender, (kept, sender), _size(kept)):
            lane.put.send_nowait(None)
            lane.stirred.set()
        else:
            text = "more builds come in than can be read; try again later"
            self._receipts.reject(message, refused("busy", text))

    def close(self) -> None:
        """Refuse what comes in from now on; `run` returns when what is here has been dealt with."""
        self._closed = True
        self._small.put.close()
        self._large.put.close()

    async def run(self) -> None:
        """Have builds taken, each sender's in turn, until closed."""
        async with trio.open_nursery() as nursery:
            for lane in (self._small, self._large):
                for _ in range(lane.at_once):
                    self._add_worker(lane, nursery)
                nursery.start_soon(self._watch, lane, nursery)

    def _add_worker(self, lane: _Lane, nursery: trio.Nursery) -> None:
        worker = _Worker()
        lane.workers.append(worker)
        lane.going += 1
        nursery.start_soon(self._work_until_closed, lane, worker)

    async def _work_until_closed(self, lane: _Lane, worker: _Worker) -> None:
        try:
            await self._work(lane, worker)
        finally:
            lane.going -= 1
            if not lane.going:
                lane.watching.cancel()

    async def _work(self, lane: _Lane, worker: _Worker) -> None:
        async for _ in lane.ready:
            # One at a time, as they are read: whose turn it is is decided at the last moment.
            async with lane.door:
                item = lane.queue.take()
            assert item is not None, "there is one for each that was sent"
            message, sender = item
            worker.began = trio.current_time()
            size = _size(message)
            self._taken_bytes += size
            try:
                await self._take(message, sender)
            finally:
                self._taken_bytes -= size
            worker.began = math.inf
            # It may be tens of megabytes, and the next one may be long in coming.
            del item, message
            if worker.replaced:
                self._waiting -= 1
                return

    async def _watch(self, lane: _Lane, nursery: trio.Nursery) -> None:
        """Put others in the place of workers that wait long, until none is left."""
        with lane.watching:
            while True:
                # Nobody wakes up for nothing while nothing comes in.
                await lane.stirred.wait()
                await trio.sleep(lane.patience / 2)
                if lane.queue or any(one.began < math.inf for one in lane.workers):
                    self._replace_the_late(lane, nursery)
                else:
                    lane.stirred = trio.Event()

    def _replace_the_late(self, lane: _Lane, nursery: trio.Nursery) -> None:
        late = trio.current_time() - lane.patience
        for worker in [one for one in lane.workers if one.began <= late]:
            if self._waiting >= _MOST_WAITING:
                break
            self._waiting += 1
            worker.replaced = True
            lane.workers.remove(worker)
            self._add_worker(lane, nursery)


def _size(message: Message) -> int:
    return len(message.data) + len(message.reply) + _OVERHEAD
