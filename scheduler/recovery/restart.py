"""Goes on with the builds whose logs say that they are not over, and follows the captured replies.

In order: what is unfinished is found and folded; the replies that came while nobody listened are read; only
then is anything sent, awaited against its deadline, or given up.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import chain, repeat
from typing import TypeVar

import structlog
import trio

from scheduler.bus import Bus, Message
from scheduler.dispatch.call import Call
from scheduler.dispatch.connectors import Connectors
from scheduler.errors import BusError, StreamNotFound, UnreadableLog
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import is_captured
from scheduler.jetstream.reading import Delivered, StreamFollower, read
from scheduler.jetstream.streams import REPLIES, reply_streams
from scheduler.journal.records import Position, Status
from scheduler.recovery.loader import Loaded, Loader
from scheduler.stores.commit_health import ask_the_log, patiently
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.log_reader import Entry
from scheduler.supervision.supervisor import Supervisor

_log = structlog.get_logger()

_T = TypeVar("_T")

_PAUSE = 1.0
_PROOF = 0.3
"""Seconds after which a build that was taken up no longer counts as one that a process may die of."""
_PROOF_ALONE = 0.05
"""The same for one that is taken up alone, while others wait."""
_FIRST_LOOKS = (5.0, 30.0)
_LOOK_PERIOD = 600.0
"""Seconds between looks for builds that nobody works on, the first two and then."""
_MARGIN = 1_000_000_000
"""Nanoseconds by which two clocks of a broker may differ."""


class Restart:
    """Everything that one process does about the work of those before it.

    Args:
        bus: tells of new connections.
        store: has the logs.
        loader: takes builds up.
        supervisor: runs them.
        connectors: is told of captured replies.
        live: says which instances work right now, this one included; their builds are left to them.
    """

    def __init__(
        self,
        bus: Bus,
        store: JetStreamStore,
        loader: Loader,
        *,
        supervisor: Supervisor,
        connectors: Connectors,
        live: Callable[[], Awaitable[frozenset[str]]],
    ) -> None:
        self._bus = bus
        self._store = store
        self._loader = loader
        self._supervisor = supervisor
        self._connectors = connectors
        self._followers: dict[str, StreamFollower] = {}
        """Of the streams that replies come into, by provider."""
        self._retired: dict[str, str] = {}
        """Streams that replies come into no more, by provider: they may hold some that were not read."""
        self.heard: Sequence[Message] = ()
        """What came while no stream took it: to be set before `run`."""
        self._live = live
        self._again = trio.Event()
        self._unproven: list[str] = []
        self._caught_up = trio.Event()
        self._reconnected = trio.Event()
        self._resent = trio.Event()
        """Set while nothing is still to be sent again after a new connection."""
        self._resent.set()
        self._expired: list[Call] = []
        self._something_expired = trio.Event()
        self._nursery: trio.Nursery | None = None
        connectors.sending.on_expired = self._on_expired
        layout = store.layout
        connectors.gaps.capture_providers = frozenset(layout.providers)
        connectors.gaps.captures = lambda request: is_captured(layout, request.type, request.provider)
        bus.on_connected(self._on_connected)

    async def prepare(self) -> None:
        """Note where the streams of replies end: builds that are accepted later have none before that."""
        store = self._store
        live, self._retired = await self._insist(lambda: reply_streams(store.js, store.layout))
        store.replies = {**live, **self._retired}
        seen = Position()
        for provider, stream in store.replies.items():
            end = await self._ask(provider, stream, partial(_end_of, store.js, stream))
            seen = seen.moved(provider, end or Position())
        self._connectors.positions.seen = seen
        shared = self._connectors.shared
        beside = None if shared is self._bus else JetStream(shared)
        for provider, stream in live.items():
            handler = partial(self._on_captured, provider)
            restore = partial(store.streams.restore, stream)
            self._followers[provider] = StreamFollower(store.js, stream, handler, restore, beside=beside)

    async def run(self) -> None:
        """Go on with what is unfinished, then follow the replies; never returns."""
        captured = self._connectors.positions
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._resend_what_was_lost)
            nursery.start_soon(self._time_out)
            loaded = await self._loader.load(await self._unfinished(), nursery)
            places = [captured.seen, *loaded.positions]
            for provider, follower in self._followers.items():
                start = _earliest([place.of(provider) for place in places])
                captured.see(start, provider)
                stream = self._store.replies[provider]
                await self._insist(partial(nursery.start, follower.run, start), stream)
            await self._read_again(loaded.positions, self._retired)
            for provider, follower in self._followers.items():
                await self._insist(follower.caught_up, self._store.replies[provider])
            for message in self.heard:
                self._connectors.take(message)
            self.heard = ()
            self._caught_up.set()
            await self._go_on(loaded)
            await self._take_up_unproven(loaded, nursery)
            if loaded.contested:
                self.look_again()
            await self._adopt_what_is_left()

    def look_again(self) -> None:
        """There may be builds that nobody works on; synchronous."""
        self._again.set()

    async def _adopt_what_is_left(self) -> None:
        """Look for builds that were not there, or somebody else's, when it was looked at the start.

        A process that was killed may have had a record under way that is stored after that; and one that
        works beside us, since a partition say, may go.
        """
        pauses = chain(_FIRST_LOOKS, repeat(_LOOK_PERIOD))
        while True:
            with trio.move_on_after(next(pauses)):
                await self._again.wait()
            self._again = trio.Event()
            unfinished = await self._unfinished()
            # Asked last: after a partition the logs may be long in coming; then it is known whose they are.
            live = await self._live()
            assert self._nursery is not None, "it runs"
            loaded = await self._loader.load(unfinished, self._nursery, live)
            if loaded.contested:
                self.look_again()
            await self._catch_up_and_go_on(loaded)
            await self._take_up_unproven(loaded, self._nursery)
            await trio.sleep(_PAUSE)

    async def _take_up_unproven(self, loaded: Loaded, nursery: trio.Nursery) -> None:
        for one in loaded.unproven:
            alone = await self._loader.load_unproven(one, nursery, loaded.live)
            await self._catch_up_and_go_on(alone, _PROOF_ALONE)
            # Known to be innocent before the next one may kill.
            await self._store.settle()

    async def _catch_up_and_go_on(self, loaded: Loaded, proof: float = _PROOF) -> None:
        if loaded.builds:
            await self._read_again(loaded.positions, self._store.replies)
            await self._go_on(loaded, proof)

    async def _go_on(self, loaded: Loaded, proof: float = _PROOF) -> None:
        """Let builds go on: the replies that came meanwhile have been read."""
        await self._connectors.dispatcher.done_with(loaded.builds)
        self._connectors.positions.catch_up(loaded.builds)
        loaded.caught_up.set()
        if loaded.builds:
            _log.info("unfinished builds go on", builds=len(loaded.builds))
            self._unproven += loaded.builds
            await trio.sleep(proof)
            await self.mark_stable()

    async def mark_stable(self) -> None:
        """Whoever dies of a build does so at once, and we have not; or we end in order."""
        builds, self._unproven = self._unproven, []
        await self._loader.mark_stable(builds)

    async def _read_again(self, positions: Sequence[Position], streams: Mapping[str, str]) -> None:
        """Look at what was captured after any of these positions, up to what is followed."""
        for provider, stream in streams.items() if positions else ():
            after = _earliest([position.of(provider) for position in positions])
            await self._ask(provider, stream, partial(self._read_stream, provider, stream, after))

    async def _read_stream(self, provider: str, stream: str, after: Position) -> None:
        known = await self._store.js.get(stream, after.sequence) if after.sequence else None
        start = after.sequence + 1 if known is not None and known.time == after.time else 1
        async with aclosing(read(self._store.js, stream, start=start)) as batches:
            async for batch in batches:
                for delivered in batch:
                    place = _place(delivered)
                    self._connectors.look_at_captured(_message(delivered), place, after, provider)
                    after = place
                await trio.lowlevel.checkpoint()

    def _on_captured(self, provider: str, delivered: Delivered) -> None:
        self._connectors.on_captured(_message(delivered), _place(delivered), provider)

    async def _all_caught_up(self) -> None:
        for follower in self._followers.values():
            await follower.caught_up()

    def _on_connected(self) -> None:
        self._reconnected.set()
        self._resent = trio.Event()

    def _on_expired(self, call: Call) -> None:
        self._expired.append(call)
        self._something_expired.set()

    async def _time_out(self) -> None:
        """Time attempts out for which no reply is there, not even one that was captured and is under way.

        A time-out shorter than it takes to notice that a connection is dead passes while requests are lost
        on it: what is sent again for that has not had its time yet.
        """
        while True:
            await self._something_expired.wait()
            self._something_expired = trio.Event()
            calls, self._expired = self._expired, []
            with trio.move_on_after(self._store.health.grace):
                try:
                    await self._all_caught_up()
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
                await self._all_caught_up()
            except BusError as error:
                _log.error("cannot look at the captured replies", error=str(error))
            await self._connectors.dispatcher.through()
            if not self._reconnected.is_set():
                self._supervisor.send_again()
                self._resent.set()

    async def _unfinished(self) -> list[Entry]:
        """The logs that are not over."""

        async def look() -> list[Entry]:
            async with aclosing(self._store.logs.entries()) as batches:
                return [entry async for entries in batches for entry in entries if not _is_over(entry)]

        return await ask_the_log(self._store.health, self._bus, look)

    async def _ask(self, provider: str, stream: str, ask: Callable[[], Awaitable[_T]]) -> _T | None:
        """Ask as `_insist`; None where it is of a stream that is not used any more, and gone."""
        if provider not in self._retired:
            return await self._insist(ask, stream)
        try:
            return await patiently(self._store.health, ask, StreamNotFound)
        except StreamNotFound:
            _log.info("a stream of replies that is not used any more was removed", stream=stream)
            return None

    async def _insist(self, ask: Callable[[], Awaitable[_T]], stream: str = REPLIES) -> _T:
        """Ask until there is an answer, of captured replies: nothing can begin without it."""
        return await self._store.streams.ask(stream, ask)


async def _end_of(js: JetStream, stream: str) -> Position:
    info = await js.info(stream)
    last = await js.get(stream, max(1, info.last_sequence))
    return Position(info.last_sequence, last.time if last else 0)


def _earliest(positions: list[Position]) -> Position:
    """Where everything is read that is after any of these.

    A stream that lost its end gives the same numbers out again: then it is told by the time alone.
    """
    first = min(positions, key=lambda place: place.sequence)
    oldest = min(place.time for place in positions)
    return first if first.time == oldest else Position(0, max(0, oldest - _MARGIN))


def _message(delivered: Delivered) -> Message:
    return Message(delivered.subject, delivered.data, "", delivered.headers)


def _place(delivered: Delivered) -> Position:
    return Position(delivered.sequence, delivered.time)


def _is_over(entry: Entry) -> bool:
    return not isinstance(entry.headings, UnreadableLog) and entry.headings.status is Status.REPORTED
