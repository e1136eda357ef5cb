"""Hubs: one for each build that somebody looks at, with what changed encoded once for all who do."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog
import trio

from scheduler.control.verbs import Document
from scheduler.definition.strictjson import encode
from scheduler.errors import Refused
from scheduler.runtime.courtesy import give_way
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.pace import paced
from scheduler.web.live.following import Following
from scheduler.web.live.mailbox import Mailbox, event_of
from scheduler.web.live.table import differences
from scheduler.web.page.asking import DEADLINE

MOST_VIEWERS: Final = 256
"""Viewers of all streams of a process."""
_PERIOD: Final = 0.1
"""Seconds between two updates ..."""
_SLOW_PERIOD: Final = 1.0
"""... and where there are many viewers."""
_MANY: Final = 10
"""Viewers up to which updates are quick."""
_LINGERS: Final = 5.0
"""Seconds for which a hub goes on after the last viewer has left: most come back at once."""
_AT_ONCE: Final = 10
"""Viewers that are woken before others have a turn: each takes a tenth of a millisecond."""


class Source(Protocol):
    """Source of what a hub tells."""

    ending: str
    """Reason why nothing more comes; empty while more may come."""
    reason: str
    """Text that explains it."""

    async def run(self, stir: Callable[[], None]) -> None:
        """Keep up to date until cancelled; calls ``stir`` when there may be something new."""

    async def update(self) -> tuple[Document, bool]:
        """Return what changed since the last time, empty where nothing did; and whether all changed."""

    def snapshot(self) -> Document:
        """Return all of it; synchronous and quick."""


class Hub:
    """Hub of one source.

    Args:
        source: what it tells of.
    """

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._viewers: dict[Mailbox, None] = {}
        self._revision = 0
        self._encoded: tuple[int, bytes] | None = None
        """Last snapshot, and its revision."""
        self._stirred = trio.Event()
        self._empty = trio.Event()
        self.ready = trio.Event()
        """Event set when there is something to show."""
        self.closed = False
        """Whether it takes no more viewers."""

    @property
    def viewers(self) -> int:
        """Number of viewers."""
        return len(self._viewers)

    def add(self) -> Mailbox:
        """Add a viewer, whose first event is a snapshot."""
        mailbox = Mailbox(self._snapshot)
        self._viewers[mailbox] = None
        return mailbox

    def remove(self, mailbox: Mailbox) -> None:
        """Remove a viewer. Idempotent."""
        self._viewers.pop(mailbox, None)
        if not self._viewers:
            self._empty.set()

    def end(self, reason: str, message: str = "") -> None:
        """Tell all viewers that nothing more comes, and why; synchronous."""
        if self.closed and not self._viewers:
            return
        self.closed = True
        data = encode({"reason": reason} | ({"message": message} if message else {}))
        last = event_of("end", self._revision + 1, data)
        for mailbox in self._viewers:
            mailbox.end(last)
        # One that waits for the first snapshot gets the end alone.
        self.ready.set()

    async def run(self) -> None:
        """Tell viewers what changes, until nobody has looked for a while or nothing more comes."""
        source = self._source
        assert source is not None, "it runs once"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(source.run, self._stir)
                nursery.start_soon(self._leave_when_empty, nursery.cancel_scope)
                while not source.ending:
                    await self._stirred.wait()
                    self._stirred = trio.Event()
                    await self._tell(source)
                    await trio.sleep(_PERIOD if self.viewers <= _MANY else _SLOW_PERIOD)
                nursery.cancel_scope.cancel()
        finally:
            # Those that have not read it yet get the last one; and the source knows this hub.
            if self.ready.is_set():
                self._snapshot()
            self._source = None
            self.end(source.ending or "stopping", source.reason)

    def _stir(self) -> None:
        self._stirred.set()

    async def _leave_when_empty(self, scope: trio.CancelScope) -> None:
        while True:
            await self._empty.wait()
            self._empty = trio.Event()
            await trio.sleep(_LINGERS)
            if not self._viewers:
                self.closed = True
                scope.cancel()

    async def _tell(self, source: Source) -> None:
        changed, everything = await source.update()
        if not changed and not everything:
            return
        self._revision += 1
        self.ready.set()
        event = b""
        if not everything:
            event = event_of("update", self._revision, encode({"revision": self._revision} | changed))
        async for mailbox in paced(list(self._viewers), every=_AT_ONCE, pause=give_way):
            if everything:
                mailbox.restart()
            else:
                mailbox.put(event)

    def _snapshot(self) -> bytes:
        if self._source is None:
            return b"" if self._encoded is None else self._encoded[1]
        if self._encoded is None or self._encoded[0] != self._revision:
            data = encode({"revision": self._revision} | self._source.snapshot())
            self._encoded = self._revision, event_of("snapshot", self._revision, data)
        return self._encoded[1]


class BuildSource:
    """Source of the events of one build.

    Args:
        following: returns what follows the build, and stirs as it is told.
    """

    def __init__(self, following: Callable[[Callable[[], None]], Following]) -> None:
        self.ending = ""
        self.reason = ""
        self._make = following
        self._following: Following | None = None
        self._status: Document = {}
        self._trouble = ""
        self._fetched = 0

    async def run(self, stir: Callable[[], None]) -> None:
        """Implement `Source.run`."""
        self._following = self._make(stir)
        await self._following.run()

    async def update(self) -> tuple[Document, bool]:
        """Implement `Source.update`."""
        following = self._following
        if following is None:
            return {}, False
        await following.read()
        table = following.table
        if following.gone:
            self.ending, self.reason = "gone", following.trouble
        if following.ended:
            self.ending, self.reason = "finished", ""
        if table is None:
            return {}, False
        status = table.describe(following.summary)
        if following.fetched != self._fetched:
            self._fetched, self._status, self._trouble = following.fetched, status, following.trouble
            table.take()
            changed, everything = {}, True
        else:
            rows, events = table.take()
            changed, everything = self._changes(status, rows, events, table.letters, following.trouble), False
        return changed, everything

    def _changes(
        self,
        status: Document,
        rows: list[tuple[int, str]],
        events: list[Document],
        letters: bytearray,
        trouble: str,
    ) -> Document:
        changed: Document = {}
        if different := differences(self._status, status):
            changed["status"] = different
        if len(rows) * _BYTES_OF_A_ROW > len(letters) > _FEW:
            changed["states"] = letters.decode()
        elif rows:
            changed["rows"] = rows
        if events:
            changed["events"] = events
        if trouble != self._trouble:
            changed["trouble"] = trouble
        self._status, self._trouble = status, trouble
        return changed

    def snapshot(self) -> Document:
        """Implement `Source.snapshot`."""
        following = self._following
        if following is None or following.table is None:
            return {}
        table = following.table
        return {
            "key": following.key,
            "status": table.describe(following.summary),
            "states": table.letters.decode(),
            "trouble": following.trouble,
        }


_BYTES_OF_A_ROW: Final = 10
_FEW: Final = 100
"""Components up to which rows are told in any case."""


class Hubs:
    """All hubs of a process; each is there while somebody looks.

    Args:
        nursery: nursery that they run in.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._hubs: dict[str, Hub] = {}
        self._log = RateLimitedLog(structlog.get_logger())
        self._viewers = 0
        self._closed = False

    @property
    def viewers(self) -> int:
        """Number of viewers of all streams."""
        return self._viewers

    @property
    def running(self) -> int:
        """Number of hubs that run."""
        return len(self._hubs)

    @asynccontextmanager
    async def watching(self, name: str, source: Callable[[], Source]) -> AsyncIterator[Mailbox]:
        """Let somebody watch until the context is left.

        Args:
            name: name of what is watched.
            source: makes its source, where nobody else watches it.

        Raises:
            Refused: ``busy``: there are too many viewers; ``unavailable``: the service stops.
        """
        if self._closed:
            raise Refused("unavailable", "the scheduler is shutting down")
        if self._viewers >= MOST_VIEWERS:
            raise Refused("busy", f"{MOST_VIEWERS} streams are open, and there may be no more")
        hub = self._hubs.get(name)
        if hub is None or hub.closed:
            hub = self._hubs[name] = Hub(source())
            self._nursery.start_soon(self._run, name, hub)
        mailbox = hub.add()
        self._viewers += 1
        try:
            with trio.move_on_after(DEADLINE) as scope:
                await hub.ready.wait()
            if scope.cancelled_caught:
                raise Refused("unavailable", f"nothing is known of it within {DEADLINE:g} s: ask again")
            yield mailbox
        finally:
            self._viewers -= 1
            hub.remove(mailbox)

    async def _run(self, name: str, hub: Hub) -> None:
        try:
            await hub.run()
        except* Exception:  # noqa: BLE001 - a fault of a view must cost nothing else
            self._log.exception("internal error: a view was ended", view=name[:200])
        finally:
            if self._hubs.get(name) is hub:
                del self._hubs[name]

    def stop(self) -> None:
        """End all streams: the service stops. Synchronous; nobody is waited for."""
        self._closed = True
        for hub in self._hubs.values():
            hub.end("stopping")

    def open(self) -> None:
        """Take viewers again: there is a service."""
        self._closed = False
