"""Goes on with the builds whose logs say that they are not over, and follows the captured replies.

In order: what is unfinished is found and folded; the replies that came while nobody listened are read; only
then is anything sent, awaited against its deadline, or given up.
"""

import structlog
import trio

from scheduler.bus import Bus, Message
from scheduler.connector import Call, Connectors
from scheduler.errors import BusError, JetStreamUnavailable, UnreadableLog
from scheduler.events import Released
from scheduler.jetstream.reading import Delivered, Follower, read
from scheduler.jetstream.streams import REPLIES
from scheduler.loading import Loaded, Loader
from scheduler.records import Position, Status
from scheduler.stores.jetstream import Entry, JetStreamStore
from scheduler.supervisor import Supervisor

_log = structlog.get_logger()

_PAUSE = 1.0
_PROBATION = 1.0
"""Seconds after which a build that was taken up no longer counts as one that a process may die of."""


class Restart:
    """Everything that one process does about the work of those before it.

    Args:
        bus: tells of new connections.
        store: has the logs.
        loader: takes builds up.
        supervisor: runs them.
        connectors: is told of captured replies.
    """

    def __init__(
        self,
        bus: Bus,
        store: JetStreamStore,
        loader: Loader,
        *,
        supervisor: Supervisor,
        connectors: Connectors,
    ) -> None:
        self._store = store
        self._loader = loader
        self._supervisor = supervisor
        self._connectors = connectors
        self._follower = Follower(store.js, REPLIES, self._on_captured)
        self._caught_up = trio.Event()
        self._reconnected = trio.Event()
        self._expired: list[Call] = []
        self._something_expired = trio.Event()
        self._nursery: trio.Nursery | None = None
        store.follow_positions(connectors.captured.position)
        connectors.on_expired = self._on_expired
        bus.on_connected(self._on_connected)

    async def prepare(self) -> None:
        """Note where the stream of replies ends: builds that are accepted later have none before that."""
        while True:
            try:
                info = await self._store.js.info(REPLIES)
                last = await self._store.js.get(REPLIES, info.last_sequence) if info.last_sequence else None
            except JetStreamUnavailable as error:
                _log.warning("cannot look at the captured replies", error=str(error))
                await trio.sleep(_PAUSE)
            else:
                self._connectors.captured.seen = Position(info.last_sequence, last.time if last else 0)
                return

    async def run(self) -> None:
        """Go on with what is unfinished, then follow the replies; never returns."""
        captured = self._connectors.captured
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._resend_what_was_lost)
            nursery.start_soon(self._time_out)
            loaded = await self._loader.load(await self._unfinished(), nursery)
            # By time: a stream that lost its end gives the same numbers out again.
            start = min([captured.seen, *loaded.positions], key=_age)
            captured.seen = start
            await nursery.start(self._follower.run, start)
            await self._follower.caught_up()
            self._caught_up.set()
            await self._go_on(loaded)

    async def adopt(self, live: frozenset[str]) -> None:
        """Go on with the builds of another process that has gone.

        Args:
            live: the instances that are there; their builds are left to them.
        """
        if self._nursery is None or not self._caught_up.is_set():
            return  # it is just being found out what there is to be done
        loaded = await self._loader.load(await self._unfinished(), self._nursery, live)
        if loaded.builds:
            try:
                await self._read_again(min(loaded.positions, key=_age))
            except BusError as error:
                _log.error("captured replies could not be read again", error=str(error))
            await self._go_on(loaded)

    async def _go_on(self, loaded: Loaded) -> None:
        """Let builds go on: the replies that came meanwhile have been read."""
        self._connectors.captured.catch_up(loaded.builds)
        loaded.caught_up.set()
        if loaded.builds:
            _log.info("unfinished builds go on", builds=len(loaded.builds))
        # Whoever dies of a build does so at once: what is still held has come through.
        await trio.sleep(_PROBATION)
        for build in loaded.builds:
            if self._supervisor.holds(build):
                self._store.note(build, Released())

    async def _read_again(self, after: Position) -> None:
        """Look at what was captured after a position, up to what is followed."""
        known = await self._store.js.get(REPLIES, after.sequence) if after.sequence else None
        start = after.sequence + 1 if known is not None and known.time == after.time else 1
        async for batch in read(self._store.js, REPLIES, start=start):
            for delivered in batch:
                self._connectors.look_at_captured(_message(delivered), _place(delivered))
            await trio.lowlevel.checkpoint()

    def _on_captured(self, delivered: Delivered) -> None:
        self._connectors.on_captured(_message(delivered), _place(delivered))

    def _on_connected(self) -> None:
        self._reconnected.set()

    def _on_expired(self, call: Call) -> None:
        self._expired.append(call)
        self._something_expired.set()

    async def _time_out(self) -> None:
        """Time attempts out for which no reply is there, not even one that was captured and is under way."""
        while True:
            await self._something_expired.wait()
            self._something_expired = trio.Event()
            calls, self._expired = self._expired, []
            try:
                await self._follower.caught_up()
            except BusError as error:
                _log.error("cannot look at the captured replies", error=str(error))
            for call in calls:
                # Behind the replies of its build that wait for their turn.
                self._connectors.turns.take(call.request.build, call.time_out)

    async def _resend_what_was_lost(self) -> None:
        """After each new connection, once the replies are read that came meanwhile."""
        while True:
            await self._reconnected.wait()
            self._reconnected = trio.Event()
            await self._caught_up.wait()
            try:
                await self._follower.caught_up()
            except BusError as error:
                _log.error("cannot look at the captured replies", error=str(error))
            if not self._reconnected.is_set():
                self._supervisor.send_again()

    async def _unfinished(self) -> list[Entry]:
        """The logs that are not over."""
        while True:
            found: list[Entry] = []
            try:
                async for entries in self._store.entries():
                    found += [entry for entry in entries if not _is_over(entry)]
            except JetStreamUnavailable as error:
                _log.warning("the logs of unfinished builds cannot be read yet", error=str(error))
                await trio.sleep(_PAUSE)
            else:
                return found


def _age(position: Position) -> tuple[int, int]:
    return position.time, position.sequence


def _message(delivered: Delivered) -> Message:
    return Message(delivered.subject, delivered.data, "", delivered.headers)


def _place(delivered: Delivered) -> Position:
    return Position(delivered.sequence, delivered.time)


def _is_over(entry: Entry) -> bool:
    return not isinstance(entry.headings, UnreadableLog) and entry.headings.status is Status.REPORTED
