"""Judges what the service says of times, by the time that passed in the world.

A clock that is wrong is wrong by minutes at least, so this may be generous; see `simulation.clocks`.
"""

from collections.abc import Callable
from typing import Any

from attrs import define, field

from simulation.clocks import SHORTEST
from simulation.knowledge import Attempt, Build
from simulation.operating import JSON
from simulation.scenario import Scenario

_EXACT = 1.0
"""Seconds by which what is reported may be wrong."""
_EVEN = SHORTEST / 2
"""Seconds by which a message may be later than another one that took as long: the broker was away."""
_PATIENCE = SHORTEST * 0.75
"""Seconds after everything is well within which what is due is done."""


@define(eq=False)
class _Telling:
    """Knowledge of one process about a build, since it took it up."""

    since: float
    offset: float | None = None
    """The first time that it told less the time of the world."""


@define(eq=False)
class Times:
    """Durations, pauses and deadlines, as they are told and as they were."""

    scenario: Scenario
    wrong: Callable[[str], None]
    _tellings: dict[tuple[str, str], _Telling] = field(factory=dict)
    """By process and build."""
    _submitted: dict[str, float] = field(factory=dict)
    """When each build was handed in first."""
    _taken: dict[str, int] = field(factory=dict)
    """Number of times that each build was taken up or accepted."""
    _written: dict[str, int] = field(factory=dict)
    """The time of each build's last record, in milliseconds since 1970."""
    _orderly: bool = False
    """Tell whether a component waits only for the time of its next attempt."""

    def __attrs_post_init__(self) -> None:
        operating = self.scenario.operating
        limits = (operating.rules or operating.max_bytes) or any(
            "limits" in build.get("options", {}) for build in self.scenario.builds
        )
        self._orderly = not operating.orders and not limits

    def submitted(self, name: str, now: float) -> None:
        """A build is handed in."""
        self._submitted.setdefault(name, now)

    def taken_up(self, name: str, who: str, now: float) -> None:
        """A process has a build from now on."""
        self._tellings[who, name] = _Telling(now)
        self._taken[name] = self._taken.get(name, 0) + 1

    def written(self, name: str, at: int) -> None:
        """A record was written at a time, in milliseconds since 1970."""
        back = self._written.get(name, at) - at
        if back > _EXACT * 1_000:
            self.wrong(f"{name}: in its log the time goes back by {back / 1_000:.0f} s")
        self._written[name] = at

    def told(self, name: str, build: Build, who: str, events: list[JSON], now: float) -> None:
        """A process tells of what happened."""
        telling = self._tellings.get((who, name))
        if telling is None:
            return
        for event in events:
            offset = event["time"] - now
            if telling.offset is None:
                telling.offset = offset
            elif abs(offset - telling.offset) > _EVEN:
                self.wrong(f"{name}: the time that {who} tells is off by {offset - telling.offset:.0f} s")
            attempt = self._attempt(build, event)
            if attempt is not None and all(one[1] == who for one in attempt.departures):
                self._durations(name, telling, attempt, event, now)

    def _attempt(self, build: Build, event: JSON) -> Attempt | None:
        one = build.components.get(event.get("component", ""))
        if one is None or "attempt" not in event:
            return None
        suffix = f"/{event['attempt']}"
        return next((attempt for attempt in one.attempts.values() if attempt.id.endswith(suffix)), None)

    def _durations(self, name: str, telling: _Telling, attempt: Attempt, event: JSON, now: float) -> None:
        what = f"{name}: of {attempt.id} it is told that it"
        waited, seconds = event.get("waited", 0.0), event.get("seconds")
        if attempt.began <= telling.since:
            return  # an earlier process began it
        # What an earlier process wrote down is measured by its clock.
        if self._taken[name] == 1 and waited > now - self._submitted[name] + _EXACT:
            self.wrong(f"{what} waited {waited:.1f} s, longer than the build is old")
        if seconds is None or not attempt.departures:
            return
        if seconds > now - attempt.began + _EXACT:
            self.wrong(f"{what} took {seconds:.1f} s, and it began {now - attempt.began:.1f} s ago")
        if (text := event.get("error", "")).startswith("timed out after"):
            least = float(text.split()[3])
        elif event["state"] != "completed" or attempt.answered is None:
            return
        else:
            least = attempt.answered - attempt.departures[-1][0]
        if seconds < least - _EXACT:
            self.wrong(f"{what} took {seconds:.1f} s, and it took {least:.1f} s at least")

    def timed_out(self, name: str, build: Build, attempt: Attempt, seconds: float, now: float) -> None:
        """Check that an attempt timed out after so many seconds, and not much later."""
        begins = [
            self.scenario.heals_at,
            *build.loaded_at.values(),
            *(time for time, _ in attempt.departures),
        ]
        late = now - max(begins) - seconds
        if late > _PATIENCE:
            self.wrong(f"{name}: {attempt.id} timed out {late:.0f} s too late")

    def started(self, name: str, build: Build, retry: Any, now: float) -> None:
        """A component is tried again, after a pause that was decided as (time, seconds)."""
        if retry is None or not self._orderly:
            return
        decided, pause = retry
        late = now - max(self.scenario.heals_at, decided, *build.loaded_at.values()) - pause
        if late > _PATIENCE:
            self.wrong(f"{name}: a pause of {pause:g} s took {late:.0f} s more")
