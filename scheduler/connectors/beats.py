"""Heartbeats: signs of life for each attempt, and how far it is.

A *schedule* decides by a clock that it is given; one task sends what is due, for all attempts. What a handler
says of its progress goes out at once, but at most five times a second, the latest never being left out. The
first beat comes at once where the scheduler counts on beats. Elsewhere it waits a moment: a call that has
ended by then sends none, which spares connector, broker and scheduler a message.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import trio
from attrs import define, field

from scheduler.bus import Bus
from scheduler.connectors.attempts import Attempt
from scheduler.definition.strictjson import encode
from scheduler.errors import BusClosed, BusError
from scheduler.runtime.log_limits import RateLimitedLog

PERIOD: Final = 10.0
"""Seconds between two beats, where the scheduler does not want more."""
_SHARE: Final = 3.0
"""Number of beats in the time within which the scheduler wants one."""
FIRST: Final = 0.5
"""Seconds after which a work that has begun says so, where the scheduler does not count on it."""
_SHORTEST: Final = 0.2
"""Seconds between two beats of an attempt, however often its handler speaks."""
_LONGEST_MESSAGE: Final = 1024
"""Bytes of a message."""
_AT_ONCE: Final = 100
"""Beats in a row before other tasks run."""


@define(eq=False)
class _Pulse:
    """Beats of one attempt."""

    attempt: Attempt
    period: float
    due: float
    sent: float = -_SHORTEST
    """Time of the last beat."""
    share: float | None = None
    message: str = ""


_GONE: Final = object()


@define(eq=False)
class BeatSchedule:
    """Times of the beats of all attempts; the clock is any that never goes back, in seconds."""

    period: float = PERIOD
    _pulses: dict[Attempt, _Pulse | None] = field(factory=dict)
    """Beats by attempt; None for one that has just begun, since most of those end before their first beat."""
    _young: deque[tuple[float, Attempt]] = field(factory=deque)
    """Attempts that have just begun, some of them ended, with the times of their first beats, in order."""
    _heap: list[tuple[float, int, _Pulse]] = field(factory=list)
    _number: "count[int]" = field(factory=count)

    def __len__(self) -> int:
        return len(self._pulses)

    def add(self, attempt: Attempt, now: float, *, begins: bool = False) -> None:
        """Begin beats for an attempt, if it wants any; soon, where the work on it begins as well."""
        if not attempt.heartbeat:
            return
        if begins and attempt.within == math.inf:
            self._pulses[attempt] = None
            self._young.append((now + FIRST, attempt))
        else:
            self._make(attempt, now if begins else now + self._period_of(attempt))

    def begin(self, attempt: Attempt, now: float) -> None:
        """Beat soon, as the work on an attempt begins that has waited."""
        if (pulse := self._pulses.get(attempt)) is not None:
            self._hurry(pulse, now + FIRST if attempt.within == math.inf else now)

    def say(self, attempt: Attempt, share: float | None, message: str, now: float) -> None:
        """Note how far an attempt is, and beat as soon as may be."""
        if attempt not in self._pulses:
            return
        pulse = self._pulses[attempt] or self._make(attempt, now)
        pulse.share = pulse.share if share is None else share
        pulse.message = _cut(message) if message else pulse.message
        self._hurry(pulse, now)

    def _hurry(self, pulse: _Pulse, due: float) -> None:
        due = max(due, pulse.sent + _SHORTEST)
        if due < pulse.due:
            pulse.due = due
            self._push(pulse)

    def remove(self, attempt: Attempt) -> None:
        """End the beats of an attempt. Idempotent."""
        self._pulses.pop(attempt, None)

    def next_at(self) -> float | None:
        """Return the time of the next beat; None while there is none."""
        young, heap = self._young, self._heap
        while young and self._pulses.get(young[0][1], _GONE) is not None:
            young.popleft()
        while heap:
            due, _, pulse = heap[0]
            if self._pulses.get(pulse.attempt) is pulse and pulse.due == due:
                return min(due, young[0][0]) if young else due
            heapq.heappop(heap)
        return young[0][0] if young else None

    def take(self, now: float) -> tuple[str, dict[str, Any]] | None:
        """Take a beat that is due: its subject, and what it says; None where none is."""
        due = self.next_at()
        if due is None or due > now:
            return None
        if self._young and self._young[0][0] == due:
            self._make(self._young.popleft()[1], due)
        _, _, pulse = heapq.heappop(self._heap)
        pulse.sent, pulse.due = now, now + pulse.period
        self._push(pulse)
        said: dict[str, Any] = {} if pulse.share is None else {"progress": pulse.share}
        if pulse.message:
            said["message"] = pulse.message
        return pulse.attempt.heartbeat, said

    def _make(self, attempt: Attempt, due: float) -> _Pulse:
        pulse = self._pulses[attempt] = _Pulse(attempt, self._period_of(attempt), due)
        self._push(pulse)
        return pulse

    def _period_of(self, attempt: Attempt) -> float:
        return min(self.period, attempt.within / _SHARE)

    def _push(self, pulse: _Pulse) -> None:
        heapq.heappush(self._heap, (pulse.due, next(self._number), pulse))


def _cut(message: str) -> str:
    data = message.encode(errors="replace")
    return data[:_LONGEST_MESSAGE].decode(errors="ignore")


class Beats:
    """Sends heartbeats over a bus, by Trio's clock."""

    def __init__(self, bus: Bus, instance: str, schedule: BeatSchedule | None = None) -> None:
        self.schedule = BeatSchedule() if schedule is None else schedule
        self._bus = bus
        self._instance = instance
        self._news = trio.Event()
        self._sleeps_until = -math.inf
        """Time at which the task wakes, on Trio's clock."""
        self._log = RateLimitedLog()

    def add(self, attempt: Attempt, *, begins: bool = False) -> None:
        """Begin beats for an attempt; soon, where the work on it begins as well."""
        now = trio.current_time()
        self.schedule.add(attempt, now, begins=begins)
        if now + FIRST < self._sleeps_until:
            self._wake()

    def begin(self, attempt: Attempt) -> None:
        """Beat soon."""
        self.schedule.begin(attempt, trio.current_time())
        self._wake()

    def say(self, attempt: Attempt, share: float | None, message: str) -> None:
        """Pass on what a handler said."""
        self.schedule.say(attempt, share, message, trio.current_time())
        self._wake()

    def remove(self, attempt: Attempt) -> None:
        """End the beats of an attempt."""
        self.schedule.remove(attempt)

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            next_at = self.schedule.next_at()
            self._news = trio.Event()
            self._sleeps_until = math.inf if next_at is None else next_at
            with trio.move_on_at(self._sleeps_until):
                await self._news.wait()
            self._sleeps_until = -math.inf
            sent = 0
            while (beat := self.schedule.take(trio.current_time())) is not None:
                self._send(*beat)
                sent += 1
                if sent % _AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def _wake(self) -> None:
        """Wake the task, where it would sleep too long."""
        next_at = self.schedule.next_at()
        if next_at is not None and next_at < self._sleeps_until:
            self._news.set()

    def _send(self, subject: str, said: dict[str, Any]) -> None:
        if not self._bus.connected:
            # Nothing is lost: the next one says as much.
            return
        try:
            self._bus.publish(subject, encode({"instance": self._instance, **said}))
        except BusClosed:
            return
        except BusError as error:
            self._log.warning("a heartbeat was not sent", reason=str(error))


class Voice:
    """Lets a handler speak of its progress, in whatever thread it runs.

    Args:
        say: function that passes on progress and message; called on Trio's loop.
    """

    def __init__(self, say: Callable[[float | None, str], None]) -> None:
        self._say: Callable[[float | None, str], None] | None = say
        self._token = trio.lowlevel.current_trio_token()
        self._latest: tuple[float | None, str] = None, ""
        self._pending = False

    def say(self, share: float | None, message: str) -> None:
        """Pass on progress and message soon; what was not passed on before is replaced."""
        before = self._latest if self._pending else (None, "")
        self._latest = (before[0] if share is None else share, message or before[1])
        if not self._pending:
            self._pending = True
            try:
                self._token.run_sync_soon(self._pass_on)
            except trio.RunFinishedError:
                # A thread that nobody waits for any more.
                return

    def end(self) -> None:
        """Pass on nothing more."""
        self._say = None

    def _pass_on(self) -> None:
        self._pending = False
        if self._say is not None:
            self._say(*self._latest)
