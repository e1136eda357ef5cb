"""Resumes the builds whose logs say that they are not finished, and follows the captured replies.

In order: what is unfinished is found and folded; the replies that came while nobody listened are read; only
then is anything sent, awaited against its deadline, or given up.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import chain, repeat

import structlog
import trio

from scheduler.bus import Bus, Message
from scheduler.dispatch.connectors import Connectors
from scheduler.errors import BusError, UnreadableLog
from scheduler.journal.records import Status
from scheduler.recovery.captured import CapturedReplies
from scheduler.recovery.expired import ExpiredCalls
from scheduler.recovery.loader import Loaded, Loader
from scheduler.recovery.orphans import Orphans
from scheduler.stores.commit_health import ask_the_log
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.log_reader import Entry
from scheduler.supervision.roster import Roster

_log = structlog.get_logger()

_PAUSE = 1.0
_PROOF = 0.3
"""Seconds after which a build that was taken up no longer counts as one that a process may die of."""
_PROOF_ALONE = 0.05
"""The same for one that is taken up alone, while others wait."""
_FIRST_LOOKS = (5.0, 30.0)
_LOOK_PERIOD = 600.0
"""Seconds between looks for builds that nobody works on, the first two and then."""


class Restart:
    """Everything that one process does about the work of those before it.

    Args:
        bus: tells of new connections.
        store: has the logs.
        loader: takes builds up.
        captured: the captured replies.
        roster: knows the builds that run.
        connectors: are given replies in turn.
        orphans: says when there may be builds that nobody works on.
        expired: attempts to be timed out, where no reply to them is found.
        live: says which instances work right now, this one included; their builds are left to them.
        heard: replies that came directly while no stream took them.
    """

    def __init__(
        self,
        bus: Bus,
        store: JetStreamStore,
        loader: Loader,
        captured: CapturedReplies,
        *,
        roster: Roster,
        connectors: Connectors,
        orphans: Orphans,
        expired: ExpiredCalls,
        live: Callable[[], Awaitable[frozenset[str]]],
        heard: Sequence[Message] = (),
    ) -> None:
        self._bus = bus
        self._store = store
        self._loader = loader
        self._captured = captured
        self._roster = roster
        self._connectors = connectors
        self._orphans = orphans
        self._expired = expired
        self._live = live
        self._heard = heard
        self._unproven: list[str] = []
        self._caught_up = trio.Event()
        self._reconnected = trio.Event()
        self._resent = trio.Event()
        """Set while nothing is still to be sent again after a new connection."""
        self._resent.set()
        bus.on_connected(self._on_connected)

    async def run(self) -> None:
        """Resume what is unfinished, then follow the replies; never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._resend_what_was_lost)
            nursery.start_soon(self._time_out)
            loaded = await self._loader.load(await self._unfinished(), nursery)
            await self._captured.follow(nursery, loaded.positions)
            for message in self._heard:
                self._connectors.take(message)
            self._heard = ()
            self._caught_up.set()
            await self._go_on(loaded)
            await self._take_up_unproven(loaded, nursery)
            if loaded.contested:
                self._orphans.note()
            await self._adopt_what_is_left(nursery)

    async def _adopt_what_is_left(self, nursery: trio.Nursery) -> None:
        """Look for builds that were not there, or somebody else's, when it was looked at the start.

        A process that was killed may have had a record under way that is stored after that; and one that
        works beside us, since a partition say, may go.
        """
        pauses = chain(_FIRST_LOOKS, repeat(_LOOK_PERIOD))
        while True:
            with trio.move_on_after(next(pauses)):
                await self._orphans.noted()
            unfinished = await self._unfinished()
            # Asked last: after a partition the logs may be long in coming; then it is known whose they are.
            live = await self._live()
            loaded = await self._loader.load(unfinished, nursery, live)
            if loaded.contested:
                self._orphans.note()
            await self._catch_up_and_go_on(loaded)
            await self._take_up_unproven(loaded, nursery)
            await trio.sleep(_PAUSE)

    async def _take_up_unproven(self, loaded: Loaded, nursery: trio.Nursery) -> None:
        for one in loaded.unproven:
            alone = await self._loader.load_unproven(one, nursery, loaded.live)
            await self._catch_up_and_go_on(alone, _PROOF_ALONE)
            # Known to be innocent before the next one may kill.
            await self._store.settle()

    async def _catch_up_and_go_on(self, loaded: Loaded, proof: float = _PROOF) -> None:
        if loaded.builds:
            await self._captured.read_again(loaded.positions)
            await self._go_on(loaded, proof)

    async def _go_on(self, loaded: Loaded, proof: float = _PROOF) -> None:
        """Let builds go on: the replies that came meanwhile have been read."""
        await self._connectors.dispatcher.done_with(loaded.builds)
        self._store.positions.catch_up(loaded.builds)
        loaded.caught_up.set()
        if loaded.builds:
            _log.info("unfinished builds resume", builds=len(loaded.builds))
            self._unproven += loaded.builds
            await trio.sleep(proof)
            await self.mark_stable()

    async def mark_stable(self) -> None:
        """Note that this process did not die of what it took up: that happens at once, or never."""
        builds, self._unproven = self._unproven, []
        await self._loader.mark_stable(builds)

    def _on_connected(self) -> None:
        self._reconnected.set()
        self._resent = trio.Event()

    async def _time_out(self) -> None:
        """Time attempts out for which no reply is there, not even one that was captured and is under way.

        A time-out shorter than it takes to notice that a connection is dead passes while requests are lost
        on it: what is sent again for that has not had its time yet.
        """
        while True:
            calls = await self._expired.take()
            with trio.move_on_after(self._store.health.grace):
                try:
                    await self._captured.caught_up()
                except BusError as error:
                    _log.error("cannot look at the captured replies", error=str(error))
                await self._resent.wait()
            for call in (call for call in calls if call.expired):
                # Behind the replies of its build that wait for their turn.
                self._connectors.dispatcher.take(call.request.build, call.time_out)

    async def _resend_what_was_lost(self) -> None:
        """After each new connection, once the replies are read that came meanwhile."""
        while True:
            await self._reconnected.wait()
            self._reconnected = trio.Event()
            await self._caught_up.wait()
            try:
                await self._captured.caught_up()
            except BusError as error:
                _log.error("cannot look at the captured replies", error=str(error))
            await self._connectors.dispatcher.through()
            if not self._reconnected.is_set():
                self._roster.send_again()
                self._resent.set()

    async def _unfinished(self) -> list[Entry]:
        """The logs that are not over."""

        async def look() -> list[Entry]:
            async with aclosing(self._store.logs.entries()) as batches:
                return [entry async for entries in batches for entry in entries if not _is_over(entry)]

        return await ask_the_log(self._store.health, self._bus, look)


def _is_over(entry: Entry) -> bool:
    return not isinstance(entry.headings, UnreadableLog) and entry.headings.status is Status.REPORTED
