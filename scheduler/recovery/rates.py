"""The history of a build's own rates: what earlier processes sent within their periods, from the log.

No clocks are compared. Between two records of one process as much time has passed as its clock says. Of the
time between the last record of one process and the first of the next one, by two clocks, up to half a minute
may be their difference, and does not count (`History.doubts`). So a request may count for longer than its
period, and never for less while clocks differ by less than that.
"""

from scheduler.journal.events import Retrying, Sent, Settled, Started, Withdrawn
from scheduler.journal.history import History
from scheduler.limiter import stretched
from scheduler.plan import Plan
from scheduler.runtime.pace import paced

_LOOKED_AT_ONCE = 1_000
"""Events that are looked at in a millisecond or two, where there is one rate."""


async def recent_starts(plan: Plan, history: History, now: float, doubt: float) -> list[tuple[str, float]]:
    """Return the requests of earlier processes that may count for the build's own rates, the last one first.

    Those that are in flight and not known to have left are not among them. One that was sent again is one.

    Args:
        plan: plan of the build, as the log was replayed.
        history: history of its log.
        now: time by the clock of this process, in milliseconds since 1970; not before the last of the log.
        doubt: milliseconds since the last record that may be a difference of clocks (`History.doubt`).

    Returns:
        For each the subject, empty where references supplied a part of it, and the seconds that have passed
        since, at least. In the order of the log, which is roughly that of these times.
    """
    periods = {rule: stretched(rule.period) for rule in plan.state.rules if rule.period is not None}
    """Seconds for which a request counts, by rate."""
    missing = {rule: rule.count for rule in periods}
    """Number of requests that may still matter, by rate: older ones do not, once so many are found."""
    longest = max(periods.values(), default=0.0)
    departures = _Departures(history, now, doubt)
    found: list[tuple[str, float]] = []
    every = max(10, _LOOKED_AT_ONCE // max(1, len(periods)))
    async for place in paced(range(len(history.steps) - 1, -1, -1) if periods else (), every=every):
        if not missing or departures.begun_before(place, longest):
            break
        departure = departures.of(place)
        if departure is None:
            continue
        component, passed = departure
        vertex = plan.graph.index[component]
        known = not plan.requests.has_open_subject(vertex)
        subject = plan.requests.subject(vertex) if known else ""
        concerned = [
            rule for rule in missing if passed < periods[rule] and (not known or rule.matches(subject))
        ]
        for rule in concerned:
            missing[rule] -= 1
            if not missing[rule]:
                del missing[rule]
        if concerned:
            found.append((subject, passed))
    return found


class _Departures:
    """Departures of requests in a history, seen from its end.

    Args:
        history: the history.
        now: as in `recent_starts`.
        doubt: as in `recent_starts`.
    """

    def __init__(self, history: History, now: float, doubt: float) -> None:
        self._history = history
        self._now = now
        self._doubt = doubt
        self._doubts = history.doubts.copy()
        self._told = {component for component, flight in history.in_flight.items() if not flight.sent}
        """Components of whose attempt before this place a later event has told when it left, or that it is
        not known to have left."""

    def begun_before(self, place: int, seconds: float) -> bool:
        """Return whether this is a start so long ago: then all earlier records are as old, at least.

        Other events may be later in the log than they happened.
        """
        return isinstance(self._history.steps[place], Started) and self._passed(place) >= seconds

    def of(self, place: int) -> tuple[str, float] | None:
        """Return a component and the seconds since its request left; None for an event that does not tell."""
        step, told = self._history.steps[place], self._told
        match step:
            case Started():
                if step.component not in told:
                    # As in the logs of earlier versions.
                    return step.component, self._passed(place)
                told.remove(step.component)
            case Withdrawn():
                told.add(step.component)
            case Sent() if step.component not in told:
                told.add(step.component)
                return step.component, self._passed(place)
            case Settled(sent=float()) | Retrying(sent=float()):
                told.add(step.component)
                # Both times are by the clock of the process that wrote them.
                before = 0.0 if step.time is None else max(0.0, step.time - (step.sent or 0.0))
                return step.component, self._passed(place) + before
            case _:
                pass
        return None

    def _passed(self, place: int) -> float:
        """Return the seconds that have passed since an event, at least."""
        while self._doubts and self._doubts[-1][0] > place:
            self._doubt += self._doubts.pop()[1]
        return max(0.0, self._now - self._history.times[place] - self._doubt) / 1_000
