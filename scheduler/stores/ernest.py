"""The store of an Ernest installation: its service-store, over NATS request/reply (WIRE: "The Ernest store").

Pace. The service does everything in one goroutine, so a build has one request in flight and this process
four. Both queues are first come, first served, and a build joins the second one again for each of its
requests: a build with 500 waiting appends delays another one by one request, not by 500.

Retries. Requests to the store are idempotent (set this, delete that), so an attempt whose answer is lost is
repeated, and may be applied twice. The danger is an attempt that is applied *late*: a ``running`` after the
``completed`` of the same component. The next request of a build leaves only when the one before was answered
or abandoned, all of them use one connection, and one goroutine takes them in order: with the service as it
is, a late attempt is applied before any later request is answered. Several instances of the service side by
side would lose that order. Without compare-and-set nothing here could prevent it; the worst outcome is a
stored ``running`` of a completed component, which a restarted scheduler would await and not send again.

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
"""Statuses of unfinished builds in the store; the second is that of its imports and syncs."""

_ACTIONS = {
    "apply": "build.create",
    "destroy": "build.delete",
    "import": "build.import",
    "patch": "build.patch",
    "sync": "build.sync",
}
"""Action of a build, by the ``type`` that the store keeps beside it."""

MAX_UNFINISHED = 100_000
"""Most builds that `ErnestStore.unfinished` yields."""

MAX_TEXT = 1024
"""Most characters of the store's own words in an exception."""

SERIALIZE = "could not serialize"
"""Part of an error: another transaction was faster, and the request is to be repeated."""

LOST = ("record not found", "build not found")
"""Parts of an error: there is no such build. The second is in older versions of the service."""

_log = structlog.get_logger(__name__)

_Request: TypeAlias = tuple[str, Document]
"""Subject and document of a request."""


class _Head(msgspec.Struct):
    """The fields that are read of an entry in a find's answer; the build itself comes with it, unread."""

    id: Any = None
    status: Any = None
    type: Any = None


_decode_head = msgspec.json.Decoder(_Head).decode


@define(eq=False)
class _Lane:
    """A build's queue of appends: the holder of the lock may send. It lives while it is in use."""

    lock: trio.Lock = field(factory=trio.Lock)
    users: int = 0
    failures: int = 0
    """Number of times that an append gave up on the store."""
    error: str = ""
    """Error of the last such append."""


class ErnestStore:
    """Keeps builds in Ernest's service-store; see the module for pace, retries and deadlines.

    The ``append`` calls of a build are carried out in the order in which they were made, one request at a
    time. When one of them gives up on the store (StoreUnavailable), those queued behind it fail at once with
    the same error: otherwise they would leave a hole behind them, and 500 of them would take four hours.
    Later calls try again.

    A cancelled call gives up its turn; it is unknown whether the store applied what it had sent. The number
    of waiting calls is bounded by the caller: each is a task of its own.
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
        """Speak over ``bus``, which remains the caller's to close.

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
        """Actions of unfinished builds, as far as the store named them when it was last asked."""

    async def append(self, build: str, events: Sequence[Event]) -> None:
        """Persist ``events``, in order; see `Store.append`.

        `Finished` sends nothing to this store: it ends a build by itself when it sees the report, by its
        subscriptions to ``build.*.done`` and ``build.*.error``.

        Raises:
            StoreUnavailable: there was no answer, or only "could not serialize", for ``store_timeout``.
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
        """Do nothing: this store is given events step by step."""
        return 0

    async def persisted(self, build: str, number: int) -> None:
        """Do nothing: no event is noted."""

    def on_failure(self, build: str, handler: Callable[[StoreError], None]) -> None:
        """Do nothing: no event is noted."""

    def note_sent(self, build: str, event: Sent, departure: Departure) -> None:
        """Do nothing: this store cannot record a departure."""

    async def settle(self) -> None:
        """Do nothing: no event is only noted."""

    def close(self, build: str) -> None:
        """Do nothing: a queue disappears when nothing waits in it."""

    async def load(self, build: str) -> dict[str, Any] | None:
        """Return the build as the store has it; None where it has no such build, or no mapping for it.

        It waits for the build's earlier ``append`` calls.

        Raises:
            StoreError: as for ``append``; or the answer is no build, or another one.
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
        """Yield the ids of the builds in a status of `UNFINISHED`, each once, at most `MAX_UNFINISHED`.

        Entries that are not objects with a textual ``id`` are left out, and logged.

        Raises:
            StoreUnavailable: there was no answer within ``store_timeout``; to be asked again later.
            StoreError: the store answered with an error, or with something other than a list.
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
        """Return the action of an unfinished build by its ``type``: ``build.delete`` for a destroy.

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
    """Return the requests that persist ``event``, in order."""
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
    """Return why a request is to be repeated: another transaction of the store got in its way."""
    # The bytes are looked at first: a build of megabytes is not to be parsed for this.
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
    """Return the text of an answer's ``_error``; None without one. Any value of it is an error."""
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
    """Raise the error of an answer, if it has one."""
    text = _error_in(members)
    if text is None:
        return
    if any(lost in text for lost in LOST):
        raise BuildLost(f"store: {subject}: {_cut(text)}")
    raise StoreError(f"store: {subject}: {_cut(text)}")


def _check(subject: str, data: bytes) -> None:
    """Raise unless ``data`` is the answer to a change that was carried out: empty, or without error."""
    if data:
        _raise_error(subject, _members(subject, data))


async def _found(data: bytes, status: str, most: int) -> dict[str, str]:
    """Return the builds in the answer to a find, each with its action; empty where that is unknown."""
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
    """Return an entry of a find's answer; None where it names no build."""
    try:
        head = _decode_head(row)
    except (ValueError, RecursionError):
        return None
    return head if isinstance(head.id, str) and head.id else None


def _cut(text: str) -> str:
    """Return ``text``, cut to the length of a message."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"
