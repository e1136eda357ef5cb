"""Asks a running scheduler for what a prediction needs: durations of requests, and limits."""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from scheduler.bus import Bus
from scheduler.client.ask import ask
from scheduler.client.lenient import number, objects, text
from scheduler.commands.asking import run_asking
from scheduler.commands.flags import BrokerFlags, QuietLogFlags
from scheduler.definition.rules import LimitRule, parse_limits
from scheduler.errors import InvalidRule, SteeringError
from scheduler.forecast.durations import Durations, Given
from scheduler.forecast.preview import UNKNOWN, Source
from scheduler.limiter import cap_text


@frozen
class Known:
    """Answer of the scheduler."""

    durations: Durations
    rules: tuple[LimitRule, ...]
    cap: int | None


class _Recorded(Durations):
    """Durations recorded by another process, with its estimate for unknown subjects."""

    def __init__(self, given: Given, answer: Mapping[str, Any]) -> None:
        super().__init__(given)
        self._typical: float | None = None
        durations = answer.get("durations")
        for subject, one in durations.items() if isinstance(durations, Mapping) else ():
            seconds = number(one.get("seconds")) if isinstance(one, Mapping) else None
            if seconds is None or seconds < 0:
                continue
            if one.get("source") == Source.DEFAULT:
                self._typical = seconds
            else:
                self.record(subject, seconds)

    @property
    def typical(self) -> float:
        """Estimated seconds of a request on an unknown subject."""
        return super().typical if self._typical is None else self._typical


def consult(subjects: Iterable[str], given: Given, broker: BrokerFlags, log: QuietLogFlags) -> Known | int:
    """Ask the scheduler; if it cannot be asked, print why and return the exit code.

    Args:
        subjects: the subjects of the requests.
        given: durations given on the command line; they go before the recorded ones.
        broker: the flags of the broker.
        log: the flags of the log.

    Raises:
        SchedulerError: the broker cannot be reached or used.
    """
    found: list[Known] = []

    async def job(bus: Bus) -> int:
        answer = await ask(bus, "plan", {"build": _skeleton(subjects)})
        found.append(_known(answer, given))
        return 0

    code = run_asking(broker, log, job, json=False)
    return found[0] if found else code


def _skeleton(subjects: Iterable[str]) -> dict[str, Any]:
    """Make a build with one component for each subject: small, however large the real one is."""
    changes = []
    for index, subject in enumerate(sorted(subjects)):
        type_, action, provider = subject.split(".")
        if UNKNOWN not in {type_, provider}:
            changes.append(
                {
                    "_component_id": f"{type_}::{index}",
                    "_component": type_,
                    "_action": action,
                    "_provider": provider,
                    "_state": "waiting",
                }
            )
    return {"id": "plan", "action": "build.create", "components": [], "changes": changes, "edges": []}


def _known(answer: Mapping[str, Any], given: Given) -> Known:
    rules: list[LimitRule] = []
    cap = None
    for one in objects(answer.get("limits")):
        label = text(one.get("limit"))
        value = label.rpartition("=")[2]
        if value.isascii() and value.isdigit() and len(value) < 10 and label == cap_text(int(value)):
            cap = int(value)
            continue
        try:
            rules += parse_limits(label)
        except InvalidRule as error:
            raise SteeringError(
                "unreadable", f"the scheduler has a limit that cannot be read: {error}"
            ) from None
    return Known(_Recorded(given, answer), tuple(rules), cap)
