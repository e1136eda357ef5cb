"""The simulation gets to where faults are: a world in which little goes wrong would prove little."""

from collections import Counter

import pytest

from scheduler.jetstream.streams import SENTINEL
from scheduler.journal.events import (
    Accepted,
    Cancelled,
    Loading,
    Paused,
    Retried,
    Retrying,
    Settled,
    Started,
    Unpaused,
)
from scheduler.journal.records import Record, decode_record
from simulation.driver import simulate
from simulation.judging import DEFAULT, chosen
from simulation.scenario import FAULTS
from simulation.trace import Step
from simulation.vanishing import VANISHING

WANTED = (
    *sorted({*FAULTS, "clock", "server"}),
    *VANISHING,
    *("server gone", "progress left", "reply arrived"),
    *("log purged", "stream removed", "log removed", "log restored"),
    *("beat arrived", "back arrived", "connector lost", "tried again as a connector was lost"),
    "sent again to a connector that is back",
    *("Withdrawn", "Suspended", "Resumed", "Sent", "Loading", "Released", "Finished", "Reported"),
    *("killed", "lost", "dies", "replies lost", "request unheard", "report left"),
    *("several events in a record", "taken up a second time", "late success kept", "fenced"),
    *("timed out", "failed by a connector", "nobody listened", "outcome unknown"),
    "given up for another attempt",
    *("read back another's record", "sent again by another process", "sent again by the same process"),
    "answered ('accepted', '')",
    "answered ('rejected', 'running')",
    "answered ('rejected', 'finished')",
    *("Retrying", "Cancelled", "Paused", "Unpaused", "Retried", "Supplied", "Extended", "Limited"),
    *(f"told {verb}" for verb in ("get", "cancel", "pause", "resume", "retry", "skip", "extend", "limit")),
    *(f"refused {verb}" for verb in ("cancel", "pause", "resume", "retry", "skip", "extend", "limit")),
    *("refused as conflict", "refused as unknown", "refused as unavailable", "not answered"),
    *("tried again after a time-out", "tried again after a while", "tried once, by its connector's word"),
    *(
        "a third attempt",
        "out of attempts",
        "a retry that the build's end prevents",
        "gone on after an error",
    ),
    *("a second run", "a third run", "a late success adopted", "a late success before the next attempt"),
    *("taken up while paused", "taken up while cancelled", "taken up while it waits for another attempt"),
    *("told approve", "told reject", "a gate that nobody decides", "taken up while a gate waits"),
    *("killed when an order has left", "killed before an operator is told", "told by a process that dies"),
)


def _of_a_log(record: Record) -> Counter[str]:
    """List what a record of a log shows."""
    met = Counter(type(event).__name__ for event in record.events)
    met["several events in a record"] += len(record.events) > 1
    met["taken up a second time"] += record.epoch > 2
    for event in record.events:
        body = event.body if isinstance(event, Settled) else {}
        error = str(body.get("error", ""))
        met["timed out"] += error.startswith("timed out")
        met["connector lost"] += error.startswith("connector lost")
        met["failed by a connector"] += error.endswith("cannot")
        met["nobody listened"] += error.startswith("no connector")
        met["outcome unknown"] += error.startswith("outcome unknown")
        met["given up for another attempt"] += error.endswith("who had it sent again: it hangs")
        met["a gate that nobody decides"] += error.startswith("not approved within")
        met["late success kept"] += "adoptable" in body
        met["tried once, by its connector's word"] += error.endswith("not retryable)")
        met["out of attempts"] += " (after " in error and error.endswith(" attempts)")
        met["a retry that the build's end prevents"] += error.endswith("the build was halted)")
        if isinstance(event, Retrying):
            met["tried again after a time-out"] += event.error.startswith("timed out")
            met["tried again as a connector was lost"] += event.error.startswith("connector lost")
            met["tried again after a while"] += "cannot, for" in event.error
            met["a third attempt"] += int(event.attempt.split("/")[-2]) > 1
        if isinstance(event, Retried):
            met["a second run"] += event.run == 2
            met["a third run"] += event.run == 3
            met["a late success adopted"] += any(
                isinstance(other, Settled)
                and other.component in event.components
                and other.body["_state"] == "completed"
                for other in record.events
            )
    return met


class _Follower:
    """Tells what is met from what came before it."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()
        self._departures: dict[tuple[str, str], str] = {}
        self._state: dict[str, str] = {}
        """Of a build: what an operator has made of it."""
        self._retrying: set[tuple[str, str]] = set()
        self._failed: set[str] = set()
        self._gates: Counter[str] = Counter()
        """Gates of each build that nobody has decided."""
        self._last = ""
        self._told: set[str] = set()
        self._back: set[str] = set()

    def see(self, step: Step) -> None:
        """One step more."""
        met = self.met
        met[step.kind] += 1
        match step.kind:
            case "fault begins":
                met[step.detail[0]] += 1
            case "kept" if step.who == "SCHEDULER_LOG" and step.detail[0] != SENTINEL:
                self._record(step.detail[0].rpartition(".")[2], decode_record(step.detail[2]))
            case "read back":
                met["read back another's record"] += not step.detail.startswith(f"{step.who}-")
            case "request left":
                before = self._departures.get((step.build, step.component))
                met["sent again to a connector that is back"] += step.detail[0] in self._back
                met["sent again by another process"] += before not in {None, step.who}
                met["sent again by the same process"] += before == step.who
                self._departures[step.build, step.component] = step.who
            case "back arrived":
                self._back.update(step.detail)
            case "logs":
                met["fenced"] += "another process has the build" in step.detail
            case "answered":
                met[f"answered {step.detail[:2]}"] += 1
            case "order unheard":
                met["not answered"] += 1
            case "told":
                verb, code, _ = step.detail
                met[f"refused {verb}" if code else f"told {verb}"] += 1
                met[f"refused as {code}"] += 1
            case "told left":
                self._told.add(step.who)
            case "killed":
                met["killed when an order has left"] += self._last in {"order left", "order arrived"}
                met["killed before an operator is told"] += self._last == "append left"
                met["told by a process that dies"] += step.who in self._told
        self._last = step.kind

    def _record(self, build: str, record: Record) -> None:
        self.met += _of_a_log(record)
        for event in record.events:
            match event:
                case Accepted(document=document):
                    self._gates[build] = bytes(document["changes"]).count(b'"_action":"approve"')
                case Paused() | Cancelled():
                    self._state[build] = type(event).__name__.lower()
                case Unpaused() | Retried():
                    self._state.pop(build, None)
                case Retrying(component=component):
                    self._retrying.add((build, component))
                case Loading():
                    self.met[f"taken up while {self._state.get(build)}"] += 1
                    self.met["taken up while a gate waits"] += self._gates[build] > 0
                    waits = any(name == build for name, _ in self._retrying)
                    self.met["taken up while it waits for another attempt"] += waits
                case Started(component=component):
                    self._retrying.discard((build, component))
                    self.met["gone on after an error"] += build in self._failed
                case Settled(component=component, body=body):
                    late = (build, component) in self._retrying and body["_state"] == "completed"
                    self.met["a late success before the next attempt"] += late
                    self._retrying.discard((build, component))
                    self._gates[build] -= body["_action"] == "approve"
                    if body["_state"] == "errored":
                        self._failed.add(build)
                case _:
                    pass


def _met() -> Counter[str]:
    """Count how often each was met."""
    met: Counter[str] = Counter()
    for seed in chosen(DEFAULT):
        if all(met[what] for what in WANTED):
            break
        follower = _Follower()
        for step in simulate(seed).trace.steps:
            follower.see(step)
        met += follower.met
    return met


def test_it_happens(subtests: pytest.Subtests) -> None:
    """In some of the runs that there are by default; they are gone through once, so this is one test."""
    met = _met()
    for what in WANTED:
        with subtests.test(what):
            assert met[what]
