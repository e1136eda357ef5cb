"""Explains how builds stand, and what they wait for. It changes nothing."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from attrs import define, field

from scheduler.definition.graph import Vertex
from scheduler.definition.template import Laborious
from scheduler.dispatch.slots import Slots
from scheduler.journal.orders import Order, Orders
from scheduler.journal.timings import Timings
from scheduler.plan import Phase, Plan, gates
from scheduler.plan.phases import IN_FLIGHT
from scheduler.stores import Store
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.attempts import Attempts
from scheduler.supervision.heartbeats import heartbeats
from scheduler.supervision.reasons import Knowledge, Reason, command
from scheduler.text import agreeing, doing, listed, seconds
from scheduler.walk import Walk

Document = dict[str, Any]

_SHOWN = 20
"""Ids in a list for people, and reasons why a build waits."""
_MOST_NEEDS = 1_000
_NOTHING_MORE = Knowledge()


@define
class Seen:
    """Build to look at: one that runs here, or one as its log says."""

    plan: Plan
    timings: Timings
    walk: Walk | None = None
    sequence: int = 0
    """Number of the last event that was published."""
    source: str = ""
    """Source of the published events; see `feed.Track.source`."""
    report_waits: str = ""
    """Reason why the report of a build that has ended is not out yet; empty where it is out, or not due."""

    identity: str = ""
    """Text unique to this run of the build; with the ``revision`` it tells whether anything changed."""
    revision: Callable[[], int] = lambda: 0
    """Function for a number that changes with every event of the build."""
    orders: Orders = field(factory=Orders)
    """Orders of operators."""

    @property
    def over(self) -> bool:
        """Whether it has ended, although its report may still be on its way."""
        return self.plan.state.finished or (self.plan.state.over and not self.plan.state.stopped)

    @property
    def status(self) -> str:
        """``running``, ``paused``, ``halted``, ``done``, ``errored`` or ``cancelled``."""
        plan = self.plan
        if self.over:
            failed = "cancelled" if plan.state.cancelled else "errored"
            return "done" if plan.state.cause is None else failed
        if plan.state.halted:
            return "halted"
        return "paused" if plan.state.paused else "running"

    @property
    def order(self) -> Order | None:
        """The order that it stands where it does for, where it is paused or cancelled; else the last one."""
        plan = self.plan
        if plan.state.cancelled and (cancel := self.orders.last("cancel")):
            return cancel
        if plan.state.paused and (pause := self.orders.last("pause")):
            return pause
        return self.orders.last()


def summary(seen: Seen) -> Document:
    """Summarize a build."""
    plan, timings = seen.plan, seen.timings
    name = plan.build.fields.get("name")
    document = {
        "id": plan.build.id,
        "name": name if isinstance(name, str) else "",
        "action": plan.build.action,
        "status": seen.status,
        "run": plan.state.run,
        "total": len(plan.phases),
        "counts": plan.phases.shown(),
        "accepted": timings.accepted,
    }
    if asking := len(_asking(seen)):
        document["gated"] = asking
    if plan.state.finished and timings.over is not None:
        document["ended"] = timings.over
    if plan.state.cause is not None:
        document["error"] = plan.texts.cause
    if seen.over and seen.report_waits:
        document["report"] = f"waits: {seen.report_waits}"
    return document


def component(seen: Seen, vertex: Vertex, *, graph: bool = False) -> Document:
    """Return the state of one component."""
    plan, timings = seen.plan, seen.timings
    document: Document = {
        "id": plan.graph.ids[vertex],
        "subject": plan.requests.subject(vertex),
        "state": _state(plan, vertex),
        "attempt": plan.attempt(vertex),
    }
    times = {"due": timings.due(vertex), "sent": timings.sent(vertex), "ended": timings.ended(vertex)}
    document |= {name: at for name, at in times.items() if at is not None}
    if seen.walk is not None and (left := seen.walk.retry_in(vertex)) is not None:
        document["retry_at"] = timings.clock() + left
    if failed := timings.failed(vertex):
        document["failed"] = [attempt._asdict() for attempt in failed]
    if seen.walk is not None and plan.phases[vertex] in IN_FLIGHT:
        document |= heartbeats(seen.walk.call_of(vertex), plan.texts)
    error = plan.error(vertex)
    if error is not None:
        document["error"] = plan.texts.masked(error, 1_000)
    if vertex in plan.gates:
        document["gate"] = True
        if seen.walk is not None and (left := seen.walk.gates.left(vertex)) is not None:
            document["expires"] = timings.clock() + left
    if graph:
        document["needs"] = [
            plan.graph.ids[dependency] for dependency in plan.graph.dependencies[vertex][:_MOST_NEEDS]
        ]
    return document


def interruptions(seen: Seen) -> Document:
    """Return the times in which nothing new could be sent: pauses by operators, and outages of the broker."""
    pauses, outages = seen.timings.pauses, seen.timings.outages
    return {
        "pauses": [
            {"began": begin} if end is None else {"began": begin, "ended": end} for begin, end in pauses
        ],
        "outages": [{"began": begin, "ended": end} for begin, end in outages],
    }


class Explainer:
    """Explains why the components of one build are where they are.

    Args:
        seen: the build.
        slots: know which components wait for which limit.
        store: store that all of them may wait for.
        knowledge: what is known of requests beside the build.
    """

    def __init__(self, seen: Seen, slots: Slots, store: Store, knowledge: Knowledge = _NOTHING_MORE) -> None:
        self._seen = seen
        self._attempts = Attempts(seen.plan, seen.timings, seen.walk, knowledge)
        self._plan = seen.plan
        self._slots = slots
        self._store = store

    def component(self, vertex: Vertex) -> Document:
        """Explain why one component is where it is."""
        return self._document(self._reason(vertex), vertex)

    def build(self) -> tuple[list[Document], int]:
        """Explain what the build waits for, the main reason first; returns the number of further reasons too.

        Components in flight are grouped by subject, as there may be thousands.
        """
        reasons = [self._document(reason) for reason in self._general()]
        plan = self._plan
        failed = [*plan.phases.within(Phase.ERRORED), *plan.phases.within(Phase.RETRYING)]
        running = self._by_subject()
        asking = list(_asking(self._seen))
        reasons += [self.component(vertex) for vertex in asking[: _SHOWN // 2]]
        reasons += [self.component(vertex) for vertex in failed[: _SHOWN // 2]]
        reasons += [self._group(subject, vertices) for subject, vertices in running[: _SHOWN // 2]]
        return reasons, sum(max(0, len(more) - _SHOWN // 2) for more in (asking, failed, running))

    def subjects(self, vertex: Vertex | None) -> list[str]:
        """Return the subjects of what is in flight, of which it matters whether anybody subscribes to them.

        Args:
            vertex: the component that is asked about; None for the build.
        """
        if vertex is None:
            return [subject for subject, _ in self._by_subject()[: _SHOWN // 2]]
        call = None if self._seen.walk is None else self._seen.walk.call_of(vertex)
        return [] if call is None else [call.request.subject]

    def _by_subject(self) -> list[tuple[str, list[Vertex]]]:
        """Group the components in flight by subject, the longest in flight first."""
        groups: dict[str, list[Vertex]] = {}
        if self._seen.walk is not None:
            for call in self._seen.walk.calls():
                groups.setdefault(call.request.subject, []).append(call.request.vertex)
        return list(groups.items())

    def _group(self, subject: str, vertices: list[Vertex]) -> Document:
        oldest = self.component(vertices[0])
        if len(vertices) == 1:
            return oldest
        more = len(vertices) - 1
        others = f"so {agreeing(more, 'do')} {more} more on {subject}, sent later"
        return {**oldest, "text": f"{oldest['text']}; {others}", "components": len(vertices)}

    def _general(self) -> Iterator[Reason]:
        plan = self._plan
        if self._seen.over:
            cause = "" if plan.state.cause is None else f": {plan.texts.cause}"
            yield Reason(f"it is finished{cause}")
            if self._seen.report_waits:
                yield Reason(f"its report waits: {self._seen.report_waits}")
            return
        if not self._store.available:
            text = "nothing can be persisted at the moment, so nothing new is sent"
            trouble = self._store.trouble if isinstance(self._store, JetStreamStore) else ""
            yield Reason(f"{text}: {trouble}" if trouble else text)
        if plan.state.stopped:
            yield Reason("the scheduler is shutting down")
        elif plan.state.halted:
            yield Reason(f"nothing new is sent any more: {plan.texts.cause}")
        elif plan.state.paused:
            yield Reason(f"it is paused{self._told()}nothing new is sent until it is resumed")
        if self._seen.walk is not None:
            for limit, waiting in self._slots.waiting(self._seen.plan).items():
                text = f"{doing(waiting, 'component', 'wait')} for the limit {self._slots.told(limit)}"
                yield Reason(text, None, {"limit": limit})

    def _told(self) -> str:
        """Return by whom and why it was paused, as far as anybody said so, and a mark for what follows."""
        order = self._seen.orders.last("pause")
        if order is None:
            return ": "
        by = f" by {order.by}" + ("" if order.user else " (claimed)") if order.by else ""
        return f"{by}: {order.reason}; " if order.reason else f"{by}: "

    def _reason(self, vertex: Vertex) -> Reason:
        plan, timings = self._plan, self._seen.timings
        match plan.phases[vertex]:
            case Phase.COMPLETED:
                return Reason("it is completed", timings.ended(vertex))
            case Phase.ERRORED:
                return Reason(
                    f"it has failed: {plan.texts.masked(plan.error(vertex) or '', 4_000)}",
                    timings.ended(vertex),
                    cures=[command("retry", plan.build.id, plan.graph.ids[vertex])],
                )
            case Phase.SKIPPED:
                return self._skipped(vertex)
            case Phase.STARTING:
                return Reason("its start is being persisted", timings.due(vertex))
            case Phase.RUNNING:
                return self._attempts.reason(vertex)
            case Phase.RETRYING:
                return self._retrying(vertex)
            case _:
                return self._waiting(vertex)

    def _skipped(self, vertex: Vertex) -> Reason:
        failed = [
            self._plan.graph.ids[one]
            for one in self._plan.graph.ancestors(vertex)
            if self._plan.phases[one] is Phase.ERRORED
        ]
        shown = sorted(failed)[:_SHOWN]
        return Reason(
            f"it is left out, since {listed(shown, len(failed))} failed", None, {"waits_for": shown}
        )

    def _retrying(self, vertex: Vertex) -> Reason:
        walk, timings = self._seen.walk, self._seen.timings
        left = None if walk is None else walk.retry_in(vertex)
        when = "soon" if left is None else f"in {seconds(left)}"
        attempt = self._plan.attempt(vertex)
        error = self._plan.texts.masked(self._plan.error(vertex) or "", 4_000)
        text = f"attempt {attempt} failed, the next one follows {when}: {error}"
        if self._plan.state.paused:
            text = f"the build is paused; {text}"
        failed = timings.failed(vertex)
        build, component = self._plan.build.id, self._plan.graph.ids[vertex]
        return Reason(
            text,
            failed[-1].failed if failed else None,
            {"subject": self._plan.requests.subject(vertex)},
            [] if self._plan.state.paused else [command("retry", build, component, "--now")],
        )

    def _waiting(self, vertex: Vertex) -> Reason:
        plan, timings = self._plan, self._seen.timings
        missing = [one for one in plan.graph.dependencies[vertex] if plan.phases[one] is not Phase.COMPLETED]
        due = timings.due(vertex)
        if plan.state.halted:
            return Reason(f"it will not be sent: {plan.texts.cause or 'the scheduler is shutting down'}", due)
        if missing:
            ids = [plan.graph.ids[one] for one in missing[:_SHOWN]]
            states = [f"{plan.graph.ids[one]} ({_state(plan, one)})" for one in missing[:_SHOWN]]
            text = f"it waits for {listed(states, len(missing))}"
            return Reason(text, timings.accepted, {"waits_for": ids})
        if vertex in plan.gates:
            return self._gated(vertex, due)
        if plan.state.paused:
            return Reason("it is due, and the build is paused", due)
        walk = self._seen.walk
        try:
            subject = plan.requests.due_subject(vertex)
        except Laborious:
            return Reason("it is due, and its references take long to be evaluated", due)
        limits = [] if walk is None else self._slots.blocking(walk.plan, subject)
        if limits:
            told = [self._slots.told(limit) for limit in limits]
            text = f"it is due, and waits for the limit {listed(told, len(told))}"
            return Reason(text, due, {"limit": limits[0], "subject": subject})
        if not self._store.available:
            return Reason("it is due, and nothing can be persisted at the moment", due)
        return Reason("it is about to be sent", due, {"subject": subject})

    def _gated(self, vertex: Vertex, due: float | None) -> Reason:
        plan, walk = self._plan, self._seen.walk
        left = None if walk is None else walk.gates.left(vertex)
        bound = "" if left is None else f", and fails in {seconds(left)} without it"
        cure = f"{command('approve', plan.build.id, plan.graph.ids[vertex])}, or reject"
        return Reason(f"it waits for approval{bound}: {cure}", due)

    def _document(self, reason: Reason, vertex: Vertex | None = None) -> Document:
        document: Document = {"text": reason.text[:4_000]}
        if vertex is not None:
            document["component"] = self._plan.graph.ids[vertex]
            document["state"] = _state(self._plan, vertex)
        if reason.since is not None:
            now = self._seen.timings.clock()
            document |= {"since": reason.since, "seconds": round(max(0.0, now - reason.since), 3)}
        if reason.cures:
            document["cures"] = list(reason.cures)
        return document | dict(reason.more)


def _state(plan: Plan, vertex: Vertex) -> str:
    """Return the state of a component for people; a gate that waits for one of them is ``gated``."""
    phase = plan.phases[vertex]
    if phase is Phase.WAITING and gates.is_reached(plan, vertex):
        return "gated"
    return "running" if phase is Phase.STARTING else phase.value


def _asking(seen: Seen) -> Collection[Vertex]:
    """Return the gates that wait for a person now; of a build that runs here without a look at all gates."""
    return gates.reached(seen.plan) if seen.walk is None else seen.walk.gates.asking
