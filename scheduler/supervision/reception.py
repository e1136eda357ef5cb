"""Takes builds in from the broker, answers each once, and closes without leaving any unanswered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio

from scheduler.bus import Bus, Message, Subscription
from scheduler.bus.discovery import ServiceEndpoint
from scheduler.definition.codec import read_id
from scheduler.definition.validation import Prepared
from scheduler.errors import Hung, InvalidBuild
from scheduler.runtime.background import open_background
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.supervision.admission import Admission
from scheduler.supervision.intake import QUEUE_GROUP, SUBJECTS, Passed, Receipts
from scheduler.supervision.passing import Passing
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.refusals import refused, shutting_down
from scheduler.tracing.context import TraceContext, read_context

_log = structlog.get_logger()

_SILENT = 0.7
"""Seconds of silence, with neither the server's word nor a build, after which no builds are awaited at the
end; this long, as the process may get little of the processor."""
_OF_ITS_LOG = frozenset({"running", "finished", "quarantined"})
"""Codes of refusals that tell already what became of a build of this id."""
_LONGEST_GOODBYE = 3.0
"""Longest wait while builds still come, in seconds: in a flood the server's word comes behind all of them."""
_LAST_ANSWERS = 1.0
"""Seconds to answer the builds that came in by then; three times as many where the server is not silent."""


class Reception:
    """Takes builds in.

    Args:
        bus: connection on which builds come in.
        receipts: answers their senders.
        reader: reads them.
        submit: begins a build, given with its sender and its trace context; returns whether it is finished
            already.
        passing: passes builds on to other instances, and takes theirs; None where builds are not shared.
    """

    def __init__(
        self,
        bus: Bus,
        receipts: Receipts,
        reader: BuildReader,
        submit: Callable[[Prepared, str, TraceContext | None], Awaitable[bool]],
        passing: Passing | None = None,
    ) -> None:
        self._bus = bus
        self._receipts = receipts
        self._reader = reader
        self._submit = submit
        self._passing = passing
        self._admission = Admission(receipts, self._take, reader.is_small)
        self._passed = Admission(receipts, self._take, reader.is_small)
        """Admission of what others pass on, which waits for nobody else: so no two wait for each other."""
        self.endpoints = {
            subject: ServiceEndpoint(subject.replace(".", "-"), subject, QUEUE_GROUP) for subject in SUBJECTS
        }
        """Endpoints for service discovery, by subject."""
        self._subscriptions: list[Subscription] = []
        self._stopping = False
        self._reads: set[trio.CancelScope] = set()
        self._answered = trio.Event()
        """Event that is set when every build that came in has its answer, and no more are taken in."""
        self._limited_log = RateLimitedLog(_log)

    @property
    def bytes(self) -> int:
        """Size of the builds that came in and are neither begun nor refused yet, in bytes."""
        return self._admission.bytes + self._passed.bytes

    @property
    def _came(self) -> int:
        """Number of builds that have come in."""
        return self._admission.came + self._passed.came

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take builds in from now on.

        Raises:
            BusError: a subscription could not be made.
        """
        for subject in SUBJECTS:
            subscription = await self._bus.subscribe(subject, self._admission.on_build, queue=QUEUE_GROUP)
            self._subscriptions.append(subscription)
        if self._passing is not None:
            subscription = await self._passing.listen(self._bus, self._receipts, self._passed.admit)
            self._subscriptions.append(subscription)
        async with open_background() as background:
            background.start_soon(self._run)
            yield

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._admission.run)
            nursery.start_soon(self._passed.run)
        self._answered.set()

    def stop_reading(self) -> None:
        """Refuse builds that are not read yet: large ones take seconds, and would only be refused then."""
        self._stopping = True
        for scope in self._reads:
            scope.cancel()

    async def close(self) -> bool:
        """Unsubscribe from builds, and wait until those that were sent to us are answered.

        Returns:
            Whether the server was silent: then some that it sent may not have reached us.
        """
        silent = await self._unsubscribe()
        self._admission.close()
        self._passed.close()
        with trio.move_on_after(_LAST_ANSWERS if silent else 3 * _LAST_ANSWERS):
            await self._answered.wait()
        return silent

    async def _unsubscribe(self) -> bool:
        """Unsubscribe from builds; returns whether the server was silent."""
        longest = trio.current_time() + _LONGEST_GOODBYE
        with trio.move_on_after(_SILENT) as patience:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._be_patient, patience, longest)
                async with trio.open_nursery() as nursery:
                    for subscription in self._subscriptions:
                        nursery.start_soon(subscription.unsubscribe)
                watching.cancel_scope.cancel()
        return patience.cancelled_caught

    async def _be_patient(self, patience: trio.CancelScope, longest: float) -> None:
        """Extend a deadline while builds come, up to ``longest`` (Trio's clock, seconds); never returns."""
        came = self._came
        while True:
            await trio.sleep(_SILENT / 10)
            if self._came > came:
                came = self._came
                patience.deadline = min(trio.current_time() + _SILENT, longest)

    async def _take(self, message: Message, sender: str) -> None:
        began = trio.current_time()
        error = ""
        try:
            await self._place(message, sender)
        except InvalidBuild as refusal:
            error = str(refusal)
            await self._reject(message, refusal)
        except Hung as hung:
            error = f"it cannot be taken: {hung}"
            await self._reject(message, refused("invalid", error))
        except Exception as fault:  # noqa: BLE001 - a bug that this message triggers must cost no other
            self._limited_log.exception("internal error: a build was not accepted", subject=message.subject)
            error = f"internal error in the scheduler ({type(fault).__name__}); see its log"
            self._receipts.reject(message, refused("internal", error))
        finally:
            if not isinstance(message, Passed):
                self.endpoints[message.subject].served(trio.current_time() - began, error)

    async def _place(self, message: Message, sender: str) -> None:
        """Begin a build where it fits best, and answer it; raises the refusal where it cannot begin."""
        passing, begin = self._passing, partial(self._begin, message, sender)
        if passing is None or not passing.shares:
            await begin()
        elif isinstance(message, Passed):
            await passing.take(message, begin)
        else:
            answer = await passing.place(message, sender, begin)
            if answer is None:
                return
            if answer.refusal is not None and not self._receipts.is_asked(message):
                raise answer.refusal
            self._receipts.relay(message, answer.data)

    async def _reject(self, message: Message, refusal: InvalidBuild) -> None:
        """Tell the sender of a refusal; or everybody, but not while a build of this id runs elsewhere."""
        passing, build = self._passing, read_id(message.data)
        public = refusal.code not in _OF_ITS_LOG and not self._receipts.is_asked(message)
        if public and passing is not None and await passing.runs_elsewhere(build):
            text = "build rejected while one of its id runs"
            self._limited_log.warning(text, build=build, first=str(refusal)[:500])
        else:
            self._receipts.reject(message, refusal)

    async def _begin(self, message: Message, sender: str) -> None:
        prepared = await self._read_unless_stopped(message)
        finished = await self._submit(prepared, sender, read_context(message.headers))
        if self._passing is not None:
            self._passing.note_taken(len(prepared.templates))
        self._receipts.accept(message, prepared.build.id, finished=finished)

    async def _read_unless_stopped(self, message: Message) -> Prepared:
        with trio.CancelScope() as scope:
            self._reads.add(scope)
            try:
                if not self._stopping:
                    return await self._reader.read_submitted(message.data, message.subject)
            finally:
                self._reads.discard(scope)
        raise shutting_down()
