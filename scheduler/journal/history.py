"""The history of a build: folds the records of its log into what a restart needs.

The state of the components belongs to the plan (`plan.Plan.replay`). The history holds what the plan does not
know: records, clocks, processes. It also checks that the events can have happened in this order; a build
whose log says otherwise is not resumed.

One file on purpose: for each event, what it changes stands beside the check that it can have happened.
"""

from enum import Enum
from typing import Any

import msgspec
from attrs import field, mutable

from scheduler.definition.model import Action, State
from scheduler.errors import UnreadableLog
from scheduler.journal.events import (
    Accepted,
    Cancelled,
    Event,
    Extended,
    Finished,
    Limited,
    Loading,
    Paused,
    Rekeyed,
    Released,
    Reported,
    Resumed,
    Retried,
    Retrying,
    Sent,
    Settled,
    Started,
    Supplied,
    Suspended,
    Unpaused,
    Withdrawn,
)
from scheduler.journal.orders import Orders
from scheduler.journal.records import Elsewhere, Position, Record, Status, earliest
from scheduler.tracing.context import TraceContext

_LONGEST_NAME = 256
_CLOCKS = 30_000
"""Milliseconds by which the clocks of two processes may differ, and no rate is passed: beyond that orders are
refused as well."""
_TERMINAL = (State.COMPLETED.value, State.ERRORED.value)
_NO_STEPS = (Suspended, Resumed, Loading, Released, Rekeyed)
_IN_WORDS = {Status.OPEN: "not finished", Status.FINISHED: "finished", Status.REPORTED: "reported"}
_OPEN, _UNREPORTED, _ALWAYS = {Status.OPEN}, {Status.OPEN, Status.FINISHED}, set(Status)
_PLACES: dict[type[Event], set[Status]] = {
    Accepted: _OPEN,
    Started: _OPEN,
    Sent: _OPEN,
    Withdrawn: _OPEN,
    Settled: _OPEN,
    Suspended: _UNREPORTED,
    Resumed: _UNREPORTED,
    Finished: _OPEN,
    Reported: {Status.FINISHED},
    Loading: _ALWAYS,
    Released: _ALWAYS,
    Rekeyed: {Status.OPEN, Status.REPORTED},
    Retrying: _OPEN,
    Cancelled: _OPEN,
    Paused: _OPEN,
    Unpaused: _OPEN,
    # Begins a new run after the end.
    Retried: {Status.OPEN, Status.REPORTED},
    Supplied: _OPEN,
    Extended: _OPEN,
    Limited: _OPEN,
}
"""Statuses of a build in which each event may come."""


@mutable
class Flight:
    """A component in flight: its outcome is not in the log yet."""

    attempt: str
    since: float
    """Time at which it was sent, as far as the log tells, in milliseconds since 1970; moved by outages."""
    sent: bool = False
    """Whether its request is known to have left."""
    extended: float = 0.0
    """Time that operators added to its deadline, in milliseconds."""
    key: str = field(default="", repr=False)
    """Key of reply subjects when it was started."""
    writer: int = 0
    """Index of the process that started it, among those that had the build, counted from the first."""


class _Ending(Enum):
    """Ways in which a component settles."""

    COMPLETED = "completed"
    ERRORED = "errored"
    ADOPTABLE = "errored, with a late success kept beside the error"


class History:
    """The content of one build's log, as far as its records were added.

    It must not be used any more once `add` has raised.
    """

    def __init__(self) -> None:
        self.latest = 0
        """Last time in the log, in milliseconds since 1970. Times here never go back, although those in logs
        of earlier versions may: a clock was set, or the clocks of two processes differed."""
        self.accepted: Accepted | None = None
        """First event; None until there is a record."""
        self.trace: TraceContext | None = None
        """Trace of the build, from the headers of the first record; None where it has none."""
        self.steps: list[Event] = []
        """Events of the build in order, without those of processes (`Loading`, `Released`, `Rekeyed`) and of
        the broker (`Suspended`, `Resumed`)."""
        self.bytes = 0
        """Size of all records, in bytes."""
        self.n = 0
        """Number of the last record."""
        self.epoch = 0
        self.position = Position()
        """Position up to which all replies were handled."""
        self.status = Status.OPEN
        self.run = 1
        """Number of the last run."""
        self.finished: Finished | None = None
        self.loads = 0
        """Number of `Loading` events at the end of the log: processes that took the build up, and did
        nothing."""
        self.in_flight: dict[str, Flight] = {}
        """Components in flight by id, in the order in which they started."""
        self.pauses: dict[str, float] = {}
        """End of the pause before the next attempt, by component, in milliseconds since 1970."""
        self.began: dict[str, float] = {}
        """Start of the first attempt of each unsettled component, in milliseconds since 1970; after an
        operator's retry, of the first attempt since. Moved by time that does not count for ``total_timeout``:
        pauses of the build in which the component was not in flight."""
        self.held: dict[str, float] = {}
        """Time since which no time passes for a component, as the build is paused; in ms since 1970."""
        self.times: list[float] = []
        """Time of each event in ``steps``, in milliseconds since 1970."""
        self.outages: list[tuple[float, float]] = []
        """Beginning and end of each outage of the broker, or of what keeps the log; in milliseconds since
        1970."""
        self.key = ""
        """Key of reply subjects; a secret."""
        self.old_steps = 0
        """Number of ``steps`` at the time when a key was replaced that reply subjects had shown."""
        self.orders = Orders()
        """Orders of operators, as far as they are kept."""
        self.doubts: list[tuple[int, float]] = []
        """For each change of the process that has the build: number of ``steps`` before it, and the
        milliseconds until its first record that may be a difference of clocks."""
        self.extended: dict[str, float] = {}
        """Time that operators added to the wait of each gate that has not settled, in milliseconds."""
        self._writers: list[str] = []
        self._paused = False
        self._retried: set[str] = set()
        self._settled: dict[str, _Ending] = {}
        self._failed_at: dict[str, Position] = {}
        """Position of handled replies at the time of each failed component's failure."""

    def add(self, record: Record) -> None:
        """Add the next record, with events that were too large for it put in their places.

        Raises:
            UnreadableLog: the record cannot follow, or something in it cannot have happened.
        """
        if record.n != self.n + 1:
            raise _wrong(record.n, f"it stands where record {self.n + 1} is due")
        if record.epoch < self.epoch:
            raise _wrong(record.n, f"it is of epoch {record.epoch}, after one of epoch {self.epoch}")
        self.n = record.n
        self.epoch = record.epoch
        self.position = record.position
        if self.writer != record.instance:
            if self._writers:
                self.doubts.append((len(self.steps), self.doubt(record.at)))
            self._writers.append(record.instance)
        self.latest = max(self.latest, record.at)
        if not record.events:
            self.loads = 0
        for event in record.events:
            if isinstance(event, Elsewhere):
                raise _wrong(record.n, f"the object {_shown(event.object)} is missing")
            self._add(record, event)
        if self.accepted is None:
            raise _wrong(record.n, "it holds no event, where the build is to be accepted")

    @property
    def since_failures(self) -> Position:
        """Return the position of handled replies when the first of the failed components failed."""
        return earliest(self._failed_at.values()) if self._failed_at else self.position

    @property
    def senders(self) -> tuple[str, ...]:
        """Return the processes that may have sent what is in flight, each once, the last one first."""
        first = min((flight.writer for flight in self.in_flight.values()), default=len(self._writers))
        return tuple(dict.fromkeys(reversed(self._writers[first:])))

    @property
    def writer(self) -> str:
        """Process that wrote the last record; empty where there is none."""
        return self._writers[-1] if self._writers else ""

    def doubt(self, now: float) -> float:
        """Return the part of the time since the last record that may be a difference of clocks.

        Args:
            now: time by another process's clock, in milliseconds since 1970.

        Returns:
            Milliseconds.
        """
        return min(_CLOCKS, max(0.0, now - self.latest))

    def rekey(self, key: str) -> None:
        """Use this key for reply subjects from now on."""
        self.key = key
        self.old_steps = len(self.steps)

    def _add(self, record: Record, event: Event) -> None:
        n, at = record.n, self._moment(record, event)
        if isinstance(event, Accepted) is not (self.accepted is None):
            when = "before the build is accepted" if self.accepted is None else "a second time"
            raise _wrong(n, f"{_name(event)} comes {when}")
        if self.status not in _PLACES[type(event)]:
            raise _wrong(n, f"{_name(event)} comes when the build is {_IN_WORDS[self.status]}")
        match event:
            case Started():
                self._start(n, at, event)
            case Sent():
                self._send(n, at, event)
            case Settled():
                self._settle(n, event)
            case Withdrawn():
                self._withdraw(n, at, event)
            case Retrying():
                self._retry(n, at, event)
            case Retried():
                self._reopen(n, event)
            case Supplied():
                self._supply(n, event)
            case Extended():
                self._extend(n, event)
            case Resumed():
                self._move(at, event.seconds * 1_000)
            case Paused():
                self._paused = True
                self.held = {one: at for one in self.began if one not in self.in_flight}
            case Unpaused() | Cancelled():
                self._release(at)
            case Accepted():
                self.accepted = event
                self.key = event.key
            case Rekeyed():
                self.rekey(event.key)
            case Finished():
                self._finish(n, event)
            case Reported():
                self.run = event.run
                self.status = Status.REPORTED
            case _:
                pass
        if not isinstance(event, Rekeyed):
            # Part of the loading.
            self.loads = self.loads + 1 if isinstance(event, Loading) else 0
        if not isinstance(event, _NO_STEPS):
            self.steps.append(event)
            self.times.append(at)

    def _moment(self, record: Record, event: Event) -> float:
        """Return the time of an event: not after its record, nor before the acceptance of the build."""
        time: float | None = getattr(event, "time", None)
        if time is None:
            return self.latest
        # ``at`` has no fraction.
        moment = self.latest + min(1.0, time * 1_000 - record.at)
        return max(moment, self.times[0]) if self.times else moment

    def _start(self, n: int, at: float, event: Started) -> None:
        component = event.component
        if component in self.in_flight:
            raise _wrong(n, f"{_shown(component)} is started, and it is in flight already")
        if component in self._settled:
            raise _wrong(n, f"{_shown(component)} is started, and it is settled already")
        writer = len(self._writers) - 1
        self.in_flight[component] = Flight(event.attempt, at, key=self.key, writer=writer)
        self.began.setdefault(component, at)
        self.pauses.pop(component, None)
        self.held.pop(component, None)

    def _send(self, n: int, at: float, event: Sent) -> None:
        flight = self.in_flight.get(event.component)
        if flight is None or flight.attempt != event.attempt:
            text = f"{_shown(event.component)} is sent as {_shown(event.attempt)}, which was not started"
            raise _wrong(n, text)
        # A request may go out again under its attempt; its deadline counts from the first time.
        if not flight.sent:
            flight.sent = True
            flight.since = at

    def _withdraw(self, n: int, at: float, event: Withdrawn) -> None:
        flight = self.in_flight.pop(event.component, None)
        if flight is None or flight.sent:
            why = "not in flight" if flight is None else "sent already"
            raise _wrong(n, f"{_shown(event.component)} is withdrawn, and it is {why}")
        if event.component not in self._retried:
            # Nothing of it was ever sent, so the time of its attempts has not begun.
            self.began.pop(event.component, None)
        elif self._paused:
            self.held[event.component] = at

    def _settle(self, n: int, event: Settled) -> None:
        component, state = event.component, event.body.get("_state")
        if state not in _TERMINAL:
            raise _wrong(n, f"{_shown(component)} is settled, and its _state is {_shown(state)}")
        errored = state == State.ERRORED
        # It may settle without having started: there may have been nothing to send.
        self.in_flight.pop(component, None)
        self.pauses.pop(component, None)
        self.held.pop(component, None)
        self.began.pop(component, None)
        self._retried.discard(component)
        self.extended.pop(component, None)
        if errored:
            self._failed_at.setdefault(component, self.position)
        ending = self._settled.get(component)
        if ending is None:
            self._settled[component] = _Ending.ERRORED if errored else _Ending.COMPLETED
        elif ending is _Ending.ERRORED and errored and "adoptable" in event.body:
            self._settled[component] = _Ending.ADOPTABLE
        else:
            raise _wrong(n, f"{_shown(component)} is settled a second time")

    def _retry(self, n: int, at: float, event: Retrying) -> None:
        component = event.component
        flight = self.in_flight.pop(component, None)
        if flight is None or flight.attempt != event.attempt:
            text = f"{_shown(component)} failed as {_shown(event.attempt)}, which was not started"
            raise _wrong(n, text)
        self._retried.add(component)
        self.pauses[component] = at + event.pause * 1_000
        if self._paused:
            self.held[component] = at

    def _release(self, at: float) -> None:
        """End a pause: its time does not count for any ``total_timeout``."""
        self._paused = False
        held, self.held = self.held, {}
        for component, since in held.items():
            if component in self.began:
                self.began[component] += max(0.0, at - since)

    def _reopen(self, n: int, event: Retried) -> None:
        for component in event.components:
            self._failed_at.pop(component, None)
            if self._settled.pop(component, _Ending.COMPLETED) is _Ending.COMPLETED:
                raise _wrong(n, f"{_shown(component)} is to be sent again, and it has not failed")
        if self.status is Status.OPEN and event.run != self.run:
            raise _wrong(n, f"run {event.run} begins, and run {self.run} is not finished")
        if self.status is Status.REPORTED and event.run != self.run + 1:
            raise _wrong(n, f"run {event.run} begins, after run {self.run}")
        self.run = event.run
        if self.status is Status.REPORTED:
            self._paused = False
            self.extended.clear()
        self.status, self.finished = Status.OPEN, None

    def _supply(self, n: int, event: Supplied) -> None:
        # A failed component can settle once more.
        self._failed_at.pop(event.component, None)
        if self._settled.pop(event.component, None) is _Ending.COMPLETED:
            raise _wrong(n, f"{_shown(event.component)} is supplied, and it is completed already")

    def _extend(self, n: int, event: Extended) -> None:
        component, milliseconds = event.component, event.seconds * 1_000
        flight = self.in_flight.get(component)
        if flight is not None:
            flight.extended += milliseconds
        elif component not in self._settled and _is_gate(self.accepted, component):
            self.extended[component] = self.extended.get(component, 0.0) + milliseconds
        else:
            raise _wrong(n, f"{_shown(component)} is given more time, and it is not in flight")

    def _move(self, at: float, outage: float) -> None:
        """Move deadlines by an outage of ``outage`` milliseconds that ended ``at``."""
        began = at - outage
        self.outages.append((began, at))
        for flight in self.in_flight.values():
            flight.since += max(0.0, at - max(flight.since, began))

    def _finish(self, n: int, event: Finished) -> None:
        if self.in_flight:
            first = _shown(next(iter(self.in_flight)))
            raise _wrong(n, f"the build is finished, and {first} is in flight")
        self.finished = event
        self.status = Status.FINISHED


class _Head(msgspec.Struct):
    component: Any = msgspec.field(name="_component_id", default=None)
    action: Any = msgspec.field(name="_action", default=None)


_decode_heads = msgspec.json.Decoder(list[_Head]).decode


def _is_gate(accepted: Accepted | None, component: str) -> bool:
    """Whether a component waits for a person, instead of being sent."""
    changes = () if accepted is None else accepted.document.get("changes") or ()
    heads = _decode_heads(changes if isinstance(changes, msgspec.Raw) else msgspec.json.encode(changes))
    return any(head.component == component and head.action == Action.APPROVE for head in heads)


def _wrong(n: int, text: str) -> UnreadableLog:
    return UnreadableLog(f"record {n}: {text}; the build is left as it is")


def _name(event: Event) -> str:
    return repr(type(event).__name__.lower())


def _shown(name: object) -> str:
    return repr(str(name)[:_LONGEST_NAME])
