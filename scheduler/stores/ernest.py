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

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from attrs import define, field

from scheduler.bus import Bus
from scheduler.errors import BuildLost, StoreError, StoreUnavailable
from scheduler.journal.events import Document, Event
from scheduler.metrics.commits import CommitTally
from scheduler.stores import Journal, slices
from scheduler.stores.asking import DEFAULT_BACKOFF, Asker, Backoff
from scheduler.stores.ernest_protocol import (
    FIND,
    GET_MAPPING,
    MAX_UNFINISHED,
    UNFINISHED,
    ask_again,
    check,
    cut,
    found_builds,
    members_of,
    raise_error,
    requests_for,
)
from scheduler.stores.step_journal import StepJournal


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
        self.may_ask: Callable[[], bool] = lambda: True
        self.commits = CommitTally()
        """Tally of the changes that the store carried out, each of them a request."""
        self._asker = Asker(
            bus,
            lambda: self.may_ask(),  # noqa: PLW0108 - it is set later
            timeout=timeout,
            deadline=store_timeout,
            at_once=per_instance,
            backoff=backoff,
            ask_again=ask_again,
        )
        self._lanes: dict[str, _Lane] = {}
        self._idle = trio.Event()
        """Event for when no request is under way."""
        self._actions: dict[str, str] = {}
        """Actions of unfinished builds, as far as the store named them when it was last asked."""

    @property
    def available(self) -> bool:
        """Whether this process may ask it."""
        return self.may_ask()

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
        requests = [request for event in events for request in requests_for(build, event)]
        if not requests:
            return
        with self._lane(build) as lane:
            seen = lane.failures
            async with lane.lock:
                if lane.failures != seen:
                    raise StoreUnavailable(lane.error)
                try:
                    for request in requests:
                        await self._change(build, *request)
                except StoreUnavailable as error:
                    lane.failures += 1
                    lane.error = str(error)
                    raise

    async def _change(self, build: str, subject: str, body: Document) -> None:
        """Let the store carry out one change, and count it; raises as `append`."""
        data = await slices.encode(body)
        began = trio.current_time()
        check(subject, await self._asker.ask(subject, data, build=build, failed=self._note_retry))
        self.commits.note(trio.current_time() - began, len(data))

    def _note_retry(self) -> None:
        self.commits.retries += 1

    def journal(self, build: str, on_failure: Callable[[StoreError], None]) -> Journal:
        """Return the journal of a build; see `Store.journal`."""
        return StepJournal(build, self.append, on_failure)

    async def settle(self) -> None:
        """Wait until no request is under way: no event is only noted, but some are being appended."""
        while self._lanes:
            self._idle = trio.Event()
            await self._idle.wait()

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
        members = members_of(GET_MAPPING, data)
        try:
            raise_error(GET_MAPPING, members)
        except BuildLost:
            return None
        try:
            document = await slices.document(members)
        except ValueError as error:
            raise StoreError(f"store: {GET_MAPPING} was answered with bad JSON: {error}") from error
        found = document.get("id")
        if found != build:
            raise StoreError(
                f"store: {GET_MAPPING} for {build!r} was answered with the build {cut(repr(found))}"
            )
        return document

    async def unfinished(self) -> AsyncGenerator[str, None]:
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
            for build, action in (await found_builds(data, status, MAX_UNFINISHED - len(seen))).items():
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
                if not self._lanes:
                    self._idle.set()
