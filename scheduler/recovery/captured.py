"""Captured replies: their streams are followed, and read again from where a build that is taken up stands.

Of the reply subjects a process follows its own, and those of the processes whose builds it has taken up: what
is answered to other instances never reaches it. Shared subjects it follows all. A new owner is followed
*before* what came until then is read again, so that none of its replies falls in between.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

import structlog
import trio

from scheduler.bus import Message
from scheduler.definition.reply_subjects import owner_of
from scheduler.dispatch.client import ConnectorClient
from scheduler.errors import StreamNotFound
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import followed
from scheduler.jetstream.reading import Delivered, StreamFollower, read
from scheduler.jetstream.streams import REPLIES, reply_streams
from scheduler.journal.records import Position
from scheduler.stores.commit_health import patiently
from scheduler.stores.jetstream import JetStreamStore

_log = structlog.get_logger()

_T = TypeVar("_T")

_MARGIN = 1_000_000_000
"""Nanoseconds by which two clocks of a broker may differ."""


class CapturedReplies:
    """Reads and follows the captured replies; made by `find_captured`.

    Args:
        store: store that knows the streams.
        connectors: receive the replies.
        live: streams that capture replies, by provider.
        retired: streams that capture no more replies, by provider; they may hold some that were not read.
        holds: returns whether a build is held here.
    """

    def __init__(
        self,
        store: JetStreamStore,
        connectors: ConnectorClient,
        live: Mapping[str, str],
        retired: Mapping[str, str],
        holds: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._connectors = connectors
        self._retired = retired
        self._holds = holds
        self._inherited: dict[str, frozenset[str]] = {}
        """Other processes that have sent requests of a build, by the build."""
        shared = connectors.shared
        beside = None if shared is store.js.bus else JetStream(shared)
        self._followers = {
            provider: StreamFollower(
                store.js,
                stream,
                partial(self._on_captured, provider),
                partial(store.streams.restore, stream),
                beside=beside,
                subjects=self._subjects(),
            )
            for provider, stream in live.items()
        }
        """Followers of the live streams, by provider."""

    async def note_ends(self) -> None:
        """Note where the streams end: builds accepted later have no replies before that."""
        seen = Position()
        for provider, stream in self._store.replies.items():
            end = await self._ask(provider, stream, partial(_end_of, self._store.js, stream))
            seen = seen.moved(provider, end or Position())
        self._store.positions.seen = seen

    def _subjects(self) -> list[str]:
        """Return the subjects of replies that may be to requests of the builds of this process."""
        senders = frozenset[str]().union(*self._inherited.values())
        owners = [self._connectors.owner, *map(owner_of, senders)]
        return followed(owners)

    def _inherit(self, senders: Mapping[str, Iterable[str]]) -> None:
        holds = self._holds
        kept = {build: theirs for build, theirs in self._inherited.items() if holds(build)}
        self._inherited = kept | {build: frozenset(theirs) for build, theirs in senders.items()}

    async def follow(
        self,
        nursery: trio.Nursery,
        positions: Sequence[Position],
        senders: Mapping[str, Iterable[str]],
    ) -> None:
        """Follow the streams, and return when everything that is in them by now was read.

        Args:
            nursery: for the followers.
            positions: positions of the builds that are resumed; everything after any of them is read.
            senders: processes that may have sent what is in flight of these builds, by build.
        """
        self._inherit(senders)
        captured, streams = self._store.positions, self._store.replies
        places = [captured.seen, *positions]
        for provider, follower in self._followers.items():
            follower.subjects = self._subjects()
            start = _earliest([place.of(provider) for place in places])
            captured.see(start, provider)
            await self._insist(partial(nursery.start, follower.run, start), streams[provider])
        await self._read(positions, self._retired)
        for provider, follower in self._followers.items():
            await self._insist(follower.caught_up, streams[provider])

    async def read_again(self, positions: Sequence[Position], senders: Mapping[str, Iterable[str]]) -> None:
        """Read what was captured after any of these positions, up to where the streams are followed.

        Args:
            positions: positions of the builds that are resumed.
            senders: processes that may have sent what is in flight of these builds, by build. What is
                answered to them from now on is followed as well.
        """
        self._inherit(senders)
        for follower in self._followers.values():
            await follower.select(self._subjects())
        await self._read(positions, self._store.replies)

    async def caught_up(self) -> None:
        """Wait until everything that is there by now was read; the caller sets the deadline.

        Raises:
            BusError: a stream cannot be asked.
        """
        for follower in self._followers.values():
            await follower.caught_up()

    async def _read(self, positions: Sequence[Position], streams: Mapping[str, str]) -> None:
        for provider, stream in streams.items() if positions else ():
            after = _earliest([position.of(provider) for position in positions])
            await self._ask(provider, stream, partial(self._read_stream, provider, stream, after))

    async def _read_stream(self, provider: str, stream: str, after: Position) -> None:
        known = await self._store.js.get(stream, after.sequence) if after.sequence else None
        start = after.sequence + 1 if known is not None and known.time == after.time else 1
        replies = read(self._store.js, stream, subjects=self._subjects(), start=start)
        async with aclosing(replies) as batches:
            async for batch in batches:
                for delivered in batch:
                    place = _place(delivered)
                    self._connectors.look_at_captured(_message(delivered), place, after, provider)
                    after = place
                await trio.lowlevel.checkpoint()

    def _on_captured(self, provider: str, delivered: Delivered) -> None:
        # Each reply comes here; so without `_message` and `_place`.
        message = Message(delivered.subject, delivered.data, "", delivered.headers)
        self._connectors.on_captured(message, Position(delivered.sequence, delivered.time), provider)

    async def _ask(self, provider: str, stream: str, ask: Callable[[], Awaitable[_T]]) -> _T | None:
        """Ask as `_insist` does; None where the stream is retired and gone."""
        if provider not in self._retired:
            return await self._insist(ask, stream)
        try:
            return await patiently(self._store.health, ask, StreamNotFound)
        except StreamNotFound:
            _log.info("a stream of replies that is not used any more was removed", stream=stream)
            return None

    async def _insist(self, ask: Callable[[], Awaitable[_T]], stream: str) -> _T:
        """Ask until there is an answer, as nothing can begin without it."""
        return await self._store.streams.ask(stream, ask)


async def find_captured(
    store: JetStreamStore, connectors: ConnectorClient, holds: Callable[[str], bool]
) -> CapturedReplies:
    """Find the streams of replies, however long that takes, and note where they end."""
    live, retired = await store.streams.ask(REPLIES, lambda: reply_streams(store.js, store.layout))
    store.replies = {**live, **retired}
    captured = CapturedReplies(store, connectors, live, retired, holds)
    await captured.note_ends()
    return captured


async def _end_of(js: JetStream, stream: str) -> Position:
    info = await js.info(stream)
    last = await js.get(stream, max(1, info.last_sequence))
    return Position(info.last_sequence, last.time if last else 0)


def _earliest(positions: list[Position]) -> Position:
    """Return the position from which to read everything that is after any of these.

    A stream that lost its end gives the same numbers out again: then only the time tells.
    """
    first = min(positions, key=lambda place: place.sequence)
    oldest = min(place.time for place in positions)
    return first if first.time == oldest else Position(0, max(0, oldest - _MARGIN))


def _message(delivered: Delivered) -> Message:
    return Message(delivered.subject, delivered.data, "", delivered.headers)


def _place(delivered: Delivered) -> Position:
    return Position(delivered.sequence, delivered.time)
