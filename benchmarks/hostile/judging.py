"""Judges whether an attack broke the rule of bounds. Pure.

With anything at all going on that input can cause, a healthy build of one component, submitted every 100 ms,
ends within `P99` at the 99th percentile and within `WORST` at most, or within `TIMES` what it takes alone,
where that is more; a ping is answered within `PING`; a second signal ends the process within `EXIT`; and the
resident size grows by at most `PER_BYTE` times the bytes that came in, `PER_WAITING` for each component that
waits, `PER_BUILD` for each build that does, and what caches that have a bound may hold (`CACHES`).
"""

from collections.abc import Sequence
from enum import StrEnum
from math import ceil, inf

from attrs import frozen

from benchmarks.processes import Store

P99, WORST = 0.25, 0.5
"""Seconds."""
TIMES = 5.0
PING = 0.1
"""Seconds."""
EXIT = 1.0
"""Seconds."""
PER_BYTE = 4
PER_WAITING = 6 * 1024
"""Bytes."""
PER_BUILD = 24 * 1024
"""Bytes: a nursery of its own, two tasks and a channel, which are 8 KB of Trio's alone; a plan; a log."""
CACHES = 16 * 1024 * 1024
"""Bytes, whatever came in."""

Sample = tuple[float, float | None]
"""Time at which a probe was due, and its duration in seconds; None if it failed."""


class Measure(StrEnum):
    """Measures that the rule bounds."""

    P99 = "p99"
    WORST = "worst"
    PING = "ping"
    MEMORY = "memory"
    EXIT = "exit"


@frozen
class Waits:
    """Percentiles of the durations of probes, in seconds; infinite if they fall on a failed probe."""

    count: int
    p50: float
    p99: float
    worst: float
    failed: int = 0

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Waits":
        """Those of at least one sample; percentiles are of the nearest rank, never between two."""
        if not samples:
            raise ValueError("nothing was measured")
        seconds = sorted(inf if taken is None else taken for _, taken in samples)

        def rank(share: float) -> float:
            return seconds[ceil(share * len(seconds)) - 1]

        return cls(len(seconds), rank(0.5), rank(0.99), seconds[-1], seconds.count(inf))


def within(samples: Sequence[Sample], start: float, end: float) -> list[Sample]:
    """The samples that were due between two times."""
    return [sample for sample in samples if start <= sample[0] < end]


@frozen
class Stretch:
    """The loop was held, and nobody else had a turn."""

    ended: float
    """By the machine's monotonic clock, seconds."""
    kind: str
    """``step`` of one task, or ``round`` of all that could run."""
    seconds: float
    """Of CPU time."""
    taken: float
    """Seconds, of which other threads and processes had the rest."""
    what: str
    """Which task it was, or how many steps."""
    at: Sequence[str]
    """The calls that were seen, the innermost first; empty where nobody looked in time."""


@frozen
class Ordeal:
    """Effect of an attack on a service."""

    attack: str
    store: Store
    sent: int
    """Bytes that came in."""
    outcome: str
    """Outcome of the attack."""
    seconds: float
    """Duration of the attack, in seconds."""
    alone: Waits
    """The healthy builds before."""
    beside: Waits
    """The healthy builds meanwhile."""
    ping: Waits
    echo: Waits
    """Through the broker to the probes themselves: what is no fault of the scheduler."""
    work: Waits
    """Of CPU time the scheduler had while each healthy build ran: what it waited for on a busy machine."""
    grown: int
    """Bytes by which the resident size was larger than before, at most."""
    waiting: int
    """Components of the attack that waited."""
    builds: int
    """Builds of the attack that these belonged to."""
    exit: float | None
    """Seconds from a second signal to the end of the process, amid the attack; None: not measured."""
    viewers: int = 0
    """Viewers of the page, before and meanwhile."""
    excuse: str = ""
    """Reason for an exception of the rule for healthy builds; empty if there is none."""
    stretches: Sequence[Stretch] = ()
    """The longest step and the longest round, where they were above 10 ms."""
    said: str = ""
    """What the first of the attack that was refused, or failed, was told."""
    faults: Sequence[str] = ()
    """Texts of failed probes."""

    def limit(self, measure: Measure) -> float:
        """Seconds, or bytes, that are allowed."""
        match measure:
            case Measure.P99:
                return max(P99, TIMES * self.alone.p99)
            case Measure.WORST:
                return max(WORST, TIMES * self.alone.worst)
            case Measure.PING:
                return PING
            case Measure.MEMORY:
                return PER_BYTE * self.sent + PER_WAITING * self.waiting + PER_BUILD * self.builds + CACHES
            case Measure.EXIT:
                return EXIT

    def value(self, measure: Measure) -> float | None:
        """Seconds, or bytes, that were measured; None where they were not."""
        match measure:
            case Measure.P99:
                return self.beside.p99
            case Measure.WORST:
                return self.beside.worst
            case Measure.PING:
                return self.ping.worst
            case Measure.MEMORY:
                return self.grown
            case Measure.EXIT:
                return self.exit

    def broken(self) -> set[Measure]:
        """List the measures that break the rule."""
        excused = {Measure.P99, Measure.WORST} if self.excuse else set()
        return {measure for measure in Measure if measure not in excused and self._past(measure)}

    def _past(self, measure: Measure) -> bool:
        value = self.value(measure)
        return value is not None and value > self.limit(measure)
