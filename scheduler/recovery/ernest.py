"""Takes up what an earlier process left: at start, and when a reply comes for a build that nobody holds.

WIRE: "The Ernest store". A store without this (memory) never needs it.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import structlog
import trio

from scheduler.definition.model import BUILD_ACTIONS, State
from scheduler.definition.strictjson import encode
from scheduler.definition.validation import Prepared
from scheduler.dispatch.connectors import Connectors
from scheduler.dispatch.router import Stray
from scheduler.errors import InvalidBuild, StoreError
from scheduler.runtime.ratelimit import RateLimitedLog
from scheduler.stores import DocumentStore
from scheduler.supervision.supervisor import Supervisor
from scheduler.walk import Walk

_log = structlog.get_logger()

_ASK_AGAIN_AFTER = 10.0
"""Seconds for which a no of the store is remembered."""
_MOST_UNKNOWN = 10_000
_MOST_STRAYS = 1_000
"""Replies kept of one build while the store is asked about it."""
_MOST_BYTES = 64 * 1024 * 1024
"""Of all replies that are kept meanwhile."""
_MOST_ASKED = 1_000
"""Builds that the store is asked about at a time because of replies."""

_MOST_LINES = 20
"""In the log, of a kind, at once: replies name builds as they like."""

Reader: TypeAlias = Callable[[bytes, str | None], Awaitable[Prepared]]
"""Reads and checks a build: its JSON, and what it is (`codec.parse_build`)."""


class TakeUp:
    """Finds builds that the store holds and this process does not."""

    def __init__(
        self, store: DocumentStore, supervisor: Supervisor, connectors: Connectors, read: Reader
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._connectors = connectors
        self._read = read
        self._strays: deque[Stray] = deque()
        self._bytes = 0
        """Of the replies that are kept."""
        self._wake = trio.Event()
        self._asking: dict[str, deque[Stray]] = {}
        self._unknown: dict[str, float] = {}
        self._limited_log = RateLimitedLog(_log, burst=_MOST_LINES)

    def on_stray(self, stray: Stray) -> None:
        """A reply came for a component that nobody here waits for. Synchronous: it only notes it."""
        build = stray.build
        if build in self._asking:
            self._keep(stray, self._asking[build])
        elif self._is_worth_asking(build):
            self._keep(stray, self._strays)
            self._wake.set()
        else:
            self._drop(stray)

    def _keep(self, stray: Stray, strays: deque[Stray]) -> None:
        size = len(stray.message.data)
        if len(strays) < _MOST_STRAYS and self._bytes + size <= _MOST_BYTES:
            self._bytes += size
            strays.append(stray)
        else:
            self._drop(stray)

    def _is_worth_asking(self, build: str) -> bool:
        if self._supervisor.holds(build) or self._supervisor.has_reported(build):
            return False
        return self._unknown.get(build, -1.0) <= trio.current_time()

    async def run(self) -> None:
        """Take up what is unfinished, then whatever replies point to; never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._at_start, nursery)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._strays:
                    stray = self._strays.popleft()
                    self._bytes -= len(stray.message.data)
                    if stray.build in self._asking:
                        self._keep(stray, self._asking[stray.build])
                    elif len(self._asking) >= _MOST_ASKED:
                        self._drop(stray)
                    else:
                        self._asking[stray.build] = deque()
                        self._keep(stray, self._asking[stray.build])
                        nursery.start_soon(self._ask, stray.build, False)

    async def _at_start(self, nursery: trio.Nursery) -> None:
        """Ask which builds are unfinished, until the store has said it: it may start later than we do."""
        while True:
            try:
                async for build in self._store.unfinished():
                    if build not in self._asking and not self._supervisor.holds(build):
                        self._asking[build] = deque()
                        nursery.start_soon(self._ask, build, True)
            except StoreError as error:
                _log.warning("the store does not say which builds are unfinished", error=str(error))
                await trio.sleep(_ASK_AGAIN_AFTER)
            else:
                return

    async def _ask(self, build: str, unfinished: bool) -> None:
        """Ask the store about one build; ``unfinished`` if it said by itself that there is work left."""
        walk: Walk | None = None
        try:
            walk = await self._take_up(build, unfinished)
            if walk is not None:
                await walk.listening.wait()
        except (StoreError, InvalidBuild) as error:
            self._limited_log.warning("build not taken up", build=build, error=str(error)[:1_000])
        except Exception:  # noqa: BLE001 - a bug of ours, set off by this build, must cost no other
            self._limited_log.exception("internal error: the build was not resumed", build=build)
        finally:
            strays = self._asking.pop(build)
        if walk is None:
            self._remember_no(build)
        for stray in strays:
            self._bytes -= len(stray.message.data)
            if not self._connectors.redeliver(stray):
                self._drop(stray)

    async def _take_up(self, build: str, unfinished: bool) -> Walk | None:
        document = await self._store.load(build)
        if document is None:
            return None
        if "changes" not in document:
            self._limited_log.warning("build not taken up: what the store has is none", build=build)
            return None
        data = await self._supervisor.executor.run(build, partial(encode, document), long=True)
        prepared = await self._read(data, None)
        if prepared.build.id != build:
            self._limited_log.warning(
                "build not taken up: the store gave another", build=build, got=prepared.build.id
            )
            return None
        running = {change.id for change in prepared.build.changes if change.state is State.RUNNING}
        if not unfinished and running.isdisjoint(stray.component for stray in self._asking[build]):
            return None
        if document.get("action") not in BUILD_ACTIONS:
            # Another scheduler keeps what the mapper says, and that says nothing.
            action = await self._store.action_of(build)
            if action is not None and action != prepared.build.action:
                prepared = await self._read(data, action)
        return self._supervisor.take_up(prepared)

    def _remember_no(self, build: str) -> None:
        now = trio.current_time()
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown = {name: until for name, until in self._unknown.items() if until > now}
        if len(self._unknown) < _MOST_UNKNOWN:
            self._unknown[build] = now + _ASK_AGAIN_AFTER

    def _drop(self, stray: Stray) -> None:
        self._connectors.count("for no running component", stray.message.subject, build=stray.build[:128])
