"""What the simulation has to get to, and seeds that get there, as of the last time that they were sought.

A world in which little goes wrong would prove little. The seeds in ``reached.json`` together meet all that is
`WANTED`; where the package has changed so that they do not any more, all of `_AMONG` are gone through.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from scheduler.fleet.lease import LEASE, RENEW_WITHIN, Standing
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
    Withdrawn,
)
from scheduler.journal.records import GIVEN_HEADER, Record, decode_record
from simulation.driver import simulate
from simulation.instances import KINDS
from simulation.judging import chosen
from simulation.scenario import FAULTS
from simulation.trace import Step
from simulation.vanishing import VANISHING

WANTED = (
    *sorted({*FAULTS, *KINDS, "clock", "server", "server apart"}),
    *VANISHING,
    *("pulled out", "taking over"),
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
    *(
        "several instances have builds",
        "four instances",
        "paused",
        "goes on",
        "hung up",
        "Superseded",
        "NameInUse",
    ),
    *("taken over after a lapse", "taken over from one that was paused and goes on", "handed over"),
    *("retaken by name", "paused between a commit and the sending", "its lease ran out with requests queued"),
    *("taken over in a cluster after a lapse", "a renewal that came late", "a lease is renewed again"),
    *("told approve", "told reject", "a gate that nobody decides", "taken up while a gate waits"),
    *("given away", "given away with requests in flight", "a gift that is taken back"),
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


class _Fleet:
    """Tells what is met of instances."""

    def __init__(self, met: Counter[str], servers: int) -> None:
        self._met = met
        self._servers = servers
        self._renewed: dict[str, float] = {}
        """Time of the last renewal of each process that was stored."""
        self._keys: dict[str, tuple[str, str]] = {}
        """Process that has each lease, and what it says."""
        self._left: dict[tuple[str, float], float] = {}
        self._owners: dict[str, str] = {}
        self._paused: set[str] = set()
        self._went_on: set[str] = set()
        self._started: dict[str, set[tuple[str, str]]] = defaultdict(set)
        """Components of each process that were started, and have not left."""

    def see(self, step: Step) -> None:
        """One step more."""
        met = self._met
        match step.kind:
            case "lease left":
                self._left[step.who, step.detail[3]] = step.time
            case "lease kept":
                self._lease(step)
            case "paused":
                self._paused.add(step.who)
            case "goes on":
                self._went_on.add(step.who)
                late = step.time > self._renewed.get(step.who, step.time) + RENEW_WITHIN
                met["its lease ran out with requests queued"] += late and bool(self._started[step.who])
            case "request left":
                self._started[step.who].discard((step.build, step.component))
            case "fails":
                met[step.detail.partition("(")[0]] += 1

    def _lease(self, step: Step) -> None:
        key, instance, standing, renewed, _ = step.detail
        who = instance.rpartition("-")[0]
        before = self._renewed.get(who, step.time)
        self._met["a renewal that came late"] += step.time > self._left[who, renewed] + 1.0
        self._met["a lease is renewed again"] += step.time > before + RENEW_WITHIN
        self._renewed[who] = step.time
        self._keys[key] = (who, standing)

    def record(self, build: str, record: Record, now: float) -> None:
        """One record more of a log."""
        met, who = self._met, record.instance.rpartition("-")[0]
        for event in record.events:
            match event:
                case Loading():
                    self._taken_up(build, who, self._owners.get(build, who), now)
                    self._owners[build] = who
                case Accepted():
                    self._owners[build] = who
                case Started(component=component):
                    self._started[who].add((build, component))
                    met["paused between a commit and the sending"] += who in self._paused - self._went_on
                case _:
                    pass
        met["several instances have builds"] += len(set(self._owners.values())) > 1
        met["four instances"] += len(self._renewed) > 3

    def _taken_up(self, build: str, who: str, before: str, now: float) -> None:
        met = self._met
        leases = [lease for lease in self._keys.values() if lease[0] == before]
        if before == who:
            return
        if not leases:
            met["retaken by name"] += 1
        elif leases[0][1] == Standing.GONE.value:
            met["handed over"] += 1
        elif now > self._renewed[before] + LEASE / 1.05:
            met["taken over after a lapse"] += 1
            met["taken over in a cluster after a lapse"] += self._servers > 1
            paused = before in self._paused - self._went_on
            met["taken over from one that was paused and goes on"] += paused


class _Follower:
    """Tells what is met from what came before it."""

    def __init__(self, servers: int) -> None:
        self.met: Counter[str] = Counter()
        self._fleet = _Fleet(self.met, servers)
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
        self._given: dict[str, str] = {}
        """Process that has given each build away, while nobody has it."""
        self._flying: Counter[str] = Counter()
        """Requests of each build in flight; only those that were started."""

    def see(self, step: Step) -> None:
        """One step more."""
        met = self.met
        met[step.kind] += 1
        self._fleet.see(step)
        match step.kind:
            case "fault begins":
                met[step.detail[0]] += 1
            case "kept" if step.who == "SCHEDULER_LOG" and step.detail[0] != SENTINEL:
                build, record = step.detail[0].rpartition(".")[2], decode_record(step.detail[2])
                self._record(build, record)
                self._fleet.record(build, record, step.time)
                self._gift(build, record, given=GIVEN_HEADER in dict(step.detail[3]))
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

    def _gift(self, build: str, record: Record, *, given: bool) -> None:
        giver = self._given.pop(build, "")
        self.met["a gift that is taken back"] += giver == record.instance
        for event in record.events:
            match event:
                case Started():
                    self._flying[build] += 1
                case Settled() | Retrying() | Withdrawn():
                    self._flying[build] -= 1
                case _:
                    pass
        if given:
            self._given[build] = record.instance
            self.met["given away"] += 1
            self.met["given away with requests in flight"] += self._flying[build] > 0

    def _record(self, build: str, record: Record) -> None:
        self.met.update(_of_a_log(record))
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


_AMONG: Final = "0:300"
"""Seeds among which those that meet something are sought."""
KEPT: Final = Path(__file__).with_name("reached.json")


def met_with(seed: int) -> Counter[str]:
    """Run a seed; count how often each was met."""
    driver = simulate(seed)
    follower = _Follower(driver.scenario.cluster.servers)
    for step in driver.trace.steps:
        follower.see(step)
    return follower.met


def missed(seeds: Iterable[int]) -> set[str]:
    """Return what is wanted and met with none of these seeds; no more of them are run than it takes."""
    left = set(WANTED)
    for seed in seeds:
        if not left:
            break
        left -= {what for what, times in met_with(seed).items() if times}
    return left


def kept() -> list[int]:
    """Return the seeds that met all the last time, then the others; each once."""
    return list(dict.fromkeys([*json.loads(KEPT.read_text()), *chosen(_AMONG)]))


def cover() -> list[int]:
    """Seek few seeds that meet all that is wanted, and keep them."""
    found = {seed: {what for what, times in met_with(seed).items() if times} for seed in chosen(_AMONG)}
    left, seeds = set(WANTED), []
    while left:
        best = max(found, key=lambda seed: len(found[seed] & left))
        if not found[best] & left:
            raise ValueError(f"met with none of the seeds: {', '.join(sorted(left))}")
        seeds.append(best)
        left -= found[best]
    KEPT.write_text(json.dumps(seeds) + "\n")
    return seeds
