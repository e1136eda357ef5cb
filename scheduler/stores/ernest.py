"""The store of an Ernest installation: its service-store, over NATS request/reply (WIRE: "The Ernest store").

Pace. The service does everything in one goroutine, so a build has one request in flight and this
process four. Both queues are first come, first served, and a build joins the second one again for each
of its requests: a build with 500 appends waiting delays another by one request, not by 500.

Retries. What the store is asked to do is idempotent (set this, delete that), so an attempt whose answer
is lost is repeated, and may be applied twice. The hazard is an attempt that is applied *late*: a
``running`` after the ``completed`` of the same component. The next request of a build leaves only when
the one before was answered or given up, all of them leave over one connection, and one goroutine takes
them in the order they came: with the service as it is, a late attempt is applied before any later request
is answered. Several instances of the service side by side would lose that order. Without compare-and-set
nothing here could prevent it; the worst outcome is a stored ``running`` of a completed component, which
a restarted scheduler would await and not send again.

Deadlines, and what waits while the store is silent: see `scheduler.stores.asking`.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec
import structlog
import trio
from attrs import define, field

from scheduler.bus import Bus
from scheduler.errors import BuildLost, StoreError, StoreUnavailable
from scheduler.journal.events import Accepted, Document, Event, Retrying, Sent, Settled, Started, Withdrawn
from scheduler.runtime.pace import paced
from scheduler.stores import Departure, slices
from scheduler.stores.asking import DEFAULT_BACKOFF, Asker, Backoff

SET_MAPPING = "build.set.mapping"
GET_MAPPING = "build.get.mapping"
SET_CHANGE = "build.set.mapping.change"
SET_COMPONENT = "build.set.mapping.component"
DELETE_COMPONENT = "build.del.mapping.component"
FIND = "build.find"

UNFINISHED = ("in_progress", "syncing")
"""What the store calls builds that are not over; the second are its imports and syncs."""

_ACTIONS = {
    "apply": "build.create",
    "destroy": "build.delete",
    "import": "build.import",
    "patch": "build.patch",
    "sync": "build.sync",
}
"""What a build is, by the ``type`` that the store keeps beside it."""

MAX_UNFINISHED = 100_000
"""Builds that `ErnestStore.unfinished` yields at most."""

MAX_TEXT = 1024
"""Characters of the store's own words in an exception."""

SERIALIZE = "could not serialize"
"""In an error: another transaction was faster, and the request is to be repeated."""

LOST = ("record not found", "build not found")
"""In an error: there is no such build. The second is in older versions of the service."""

_log = structlog.get_logger(__name__)

_Request: TypeAlias = tuple[str, Document]
"""A subject and what is sent to it."""


class _Head(msgspec.Struct):
    """What we look at in an entry of a find's answer; the build itself comes with it, and isn't read."""

    id: Any = None
    status: Any = None
    type: Any = None


_decode_head = msgspec.json.Decoder(_Head).decode


@define(eq=False)
class _Lane:
    """One build's queue of appends: who holds the lock may send. It lives while anybody uses it."""

    lock: trio.Lock = field(factory=trio.Lock)
    users: int = 0
    failures: int = 0
    """How often the store was given up on."""
    error: str = ""
    """What was said the last time."""


class ErnestStore:
    """Keeps builds in Ernest's service-store; see the module for pace, retries and deadlines.

    A build's ``append`` calls are carried out in the order they were made, one request at a time. When
    one of them gives up on the store (StoreUnavailable), those queued behind it fail at once with the
    same: they would leave a hole behind them, and 500 of them would take four hours. Later calls try again.

    A cancelled call gives up its turn; whether the store applied what it had sent is unknown.
    How many calls wait is bounded by the caller: each is a task of its own.
    """

    name = "ernest"
    resumable = True
    in_order = False
    available = True

    def __init__(
        self,
        bus: Bus,
        *,
        timeout: float = 5.0,
        store_timeout: float = 30.0,
        per_instance: int = 4,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> None:
        """Speak over ``bus``, which stays the caller's to close.

        Args:
            bus: the connection to the broker.
            timeout: seconds for one attempt, counted from sending it.
            store_timeout: seconds for one request with all its attempts, counted from the first sending.
            per_instance: requests in flight at a time, of all builds together.
            backoff: the delays between attempts.
        """
        self._asker = Asker(
            bus,
            timeout=timeout,
            deadline=store_timeout,
            at_once=per_instance,
            backoff=backoff,
            ask_again=_ask_again,
        )
        self._lanes: dict[str, _Lane] = {}
        self._actions: dict[str, str] = {}
        """What unfinished builds are, as far as the store said so when it was last asked for them."""

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Persist ``events``, in order; see `Store.append`.

        Finished asks nothing of this store: it ends a build by itself when it sees the report, on its
        subscriptions to ``build.*.done`` and ``build.*.error``.

        Raises:
            StoreUnavailable: not answered, or only with "could not serialize", for ``store_timeout``.
            BuildLost: the store has no record of the build.
            StoreError: the store answered with an error or with nonsense, or the request cannot be
                sent (it is larger than the broker takes, the outgoing queue is full, the bus is closed).
        """
        requests = [request for event in events for request in _requests(build, event)]
        if not requests:
            return
        with self._lane(build) as lane:
            seen = lane.failures
            async with lane.lock:
                if lane.failures != seen:
                    raise StoreUnavailable(lane.error)
                try:
                    for subject, body in requests:
                        _check(
                            subject, await self._asker.ask(subject, await slices.encode(body), build=build)
                        )
                except StoreUnavailable as error:
                    lane.failures += 1
                    lane.error = str(error)
                    raise

    def note(self, build: str, *events: Event, lazily: bool = False) -> int:  # noqa: ARG002 - as the port
        """Nothing: this store is told step by step."""
        return 0

    async def persisted(self, build: str, number: int) -> None:
        """Nothing: nothing is noted."""

    def on_failure(self, build: str, handler: Callable[[StoreError], None]) -> None:
        """Nothing: nothing is noted."""

    def note_sent(self, build: str, event: Sent, departure: Departure) -> None:
        """Nothing: it has no word for this."""

    async def settle(self) -> None:
        """Nothing: nothing was only noted."""

    def close(self, build: str) -> None:
        """Nothing: its queue is gone when nobody waits in it."""

    async def load(self, build: str) -> dict[str, Any] | None:
        """The build as the store has it, or None where it has no such build, or no mapping for it.

        Waits for the build's ``append`` calls made before.

        Raises:
            StoreError: as for ``append``; or the answer is not a build, or another one.
        """
        with self._lane(build) as lane:
            async with lane.lock:
                data = await self._asker.ask(GET_MAPPING, await slices.encode({"id": build}), build=build)
        # Go writes a mapping that was never set as null or {}.
        if data.strip() in {b"", b"null", b"{}"}:
            return None
        members = _members(GET_MAPPING, data)
        try:
            _raise_error(GET_MAPPING, members)
        except BuildLost:
            return None
        try:
            document = await slices.document(members)
        except ValueError as error:
            raise StoreError(f"store: {GET_MAPPING} was answered with bad JSON: {error}") from error
        found = document.get("id")
        if found != build:
            raise StoreError(
                f"store: {GET_MAPPING} for {build!r} was answered with the build {_cut(repr(found))}"
            )
        return document

    async def unfinished(self) -> AsyncIterator[str]:
        """The ids of the builds that the store calls `UNFINISHED`, each once, at most `MAX_UNFINISHED`.

        Entries that are not objects with a textual ``id`` are logged and left out.

        Raises:
            StoreUnavailable: nobody answered within ``store_timeout``; to be asked again later.
            StoreError: the store answered with an error or with something other than a list.
        """
        self._actions = {}
        seen: set[str] = set()
        for status in UNFINISHED:
            data = await self._asker.ask(FIND, await slices.encode({"status": status}), build="")
            for build, action in (await _found(data, status, MAX_UNFINISHED - len(seen))).items():
                if action:
                    self._actions[build] = action
                if build not in seen:
                    seen.add(build)
                    yield build

    async def action_of(self, build: str) -> str | None:
        """What an unfinished build is by the store's own ``type``: ``build.delete`` where it is a destroy.

        Raises:
            StoreError: as for `unfinished`.
        """
        if build not in self._actions:
            async for _ in self.unfinished():
                pass
        return self._actions.get(build)

    @contextmanager
    def _lane(self, build: str) -> Iterator[_Lane]:
        lane = self._lanes.setdefault(build, _Lane())
        lane.users += 1
        try:
            yield lane
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[build]


def _requests(build: str, event: Event) -> list[_Request]:
    """What the store is to be asked for ``event``, in order."""
    match event:
        case Accepted(document=document):
            return [(SET_MAPPING, {"id": build, "mapping": document})]
        case Started() | Withdrawn() | Retrying():
            return [(SET_CHANGE, {**event.body, "service": build})]
        case Settled(body=body, upserts=upserts, deletes=deletes):
            return [
                (SET_CHANGE, {**body, "service": build}),
                *((SET_COMPONENT, {**component, "service": build}) for component in upserts),
                *((DELETE_COMPONENT, {**component, "service": build}) for component in deletes),
            ]
        case _:
            return []


def _ask_again(data: bytes) -> str | None:
    """Why a request is to be repeated: the store says that another transaction got in its way."""
    # A look at the bytes first: a build of megabytes is not to be parsed for this.
    if SERIALIZE.encode() not in data:
        return None
    try:
        text = _error_in(slices.members(data))
    except ValueError:
        return None  # a list of builds, or nonsense: either way a final answer
    return _cut(text) if text is not None and SERIALIZE in text else None


def _members(subject: str, data: bytes) -> dict[str, msgspec.Raw]:
    try:
        return slices.members(data)
    except ValueError as error:
        raise StoreError(f"store: {subject} was answered with bad JSON: {error}") from error


def _error_in(members: Mapping[str, msgspec.Raw]) -> str | None:
    """The text of an answer's ``_error``, or None where it has none. Whatever its value, it is an error."""
    raw = members.get("_error")
    if raw is None:
        return None
    try:
        text = slices.value(raw)
    except ValueError:
        text = None
    if not isinstance(text, str):
        text = bytes(raw).decode(errors="replace")
    return text


def _raise_error(subject: str, members: Mapping[str, msgspec.Raw]) -> None:
    """Raise what an answer says went wrong, if it says so."""
    text = _error_in(members)
    if text is None:
        return
    if any(lost in text for lost in LOST):
        raise BuildLost(f"store: {subject}: {_cut(text)}")
    raise StoreError(f"store: {subject}: {_cut(text)}")


def _check(subject: str, data: bytes) -> None:
    """Raise unless ``data`` is the answer to a change that was carried out: empty, or no error."""
    if data:
        _raise_error(subject, _members(subject, data))


async def _found(data: bytes, status: str, most: int) -> dict[str, str]:
    """The builds in the answer to a find, each with what it is; empty where that is not said."""
    # Go writes an empty list as null.
    if data.strip() in {b"", b"null"}:
        return {}
    if not data.lstrip().startswith(b"["):
        _raise_error(FIND, _members(FIND, data))
        raise StoreError(f"store: {FIND} was answered with an object, not with a list")
    try:
        rows = slices.elements(data)
    except ValueError as error:
        raise StoreError(f"store: {FIND} was answered with bad JSON: {error}") from error
    builds: dict[str, str] = {}
    bad = 0
    await trio.lowlevel.checkpoint()  # taking it apart was a slice of its own
    async for row in paced(rows, every=slices.BATCH):
        head = _head_of(row)
        if head is None or (head.status is not None and head.status != status):
            bad += 1
        elif len(builds) < most or head.id in builds:
            builds[head.id] = _ACTIONS.get(head.type, "") if isinstance(head.type, str) else ""
        else:
            _log.warning(
                "too many unfinished builds, the rest is left", limit=MAX_UNFINISHED, found=len(rows)
            )
            break
    if bad:
        _log.warning("entries that are no builds in progress were left out", entries=bad, found=len(rows))
    return builds


def _head_of(row: msgspec.Raw) -> _Head | None:
    """An entry of a find's answer, or None where it is none that names a build."""
    try:
        head = _decode_head(row)
    except (ValueError, RecursionError):
        return None
    return head if isinstance(head.id, str) and head.id else None


def _cut(text: str) -> str:
    """``text``, not longer than a message should be."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"
