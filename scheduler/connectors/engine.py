"""The running connector: subscriptions, jobs, heartbeats, and the end in order.

Requests are taken inside the bus's handlers, which never wait: reading goes on whatever the handlers do. Each
work that has its slot is a task (`scheduler.connectors.job`); what waits is none.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import trio
from attrs import define, field, frozen

from scheduler.bus import Bus, Message, Subscription
from scheduler.bus.asyncio_thread import AsyncioThread, open_asyncio_thread
from scheduler.connectors.attempts import Attempt, read_attempt, read_fields
from scheduler.connectors.beats import Beats
from scheduler.connectors.claims import RECORDING
from scheduler.connectors.deadlines import Deadlines
from scheduler.connectors.handlers import Handler
from scheduler.connectors.job import Job, Parts
from scheduler.connectors.outcomes import Outcome, Rejected, busy, cancelled
from scheduler.connectors.post import Post
from scheduler.connectors.replies import bare, errored
from scheduler.connectors.stores import Store
from scheduler.connectors.workload import Work, Workload
from scheduler.definition.strictjson import encode
from scheduler.errors import BusError, NotPermitted
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.logger import Logger

CANCEL: Final = "scheduler.cancel"
RETURNED: Final = "scheduler.returned"
_MOST_RETURNED: Final = 1_000
"""Attempts in one message."""
_MOST_RETURNED_BYTES: Final = 256 * 1024
_GOODBYE: Final = 1.0
"""Seconds for calls to end that were cancelled, and for subscriptions to end."""
_LAST_REPLIES: Final = 4.0
"""Seconds for the last replies to leave: more than they wait after a reconnect."""
_STARTING: Final = 10.0
"""Seconds to wait for the broker's word that it has the subscriptions, where it is there."""

log = Logger()


class _Notice(msgspec.Struct):
    """Message that an attempt was given up."""

    attempt: str = ""
    reason: str = ""


_read_notice = msgspec.json.Decoder(_Notice).decode


@frozen
class Running:
    """A connector that runs, as its companions see it."""

    bus: Bus
    instance: str
    provider: str
    handlers: Sequence[Handler]
    workload: Workload


Companion = Callable[[Running], AbstractAsyncContextManager[object]]
"""Something that lives as long as a connector runs: a function that returns its context."""


@define(eq=False)
class Engine:
    """Runs handlers on a bus."""

    bus: Bus
    handlers: Sequence[Handler]
    store: Store
    instance: str
    provider: str
    queue: str
    drain: float
    """Seconds for what is begun to end, once it is to stop."""
    workload: Workload = field(factory=Workload)
    stopping: trio.Event = field(factory=trio.Event)
    """Event that is to be set to end it in order."""
    _starting: trio.CancelScope = field(factory=trio.CancelScope)
    """Scope of the wait for the subscriptions."""
    _patience: trio.CancelScope = field(factory=trio.CancelScope)
    """Scope of the wait for what is begun."""
    _closed: bool = False
    """Whether nothing more can be answered."""
    _jobs: dict[Work, Job] = field(factory=dict)
    _log: RateLimitedLog = field(factory=RateLimitedLog)
    _parts: Parts = field(init=False)
    _nursery: trio.Nursery = field(init=False)

    async def run(
        self,
        beside: Sequence[Companion] = (),
        *,
        task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``stopping`` is set, or this is cancelled; then end in order.

        Args:
            beside: what lives as long as requests are taken.
            task_status: started when the broker has the subscriptions.

        Raises:
            NotPermitted: the broker forbids a subscription to requests.
            BusError: the bus was closed.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            task_status.started(await nursery.start(self._serve, beside))

    async def _watch(self) -> None:
        """Stop when all around is cancelled, too; then nothing is waited for that has not begun."""
        try:
            await self.stopping.wait()
        finally:
            self.stopping.set()
            self._starting.cancel()

    async def _serve(self, beside: Sequence[Companion], *, task_status: trio.TaskStatus[Running]) -> None:
        # Its end takes time, also where all around is cancelled.
        with trio.CancelScope(shield=True):
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.store.open(self.bus))
                needed = any(handler.backend == "asyncio" for handler in self.handlers)
                thread = await stack.enter_async_context(open_asyncio_thread()) if needed else None
                nursery = await stack.enter_async_context(trio.open_nursery())
                self._prepare(nursery, thread)
                subscriptions: list[Subscription] = []
                with self._starting:
                    await self._subscribe(subscriptions)
                    await self._return_unanswered()
                here = Running(self.bus, self.instance, self.provider, self.handlers, self.workload)
                async with AsyncExitStack() as companions:
                    for companion in beside:
                        await companions.enter_async_context(companion(here))
                    if not self.stopping.is_set():
                        log.info("connector is ready", provider=self.provider, handlers=len(self.handlers))
                    task_status.started(here)
                    await self.stopping.wait()
                await self._stop(subscriptions)
                nursery.cancel_scope.cancel()

    def hurry(self) -> None:
        """Stop, and wait for nothing that is begun."""
        self.stopping.set()
        self._patience.cancel()

    def _prepare(self, nursery: trio.Nursery, thread: AsyncioThread | None) -> None:
        beats = Beats(self.bus, self.instance)
        nursery.start_soon(beats.run)
        post = Post(self.bus, nursery)
        deadlines = Deadlines()
        nursery.start_soon(deadlines.run)
        self._nursery = nursery
        self._parts = Parts(
            self.bus,
            self.store,
            self.workload,
            beats,
            post,
            deadlines,
            thread,
            self._begin_next,
            self._ended_work,
        )

    # Coming in.

    async def _subscribe(self, subscriptions: list[Subscription]) -> None:
        """Subscribe; while the broker is away that waits."""
        for handler in self.handlers:
            take = partial(self._take, handler)
            subscriptions.append(await self.bus.subscribe(handler.subject, take, queue=self.queue))
        try:
            for handler in self.handlers:
                subject = f"{CANCEL}.{handler.subject}"
                subscriptions.append(await self.bus.subscribe(subject, self._take_notice))
        except NotPermitted as error:
            log.warning("attempts that were given up are not cancelled here", reason=str(error))

    def _take(self, handler: Handler, message: Message) -> None:
        """Take a request; called back by the bus."""
        if self._closed:
            # The subscription could not be ended in time.
            return
        attempt = read_attempt(message)
        taken = self.workload.offer(handler, attempt)
        if isinstance(taken, Outcome):
            self._log.warning("a request is refused", subject=attempt.subject, reason=taken.error)
            self._refuse(attempt, taken)
            return
        self._parts.beats.add(taken.attempt, begins=taken.begins is not None)
        if taken.begins is not None:
            self._begin(taken.begins)
        elif self.store.durable and (job := self._jobs.get(taken.work)) is not None:
            self._nursery.start_soon(job.claim.note, taken.attempt.id)

    def _take_notice(self, message: Message) -> None:
        """Take the notice that an attempt was given up; called back by the bus."""
        if self._closed:
            return
        try:
            notice = _read_notice(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._log.warning("a notice of cancellation cannot be read", subject=message.subject)
            return
        reason = notice.reason or "no reason was given"
        work = self.workload.cancel(unquote(notice.attempt), reason)
        if work is None:
            return
        job = self._jobs.get(work)
        if job is None:
            self._drop(work, cancelled(reason))
            return
        job.cancel(reason)

    def _begin(self, work: Work) -> None:
        """Begin the job of a work that has its slot."""
        job = Job(self._parts, work)
        self._jobs[work] = job
        self._nursery.start_soon(self._run, job, name=work.handler.name)

    def _begin_next(self, work: Work) -> None:
        """Begin the job of a work that has waited for its slot."""
        for attempt in work.attempts:
            self._parts.beats.begin(attempt)
        self._begin(work)

    async def _ended_work(self, work: Work) -> None:
        # Works of a handler begin in the order in which they came: this one has.
        await self._jobs[work].ended.wait()

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
        finally:
            self._jobs.pop(job.work, None)

    def _drop(self, work: Work, outcome: Outcome) -> None:
        """Answer a work that has not begun."""
        self.workload.end(work)
        for attempt in work.attempts:
            self._parts.beats.remove(attempt)
            attempt.data = work.first.data
            self._refuse(attempt, outcome)

    def _refuse(self, attempt: Attempt, outcome: Outcome) -> None:
        fields: dict[str, Any] = {}
        try:
            fields = read_fields(attempt.data)
        except Rejected:
            # It fails for another reason, and its subject is enough to answer.
            fields = {}
        reply = errored(outcome, fields, attempt)
        if 0 < self.bus.max_payload < len(reply.body):
            reply = bare(outcome, fields, attempt)
        self._parts.post.send(reply.subject(attempt), reply.body)

    # Going on after a crash.

    async def _return_unanswered(self) -> None:
        """Tell the scheduler which attempts were begun by a process that is gone."""
        if not self.store.durable:
            return
        try:
            with trio.fail_after(RECORDING):
                left = await self.store.unanswered()
            if not left:
                return
            log.info("attempts without an answer are asked for again", attempts=len(left))
            with trio.move_on_after(_STARTING):
                await self.bus.flush()
            for ids in _batches(left):
                self.bus.publish(
                    f"{RETURNED}.{self.provider}", encode({"instance": self.instance, "attempts": ids})
                )
        except (OSError, BusError, trio.TooSlowError) as error:
            log.warning("attempts without an answer are not asked for again", reason=str(error))

    # The end.

    async def _stop(self, subscriptions: Sequence[Subscription]) -> None:
        """End in order: take nothing more, let end what is begun, and say what does not end."""
        waiting = self.workload.stop()
        log.info("connector is stopping", begun=len(self._jobs), waiting=len(waiting))
        for work in waiting:
            self._drop(work, busy("the connector is stopping", 1.0))
        with trio.move_on_after(_GOODBYE):
            async with trio.open_nursery() as nursery:
                for one in subscriptions:
                    nursery.start_soon(one.unsubscribe)
        with self._patience:
            await self._ended(self.drain)
        if self._jobs:
            log.warning("calls are ended: the connector stops", begun=len(self._jobs), after=self.drain)
            for job in [*self._jobs.values()]:
                job.stop()
            if not await self._ended(_GOODBYE):
                for job in [*self._jobs.values()]:
                    job.leave()
        with trio.move_on_after(_LAST_REPLIES):
            await self._parts.post.emptied()
        self._closed = True

    async def _ended(self, seconds: float) -> bool:
        """Wait until no job is left; return whether that is so."""
        with trio.move_on_after(seconds):
            while self._jobs:
                await next(iter(self._jobs.values())).ended.wait()
                await trio.lowlevel.checkpoint()
        return not self._jobs


def _batches(ids: Sequence[str]) -> list[list[str]]:
    """Divide attempt ids into messages, by number and bytes."""
    batches: list[list[str]] = []
    rest = iter(ids)
    while batch := list(islice(rest, _MOST_RETURNED)):
        size = 0
        batches.append([])
        for one in batch:
            size += len(one.encode()) + 8
            if size > _MOST_RETURNED_BYTES and batches[-1]:
                batches.append([])
                size = 0
            batches[-1].append(one)
    return batches
