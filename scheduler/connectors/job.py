"""One work, from its request to its reply: read, claim, call, record, answer."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

import structlog
import trio
from attrs import define, field

from scheduler.bus import Bus
from scheduler.bus.asyncio_thread import AsyncioThread
from scheduler.connectors.attempts import Attempt, read_fields
from scheduler.connectors.beats import Beats, Voice
from scheduler.connectors.calls import Call, make_call, make_cancellation
from scheduler.connectors.claims import WorkClaim, claim_of
from scheduler.connectors.context import Cancellation, Context
from scheduler.connectors.conversion import structure
from scheduler.connectors.deadlines import Deadlines
from scheduler.connectors.outcomes import Outcome, Rejected, busy, cancelled, failed, timed_out
from scheduler.connectors.post import Post
from scheduler.connectors.replies import Reply, bare, completed, errored
from scheduler.connectors.spans import CallSpan
from scheduler.connectors.stores import Begun, Completed, Store
from scheduler.connectors.workload import Work, Workload
from scheduler.definition.secrets.masking import Secrets
from scheduler.runtime.logger import Logger
from scheduler.text import count

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_ELSEWHERE: Final = 5.0
"""Seconds after which a request may come again whose component is still acted on."""
_BESIDE: Final = 256 * 1024
"""Bytes from which a request is read in a thread."""
_INTERRUPTED: Final = Outcome(
    error="the connector stopped before it was done", retryable=True, retry_after=1.0, interrupted=True
)

log = Logger()
_T = TypeVar("_T")


@define(eq=False)
class Parts:
    """Parts that all jobs of a process share."""

    bus: Bus
    store: Store
    workload: Workload
    beats: Beats
    post: Post
    deadlines: Deadlines
    thread: AsyncioThread | None
    """Loop of asyncio, where a handler needs it."""
    begin: Callable[[Work], None]
    """Function that begins the job of a work that has its slot."""
    ended: Callable[[Work], Awaitable[None]]
    """Function that waits for the end of a work that has begun."""


@define(eq=False)
class Job:
    """The job of one work."""

    parts: Parts
    work: Work
    ended: trio.Event = field(factory=trio.Event)
    fields: dict[str, Any] = field(factory=dict, repr=False)
    """The component as it came."""
    answered: bool = False
    claim: WorkClaim = field(init=False)
    _large: bool = False
    """Whether its conversions may take long."""
    _call: Call | None = None
    _cancellation: Cancellation | None = None
    _voice: Voice | None = None
    _stopping: bool = False

    def __attrs_post_init__(self) -> None:
        self.claim = claim_of(self.parts.store, self.work)

    async def run(self) -> None:
        """Do the work; never raises, unless it is cancelled."""
        handler = self.work.handler
        handler.counts.requests += 1
        began = trio.current_time()
        try:
            outcome = await self._outcome()
            if outcome is not None:
                await self._settle(outcome)
        except Exception as error:  # noqa: BLE001 - answered and logged
            self._fail(failed(error))
        finally:
            handler.counts.seconds += trio.current_time() - began
            self._end()

    def cancel(self, reason: str) -> None:
        """Tell the handler that the scheduler gave it up, and end it unless it wants a flag only."""
        if self._cancellation is not None:
            self._cancellation.set(reason)
        if self._call is not None and self.work.handler.on_cancel == "cancel":
            self._call.cancel()

    def stop(self) -> None:
        """End the call, since the connector stops."""
        self._stopping = True
        if self._cancellation is not None:
            self._cancellation.set("the connector stops")
        if self._call is not None:
            self._call.cancel()

    def leave(self) -> None:
        """Answer what did not end in time, where nothing will remember it. Synchronous."""
        if not self.claim.outlives:
            self.answer(_INTERRUPTED)

    def answer(self, end: Outcome | Reply) -> None:
        """Send the reply to every attempt, once. Synchronous."""
        if self.answered:
            return
        self.answered = True
        if isinstance(end, Outcome):
            self._note_failure(end)
        for attempt in self.work.attempts:
            self.parts.beats.remove(attempt)
            reply = end if isinstance(end, Reply) else self._failure(end, attempt)
            self.parts.post.send(reply.subject(attempt), reply.body)

    # The steps.

    async def _outcome(self) -> Outcome | Reply | None:
        """Return the end of the work, as far as it is not known from before."""
        data, self.work.first.data = self.work.first.data, b""
        self._large = len(data) > _BESIDE
        try:
            request = await self._beside(partial(self._read, data)) if self._large else self._read(data)
        except Rejected as error:
            return failed(error)
        finally:
            self._bind()
        claim = await self._claim()
        if isinstance(claim, Begun):
            return await self._perform(request, repeated=claim.repeated)
        if isinstance(claim, Completed):
            log.info("answered from the record")
            return Reply(True, claim.reply)
        return claim

    def _read(self, data: bytes) -> Any:
        """Return the request in the form that the handler wants."""
        fields = self.fields = read_fields(data)
        # A copy, since a failure returns the component as it came.
        handler = self.work.handler
        return dict(fields) if handler.is_untyped else structure(fields, handler.request)

    def _bind(self) -> None:
        """Put the ids into all lines of the log of this task: each job has one of its own."""
        first, fields = self.work.first, self.fields
        names = {"subject": first.subject}
        if first.id:
            names["attempt"] = first.id
        if build := fields.get("service"):
            names["build"] = str(build)
        if component := fields.get("_component_id"):
            names["component"] = str(component)
        if first.trace is not None:
            names |= {"trace_id": first.trace.trace, "span_id": first.trace.span}
        structlog.contextvars.bind_contextvars(**names)

    async def _beside(self, job: Callable[[], _T]) -> _T:
        """Return the result of a conversion that may take long, made in a thread."""
        return await trio.to_thread.run_sync(job, abandon_on_cancel=True)

    async def _claim(self) -> Begun | Completed | Outcome:
        """Wait until nobody else acts on the component, and claim the work."""
        if self.work.before is None and self.claim.is_immediate:
            return await self.claim.make()
        with trio.move_on_after(self.work.handler.timeout):
            while (before := self.work.before) is not None:
                await self.parts.ended(before)
            return await self.claim.make()
        text = f"another call of {self.work.handler.name} for this component has not ended"
        return busy(text, _ELSEWHERE)

    async def _perform(self, request: Any, *, repeated: bool) -> Outcome | None:
        """Call the handler; return its outcome, or None where that is not known."""
        handler = self.work.handler
        if (early := self._early_end()) is not None:
            return early
        span = self._span()
        context = self._context(span, repeated=repeated) if handler.takes_context else None
        call = self._call = make_call(handler, handler.arguments(request, context), self.parts.thread)
        if repeated:
            log.info("begun", handler=handler.name, repeated=True)
        else:
            log.info("begun", handler=handler.name)
        try:
            # Where its time is over, it is answered, and its slot is for others.
            with self.parts.deadlines.within(handler.timeout, self._give_up):
                outcome = await call.run() if span is None else await span.around(call.run)
        finally:
            if self._voice is not None:
                self._voice.end()
            self._call = self._cancellation = self._voice = None
        if outcome is None or outcome.error is not None:
            lost = Outcome(error="the call was cancelled, and not by the scheduler")
            outcome = self._early_end() or outcome or lost
        if span is not None:
            span.end(None if outcome.error is None else self._shown(outcome)["error"])
        return outcome

    def _span(self) -> CallSpan | None:
        """Begin the span of the call, where the request has a trace."""
        first, fields = self.work.first, self.fields
        if first.trace is None:
            return None
        span = CallSpan(
            first.trace,
            first.subject,
            attempt=first.id,
            build=str(fields.get("service", "")),
            component=str(fields.get("_component_id", "")),
        )
        structlog.contextvars.bind_contextvars(span_id=span.context.span)
        return span

    def _context(self, span: CallSpan | None, *, repeated: bool) -> Context:
        first, fields = self.work.first, self.fields
        cancellation = self._cancellation = make_cancellation(self.work.handler.backend, self.parts.thread)
        voice = self._voice = Voice(self._say)
        return Context(
            key=first.key,
            attempt=first.id,
            build=str(fields.get("service", "")),
            component=str(fields.get("_component_id", "")),
            subject=first.subject,
            repeated=repeated,
            cancelled=cancellation,
            trace=_NO_HEADERS if span is None else span.context.headers(),
            say=voice.say,
        )

    def _early_end(self) -> Outcome | None:
        """Return the end of a call that was not left to end by itself."""
        return _INTERRUPTED if self._stopping else self._cancelled

    def _give_up(self) -> None:
        handler = self.work.handler
        late = timed_out(handler.name, handler.timeout)
        following = self.parts.workload.abandon(self.work, late.error or "")
        self.answer(late)
        if self._cancellation is not None:
            self._cancellation.set(late.error or "")
        if self._call is not None:
            self._call.cancel()
        if following is not None:
            self.parts.begin(following)

    async def _settle(self, end: Outcome | Reply) -> None:
        """Record the end, then answer."""
        if isinstance(end, Outcome) and end.error is None:
            end = await self._written(end)
        if isinstance(end, Reply):
            await self.claim.complete(end.body)
            if self.answered:
                log.info("completed too late for this attempt: the next one is answered from the record")
                return
            self.work.handler.counts.completed += 1
            log.info("completed")
            self.answer(end)
        elif end.interrupted and self.claim.outlives:
            log.warning("interrupted: to be asked again when the connector is back")
        else:
            await self.claim.forget()
            self.answer(end)

    async def _written(self, outcome: Outcome) -> Outcome | Reply:
        try:
            # A list of what was found may be of any length.
            if self._large or _is_long(outcome.result):
                write = partial(completed, outcome.result, self.fields, self.work.first)
                reply = await self._beside(write)
            else:
                reply = completed(outcome.result, self.fields, self.work.first)
        except Exception as error:  # noqa: BLE001 - the conversion of somebody else's type
            return failed(error)
        most = self.parts.bus.max_payload
        if most and len(reply.body) > most:
            size = count(len(reply.body), "byte")
            return failed(Rejected(f"the reply takes {size}, over the broker's max_payload of {most:,}"))
        return reply

    def _say(self, share: float | None, message: str) -> None:
        for attempt in self.work.attempts:
            self.parts.beats.say(attempt, share, message)

    def _failure(self, outcome: Outcome, attempt: Attempt) -> Reply:
        reply = errored(outcome, self.fields, attempt)
        most = self.parts.bus.max_payload
        return bare(outcome, self.fields, attempt) if most and len(reply.body) > most else reply

    def _note_failure(self, outcome: Outcome) -> None:
        shown = self._shown(outcome)
        self.work.handler.counts.errored += 1
        self.work.handler.counts.last_error = shown["error"]
        log.warning("failed", **shown)

    def _fail(self, outcome: Outcome) -> None:
        """End with an error of the kit's own."""
        log.error("internal error in the connector kit", **self._shown(outcome))
        self.answer(outcome)

    def _shown(self, outcome: Outcome) -> dict[str, str]:
        """Return the error without the component's secrets, as far as people are to see it."""
        secrets = Secrets()
        secrets.add(self.fields)
        shown = {"error": secrets.mask(outcome.error or "", _MOST_SHOWN)}
        if outcome.traceback:
            # A text, since a logger may add the values of local variables to an exception.
            shown["exception"] = secrets.mask(outcome.traceback, _MOST_SHOWN)
        return shown

    @property
    def _cancelled(self) -> Outcome | None:
        """End of a work that nobody waits for any more."""
        return cancelled(self.work.given_up) if self.work.given_up else None

    def _end(self) -> None:
        for attempt in self.work.attempts:
            self.parts.beats.remove(attempt)
        following = self.parts.workload.end(self.work)
        if following is not None:
            self.parts.begin(following)
        self.ended.set()


def _is_long(result: Any) -> bool:
    return isinstance(result, list | tuple) and len(result) > _FEW


_FEW: Final = 100
"""Components that are written on the spot."""
_MOST_SHOWN: Final = 4_000
"""Characters of a text in the log."""
