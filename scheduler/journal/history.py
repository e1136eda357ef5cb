"""Folds the records of a build's log into what a restart needs to know.

What the components became is the plan's business (`plan.Plan.replay`). Here stands what the plan has no
words for (records, clocks, processes), and whether the events can have happened in this order at all: a
log that says otherwise is not resumed.
"""

from enum import Enum

from attrs import field, mutable

from scheduler.definition.model import State
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
from scheduler.journal.records import Elsewhere, Position, Record, Status, earliest

_LONGEST_NAME = 256
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
    # After the end it begins a new run.
    Retried: {Status.OPEN, Status.REPORTED},
    Supplied: _OPEN,
    Extended: _OPEN,
    Limited: _OPEN,
}
"""How far a build may be when such an event comes."""


@mutable
class Flight:
    """A component whose outcome is not in the log yet."""

    attempt: str
    since: float
    """When it was sent, as far as the log tells, in milliseconds since 1970; moved by outages."""
    sent: bool = False
    """Whether its request is known to have left."""
    extended: float = 0.0
    """Milliseconds that operators added to its time."""
    key: str = field(default="", repr=False)
    """What reply subjects were made with when it was started."""
    writer: int = 0
    """Which of the processes that had the build started it, counted from the first one."""


class _Ending(Enum):
    """How a component was settled."""

    COMPLETED = "completed"
    ERRORED = "errored"
    ADOPTABLE = "errored, with a late success kept beside the error"


class History:
    """What stands in the log of one build, as far as its records were added.

    After an error it is of no more use.
    """

    def __init__(self) -> None:
        self.latest = 0
        """The last time in the log, in milliseconds since 1970. All times here are as if they never went
        back; in logs of earlier versions they do: a clock was set, or those of two processes differed."""
        self.accepted: Accepted | None = None
        """The first event: set once there is a record."""
        self.steps: list[Event] = []
        """What happened to the build, in order; without what happened to the processes that had it
        (`Loading`, `Released`, `Rekeyed`) and to the broker (`Suspended`, `Resumed`)."""
        self.bytes = 0
        """Of the records."""
        self.n = 0
        """The number of the last record."""
        self.epoch = 0
        self.position = Position()
        """Every reply up to here was dealt with."""
        self.status = Status.OPEN
        self.run = 1
        """Which run of the build is the last one."""
        self.finished: Finished | None = None
        self.loads = 0
        """How many `Loading` in a row stand at the end: processes that took the build up, and did nothing."""
        self.in_flight: dict[str, Flight] = {}
        """By component, in the order in which they started."""
        self.pauses: dict[str, float] = {}
        """Until when the components wait whose attempt has failed, in milliseconds since 1970."""
        self.began: dict[str, float] = {}
        """When the first attempt of each component was started that is not settled, in milliseconds since
        1970; the first since an operator had it sent again, where one did. Moved by what does not count for
        ``total_timeout``: the pauses of the build in which the component waited for another attempt."""
        self.held: dict[str, float] = {}
        """Since when the components wait for another attempt for which time stands still, as the build is
        paused, in milliseconds since 1970."""
        self.times: list[float] = []
        """When each of ``steps`` happened, in milliseconds since 1970."""
        self.outages: list[tuple[float, float]] = []
        """From when to when the broker was away, or what keeps the log; in milliseconds since 1970."""
        self.key = ""
        """What reply subjects are made with; a secret."""
        self.old_steps = 0
        """How many of ``steps`` there were when the key was replaced that reply subjects had shown."""
        self._writers: list[str] = []
        self._paused = False
        self._settled: dict[str, _Ending] = {}
        self._failed_at: dict[str, Position] = {}
        """Up to where replies had been dealt with when each component failed that has."""

    def add(self, record: Record) -> None:
        """Add the next record, with the events that were too large for it put in their places.

        Raises:
            UnreadableLog: it cannot follow, or something in it cannot have happened.
        """
        if record.n != self.n + 1:
            raise _wrong(record.n, f"it stands where record {self.n + 1} is due")
        if record.epoch < self.epoch:
            raise _wrong(record.n, f"it is of epoch {record.epoch}, after one of epoch {self.epoch}")
        self.n = record.n
        self.epoch = record.epoch
        self.position = record.position
        self.latest = max(self.latest, record.at)
        if not self._writers or self._writers[-1] != record.instance:
            self._writers.append(record.instance)
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
        """Up to where replies were dealt with when the first component failed of those that have."""
        return earliest(self._failed_at.values()) if self._failed_at else self.position

    @property
    def senders(self) -> tuple[str, ...]:
        """The processes that may have sent what is in flight, each once, the last one first."""
        first = min((flight.writer for flight in self.in_flight.values()), default=len(self._writers))
        return tuple(dict.fromkeys(reversed(self._writers[first:])))

    def rekey(self, key: str) -> None:
        """Reply subjects are made with this key from now on."""
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
                self._withdraw(n, event)
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
                self.held = dict.fromkeys(self.pauses, at)
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
            # That one is a part of the loading.
            self.loads = self.loads + 1 if isinstance(event, Loading) else 0
        if not isinstance(event, _NO_STEPS):
            self.steps.append(event)
            self.times.append(at)

    def _moment(self, record: Record, event: Event) -> float:
        """When an event happened: not after it was written down, nor before the build was accepted."""
        time: float | None = getattr(event, "time", None)
        if time is None:
            return self.latest
        # ``at`` is without its fraction.
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
        # A request may go out again under its attempt; the time to answer it began with the first one.
        if not flight.sent:
            flight.sent = True
            flight.since = at

    def _withdraw(self, n: int, event: Withdrawn) -> None:
        flight = self.in_flight.pop(event.component, None)
        if flight is None or flight.sent:
            why = "not in flight" if flight is None else "sent already"
            raise _wrong(n, f"{_shown(event.component)} is withdrawn, and it is {why}")

    def _settle(self, n: int, event: Settled) -> None:
        component, state = event.component, event.body.get("_state")
        if state not in _TERMINAL:
            raise _wrong(n, f"{_shown(component)} is settled, and its _state is {_shown(state)}")
        errored = state == State.ERRORED
        # It may settle without having begun: there may have been nothing to send.
        self.in_flight.pop(component, None)
        self.pauses.pop(component, None)
        self.held.pop(component, None)
        self.began.pop(component, None)
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
        self.pauses[component] = at + event.pause * 1_000
        if self._paused:
            self.held[component] = at

    def _release(self, at: float) -> None:
        """The build is not paused any more: that time counts for nobody's ``total_timeout``."""
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
            raise _wrong(n, f"run {event.run} begins, and run {self.run} is not over")
        if self.status is Status.REPORTED and event.run != self.run + 1:
            raise _wrong(n, f"run {event.run} begins, after run {self.run}")
        self.run = event.run
        if self.status is Status.REPORTED:
            self._paused = False
        self.status, self.finished = Status.OPEN, None

    def _supply(self, n: int, event: Supplied) -> None:
        # What had failed can be settled once more.
        self._failed_at.pop(event.component, None)
        if self._settled.pop(event.component, None) is _Ending.COMPLETED:
            raise _wrong(n, f"{_shown(event.component)} is supplied, and it is completed already")

    def _extend(self, n: int, event: Extended) -> None:
        flight = self.in_flight.get(event.component)
        if flight is None:
            raise _wrong(n, f"{_shown(event.component)} is given more time, and it is not in flight")
        flight.extended += event.seconds * 1_000

    def _move(self, at: float, outage: float) -> None:
        """An outage of so many milliseconds ended ``at``: it counts for nobody's time to answer."""
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


def _wrong(n: int, text: str) -> UnreadableLog:
    return UnreadableLog(f"record {n}: {text}; the build is left as it is")


def _name(event: Event) -> str:
    return repr(type(event).__name__.lower())


def _shown(name: object) -> str:
    return repr(str(name)[:_LONGEST_NAME])
