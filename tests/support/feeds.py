"""Events and answers of a scheduler about a build, for the tests of its followers."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from scheduler.client.counts import STATES

JSON: TypeAlias = dict[str, Any]

T = 1_800_000_000.0
"""Some time by the scheduler's clock."""


class Told:
    """A build as its scheduler tells of it: keeps count of states and of events."""

    def __init__(self, *components: str, build: str = "b", action: str = "build.create") -> None:
        self.build = build
        self.action = action
        self.states = dict.fromkeys(components, "waiting")
        self.sequence = 0
        self.status = "running"
        self.fields: dict[str, JSON] = {name: {} for name in components}

    def message(self, *events: JSON, at: float | None = None) -> JSON:
        """A message of ``scheduler.event.<build>``; the times of events are seconds since T."""
        told = []
        for event in events:
            self.sequence += 1
            if "component" in event:
                name, state = event["component"], event["state"]
                self.states[name] = state
                moment = {"running": "sent", "retrying": "failed"}.get(state, "ended")
                kept = {"attempt": event["attempt"], moment: T + event["time"], "error": event.get("error")}
                self.fields.setdefault(name, {}).update(kept)
            told.append({"seq": self.sequence, **event, "time": T + event["time"]})
        latest = max((event["time"] for event in events), default=0.0)
        return {
            "v": 2,
            "build": self.build,
            "seq": self.sequence,
            "time": T + (latest if at is None else at),
            "total": len(self.states),
            "counts": self.counts(),
            "done": self.counts()["completed"],
            "events": told,
        }

    def counts(self) -> dict[str, int]:
        return dict.fromkeys(STATES, 0) | Counter(self.states.values())

    def answer(self, now: float, *, components: bool = True, **fields: Any) -> JSON:
        """The answer to ``get``, ``now`` seconds after T."""
        answer: JSON = {
            "id": self.build,
            "action": self.action,
            "status": self.status,
            "total": len(self.states),
            "counts": self.counts(),
            "accepted": T,
            "run": 1,
            "seq": self.sequence,
            "now": T + now,
            "eta": None,
            "paused": False,
            "limits": [],
            "next": None,
            **fields,
        }
        if components:
            answer["components"] = [self.component(name) for name in self.states]
        return answer

    def component(self, name: str) -> JSON:
        state, known = self.states[name], self.fields[name]
        return {"id": name, "state": state, "attempt": 0, "due": T, "needs": [], **_present(known)}


def _present(fields: Mapping[str, Any]) -> JSON:
    return {key: value for key, value in fields.items() if value is not None}


def event(component: str, state: str, time: float, *, attempt: int = 1, **fields: Any) -> JSON:
    """That a component has a new state."""
    return {"component": component, "state": state, "time": time, "attempt": attempt, **fields}
