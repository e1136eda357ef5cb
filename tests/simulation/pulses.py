"""Heartbeats of simulated connectors, and what they say when they are back; and how that is judged.

A connector is lost only if there was a time as long as it was asked for without any sign of it: neither a
heartbeat that the process must have heard, nor a sending, a connection or a take-over that begin that time.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from attrs import define, field, frozen

from simulation.knowledge import Attempt, Build

_HEARD = 0.35
"""Seconds that a heartbeat may take from the broker to a process (`World.latency`)."""


@frozen
class Pulse:
    """Heartbeats in one scenario."""

    every: float = 0.0
    """Seconds between the heartbeats of a connector that works; 0: there are none."""
    within: float = 0.0
    """Seconds that each request asks for; 0: it does not."""
    faults: tuple[tuple[str, float, float, int], ...] = ()
    """Deaths of connectors, and cuts of a process's connection right after a request was taken: which of
    both, when, for how long, and whose."""
    mute: float = 0.0
    """The share of requests that connectors never answer, at least."""


def pulsate(seed: int, heals_at: float) -> Pulse:
    """In a quarter of the runs connectors beat, and come back with their record after they died."""
    rng = random.Random(f"pulse {seed}")
    if rng.random() > 0.25:
        return Pulse()
    within = rng.choice((0.0, 2.0, 2.0, 3.0))
    faults = tuple(
        (
            rng.choice(("connector dies", "connector dies", "cut at")),
            rng.uniform(0.5, min(10.0, heals_at)),
            rng.uniform(0.1, 2.0),
            rng.randrange(1_000),
        )
        for _ in range(rng.choice((0, 2, 4)))
    )
    return Pulse((within or 3.0) / rng.choice((3, 5)), within, faults, rng.choice((0.0, 0.4)))


@define(eq=False)
class Pulses:
    """Signs of life of connectors, by attempt."""

    wrong: Callable[[str], None]
    interruptions: Mapping[str, Sequence[tuple[float, str]]]
    """What happened to the connection of each process, and when."""
    _beats: dict[str, list[float]] = field(factory=dict)
    """When heartbeats reached the broker."""
    _sent: dict[str, list[float]] = field(factory=dict)
    """When the request left, and somebody received it or it was the first time."""
    _returned: Counter[str] = field(factory=Counter)
    """How often a connector that was back has named an attempt, and it was not sent again for that yet."""
    _asked: dict[str, float] = field(factory=dict)
    """When each attempt was sent again last for that."""

    def beat(self, attempt: str, now: float) -> None:
        """A heartbeat reaches the broker."""
        self._beats.setdefault(attempt, []).append(now)

    def sent(self, attempt: str, now: float) -> None:
        """A request leaves."""
        self._sent.setdefault(attempt, []).append(now)

    def unheard(self, attempt: str) -> None:
        """Nobody received the last copy of it: only the first one begins a time all the same."""
        if len(self._sent[attempt]) > 1:
            self._sent[attempt].pop()

    def returned(self, attempts: Sequence[str]) -> None:
        """A connector is back."""
        self._returned.update(attempts)

    def takes(self, attempt: str, who: str, now: float) -> bool:
        """Tell whether an attempt may be sent again, as its connector has asked for it; it then has been.

        What was sent for that may have been lost with the connection, and is sent once more then.
        """
        if self._returned[attempt]:
            self._returned[attempt] -= 1
        elif not any(
            kind == "lost" and at >= self._asked.get(attempt, now) for at, kind in self.interruptions[who]
        ):
            return False
        self._asked[attempt] = now
        return True

    def lost(self, name: str, build: Build, attempt: Attempt | None, text: str, now: float) -> None:
        """Note that an attempt failed since there was no heartbeat."""
        # Of what an earlier process has begun its successor cannot know whether it has left.
        if attempt is None or not (attempt.departures or build.changed_hands):
            self.wrong(f"{name}: a connector is lost that was never asked: {text}")
            return
        if "not retryable" in text:
            self.wrong(f"{name}: {attempt.id} is not tried again, and its connector was only lost")
        seconds, who = float(text.split()[5]), build.instances[-1]
        signs = list(self._sent.get(attempt.id, ()))
        signs += [at for at, kind in self.interruptions[who] if kind == "connected"]
        signs += [build.loaded_at[who]] if who in build.loaded_at else []
        signs += [at for at in self._beats.get(attempt.id, ()) if self._is_heard(who, at)]
        signs = [*sorted(at for at in signs if at <= now), now]
        longest = max(later - sooner for sooner, later in pairwise(signs))
        if longest < seconds - _HEARD:
            self.wrong(f"{name}: {attempt.id} failed after {longest:.2f} s without a sign: {text}")

    def _is_heard(self, who: str, at: float) -> bool:
        """Tell whether a process must have heard what reached the broker then."""
        before = [kind for when, kind in self.interruptions[who] if when <= at]
        after = [kind for when, kind in self.interruptions[who] if at < when < at + _HEARD]
        return bool(before) and before[-1] in {"connected", "heard"} and not after
