"""Explains attempts in flight: how long one has taken and usually takes, who hears it, and what helps."""

from typing import Any, Final

from scheduler.definition.graph import Vertex
from scheduler.dispatch.call import Call
from scheduler.journal.timings import Timings
from scheduler.plan import Plan
from scheduler.supervision.heartbeats import heartbeats, in_words
from scheduler.supervision.reasons import Knowledge, Reason, command
from scheduler.text import seconds
from scheduler.walk import Walk

_LATE: Final = 3.0
"""Multiple of the usual time from which on an attempt is late."""
_LATE_AT_LEAST: Final = 10.0
"""Seconds before which no attempt is late."""
_LATE_OTHERWISE: Final = 60.0
"""Seconds from which on an attempt is late where nothing is usual."""
_ALIVE: Final = 30.0
"""Seconds from its last heartbeat for which a connector is taken to be at work."""
_LITTLE_TIME: Final = 600.0
"""Seconds until a timeout from which on more time is proposed."""


class Attempts:
    """Explains the attempts of one build that are in flight.

    Args:
        plan: plan of the build.
        timings: its times.
        walk: its walk; None where it does not run here.
        knowledge: what is known of requests beside the build.
    """

    def __init__(self, plan: Plan, timings: Timings, walk: Walk | None, knowledge: Knowledge) -> None:
        self._plan = plan
        self._timings = timings
        self._walk = walk
        self._knowledge = knowledge

    def reason(self, vertex: Vertex) -> Reason:
        """Explain what the attempt of a component waits for."""
        call = None if self._walk is None else self._walk.call_of(vertex)
        subject = self._plan.requests.subject(vertex) if call is None else call.request.subject
        sent = self._timings.sent(vertex)
        more: dict[str, Any] = {"subject": subject, "attempt": self._plan.attempt(vertex)}
        if call is not None and call.unheard_of:
            text = f"no connector is subscribed to {subject}"
            return Reason(text, sent, {**more, "connector": "none"})
        if call is not None and call.is_queued:
            return Reason("its request waits for the connection to the broker", sent, more)
        return self._silent(vertex, call, subject, sent, more)

    def _silent(
        self, vertex: Vertex, call: Call | None, subject: str, sent: float | None, more: dict[str, Any]
    ) -> Reason:
        """Explain an attempt that a connector has, or had, and has not answered."""
        usual = self._knowledge.usual(subject)
        age = None if sent is None else max(0.0, self._timings.clock() - sent)
        left = None if call is None else call.time_left
        beats = heartbeats(call, self._plan.texts)
        alive = bool(beats) and beats["beat"] < _ALIVE
        gone = not alive and self._knowledge.subscribed.get(subject) is False
        facts = [] if age is None else [f"sent {seconds(age)} ago"]
        if usual is not None:
            facts.append(f"usually {seconds(usual)}")
            more["usual"] = round(usual, 3)
        if left is not None:
            more["timeout"] = round(left, 3)
        if gone:
            text = f"nobody is seen to subscribe to {subject} now: its connector may have ended"
        else:
            text = f"it waits for its connector to answer on {subject}"
        if facts:
            text = f"{', '.join(facts)}: {text}"
        if beats:
            more |= beats
            text += f"; {in_words(beats)}"
        if left is not None:
            text += f"; it times out in {seconds(left)}"
        if call is not None and call.lost:
            # With --resend always it has left again by now.
            text += "; the connection that it was sent over was lost: a broker that hangs may have kept it"
        if call is not None and (missed := call.maybe_missed):
            text += f"; {missed}: check whether it was done, then skip it (with what was returned)"
        more["connector"] = "gone" if gone else "silent"
        helpless = gone or (not alive and _is_late(age, usual))
        return Reason(text, sent, more, self._cures(vertex, left) if helpless else ())

    def _cures(self, vertex: Vertex, left: float | None) -> list[str]:
        build, component = self._plan.build.id, self._plan.graph.ids[vertex]
        cures = [command("retry", build, component, "--now")]
        if left is not None and left < _LITTLE_TIME:
            cures.append(command("extend", build, component, "1h"))
        return [*cures, command("skip", build, component, "--output", "@FILE")]


def _is_late(age: float | None, usual: float | None) -> bool:
    if age is None:
        return False
    return age > (_LATE_OTHERWISE if usual is None else max(_LATE_AT_LEAST, _LATE * usual))
