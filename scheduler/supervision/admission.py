"""Admission of builds: messages from the broker wait here until they are read, and senders take turns.

Large builds wait apart from small ones: they are read in threads, for seconds, and only a few at a time.
Small ones are few at a time as well: the next sender must not stand behind all that another has sent.
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
from scheduler.tracing.context import read_context

_MOST: Final = 20_000
"""Builds, small or large, that have come in and wait to be read; one sender alone gets half of that."""
_MOST_SMALL_BYTES: Final = 256 * 1024 * 1024
_MOST_LARGE_BYTES: Final = 768 * 1024 * 1024
"""Large builds that wait to be read, in bytes."""
_SMALL_AT_ONCE: Final = 16
"""Small builds that are being read and persisted at a time."""
_LARGE_AT_ONCE: Final = 2
"""Large builds that are being read at a time: as many as there are threads for it."""
_SMALL_PATIENCE: Final = 1.0
_LARGE_PATIENCE: Final = 30.0
"""Seconds after which the next build has its turn while a large one waits: for a store that is away, or for
another build of its id that is being loaded."""
_MOST_WAITING: Final = 500
"""Builds that may wait like that at a time."""
_OVERHEAD: Final = 512
"""Size of a message beside its content, in bytes."""
_TRACED: Final = 1_024
"""Size of a trace context beside it, in bytes."""


@define(eq=False)
class _Worker:
    """Worker that takes one build after another."""

    began: float = math.inf
    """Time at which it began with the present build (Trio's clock, seconds); infinite where it has none."""
    replaced: bool = False
    """Whether it takes no more builds after the present one."""


class _Lane:
    """Queue of builds, with its workers."""

    def __init__(self, most_bytes: int, at_once: int, patience: float) -> None:
        self.queue: RoundRobinQueue[tuple[Message, str]] = RoundRobinQueue(_MOST, most_bytes)
        """Messages that wait, each with its sender."""
        # One for each message in the queue, so that one that comes in wakes one worker.
        self.put, self.ready = trio.open_memory_channel[None](math.inf)
        self.door = trio.Lock()
        self.stirred = trio.Event()
        self.at_once = at_once
        self.patience = patience
        self.workers: list[_Worker] = []
        self.going = 0
        """Number of workers that have not ended, including those that were replaced."""
        self.watching = trio.CancelScope()


class Admission:
    """Takes builds in, in turns.

    Args:
        receipts: answers those that are refused here.
        take: callback with a message and its sender: reads the build, begins it and answers; must not raise.
        is_small: returns whether a message is read quickly.
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
        """Number of messages that have come in."""
        self._closed = False
        self._taken_bytes = 0
        self._waiting = 0

    @property
    def bytes(self) -> int:
        """Size of the builds that have come in and wait to be read, in bytes."""
        return self._small.queue.bytes + self._large.queue.bytes + self._taken_bytes

    def on_build(self, message: Message) -> None:
        """Put a message into its sender's line, or refuse it. A synchronous handler."""
        # One may send thousands.
        sender = intern(sender_of(message.reply, message.headers))
        # Of its headers nothing else is needed any more, and its subject is one of ten.
        context = read_context(message.headers)
        kept = None if context is None else context.headers()
        self.admit(Message(intern(message.subject), message.data, message.reply, kept), sender)

    def admit(self, message: Message, sender: str) -> None:
        """Put a message into the line of a sender that is known, or refuse it. Synchronous."""
        self.came += 1
        if not self._receipts.may_be_taken(message):
            return
        if self._closed:
            self._receipts.reject(message, shutting_down())
            return
        lane = self._small if self._is_small(message.data) else self._large
        if lane.queue.put(sender, (message, sender), _size(message)):
            lane.put.send_nowait(None)
            lane.stirred.set()
        else:
            text = "more builds come in than can be read; try again later"
            self._receipts.reject(message, refused("busy", text))

    def close(self) -> None:
        """Refuse builds from now on; `run` returns when those that wait have been taken."""
        self._closed = True
        self._small.put.close()
        self._large.put.close()

    async def run(self) -> None:
        """Take builds, each sender's in turn, until closed."""
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
        """Replace workers that wait long, until none is left."""
        with lane.watching:
            while True:
                # Without builds nothing wakes up.
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
    traced = _TRACED if message.headers else 0
    return len(message.data) + len(message.reply) + _OVERHEAD + traced
