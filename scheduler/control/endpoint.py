"""The scheduler as a NATS micro service (ADR-32): what operators ask of builds, on ``scheduler.build.VERB``.

JSON in, JSON out. What is refused is answered with the service error headers of ADR-32, and with
``{"id", "error": {"code", "message"}}``. Several questions are answered at a time; what changes a build is
answered when it is persisted.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import trio

from scheduler.bus import Bus
from scheduler.control.eta import EtaEstimator
from scheduler.control.finished import FinishedBuilds
from scheduler.control.pages import Pages
from scheduler.control.questions import Document, Pace, Questions
from scheduler.control.schemas import SCHEMAS
from scheduler.definition.graph import Vertex
from scheduler.definition.strictjson import decode
from scheduler.definition.subjects import CONTROL
from scheduler.definition.tokens import decode_token
from scheduler.errors import (
    BusError,
    InvalidBuild,
    InvalidJSON,
    Refused,
    StreamNotFound,
)
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.reading import read
from scheduler.jetstream.streams import REPORTS, SUBJECT_HEADER, SUMMARY_HEADER
from scheduler.plan import Plan, steering
from scheduler.recovery.reopening import Reopener
from scheduler.runtime.courtesy import give_way
from scheduler.runtime.pace import paced
from scheduler.runtime.ratelimit import RateLimitedLog
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.slices import encode as encode_in_slices
from scheduler.supervision.discovery import ServiceEndpoint
from scheduler.supervision.explainer import Explainer, Seen, interruptions, summary
from scheduler.supervision.reader import BuildReader
from scheduler.supervision.supervisor import Supervisor
from scheduler.walk import Steering

QUEUE_GROUP: Final = "scheduler"
_LOOKING: Final = frozenset({"list", "get", "why", "plan"})
"""The verbs that change nothing."""
_LIST_KEPT = 60.0
"""Seconds between two times that what a list of everything has read is let go of; it comes in pages."""
_DEAF = 2.0
"""Seconds for which no questions of a verb are taken after a flood of them."""
_FRESH = 1.0
_SHARE = 20.0
"""Seconds for which a preview is good at least, and as a multiple of the time that it took."""
_ENDING = 5.0
"""Seconds that a build may take from its report to its end."""
_PAGE = 1_000
"""Builds or components in one answer."""
_SLICE = 100
"""Builds that are told of between two looks at everything else: a millisecond."""


class Control:
    """Answers operators.

    Args:
        bus: what questions come in on.
        supervisor: holds the builds.
        eta: know when a build will be over.
        reader: reads builds that are asked about before they are submitted.
        reopener: begins further runs of builds that are over; None where the store keeps none.
    """

    def __init__(
        self,
        bus: Bus,
        supervisor: Supervisor,
        eta: EtaEstimator,
        reader: BuildReader,
        reopener: Reopener | None,
    ) -> None:
        self._bus = bus
        self._supervisor = supervisor
        self._slots = supervisor.slots
        self._store = supervisor.store
        self._eta = eta
        self._reader = reader
        self._reopener = reopener
        self._verbs: Mapping[str, Callable[[Document], Awaitable[Document]]] = {
            "list": self._list,
            "get": self._get,
            "why": self._why,
            "plan": self._plan,
            "cancel": self._cancel,
            "pause": self._pause,
            "resume": self._resume,
            "retry": self._retry,
            "skip": self._skip,
            "extend": self._extend,
            "limit": self._limit,
        }
        self.endpoints = {
            verb: ServiceEndpoint(f"build-{verb}", f"{CONTROL}{verb}", QUEUE_GROUP, metadata=SCHEMAS[verb])
            for verb in self._verbs
        }
        """What service discovery shows."""
        self._finished = None if reopener is None else FinishedBuilds(reopener.replayer, supervisor)
        self._pages = Pages()
        self._foreseeing = trio.Lock()
        self._over_known: tuple[tuple[int, ...], list[Document]] | None = None
        """How far the stream of reports is, and what they say."""
        self._listed = trio.Event()
        """Set when one of these two is there to be let go of."""
        self._previewing = trio.Lock()
        self._previewed: tuple[tuple[str, str], float, Document] | None = None
        """The last preview of a build that is here: of which, until when it is good, and what it says."""
        self._questions = Questions(bus, self.endpoints, self._pace, self._answer, self._on_flood)
        self._flooded: dict[str, trio.Event] = {}
        self._log = RateLimitedLog(burst=len(self._verbs))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer, until cancelled; started when questions are taken."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._questions.run)
            nursery.start_soon(self._forget)
            if self._finished is not None:
                nursery.start_soon(self._finished.run)
            async with trio.open_nursery() as subscriptions:
                for verb in self._verbs:
                    subscriptions.start_soon(nursery.start, self._listen, verb)
            task_status.started()

    async def _listen(self, verb: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Take the questions of a verb in, but for a while after each flood of them.

        They have a connection of their own, but all of them that one, and refusing takes time. So where more
        are asked than can be refused, it is the broker that is to refuse them.
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

    def _pace(self, verb: str, document: Document) -> Pace:
        if verb not in _LOOKING:
            return Pace.ORDER
        build = document.get("id")
        runs = isinstance(build, str) and self._supervisor.see(build) is not None
        quick = document.get("all") is not True if verb == "list" else runs
        return Pace.QUICK if quick else Pace.SLOW

    async def _answer(self, verb: str, document: Document) -> Document:
        return await self._verbs[verb](document)

    # What is asked.

    async def _list(self, document: Document) -> Document:
        most = _whole(document, "limit", _PAGE, low=1, high=_PAGE)
        after = _text(document, "after", optional=True)
        here = set(self._supervisor.ids())
        quarantined = self._supervisor.quarantined
        over: dict[str, Document] = {}
        if _flag(document, "all"):
            over = {one["id"]: one for one in await self._over()}
        known = sorted(one for one in {*here, *quarantined, *over} if one > after)
        found = []
        async for build in paced(known[:most], every=_SLICE, pause=give_way):
            seen = self._supervisor.see(build)
            if seen is not None:
                found.append(summary(seen))
            elif build in quarantined:
                why = quarantined[build]
                found.append({"id": build, "action": "", "status": "quarantined", "error": why})
            elif build in over:
                found.append(over[build])
        return {"builds": found, "next": known[most - 1] if len(known) > most else None}

    async def _over(self) -> list[Document]:
        """The builds that are over and still kept, by their reports: only those say how they ended."""
        if not isinstance(self._store, JetStreamStore):
            return []
        try:
            info = await self._store.js.info(REPORTS)
        except StreamNotFound:
            # Somebody has removed it. What runs can be told all the same.
            return []
        state = info.first_sequence, info.last_sequence, info.messages
        known = self._over_known
        if known is None or known[0] != state:
            known = self._over_known = state, await _read_over(self._store.js)
            self._listed.set()
        return known[1]

    async def _forget(self) -> None:
        """Let go, from time to time, of what a list of everything has read."""
        while True:
            await self._listed.wait()
            await trio.sleep(_LIST_KEPT)
            self._listed = trio.Event()
            self._over_known = self._previewed = None

    async def _get(self, document: Document) -> Document:
        seen = await self._seen(document)
        async with self._foreseeing:
            # Whoever asks at the same time is told the same.
            eta, overdue = await self._eta.eta(seen), await self._eta.overdue(seen)
        answer = summary(seen)
        answer |= {
            "seq": seen.sequence,
            "source": seen.source,
            "now": seen.timings.clock(),
            "eta": eta,
            "overdue": overdue,
            "paused": seen.plan.state.paused,
            "limits": self._limits_of(seen),
            "components": [],
            "next": None,
        }
        if _flag(document, "components", otherwise=True):
            total = len(seen.plan.phases)
            start = _whole(document, "from", 0, low=0, high=max(0, total))
            end = min(total, start + _whole(document, "limit", _PAGE, low=1, high=_PAGE))
            graph = _flag(document, "graph")
            if graph:
                answer |= interruptions(seen)
            answer["components"] = await self._pages.page(seen, start, end, graph=graph)
            answer["next"] = end if end < total else None
        return answer

    def _limits_of(self, seen: Seen) -> list[Document]:
        if seen.walk is None:
            return []
        waiting = self._slots.waiting(seen.plan)
        return [{"limit": limit, "waiting": number} for limit, number in waiting.items()]

    async def _why(self, document: Document) -> Document:
        seen = await self._seen(document)
        doctor = Explainer(seen, self._slots, self._store)
        if document.get("component") is None:
            reasons, more = doctor.build()
        else:
            reasons, more = [doctor.component(_vertex(seen.plan, document))], 0
        return {"id": seen.plan.build.id, "status": seen.status, "reasons": reasons, "more": more}

    async def _plan(self, document: Document) -> Document:
        definition = document.get("build")
        if definition is None:
            return await self._preview(await self._seen(document))
        if not isinstance(definition, dict):
            raise Refused("invalid", "build: the build itself, an object; or id: that of one that is here")
        try:
            prepared = await self._reader.read_submitted(await encode_in_slices(definition))
        except InvalidBuild as error:
            text = "; ".join(str(problem) for problem in error.problems)
            raise Refused("invalid", f"build: {text}") from None
        return await self._eta.preview(prepared)

    async def _preview(self, seen: Seen) -> Document:
        """What a build that is here will do; of a large one that takes long, so it is good for a while."""
        key = seen.plan.build.id, seen.identity
        async with self._previewing:
            known = self._previewed
            began = trio.current_time()
            if known is None or known[0] != key or began >= known[1]:
                preview = await self._eta.preview(seen.plan.prepared)
                ended = trio.current_time()
                until = ended + max(_FRESH, _SHARE * (ended - began))
                known = self._previewed = key, until, preview
                self._listed.set()
            return known[2]

    async def _seen(self, document: Document) -> Seen:
        build = _text(document, "id")
        seen = self._supervisor.see(build)
        if seen is None and self._finished is not None:
            seen = await self._finished.seen(build)
        if seen is None:
            raise Refused("unknown", f"there is no build {build!r} here")
        return seen

    # What is to be done.

    async def _cancel(self, document: Document) -> Document:
        reason = _text(document, "reason", optional=True)
        command, seen = await self._steering(document)
        return _done(seen, await command.cancel(now=_flag(document, "now"), reason=reason[:1_000]))

    async def _pause(self, document: Document) -> Document:
        command, seen = await self._steering(document)
        return _done(seen, await command.pause())

    async def _resume(self, document: Document) -> Document:
        command, seen = await self._steering(document)
        return _done(seen, await command.resume())

    async def _extend(self, document: Document) -> Document:
        given = document.get("seconds")
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise Refused("invalid", "seconds: a number is required")
        command, seen = await self._steering(document)
        return _done(seen, await command.extend(_vertex(seen.plan, document), float(given)), 1)

    async def _limit(self, document: Document) -> Document:
        limits = document.get("limits")
        if not isinstance(limits, dict):
            raise Refused("invalid", "limits: an object such as {'vpc.create.*': 5} is required")
        command, seen = await self._steering(document)
        return _done(seen, await command.limit(limits))

    async def _retry(self, document: Document) -> Document:
        build = _text(document, "id")
        one = _text(document, "component", optional=True)
        if await self._runs(build):
            command, seen = await self._steering(document)
            vertex = _vertex(seen.plan, document) if one else None
            text, components = await command.retry(vertex)
            return _done(seen, text, components)
        said: list[tuple[str, int]] = []

        def decide(plan: Plan) -> Any:
            events, text, components = steering.retry_told(plan, _vertex(plan, document) if one else None)
            said.append((text, components))
            return events

        seen = await self._reopen(build, decide)
        text, components = said[0]
        return _done(seen, f"run {seen.plan.state.run} begins: {text}", components)

    async def _skip(self, document: Document) -> Document:
        build = _text(document, "id")
        _text(document, "component")
        output = document.get("output")
        if not isinstance(output, dict | None):
            raise Refused("invalid", "output: an object, which is merged into the component")
        if await self._runs(build):
            command, seen = await self._steering(document)
            return _done(seen, await command.supply(_vertex(seen.plan, document), output or {}), 1)
        said: list[str] = []

        def decide(plan: Plan) -> Any:
            vertex = _vertex(plan, document)
            events = steering.supply(plan, vertex, output or {})
            said.append(steering.supplied(plan, vertex))
            return events

        seen = await self._reopen(build, decide)
        return _done(seen, f"run {seen.plan.state.run} begins: {said[0]}", 1)

    async def _runs(self, build: str) -> bool:
        """Whether a build runs here; one whose report is just on its way is waited for."""
        seen = self._supervisor.see(build)
        if seen is None or not seen.over:
            return seen is not None
        with trio.move_on_after(_ENDING):
            await self._supervisor.until_gone(build)
        return self._supervisor.see(build) is not None

    async def _steering(self, document: Document) -> tuple[Steering, Seen]:
        build = _text(document, "id")
        seen = self._supervisor.see(build)
        if seen is not None and seen.over:
            raise Refused("conflict", f"{build} is over ({seen.status})")
        if seen is not None and seen.walk is not None:
            return seen.walk.steer(), seen
        if self._finished is not None and (found := await self._finished.seen(build)) is not None:
            if not found.plan.state.finished:
                raise Refused("unavailable", _elsewhere(build))
            raise Refused("conflict", f"{build} is over ({found.status})")
        raise Refused("unknown", f"there is no build {build!r} that runs here")

    async def _reopen(self, build: str, decide: Callable[[Plan], Any]) -> Seen:
        if self._supervisor.stopping:
            raise Refused("unavailable", "the scheduler is shutting down")
        if self._reopener is None:
            text = f"no build {build!r} runs here, and the store {self._store.name} keeps none that is over"
            raise Refused("unknown", f"{text}: submit what is left to be done as a build of its own")
        walk = await self._reopener.reopen(build, decide)
        seen = self._supervisor.see(build)
        if walk is None or seen is None:
            # Somebody else has begun another run in this very moment; or this one is over already.
            raise Refused("unavailable", f"{build} is starting or finishing; try again shortly")
        return seen


async def _read_over(js: JetStream) -> list[Document]:
    """What the stored reports say of their builds."""
    found: dict[str, Document] = {}
    reports = read(js, REPORTS, last_per_subject=True, headers_only=True)
    async with aclosing(reports) as batches:
        async for batch in batches:
            async for report in paced(batch, every=_SLICE, pause=give_way):
                _, _, token, run = report.subject.split(".")
                action, _, how = report.headers.get(SUBJECT_HEADER, "").rpartition(".")
                build = decode_token(token)
                document = {
                    "id": build,
                    "action": action,
                    "status": "done" if how == "done" else "errored",
                    "run": int(run),
                    "ended": report.time / 1e9,
                } | _read_summary(report.headers)
                if int(run) >= found.get(build, document)["run"]:
                    found[build] = document
    return list(found.values())


def _elsewhere(build: str) -> str:
    return f"{build} is not over, and not held here: it may be taken up soon, or be quarantined"


def _done(seen: Seen, text: str, components: int | None = None) -> Document:
    answer: Document = {"id": seen.plan.build.id, "status": seen.status, "text": text}
    return answer if components is None else {**answer, "components": components}


def _read_summary(headers: Mapping[str, str]) -> Document:
    """What a stored report says of its build in a few words; nothing where an older version stored it."""
    try:
        document = decode(headers.get(SUMMARY_HEADER, "{}").encode())
    except InvalidJSON:
        return {}
    return document if isinstance(document, dict) else {}


def _text(document: Document, name: str, *, optional: bool = False) -> str:
    value = document.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str) or not value:
        raise Refused("invalid", f"{name}: a text is required")
    return value


def _flag(document: Document, name: str, *, otherwise: bool = False) -> bool:
    value = document.get(name, otherwise)
    if not isinstance(value, bool):
        raise Refused("invalid", f"{name}: true or false")
    return value


def _whole(document: Document, name: str, otherwise: int, *, low: int, high: int) -> int:
    value = document.get(name, otherwise)
    if type(value) is not int or value < low:
        raise Refused("invalid", f"{name}: a whole number from {low}")
    return min(value, high)


def _vertex(plan: Plan, document: Document) -> Vertex:
    name = _text(document, "component")
    vertex = plan.graph.index.get(name)
    if vertex is None:
        raise Refused("unknown", f"{plan.build.id} has no component {name!r}")
    return vertex
