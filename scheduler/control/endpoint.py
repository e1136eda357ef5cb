"""The scheduler as a NATS micro service (ADR-32): verbs of operators, on ``scheduler.build.VERB``.

JSON in, JSON out. A refusal has the service error headers of ADR-32, and the body
``{"id", "error": {"code", "message"}}``. This module subscribes, and chooses the line in which a question
waits. The verbs are in `scheduler.control.verbs`; the functions that answer them are in
`scheduler.control.queries`, `scheduler.control.report_queries` and `scheduler.control.commands`.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Final

import trio

from scheduler.bus import Bus
from scheduler.bus.discovery import ServiceEndpoint
from scheduler.control.commands import COMMANDS
from scheduler.control.origins import Origin
from scheduler.control.parts import Parts
from scheduler.control.queries import QUERIES
from scheduler.control.questions import QuestionLine, Questions
from scheduler.control.registry import Verb, Verbs
from scheduler.control.relay import Relay, Relayed
from scheduler.control.report_queries import REPORTS
from scheduler.control.verbs import Answer, Builds, Document, List, Query
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import CONTROL
from scheduler.errors import BusError
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.stores.jetstream import JetStreamStore

VERBS: Final = Verbs(QUERIES, REPORTS, COMMANDS)
"""Verbs of the scheduler, by name."""

QUEUE_GROUP: Final = "scheduler"
_DEAF: Final = 2.0
"""Seconds for which no questions of a verb are taken after a flood of them."""


class Control:
    """Answers operators.

    Args:
        bus: the connection that questions come in on.
        parts: the parts of the service that verbs work with.
        verbs: the verbs that are answered.
    """

    def __init__(self, bus: Bus, parts: Parts, verbs: Mapping[str, Verb[Parts]] = VERBS) -> None:
        self._bus = bus
        self._parts = parts
        self._verbs = verbs
        self.endpoints = {
            name: ServiceEndpoint(f"build-{name}", f"{CONTROL}{name}", QUEUE_GROUP, metadata=verb.metadata)
            for name, verb in verbs.items()
        }
        """Endpoints of service discovery, by verb."""
        self._relay = self._open_relay()
        self._questions = Questions(
            bus, self.endpoints, self.pace, self._answer, self._on_flood, relay=self._relay
        )
        self._flooded: dict[str, trio.Event] = {}
        self._log = RateLimitedLog(burst=len(verbs))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer, until cancelled; started when questions are taken."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._questions.run)
            nursery.start_soon(self._parts.run)
            async with trio.open_nursery() as subscriptions:
                for verb in self._verbs:
                    subscriptions.start_soon(nursery.start, self._listen, verb)
                    if self._relay is not None:
                        subscriptions.start_soon(self._listen_to_others, verb, self._relay)
            task_status.started()

    def _open_relay(self) -> Relay | None:
        fleet, store = self._parts.fleet, self._parts.store
        if fleet is None or not isinstance(store, JetStreamStore):
            return None
        return Relay(self._bus, self._parts, fleet, store, self._list)

    async def _list(self, document: Document) -> Builds:
        """List the builds of this instance."""
        answer = await self._verbs[List.verb()].answer(self._parts, document)
        assert isinstance(answer, Builds), "it is the form of its answer"
        return answer

    async def _listen_to_others(self, verb: str, relay: Relay) -> None:
        """Take in the questions of a verb that other instances pass on; those have bounds of their own."""
        # In a queue group without other members, so that another connection can stand in for this one.
        handler = self._questions.handler(verb, passed=True)
        await self._bus.subscribe(f"{relay.subject}{verb}", handler, queue=QUEUE_GROUP)

    async def _listen(self, verb: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Take in the questions of a verb, except for a while after each flood of them.

        All questions share one connection, and refusing takes time. If more come in than can be refused, the
        broker has to refuse them.
        """
        listening = False
        while True:
            flooded = self._flooded[verb] = trio.Event()
            handler = self._questions.handler(verb)
            try:
                subscription = await self._bus.subscribe(f"{CONTROL}{verb}", handler, queue=QUEUE_GROUP)
            except BusError as error:
                if not listening:
                    raise
                self._log.warning("no questions can be taken again for now", verb=verb, error=str(error))
                await trio.sleep(_DEAF)
                continue
            if not listening:
                listening = True
                task_status.started()
            await flooded.wait()
            self._log.warning("a flood of questions: none are taken for a while", verb=verb, seconds=_DEAF)
            await subscription.unsubscribe()
            await trio.sleep(_DEAF)

    def _on_flood(self, verb: str) -> None:
        self._flooded[verb].set()

    async def ask(
        self,
        verb: str,
        document: Document,
        user: str = "",
        sender: str = "",
        turns: trio.CapacityLimiter | None = None,
    ) -> Answer | Document | Relayed:
        """Answer a question or a command that comes from this process, and not over the bus.

        Args:
            verb: what is asked for.
            document: the request, not yet checked.
            user: its sender, where somebody vouches for it.
            sender: its sender, who takes turns with others at other instances.
            turns: turns of what is answered here; to wait for another instance takes none.

        Returns:
            The answer; that of another instance as it came.

        Raises:
            Refused: the request is wrong, or what it asks for cannot be done.
            StoreError, BusError: the store or the broker does not do what is needed for it.
        """
        if self._relay is not None and self._relay.concerns(verb, document, passed=False):
            origin = Origin(user, sender)
            answer = await self._relay.answer(verb, document, encode(document), origin)
            if answer is not None:
                return answer
        async with turns or nullcontext():
            return await self._answer(verb, document, user)

    def pace(self, verb: str, document: Document) -> QuestionLine:
        """Return the line in which a question waits.

        Args:
            verb: what is asked for.
            document: the request, not yet checked; empty where it is large.
        """
        request = self._verbs[verb].request
        if issubclass(request, Query):
            runs = self._parts.builds.is_running(document.get("id"))
            return QuestionLine.QUICK if request.is_quick(document, runs=runs) else QuestionLine.SLOW
        return QuestionLine.COMMAND

    async def _answer(self, verb: str, document: Document, user: str) -> Answer | Document:
        return await self._verbs[verb].answer(self._parts, document, user)
