"""Publishes the events of each build on ``scheduler.event.<build>``, for watchers to follow.

Events within a tenth of a second share a message, so that following a build of thousands of components costs
it next to nothing. The feed is a courtesy: nothing depends on it, and the report is the truth.

What connectors say in heartbeats is published beside the events (`scheduler.supervision.beat_feed`).

Every event has a number. A watcher that joins late, or misses events, fetches a snapshot
(`scheduler.control.endpoint`), which names the last event in it, and continues from there.

One file on purpose: what is told of a build stands beside how it is told.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog
import trio

from scheduler.bus import Bus
from scheduler.definition.graph import Vertex
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import EVENTS
from scheduler.definition.tokens import encode_token
from scheduler.dispatch.call import Call
from scheduler.errors import BusError
from scheduler.journal.orders import Order, Orders
from scheduler.journal.timings import Timings
from scheduler.metrics.tally import Tally
from scheduler.plan import Plan
from scheduler.supervision.beat_feed import BeatFeed
from scheduler.supervision.notices import Notices
from scheduler.supervision.spans import BuildSpans
from scheduler.walk import Observer

_log = structlog.get_logger()

VERSION = 2
"""Version of the messages."""
_PERIOD = 0.1
"""Seconds between two messages about one build."""
_MOST = 1_000
"""Most events in one message."""
_ERROR_SHOWN = 1_000
"""Characters shown of an error; all of it is in the report."""
_MICROSECONDS: Final = 1e6


class ComponentEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """An event of one component, as it is published."""

    component: str
    state: str
    seq: int
    time: float
    attempt: int | None = None
    waited: float | None = None
    """Seconds for which a request waited to be sent."""
    seconds: float | None = None
    """Seconds that the attempt took."""
    error: str | None = None
    retry_in: float | None = None


class BuildEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """An event of the whole build, or of what an operator did to a component."""

    event: str
    seq: int
    time: float
    component: str | None = None
    by: str | None = None
    vouched: bool = False
    """Whether the broker says who it was."""
    reason: str | None = None
    text: str | None = None
    owner: str | None = None
    """Instance that has the build from now on."""
    status: str | None = None
    """Status of the build at its end."""
    error: str | None = None


class Track(Observer):
    """Events of one build that are to be published, with their times.

    Args:
        feed: publishes the events.
        plan: plan of the build.
        timings: keeps the times.
        completed: callback with the subject of each completed component, and the seconds that it took.
        notices: make notifications of some events; None where there are no notifications.
        tally: counts what becomes of components; None where nobody asks for that.
        spans: makes the spans of the build; None where nobody is told of them.
    """

    __slots__ = (
        "__weakref__",
        "_completed",
        "_dues",
        "_events",
        "_failing",
        "_feed",
        "_ids",
        "_notices",
        "_resumed",
        "_subject",
        "_tally",
        "orders",
        "plan",
        "sequence",
        "source",
        "spans",
        "timings",
    )

    def __init__(
        self,
        feed: "Feed",
        plan: Plan,
        timings: Timings,
        completed: Callable[[str, float], None],
        notices: Notices | None = None,
        *,
        tally: Tally | None = None,
        spans: BuildSpans | None = None,
    ) -> None:
        self.timings = timings
        self.sequence = 0
        """Number of the last event."""
        self.orders = Orders()
        """Orders of operators."""
        self._dues = 0
        self.plan = plan
        self._ids = plan.graph.ids
        self._feed = feed
        self._completed = completed
        self._notices = notices
        self._tally = tally
        self.spans = spans
        """Makes the spans of the build; None where nobody is told of them."""
        self._failing = False
        """Whether the first failure of this run was told."""
        self._events: list[ComponentEvent | BuildEvent] = []
        # A dict, as it is mostly empty, and an empty set takes three times the memory.
        self._resumed: dict[Vertex, None] = {}
        """Components in flight since an earlier process: times of their replies are known from now on
        only."""
        self.source = secrets.token_hex(4)
        """Text that is unique among the processes and runs that publish events of this build."""
        self._subject = f"{EVENTS}{encode_token(plan.build.id)}"

    def revision(self) -> int:
        """Return the number that changes with every event of the build."""
        return self.sequence + self._dues

    def due(self, vertex: Vertex) -> None:
        """Implement `Observer.due`."""
        self._dues += 1
        self.timings.note_due(vertex, self.timings.clock())

    def begins(self, vertex: Vertex) -> None:
        """Implement `Observer.begins`."""
        if self.spans is not None:
            self.spans.began(vertex)

    def answered(self, vertex: Vertex) -> None:
        """Implement `Observer.answered`."""
        if self.spans is not None:
            self.spans.answered(vertex)

    def sent(self, vertex: Vertex, attempt: int) -> None:
        """Implement `Observer.sent`."""
        now = self.timings.clock()
        due = self.timings.note_sent(vertex, now)
        if self._resumed:
            self._resumed.pop(vertex, None)
        waited = _seconds(due, now)
        self._note(ComponentEvent(self._ids[vertex], "running", self.sequence + 1, now, attempt, waited))
        if self._tally is not None:
            # Of a further attempt, the pause before it is no wait for room.
            self._tally.of(self.plan.requests.subject(vertex)).sent(waited if attempt == 1 else None)

    def resumed(self, vertex: Vertex, attempt: int) -> None:
        """Implement `Observer.resumed`: the component runs since its request left, in whichever process."""
        self._resumed[vertex] = None
        now = self.timings.clock()
        if self.timings.sent(vertex) is None:
            # No log says when.
            self.timings.note_sent(vertex, now)
        self._note(ComponentEvent(self._ids[vertex], "running", self.sequence + 1, now, attempt))

    def departed(self, vertex: Vertex) -> None:
        """Implement `Observer.departed`."""
        self._resumed.pop(vertex, None)
        self.timings.note_sent(vertex, self.timings.clock())

    def waits(self, vertex: Vertex) -> None:
        """Implement `Observer.waits`."""
        self.timings.note_waiting(vertex)
        if self.spans is not None:
            self.spans.waits(vertex)
        self._note(ComponentEvent(self._ids[vertex], "waiting", self.sequence + 1, self.timings.clock()))

    def retries(self, vertex: Vertex, attempt: int, error: str, pause: float) -> None:
        """Implement `Observer.retries`."""
        now = self.timings.clock()
        step = ComponentEvent(self._ids[vertex], "retrying", self.sequence + 1, now, attempt)
        step.seconds = _seconds(self.timings.sent(vertex), now)
        step.error, step.retry_in = self._shown(error), round(pause, 3)
        self._note(step)
        if self._tally is not None:
            known = None if vertex in self._resumed else step.seconds
            self._tally.of(self.plan.requests.subject(vertex)).retries(known)
        if self.spans is not None:
            self.spans.failed(vertex, attempt, error, now)
        self.timings.note_failed(vertex, now, pause)

    def settled(self, vertex: Vertex, attempt: int, error: str | None) -> None:
        """Implement `Observer.settled`."""
        now, timings = self.timings.clock(), self.timings
        sent = timings.note_settled(vertex, now, completed=error is None)
        seconds = _seconds(sent, now)
        if self.spans is not None:
            self.spans.settled(vertex, now)
        state = "completed" if error is None else "errored"
        step = ComponentEvent(self._ids[vertex], state, self.sequence + 1, now, attempt, None, seconds)
        self._note(step)
        if vertex in timings.supplied or vertex in self._resumed:
            # It says nothing of how long the attempt took.
            seconds = None
        if self._tally is not None:
            meter = self._tally.of(self.plan.requests.subject(vertex))
            meter.settled(seconds, completed=error is None)
        if error is not None:
            step.error = self._shown(error)
            self._note_failing(step.component, step.error, now)
        elif seconds is not None:
            self._completed(self.plan.requests.subject(vertex), seconds)

    def skipped(self, vertices: Sequence[Vertex]) -> None:
        """Implement `Observer.skipped`."""
        now = self.timings.clock()
        for vertex in vertices:
            self._note(ComponentEvent(self._ids[vertex], "skipped", self.sequence + 1, now))
        if self._tally is not None:
            self._tally.skipped(map(self.plan.requests.subject, vertices))

    def happened(self, what: str, vertex: Vertex | None = None, order: Order | None = None) -> None:
        """Implement `Observer.happened`."""
        now = self.timings.clock()
        self.timings.note_paused(now, on=self.plan.state.paused)
        if vertex is not None and what == "skipped":
            self.timings.note_supplied(vertex, now)
        component = None if vertex is None else self._ids[vertex]
        event = BuildEvent(what, self.sequence + 1, now, component)
        if order is not None:
            self.orders.add(order)
            event.by, event.vouched, event.reason = order.by or None, bool(order.user), order.reason or None
        self._note(event)
        if what == "gated" and component is not None and self._notices is not None:
            self._notices.gated(self.plan, now, component)

    def taken_over(self, in_flight: int, owner: str) -> None:
        """Note that this process has the build from now on.

        Args:
            in_flight: number of requests that await their reply.
            owner: name of this instance; empty where the store is not shared.
        """
        text = f"{in_flight} in flight"
        now = self.timings.clock()
        self._note(BuildEvent("taken_over", self.sequence + 1, now, text=text, owner=owner or None))

    def unkept(self, order: Order) -> None:
        """Implement `Observer.unkept`."""
        self.orders.drop(order)

    def begin(self) -> None:
        """Notify again of a failure that an earlier process saw: it may have died before anyone was told."""
        state = self.plan.state
        if state.cause is not None and not state.cancelled and not state.over:
            self._failing = True
            if self._notices is not None:
                self._notices.failing(self.plan, self.timings.clock())

    def end(self, status: str, error: str | None) -> None:
        """Note the end of the build, before its report.

        Args:
            status: that of the report.
            error: first cause; None where every change is completed.
        """
        event = BuildEvent("finished", self.sequence + 1, self.timings.clock())
        event.status, event.error = status, None if error is None else self._shown(error)
        self._note(event)
        if self.spans is not None:
            self.spans.ended(status, event.error)

    def reported(self) -> None:
        """Notify of the end of the build: its report is out."""
        if self._notices is not None:
            self._notices.finished(self.plan, self.timings.clock())

    def _note_failing(self, component: str, error: str, now: float) -> None:
        """Note the first failure of this run; what fails after a cancel is no news."""
        if self._failing or self.plan.state.cancelled or self.plan.state.cause is None:
            # Without a cause nothing of the build has failed: an operator has had an attempt given up.
            return
        self._failing = True
        self._note(BuildEvent("failing", self.sequence + 1, now, component, error=error))
        if self._notices is not None:
            self._notices.failing(self.plan, now)

    def beat(self, call: Call) -> None:
        """Note that the connector of an attempt has said something new; published within a second."""
        if self.spans is not None:
            self.spans.beat(call)
        self._feed.beats.note(self, call)

    def _shown(self, error: str) -> str:
        return self.plan.texts.masked(error, _ERROR_SHOWN)

    def _note(self, event: ComponentEvent | BuildEvent) -> None:
        """Note an event with the next number, to be published soon."""
        if not self._events:
            self._feed.stir(self)
        self.sequence = event.seq
        self._events.append(event)

    def flush(self, bus: Bus) -> None:
        """Publish the events noted so far."""
        events, self._events = self._events, []
        for start in range(0, len(events), _MOST):
            part = events[start : start + _MOST]
            self.publish(bus, part[-1].seq, events=part)

    def publish(self, bus: Bus, sequence: int, **parts: Any) -> None:
        """Publish a message about the build.

        Args:
            bus: connection.
            sequence: number of the last event that it tells.
            parts: events, and other parts of it.
        """
        counts = self.plan.phases.shown()
        message = {
            "v": VERSION,
            "build": self.plan.build.id,
            "source": self.source,
            "seq": sequence,
            "time": self.timings.clock(),
            "total": len(self.plan.build.changes),
            "done": counts["completed"],
            "counts": counts,
            **parts,
        }
        try:
            bus.publish(self._subject, encode(message))
        except BusError as error:
            _log.debug("progress not published", build=self.plan.build.id, error=str(error))


def _seconds(begin: float | None, end: float) -> float | None:
    """Return the seconds since a time, if it is known, to the microsecond; `round` takes twice as long."""
    if begin is None:
        return None
    return int((end - begin) * _MICROSECONDS + 0.5) / _MICROSECONDS if end > begin else 0.0


class Feed:
    """Publishes the progress of all builds of this process."""

    def __init__(self, bus: Bus) -> None:
        self.beats = BeatFeed(bus)
        """What connectors say in heartbeats; `BeatFeed.run` has to be running."""
        self._bus = bus
        self._stirred: dict[Track, None] = {}
        self._wake = trio.Event()

    def stir(self, track: Track) -> None:
        """Let the events of this build be published soon."""
        self._stirred[track] = None
        self._wake.set()

    def close(self, track: Track) -> None:
        """Publish the last events of a build that has ended, before its report."""
        self._stirred.pop(track, None)
        self.beats.close(track)
        track.flush(self._bus)

    async def run(self) -> None:
        """Publish from time to time; never returns."""
        while True:
            await self._wake.wait()
            await trio.sleep(_PERIOD)
            # While the broker is away there are no watchers; events of that time are published afterwards.
            if not self._bus.connected:
                continue
            self._wake = trio.Event()
            await self._publish()

    async def _publish(self) -> None:
        # In a function of its own, so that no track is kept alive while there is nothing new.
        stirred, self._stirred = self._stirred, {}
        for track in stirred:
            track.flush(self._bus)
            await trio.lowlevel.checkpoint()
