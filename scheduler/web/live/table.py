"""States of the components of one build, by their number, from a snapshot and the events after it. Pure.

Events are numbered; those that are known count for nothing, so that a snapshot may overlap with them. After a
gap, or where another process has the build, the table is `behind`: a new snapshot is needed.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from itertools import islice
from typing import Any, Final

from attrs import define, field

from scheduler.client.counts import TAKEN_OVER
from scheduler.client.lenient import number, objects, text, whole
from scheduler.client.timeline import FINISHED
from scheduler.control.verbs import Document
from scheduler.runtime.yielding import yield_now
from scheduler.web.page.answers import LETTERS

SHOWN: Final = 50
"""Components in flight, errors and gates in a status."""
_EVENTS: Final = 50
"""Events that are told again with an update."""
_MEMBERS: Final = (
    "id", "status", "action", "name", "run", "seq", "now", "accepted", "ended", "total", "counts", "eta",
    "overdue", "paused", "gated", "error", "report", "order", "limits", "owner", "epoch",
)  # fmt: skip
"""Members of a status that the answer to ``get`` has."""
_STATUS_AFTER: Final = {"paused": "paused", "cancelled": "halted", "halted": "halted", "resumed": "running"}


@define
class Flight:
    """Facts about a component that is in flight, failed, or about to be tried again."""

    since: float | None
    """Time at which it left, failed, or is to be tried again; the owner's clock, seconds since 1970."""
    attempt: int = 1
    error: str = ""
    progress: float | None = None
    message: str = ""


@define(eq=False)
class StateTable:
    """States of the components of a build."""

    index: Mapping[str, int] = field(repr=False)
    """Number of each component."""
    ids: tuple[str, ...] = field(repr=False)
    letters: bytearray = field(repr=False)
    """Letter of each component, `LETTERS`."""
    sequence: int = 0
    """Number of the last event that is in it."""
    source: str = ""
    behind: bool = False
    """Whether events are missing."""
    end: Document = field(factory=dict)
    """Members of the status at the end of the build, once an event told it."""
    running: dict[int, Flight] = field(factory=dict, repr=False)
    """Components in flight, those that left first at the front."""
    errors: dict[int, Flight] = field(factory=dict, repr=False)
    retrying: dict[int, Flight] = field(factory=dict, repr=False)
    gates: dict[int, None] = field(factory=dict, repr=False)
    changed: dict[int, None] = field(factory=dict, repr=False)
    """Components that changed since somebody took them."""
    events: deque[Document] = field(factory=lambda: deque(maxlen=_EVENTS), repr=False)
    """The last events since somebody took them."""
    counts: dict[str, int] = field(factory=dict)
    """Components by state, as the last event tells."""
    status: str = ""
    """Status by the last event; empty where none told."""

    def apply(self, message: Mapping[str, Any]) -> None:
        """Apply a message of ``scheduler.event.<build>``; what cannot be read is left out."""
        source = text(message.get("source"))
        if source != self.source:
            self.behind = True
            return
        before = self.sequence
        events = message.get("events")
        for event in events if isinstance(events, list) else ():
            if type(event) is not dict or type(sequence := event.get("seq")) is not int:
                continue
            if sequence <= self.sequence:
                continue
            self.behind |= sequence > self.sequence + 1
            self.sequence = sequence
            self._apply(event)
        counts = message.get("counts")
        if self.sequence > before and isinstance(counts, dict):
            self.counts = {name: value for name, value in counts.items() if type(value) is int}
        for beat in objects(message.get("beats")):
            self._beat(beat)

    def _apply(self, event: Mapping[str, Any]) -> None:
        vertex = self.index.get(text(event.get("component")))
        state, what = event.get("state"), event.get("event")
        self.events.append(dict(event))
        if isinstance(what, str):
            self.status = _STATUS_AFTER.get(what, self.status)
            if what == "finished":
                told = {
                    "status": event.get("status"),
                    "error": event.get("error"),
                    "ended": event.get("time"),
                }
                self.end = {name: value for name, value in told.items() if value is not None}
            self.behind |= what in {TAKEN_OVER, "retried"}
            if what == "gated" and vertex is not None:
                self.move(vertex, "gated", Flight(None))
        elif vertex is not None and isinstance(state, str) and state in LETTERS:
            since, again = number(event.get("time")), number(event.get("retry_in"))
            if state == "retrying":
                since = None if since is None or again is None else since + again
            self.move(vertex, state, Flight(since, whole(event.get("attempt"), 1), text(event.get("error"))))

    def move(self, vertex: int, state: str, flight: Flight) -> None:
        """Note that a component is in a state, and since when."""
        for kept in (self.running, self.errors, self.retrying, self.gates):
            kept.pop(vertex, None)
        if state == "running":
            self.running[vertex] = flight
        elif state == "errored":
            self.errors[vertex] = flight
        elif state == "retrying":
            self.retrying[vertex] = flight
        elif state == "gated":
            self.gates[vertex] = None
        self.letters[vertex] = ord(LETTERS[state])
        self.changed[vertex] = None

    def _beat(self, beat: Mapping[str, Any]) -> None:
        flight = self.running.get(self.index.get(text(beat.get("component")), -1))
        if flight is not None and flight.attempt == whole(beat.get("attempt"), 1):
            flight.progress, flight.message = number(beat.get("progress")), text(beat.get("message"))

    def take(self) -> tuple[list[tuple[int, str]], list[Document]]:
        """Return the components that changed, with their letters, and the last events; both count as told."""
        rows = [(vertex, chr(self.letters[vertex])) for vertex in self.changed]
        events = list(self.events)
        self.changed.clear()
        self.events.clear()
        return rows, events

    def describe(self, summary: Mapping[str, Any]) -> Document:
        """Return the status of the build, as `answers.Status` says.

        Args:
            summary: the last answer to ``get``, without components.
        """
        document = {name: summary[name] for name in _MEMBERS if name in summary}
        if self.sequence > whole(summary.get("seq")):
            document |= {"seq": self.sequence}
            document |= {"counts": self.counts} if self.counts else {}
            document |= {"status": self.status} if self.status else {}
        if self.end and document.get("status") not in FINISHED:
            # A store that keeps no build that has ended has no more to say of it.
            document |= {"eta": None, "overdue": None, "limits": [], **self.end}
        # Resumed components are not in the order in which they left.
        first = nsmallest(SHOWN, self.running.items(), key=_by_age)
        document["running"] = [self._in_flight(vertex, flight) for vertex, flight in first]
        document["errors"] = [self._failed(*pair) for pair in islice(self.errors.items(), SHOWN)]
        document["retrying"] = [
            self._failed(*pair, again=True) for pair in islice(self.retrying.items(), SHOWN)
        ]
        document["gates"] = [self.ids[vertex] for vertex in islice(self.gates, SHOWN)]
        return document

    def _in_flight(self, vertex: int, flight: Flight) -> Document:
        document: Document = {"id": self.ids[vertex], "index": vertex, "sent": flight.since}
        document |= {"attempt": flight.attempt} if flight.attempt > 1 else {}
        document |= {} if flight.progress is None else {"progress": flight.progress}
        return document | ({"message": flight.message} if flight.message else {})

    def _failed(self, vertex: int, flight: Flight, *, again: bool = False) -> Document:
        document: Document = {"id": self.ids[vertex], "index": vertex, "error": flight.error}
        document |= {"attempt": flight.attempt} if flight.attempt > 1 else {}
        return document | ({"retry_at": flight.since} if again else {})


def _by_age(pair: tuple[int, Flight]) -> float:
    since = pair[1].since
    return float("inf") if since is None else since


def table_of(
    ids: tuple[str, ...], index: Mapping[str, int], answer: Document, rows: Iterable[Mapping[str, Any]]
) -> StateTable:
    """Return the table of a whole build; for a thread, where it is large.

    Args:
        ids: its components.
        index: number of each.
        answer: the answer to ``get``, of whose number the first rows are.
        rows: its components as ``get`` answers them, in order.
    """
    table = StateTable(index, ids, bytearray(len(ids)))
    table.sequence, table.source = whole(answer.get("seq")), text(answer.get("source"))
    for vertex, row in enumerate(rows):
        yield_now()
        state = text(row.get("state"))
        state = state if state in LETTERS else "waiting"
        sent = number(row.get("retry_at" if state == "retrying" else "sent"))
        flight = Flight(sent, whole(row.get("attempt"), 1), text(row.get("error")))
        if state == "running":
            flight.progress, flight.message = number(row.get("progress")), text(row.get("message"))
        table.move(vertex, state, flight)
    table.changed.clear()
    return table


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Document:
    """Return the members of a status that changed; null for one that is gone. The clock is no change."""
    changed = {name: value for name, value in after.items() if name != "now" and before.get(name) != value}
    changed |= {name: None for name in before if name not in after}
    return changed | {"now": after["now"]} if changed and "now" in after else changed
