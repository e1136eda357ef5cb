"""Resumes the builds whose logs are unfinished, and follows the captured replies.

In order: unfinished builds are found and replayed; the replies that came while no process listened are read;
only then is anything sent, awaited against its deadline, or given up.
"""

import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import chain, repeat

import structlog
import trio

from scheduler.bus import Bus, Message
from scheduler.definition.tokens import decode_token, encode_token
from scheduler.dispatch.client import ConnectorClient
from scheduler.errors import BusError, UnreadableLog
from scheduler.journal.records import Status
from scheduler.recovery.captured import CapturedReplies
from scheduler.recovery.expired import ExpiredCalls
from scheduler.recovery.loader import Loaded, Loader
from scheduler.recovery.orphans import Orphans
from scheduler.runtime.pace import paced
from scheduler.stores.commit_health import ask_the_log
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.log_reader import Entry
from scheduler.supervision.roster import Roster

_log = structlog.get_logger()

_PAUSE = 1.0
"""Most seconds between two looks for orphans, where there is word of some."""
_SHORTEST_PAUSE = 0.1
_PROOF = 0.3
"""Seconds after which a build that was taken up is marked stable: the process did not die of it."""
_PROOF_ALONE = 0.05
"""Seconds until that for a build that is taken up alone, while others wait."""
_HEAD_START = 3.0
"""Seconds that an instance has to take over the builds which are its own to take first."""
_FIRST_LOOKS = (5.0, 30.0)
_LOOKED_AT_AT_ONCE = 100
_LOOK_PERIOD = 600.0
"""Seconds between looks for orphans, after the first two."""


class Restart:
    """Resumes the work of earlier processes.

    Args:
        bus: tells of new connections.
        store: store with the logs.
        loader: takes builds up.
        captured: reads the captured replies.
        roster: roster of the builds that run.
        connectors: deliver replies in turns.
        orphans: signal that there may be orphans.
        expired: attempts to be timed out, where no reply to them is found.
        owners: returns the ids of the processes that own builds now, this one included, for logs of these
            writers.
        is_first: says whether this process is to take over a build before others, if it has no owner.
        taking_over: counts the requests of builds that are taken over meanwhile, which these instances count.
        may_work: waits until this process may work on builds.
        heard: replies that came directly while no stream captured them.
    """

    def __init__(
        self,
        bus: Bus,
        store: JetStreamStore,
        loader: Loader,
        captured: CapturedReplies,
        *,
        roster: Roster,
        connectors: ConnectorClient,
        orphans: Orphans,
        expired: ExpiredCalls,
        owners: Callable[[Collection[str]], Awaitable[frozenset[str]]],
        is_first: Callable[[str], bool],
        taking_over: Callable[[Iterable[str]], AbstractAsyncContextManager[None]],
        may_work: Callable[[], Awaitable[None]],
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
        self._owners = owners
        self._is_first = is_first
        self._taking_over = taking_over
        self._may_work = may_work
        self._heard = heard
        self._unproven: list[str] = []
        self._caught_up = trio.Event()
        self._reconnected = trio.Event()
        self._resent = trio.Event()
        """Event that is set while nothing is left to be sent again after a new connection."""
        self._resent.set()
        bus.on_connected(self._on_connected)

    async def run(self) -> None:
        """Resume unfinished builds, then follow the replies; never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._resend_what_was_lost)
            nursery.start_soon(self._time_out)
            orphans, others = await self._orphans_now()
            async with self._taking_over(one.counted_by for one in orphans):
                loaded = await self._loader.load(orphans, nursery)
                await self._captured.follow(nursery, loaded.positions, loaded.senders)
                for message in self._heard:
                    self._connectors.take(message)
                self._heard = ()
                self._caught_up.set()
                await self._go_on(loaded)
                await self._take_up_unproven(loaded, nursery)
                self._loader.sum_up()
            if loaded.contested or others:
                # The head start of other instances begins now.
                self._orphans.note()
            await self._adopt_what_is_left(nursery)

    async def _adopt_what_is_left(self, nursery: trio.Nursery) -> None:
        """Look for orphans that were not there at the start, or belonged to another process then.

        A killed process may have had a record under way that is stored later; and a process that works beside
        us, since a partition for example, may go.
        """
        pauses = chain(_FIRST_LOOKS, repeat(_LOOK_PERIOD))
        left: dict[tuple[str, str], float] = {}
        """Times at which other instances will have had their head start, by log and last owner."""
        while True:
            # An instance that goes meanwhile leaves builds that are this one's to take first.
            with trio.move_on_after(next(pauses)), trio.move_on_at(min(left.values(), default=math.inf)):
                await self._orphans.noted()
            began = trio.current_time()
            ours, others = await self._orphans_now()
            now = trio.current_time()
            left = {key: left.get(key, now + _HEAD_START) for key in map(_key, others)}
            # They are for other instances, unless these cannot take them.
            late = [one for one in others if left[_key(one)] <= now]
            left = {key: until for key, until in left.items() if until > now}
            took = now - began
            await self._take_over([*ours, *late], nursery)
            # Logs are read half of the time at most.
            await trio.sleep(max(_SHORTEST_PAUSE, min(_PAUSE, took)))

    async def _take_over(self, orphans: Sequence[Entry], nursery: trio.Nursery) -> None:
        async with self._taking_over(one.counted_by for one in orphans):
            loaded = await self._loader.load(orphans, nursery)
            if loaded.contested:
                self._orphans.note()
            await self._catch_up_and_go_on(loaded)
            await self._take_up_unproven(loaded, nursery)
            self._loader.sum_up()

    async def _orphans_now(self) -> tuple[list[Entry], list[Entry]]:
        """Return the logs without an owner: those that are this process's to take first, and the others."""
        await self._may_work()
        # Those that are quarantined stay with those who wrote to them last, perhaps long ago.
        set_aside = self._roster.set_aside
        unfinished = [
            (build, entry)
            async for entry in paced(await self._unfinished(), every=_LOOKED_AT_AT_ONCE)
            if not set_aside(build := decode_token(entry.subject.rpartition(".")[2]))
        ]
        # Asked last: who has come and begun a build meanwhile owns it.
        # What was given away has none, and no version of this package claims it.
        owners = await self._owners({entry.owner for _, entry in unfinished if not entry.given_to})
        ours: list[Entry] = []
        others: list[Entry] = []
        async for build, entry in paced(unfinished, every=_LOOKED_AT_AT_ONCE):
            if not entry.owner or encode_token(entry.owner) not in owners:
                (ours if self._is_for_us(build, entry) else others).append(entry)
        return ours, others

    def _is_for_us(self, build: str, entry: Entry) -> bool:
        """Return whether this process is to take over a log without an owner before others."""
        if entry.given_to:
            return entry.given_to == self._store.instance
        return self._is_first(build)

    async def _take_up_unproven(self, loaded: Loaded, nursery: trio.Nursery) -> None:
        for one in loaded.unproven:
            alone = await self._loader.load_unproven(one, nursery)
            await self._catch_up_and_go_on(alone, _PROOF_ALONE)
            # Marked stable before the next one may crash the process.
            await self._store.settle()

    async def _catch_up_and_go_on(self, loaded: Loaded, proof: float = _PROOF) -> None:
        if loaded.builds:
            await self._captured.read_again(loaded.positions, loaded.senders)
            await self._go_on(loaded, proof)

    async def _go_on(self, loaded: Loaded, proof: float = _PROOF) -> None:
        """Resume builds, once the replies that came meanwhile have been read."""
        await self._connectors.dispatcher.done_with(loaded.builds)
        self._store.positions.catch_up(loaded.builds)
        loaded.caught_up.set()
        if loaded.builds:
            _log.info("unfinished builds resume", builds=len(loaded.builds))
            self._unproven += loaded.builds
            await trio.sleep(proof)
            await self.mark_stable()

    async def mark_stable(self) -> None:
        """Mark the builds taken up as stable: a process that dies of one does so at once."""
        builds, self._unproven = self._unproven, []
        await self._loader.mark_stable(builds)

    def _on_connected(self) -> None:
        self._reconnected.set()
        before, self._resent = self._resent, trio.Event()
        # Whoever waits for that one waits for this one now.
        before.set()

    async def _until_resent(self) -> None:
        """Wait until what was lost with the connection before the present one was sent again."""
        while not self._resent.is_set():
            await self._resent.wait()

    async def _time_out(self) -> None:
        """Time out expired attempts for which no reply has come or was captured.

        A timeout may be shorter than it takes to notice a dead connection, on which requests are lost. A
        request that is sent again for that has not had its time yet.
        """
        while True:
            calls = await self._expired.take()
            with trio.move_on_after(self._store.health.grace):
                try:
                    await self._captured.caught_up()
                except BusError as error:
                    _log.error("cannot look at the captured replies", error=str(error))
                await self._until_resent()
            for call in (call for call in calls if call.expired):
                # After the replies of its build that wait for their turn.
                self._connectors.dispatcher.take(call.request.build, call.time_out)

    async def _resend_what_was_lost(self) -> None:
        """Send lost requests again after each new connection, once replies that came meanwhile were read."""
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
        """Return the unfinished logs."""

        async def look() -> list[Entry]:
            async with aclosing(self._store.logs.entries()) as batches:
                return [entry async for entries in batches for entry in entries if not is_over(entry)]

        return await ask_the_log(self._store.health, self._bus, look)


def _key(entry: Entry) -> tuple[str, str]:
    return entry.subject, entry.owner


def is_over(entry: Entry) -> bool:
    """Return whether nothing more is to be done for the build of a log."""
    return not isinstance(entry.headings, UnreadableLog) and entry.headings.status is Status.REPORTED
