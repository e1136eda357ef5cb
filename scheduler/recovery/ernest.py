"""Takes up builds of an Ernest store: at start, and when a reply comes for a build that is not held here.

WIRE: "The Ernest store". A store without this (memory) never needs it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import structlog
import trio

from scheduler.definition.model import BUILD_ACTIONS, State
from scheduler.definition.strictjson import encode
from scheduler.definition.validation import Prepared
from scheduler.dispatch.client import ConnectorClient
from scheduler.errors import InvalidBuild, StoreError
from scheduler.recovery.strays import Strays
from scheduler.runtime.executor import Executor
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.stores import DocumentStore
from scheduler.supervision.supervisor import Supervisor
from scheduler.walk import Walk

_log = structlog.get_logger()

_ASK_AGAIN_AFTER = 10.0
"""Seconds after which a store that did not answer is asked again."""
_MOST_LINES = 20
"""Log lines of one kind at a time: replies may name any build."""

Reader: TypeAlias = Callable[[bytes, str | None], Awaitable[Prepared]]
"""Reads and checks a build, given its JSON and its action (`codec.parse_build`)."""


class TakeUp:
    """Finds builds that the store holds and this process does not.

    Args:
        store: store that is asked about builds.
        strays: replies that point to builds.
        supervisor: resumes the builds that are found.
        connectors: receive the replies to a build again once it runs.
        read: reads a build.
        executor: does long work beside the loop.
    """

    def __init__(
        self,
        store: DocumentStore,
        strays: Strays,
        *,
        supervisor: Supervisor,
        connectors: ConnectorClient,
        read: Reader,
        executor: Executor,
    ) -> None:
        self._store = store
        self._strays = strays
        self._supervisor = supervisor
        self._connectors = connectors
        self._read = read
        self._executor = executor
        self._limited_log = RateLimitedLog(_log, burst=_MOST_LINES)
        self._unfinished: set[str] = set()
        """Builds with work left, as the store says, that it is being asked about."""

    async def run(self) -> None:
        """Take up unfinished builds, then those that replies point to; never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._at_start, nursery)
            while True:
                for build in await self._strays.to_ask():
                    nursery.start_soon(self._ask, build)

    async def _at_start(self, nursery: trio.Nursery) -> None:
        """Ask which builds are unfinished, until the store answers: it may start after us."""
        while True:
            try:
                async for build in self._store.unfinished():
                    begins = self._strays.begin(build)
                    if begins or self._strays.keeps(build):
                        # A reply may have had the store asked before it was known that there is work.
                        self._unfinished.add(build)
                    if begins:
                        nursery.start_soon(self._ask, build)
            except StoreError as error:
                _log.warning("the store does not say which builds are unfinished", error=str(error))
                await trio.sleep(_ASK_AGAIN_AFTER)
            else:
                return

    async def _ask(self, build: str) -> None:
        """Ask the store about one build."""
        walk: Walk | None = None
        try:
            walk = await self._take_up(build)
            if walk is not None:
                await walk.listening.wait()
        except (StoreError, InvalidBuild) as error:
            self._limited_log.warning("build not taken up", build=build, error=str(error)[:1_000])
        except Exception:  # noqa: BLE001 - a bug that this build triggers must cost no other
            self._limited_log.exception("internal error: the build was not resumed", build=build)
        finally:
            self._unfinished.discard(build)
            strays = self._strays.end(build)
        if walk is None:
            self._strays.remember_unknown(build)
        for stray in strays:
            if not self._connectors.redeliver(stray):
                self._connectors.drop(stray)

    async def _take_up(self, build: str) -> Walk | None:
        document = await self._store.load(build)
        if document is None:
            return None
        if "changes" not in document:
            self._limited_log.warning("build not taken up: what the store has is none", build=build)
            return None
        data = await self._executor.run(build, partial(encode, document), long=True)
        prepared = await self._read(data, None)
        if prepared.build.id != build:
            self._limited_log.warning(
                "build not taken up: the store gave another", build=build, got=prepared.build.id
            )
            return None
        running = {change.id for change in prepared.build.changes if change.state is State.RUNNING}
        if build not in self._unfinished and running.isdisjoint(self._strays.components(build)):
            return None
        if document.get("action") not in BUILD_ACTIONS:
            # Another scheduler keeps what the mapper says, and that says nothing.
            action = await self._store.action_of(build)
            if action is not None and action != prepared.build.action:
                prepared = await self._read(data, action)
        return self._supervisor.take_up(prepared)
