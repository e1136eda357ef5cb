"""Judges a trace by the promises of the service: the log is that of the stream, not that of the process.

A broken rule raises nothing; it adds a line to the problems. The letters are those of the promises: G1
durable acceptance, G2 order, G3 one outcome, G4 at least once and known by its attempt, G5 stop on error, G6
one report, G7 fencing, G8 bounds on what builds cost each other; "told" is what operators were told. The
checker is one class, longer than others: every rule reads the same knowledge, step by step.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from support.fake_jetstream import DAY_ZERO, SECOND

from scheduler.errors import UnreadableLog
from scheduler.fleet.bucket import STREAM as LEASES
from scheduler.jetstream.streams import SENTINEL
from scheduler.journal.events import (
    Accepted,
    Cancelled,
    Extended,
    Limited,
    Loading,
    Paused,
    Reported,
    Retried,
    Retrying,
    Sent,
    Settled,
    Started,
    Supplied,
    Unpaused,
    Withdrawn,
)
from scheduler.journal.records import GIVEN_HEADER, LEFT, Elsewhere, Position, Status, decode_record
from scheduler.recovery.crash_loops import RELEASE
from simulation.bounds import Bounds
from simulation.gating import DECISIONS, Gating, is_gate
from simulation.gauges import Gauges
from simulation.handing_over import HandingOver
from simulation.knowledge import Attempt, Build, Component, Reply
from simulation.labour import BOUNDLESS
from simulation.ordering import Ordering
from simulation.pulses import Pulses
from simulation.replies import Replies
from simulation.rulebook import Rulebook
from simulation.scenario import Scenario, dependencies, subject_of
from simulation.tenures import FINAL, Ground, Tenures
from simulation.times import Times
from simulation.trace import Step

_LONG_ENOUGH = 5.0
"""Seconds within which processes learn that the logs are there again."""
_TICK = 1.1
"""Seconds by which the service may be wrong about the length of an outage."""
_SHORT_PAUSE = 5.0
"""Seconds for which a process may stand still and take that for time that passed."""
_READING = 0.5
"""Seconds that it may take to read the log of a build."""
_ANSWER = 1.0
"""Seconds that an answer may be under way."""
_IN_USE = re.compile(r"NameInUse\(.*: (\w+)-\S+ answers")
_DEEDS = {
    "cancel": "Cancelled",
    "pause": "Paused",
    "resume": "Unpaused",
    "retry": "Retried",
    "skip": "Supplied",
    "extend": "Extended",
    "limit": "Limited",
    **DECISIONS,
}
"""Event that the log must have once an operator is told that a command was carried out."""


class Checker:
    """Goes through a trace once; `problems` is empty where all promises were kept."""

    def __init__(self, scenario: Scenario) -> None:
        self.problems: list[str] = []
        self._scenario = scenario
        self._rulebook = Rulebook(scenario)
        self._gauges = Gauges(scenario, self._rulebook, self._wrong, lambda: self._now)
        self._times = Times(scenario, self._wrong)
        self._replies = Replies(scenario, self._wrong)
        self._ordering = Ordering(scenario, self._rulebook, self._wrong)
        self._bounds = Bounds(scenario, self._rulebook, self._wrong)
        self._gating = Gating(scenario, self._wrong)
        self._builds: dict[str, Build] = {}
        for document in scenario.builds:
            needed = dependencies(document)
            components = {change["_component_id"]: Component(change) for change in document["changes"]}
            build = self._builds[document["id"]] = Build(document, needed, components)
            build.most_failures = self._rulebook.most_failures(document)
        self._interruptions: dict[str, list[tuple[float, str]]] = {}
        self._tokens: dict[str, tuple[str, str, str]] = {}
        self._orders: dict[str, tuple[float, str, str, str]] = {}
        """By where it is answered: when something was asked, the verb, the build, the component."""
        self._pauses: dict[str, list[tuple[float, float]]] = {}
        """By process: when it stood still, and until when."""
        self._pulses = Pulses(self._wrong, self._interruptions)
        self._tenures = Tenures(
            scenario.instances, scenario.cluster.servers, self._wrong, self._interruptions
        )
        self._handing_over = HandingOver(
            scenario, self._wrong, self._builds, self._interruptions, self._tenures
        )
        self._rules: dict[str, Callable[[Step], None]] = {
            "kept": self._kept,
            "request left": self._request_left,
            "request arrived": self._request_arrived,
            "request unheard": self._unheard,
            "append left": self._append_left,
            "read back": self._read_back,
            "report left": self._report_left,
            "report arrived": self._report_arrived,
            "stream removed": self._stream_removed,
            "log removed": self._log_removed,
            "log restored": self._log_restored,
            "log purged": self._log_purged,
            "end": self._end_of_the_run,
            "answers": self._answers,
            "remembers": self._remembers,
            "submits": lambda step: self._times.submitted(step.build, step.time),
            "progress left": self._progress,
            "reply arrived": lambda step: self._replies.arrived(step.detail, step.time),
            "beat arrived": lambda step: self._pulses.beat(step.detail, step.time),
            "back arrived": lambda step: self._pulses.returned(step.detail),
            "stopping": lambda step: self._handing_over.stopping(step.who, step.time),
            "lease left": lambda step: self._tenures.left(step.who, step.detail[3], step.time),
            "lease kept": lambda step: self._tenures.kept(*step.detail[:4]),
            "lease seen": lambda step: self._tenures.seen(step.who, step.detail, step.time),
            "starts": lambda step: self._replies.started(step.who, step.time),
            "server gone": lambda step: self._replies.gone(step.time),
            "taken": self._taken,
            "replies lost": self._replies_lost,
            "order left": self._order_left,
            "told left": self._told_left,
            "accepted left": self._accepted_left,
            "answered": self._answered,
            "held": self._held,
            "differs": self._differs,
            "fails": self._fails,
            "fault": self._fails,
            "connected": self._interrupted,
            "silent": self._interrupted,
            "heard": self._interrupted,
            "hung up": self._interrupted,
            "lost": self._interrupted,
            "killed": self._interrupted,
            "paused": self._paused,
            "goes on": self._goes_on,
            "ends": self._interrupted,
        }
        self._now = 0.0
        self._log_gone = False
        self._log_back_at = -1e9
        self._ended_at = float("inf")

    def _wrong(self, text: str) -> None:
        self.problems.append(f"{self._now:.4f} {text}")

    def check(self, steps: Iterable[Step], *, stuck: bool) -> list[str]:
        """All that is wrong, each with the time at which it shows."""
        for step in steps:
            self._now = step.time
            if self._is_about_a_purged_build(step):
                continue
            self._handing_over.look(step.time)
            rule = self._rules.get(step.kind)
            if rule is not None:
                rule(step)
        for name, build in self._builds.items():
            self._at_the_end(name, build, stuck=stuck)
        return self.problems

    def _held(self, step: Step) -> None:
        self._wrong(f"G8 {step.who} keeps the loop for {step.detail:.4f} s")

    def _differs(self, step: Step) -> None:
        self._wrong(f"{step.build}: the log does not say what the plan has done: {step.detail}")

    # What the log says.

    def _kept(self, step: Step) -> None:
        subject, sequence, data, headers = step.detail
        match step.who:
            case "SCHEDULER_LOG" if subject != SENTINEL:
                self._record(subject.rpartition(".")[2], data, dict(headers))
            case "SCHEDULER_REPLIES":
                self._captured(subject, sequence, data)
            case "SCHEDULER_REPORTS":
                _, _, name, run = subject.split(".")
                self._report_kept(name, int(run), data)

    def _record(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        build = self._builds[name]
        try:
            record = decode_record(data)
            build.history.add(record)
        except UnreadableLog as error:
            self._wrong(f"{name}: the log does not fold: {error}")
            return
        n, who = record.n, record.instance.rpartition("-")[0]
        build.instances.append(who)
        self._times.written(name, record.at)
        build.asked_at = build.left.get(record.record_id, self._now)
        if any(not isinstance(event, Loading) for event in record.events):
            build.holder = who
        begins = any(isinstance(event, Accepted | Loading | Retried) for event in record.events)
        if who not in {build.owner, RELEASE} and not begins:
            self._wrong(f"G7 {name}: {who} writes record {n}, and {build.owner} has the build")
        if headers.get("Scheduler-Status") != build.history.status.value:
            self._wrong(f"{name}: record {n} says {headers.get('Scheduler-Status')}")
        if record.epoch < build.epoch + any(isinstance(event, Loading) for event in record.events):
            self._wrong(f"G7 {name}: record {n} has epoch {record.epoch}, and the last one {build.epoch}")
        build.epoch = record.epoch
        if GIVEN_HEADER in headers:
            # From here on nobody sends anything or writes, until it is taken up.
            build.given_by, build.owner = who, ""
        for event in record.events:
            assert not isinstance(event, Elsewhere)
            self._event(name, build, n, who, event)
        self._position(name, build, record.position)

    def _taken_up(self, name: str, build: Build, n: int, who: str) -> None:
        """Check that a build is taken from a process which has lost it; nobody else's records come later."""
        before = build.instances[n - 2]
        if before not in {who, RELEASE}:
            ground = Ground.GIVEN if build.given_by else self._tenures.ground(who, before, self._now)
            if ground is None:
                self._wrong(f"G7 {name}: {who} takes it away from {before}, whose lease holds")
            build.ground, build.taken_from = ground, before
            build.stray.clear()
        if build.given_by:
            self._bounds.moved(build)
        build.given_by, build.owner = "", who

    def _position(self, name: str, build: Build, position: Position) -> None:
        """Every reply up to the position is in the log, or nobody waits for it."""
        until = (position.time - DAY_ZERO) / SECOND + 1e-6
        for component, one in build.components.items():
            if one.current is None or one.settled is not None or not one.current.departures:
                continue
            first = one.current.departures[0][0]
            for reply in one.current.replies:
                if first <= reply.time <= until and reply.sequence <= position.sequence:
                    self._wrong(
                        f"G1 {name}: the position is {position.sequence}, behind a reply to {component}"
                    )

    def _event(self, name: str, build: Build, n: int, who: str, event: Any) -> None:
        match event:
            case Accepted():
                build.loaded[who] = n
                build.owner = who
                self._times.taken_up(name, who, self._now)
                self._ordering.accepted(build)
                self._gating.note_due(name, build, build.asked_at)
                self._bounds.settled(build, None, self._now)
            case Loading():
                build.loadings += 1
                self._taken_up(name, build, n, who)
                self._load(build, n, who)
            case Started(component=component, attempt=attempt):
                self._ordering.started(build, component)
                self._started(name, build, n, component, attempt)
            case Sent(component=component, attempt=attempt):
                one = build.components[component].attempt(attempt)
                one.sent_at = one.sent_at or n
                if not one.arrived:
                    self._wrong(f"G4 {name}: {attempt} is said to be sent, and never arrived")
            case Withdrawn(component=component):
                self._end(build.components[component], 0)
                self._gauges.ended(name, component)
            case Retrying(component=component):
                self._retrying(name, build, n, component, event)
            case Settled(component=component, body=body):
                in_flight = build.components[component].current is not None
                self._settled(name, build, n, component, body)
                self._ordering.settled(build, component, in_flight=in_flight)
                self._gating.note_due(name, build, build.asked_at)
                self._bounds.settled(build, component, self._now)
            case Reported(run=run):
                build.run(run).reported_at = n
                if not build.run(run).published:
                    self._wrong(f"G6 {name}: it is said to be reported, and no report has arrived")
            case Cancelled() | Paused() | Unpaused() | Retried() | Supplied() | Extended() | Limited():
                self._steered(build, n, who, event)
            case _:
                pass

    def _load(self, build: Build, n: int, who: str) -> None:
        build.loaded[who] = n
        build.loaded_at[who] = self._now
        self._times.taken_up(build.document["id"], who, self._now)
        build.fenced.discard(who)

    def _end(self, one: Component, n: int) -> None:
        """End the current attempt; with ``n`` 0, it never left."""
        if one.current is not None:
            one.current.ended_at = n
            if not n:
                one.current.started_at = 0
                one.tries -= 1
            one.current = None

    def _started(self, name: str, build: Build, n: int, component: str, identity: str) -> None:
        one = build.components[component]
        attempt = one.attempt(identity)
        if one.current is not None:
            self._wrong(f"G4 {name}: {component} is started as {identity}, after {one.current.id}")
        if attempt.ended_at:
            self._wrong(f"G4 {name}: {component} is started as {identity}, which was used before")
        if BOUNDLESS in component:
            self._wrong(f"G8 {name}: {component} is started, and takes more work than any component may")
        attempt.started_at, attempt.began = n, self._now
        self._times.started(name, build, one.pause, self._now)
        one.current, one.pause = attempt, None
        one.tries += 1
        most = self._rulebook.retry(build.document, one.change).attempts
        if one.tries > most:
            self._wrong(f"G4 {name}: {component} is started {one.tries} times, and {most} are allowed")
        if missing := self._incomplete(build, component):
            self._wrong(f"G2 {name}: {component} is started before {missing} is completed")

    def _retrying(self, name: str, build: Build, n: int, component: str, event: Retrying) -> None:
        one = build.components[component]
        if "cannot, ever" in event.error:
            self._wrong(f"{name}: {component} is tried again, and its connector said that it is of no use")
        if "cannot, for" in event.error and event.pause < float(event.error.split()[-2]):
            self._wrong(f"{name}: {component} is tried again in {event.pause} s: {event.error}")
        if event.error.startswith("outcome unknown"):
            self._wrong(f"G4 {name}: {component} is tried again, its outcome unknown")
        self._has_a_reason(name, build, component, one, event.error)
        one.pause = self._now, event.pause
        self._end(one, n)
        self._gauges.ended(name, component)

    def _steered(self, build: Build, n: int, who: str, event: Any) -> None:
        """An operator did something, as the log says."""
        build.deeds.append((self._now, type(event).__name__, getattr(event, "component", "")))
        match event:
            case Cancelled():
                self._halt(build, n)
                build.cancelled, build.paused_at = True, 0
            case Paused():
                build.paused_at = n
            case Unpaused():
                build.paused_at = 0
            case Retried(components=components, run=run):
                afresh = run > build.last_run
                if afresh:
                    build.owner = who
                    build.last_run, build.paused_at = run, 0
                    self._load(build, n, who)
                    self._gauges.reopened(build.document["id"])
                for component in components:
                    self._reopen(build, component)
                self._gating.note_due(build.document["id"], build, build.asked_at, afresh=afresh)
                self._forgive(build)
            case Supplied(component=component, output=output):
                failed = build.components[component].settled is not None
                self._reopen(build, component)
                build.components[component].supplied = output
                build.components[component].supplied_at = n
                if failed:
                    self._forgive(build)
            case Extended(component=component, seconds=seconds):
                self._gating.extended(build.document["id"], component, seconds)
            case Limited(limits=limits):
                self._gauges.limited(build.document["id"], n, dict(limits))

    def _halt(self, build: Build, n: int) -> None:
        build.halted_at = build.halted_at or n
        build.ever_halted = True

    def _reopen(self, build: Build, component: str) -> None:
        one = build.components[component]
        if one.settled is not None:
            one.settled = None
            one.tries = 0
            build.settled_at.pop(component, None)

    def _forgive(self, build: Build) -> None:
        """Check that a process which sends something again knows of the other failures."""
        build.forgiven = self._failures(build)
        build.halted_at, build.cancelled = 0, False

    def _failures(self, build: Build) -> int:
        return sum(
            one.settled is not None and one.settled["_state"] == "errored"
            for one in build.components.values()
        )

    def _settled(self, name: str, build: Build, n: int, component: str, body: Mapping[str, Any]) -> None:
        one = build.components[component]
        if one.settled is not None:
            if "adoptable" not in body or body["_state"] != one.settled["_state"]:
                self._wrong(f"G3 {name}: {component} has a second outcome, {body['_state']}")
            one.settled = body
            return
        one.settled = body
        build.settled_at[component] = n
        if is_gate(one.change):
            self._gating.settled(name, build, component, body, self._now)
        if body["_state"] == "errored":
            if not is_gate(one.change):
                self._failed(name, build, component, one, body)
            if self._failures(build) > build.forgiven + build.most_failures:
                self._halt(build, n)
        elif one.supplied is not None and {**body, **one.supplied} == body:
            pass
        elif (
            body["_action"] not in {"none", "approve"}
            and one.answers.get(body.get("serial", "")) != "completed"
        ):
            self._wrong(f"G3 {name}: {component} is completed, and no connector said so")
        self._end(one, n)
        self._gauges.ended(name, component)

    def _failed(
        self, name: str, build: Build, component: str, one: Component, body: Mapping[str, Any]
    ) -> None:
        """Tell whether there is an outside reason for a failure."""
        text = body.get("error", "")
        if body.get("serial") in one.answers and "cannot" in text:
            return
        self._has_a_reason(name, build, component, one, text)

    def _has_a_reason(self, name: str, build: Build, component: str, one: Component, text: str) -> None:
        attempt = one.current
        if BOUNDLESS in component and text.startswith("work: takes more than"):
            return
        first = attempt.departures[0][0] if attempt is not None and attempt.departures else None
        kept = [reply for reply in attempt.replies if reply.time >= first] if attempt and first else []
        if text.endswith("(not tried again: the build was halted)") and attempt is None:
            if not build.halted_at:
                self._wrong(f"{name}: {component} is not tried again, and the build was not halted")
        elif "cannot" in text:
            if "errored" not in one.answers.values():
                self._wrong(f"{name}: {component} fails, and no connector said so")
        elif text.startswith("timed out after"):
            seconds = float(text.split()[3])
            if attempt is None or first is None:
                # Whether it had left a process cannot know that takes the build up, and must send nothing.
                if not (build.ever_halted and build.changed_hands):
                    self._wrong(f"{name}: {component} timed out and never left")
                return
            until = first + seconds - 0.001
            if build.changed_hands and not self._scenario.clocks.agree:
                # By the clock of the process that took it up, its time may have been over by then.
                until = min(until, max(build.loaded_at.values()))
            if any(reply.time < until for reply in kept):
                self._wrong(f"{name}: {component} timed out, and its reply was captured in time")
            # What may have left before the build was halted is not sent again.
            lost = not attempt.arrived and not one.ever_unheard and not build.ever_halted
            if lost and self._scenario.resend != "never":
                self._wrong(f"G4 {name}: {component} timed out, and never reached the broker")
            self._too_early(name, build, component, attempt, seconds)
            self._replies.timed_out(name, build, attempt, seconds)
            self._times.timed_out(name, build, attempt, seconds, self._now)
        elif text.startswith("connector lost: "):
            self._pulses.lost(name, build, attempt, text, self._now)
        elif text.startswith("no connector is subscribed"):
            if not one.ever_unheard:
                self._wrong(f"{name}: {component} fails for want of a connector, and was heard")
        elif text.startswith("outcome unknown: given up by an operator"):
            again = "who had it sent again" in text
            wanted = ("retry", name, component) if again else ("cancel", name, "")
            if not any(order[1:] == wanted for order in self._orders.values()):
                self._wrong(f"{name}: {component} was given up, and nobody asked for that")
        elif text.startswith("outcome unknown"):
            taken_up = max(build.loaded_at.values(), default=0.0)
            if any(reply.time < taken_up for reply in kept):
                self._wrong(f"{name}: the outcome of {component} is unknown, and its reply was captured")
            if not build.changed_hands:
                self._wrong(f"{name}: the outcome of {component} is unknown without a restart")
        else:
            self._wrong(f"{name}: {component} fails by a fault of ours: {text[:200]}")

    def _too_early(self, name: str, build: Build, component: str, one: Attempt, seconds: float) -> None:
        """An outage counts for nobody's time, where one process saw all of it."""
        first, who = one.departures[0]
        lost: float | None = None
        outage = 0.0
        for when, kind in self._interruptions.get(who, ()):
            if when < first:
                continue
            if kind == "lost":
                lost = when
            elif kind == "connected" and lost is not None:
                outage += max(0.0, when - lost - _TICK)
                lost = None
            elif kind in {"killed", "ends"}:
                outage, lost = 0.0, None
                break
        # Of the time before it left a part may have counted: for as long as a break goes unnoticed, and while
        # the process stood still for a short time.
        held_back = min(_TICK, max(0.0, first - one.began))
        for begin, end in self._pauses.get(who, ()):
            held_back += min(_SHORT_PAUSE, max(0.0, min(end, first) - max(begin, one.began)))
        alone = not build.changed_hands and len({sender for _, sender in one.departures}) == 1
        if alone and self._now < first + seconds + outage - held_back - 0.05:
            self._wrong(f"{name}: {component} timed out {self._now - first:.2f} s after it left")

    def _incomplete(self, build: Build, component: str) -> str:
        for other in sorted(build.needed[component]):
            settled = build.components[other].settled
            if settled is None or settled["_state"] != "completed":
                return other
        return ""

    # What processes do.

    def _paused(self, step: Step) -> None:
        self._pauses.setdefault(step.who, []).append((step.time, math.inf))

    def _goes_on(self, step: Step) -> None:
        begin, _ = self._pauses[step.who].pop()
        self._pauses[step.who].append((begin, step.time))

    def _interrupted(self, step: Step) -> None:
        self._interruptions.setdefault(step.who, []).append((step.time, step.kind))

    def _request_left(self, step: Step) -> None:
        name, component, who = step.build, step.component, step.who
        build = self._builds[name]
        one = build.components[component]
        identity, subject, reply, size = step.detail
        attempt = one.attempt(identity)
        self._tokens[reply] = (name, component, identity)
        if is_gate(one.change):
            self._wrong(f"G2 {name}: the gate {component} is sent")
        if not attempt.started_at:
            self._wrong(f"G2 {name}: {identity} leaves before its start is committed")
        if missing := self._incomplete(build, component):
            self._wrong(f"G2 {name}: {component} leaves before {missing} is completed")
        if who in build.fenced:
            self._wrong(f"G7 {name}: {component} is sent by {who}, which is fenced")
        self._tenures.sends(who, f"{component} of {name}", self._now)
        if who != build.owner:
            self._sent_by_a_stranger(name, build, identity, who)
        if build.knows(who, build.settled_at.get(component, 0)):
            self._wrong(f"G3 {name}: {component} is sent after its outcome")
        if build.knows(who, attempt.ended_at):
            self._wrong(f"G4 {name}: {identity} is sent after its end")
        if build.knows(who, one.supplied_at):
            self._wrong(f"told {name}: {component} is sent, and an operator has supplied its output")
        if not attempt.departures:
            if build.knows(who, build.halted_at):
                self._wrong(f"G5 {name}: {identity} is sent for the first time, and the build is halted")
            # A resumption counts from when it is decided; that comes before the log says so.
            if build.knows(who, build.paused_at) and not build.resuming:
                self._wrong(f"told {name}: {identity} is sent for the first time, and the build is paused")
            self._bounds.left(build, component, self._now)
            counts = attempt.started_at > build.loaded.get(who, 0)
            self._gauges.sent(
                build, who, attempt, one.change, subject, size=size, counts=counts, now=self._now
            )
        else:
            self._sent_again(name, build, component, attempt, who)
        attempt.departures.append((step.time, who))
        self._pulses.sent(identity, step.time)
        attempt.unheard = False

    def _sent_by_a_stranger(self, name: str, build: Build, identity: str, who: str) -> None:
        """A process may not know yet that it has lost a build: then it sends what it began, and once."""
        if who != build.taken_from or build.ground in FINAL or identity in build.stray:
            why = "" if build.ground is None else f": {build.ground.value}"
            self._wrong(f"G7 {name}: {identity} is sent by {who}, and {build.owner} has the build{why}")
        build.stray.add(identity)

    def _sent_again(self, name: str, build: Build, component: str, one: Attempt, who: str) -> None:
        if one.unheard or self._pulses.takes(one.id, who, self._now):
            return
        resend = self._scenario.resend
        if resend != "always" and build.knows(who, one.sent_at):
            self._wrong(f"G4 {name}: {component} is sent again, and was known to have left")
        when, before = one.departures[-1]
        if any(reply.time < build.loaded_at.get(who, 0.0) for reply in one.replies):
            self._wrong(f"G4 {name}: {component} is sent again, and its reply had been captured")
        if before != who:
            # Who takes a build over cannot know, and does it once.
            if who == build.owner and build.loaded.get(who, 0) < one.started_at:
                self._wrong(f"G4 {name}: {one.id} is sent by {who}, and had left from {before}")
            return
        if resend == "never":
            self._wrong(f"G4 {name}: {component} is sent again, which it never should be")
        if resend == "always" and build.loaded_at.get(who, 0.0) > when:
            # It has given the build away meanwhile, and taken it back.
            return
        lost = [at for at, kind in self._interruptions.get(who, ()) if kind == "lost" and at >= when]
        if not lost:
            self._wrong(f"G4 {name}: {component} is sent again over the same connection")

    def _request_arrived(self, step: Step) -> None:
        self._builds[step.build].components[step.component].attempt(step.detail[0]).arrived += 1

    def _unheard(self, step: Step) -> None:
        one = self._builds[step.build].components[step.component]
        attempt = one.attempt(step.detail[0])
        attempt.unheard = one.ever_unheard = True
        self._pulses.unheard(attempt.id)
        attempt.arrived -= 1
        self._gauges.answered(attempt.id)

    def _append_left(self, step: Step) -> None:
        build = self._builds[step.build]
        record, takes_up = step.detail
        build.left.setdefault(record, self._now)
        # Behind the instance, the epoch and the number stands what makes it unlike any other.
        record = record.removesuffix(LEFT).rpartition("-")[0]
        build.asked[step.who] = int(record.rpartition("-")[2])
        if step.detail[0].endswith(LEFT):
            # Its walk has ended, and holds nothing any more; until the build is taken up nobody does.
            self._gauges.given(step.build)
        # One that would be the first of a log is how a second submission is settled: it is refused.
        if step.who in build.fenced and not takes_up and not record.endswith("-1-1"):
            self._wrong(f"G7 {step.build}: {step.who} is fenced, and writes {record}")

    def _read_back(self, step: Step) -> None:
        """A process whose append was refused sees another's record after its own: it is fenced."""
        build = self._builds[step.build]
        instance, _, number, _ = step.detail.removesuffix(LEFT).rsplit("-", 3)
        who = instance.rpartition("-")[0]
        mine = [n for n, instance in enumerate(build.instances, 1) if instance == step.who]
        refused = mine and build.asked.get(step.who, 0) > mine[-1]
        if who != step.who and refused and int(number) > mine[-1] and step.who in build.loaded:
            build.fenced.add(step.who)

    def _progress(self, step: Step) -> None:
        events = json.loads(step.detail)
        self._times.told(step.build, self._builds[step.build], step.who, events, self._now)
        self._gating.told(step.build, events, self._now)

    def _remembers(self, step: Step) -> None:
        # Another one that hears nothing for a while need not know.
        if self._builds[step.build].instances[-1] == step.who:
            self._wrong(f"{step.build}: it is over, and {step.who} keeps it in memory")

    # Replies.

    def _answers(self, step: Step) -> None:
        one = self._builds[step.build].components.get(step.component)
        if one is not None:
            state, serial, _, attempt = step.detail
            one.answers[serial] = state
            self._replies.said(serial, attempt)
            current = one.attempts.get(attempt)
            if current is not None and current.answered is None:
                current.answered = self._now
            self._gauges.answered(attempt)

    def _taken(self, step: Step) -> None:
        build = self._builds[step.build]
        attempt, references = step.detail
        if attempt not in build.components[step.component].attempts:
            self._wrong(f"{step.build}: {step.component} reaches a connector as {attempt}, which never left")
        for key, value in references:
            other = build.components[key].settled
            if other is None or other.get("serial") != value:
                self._wrong(f"G2 {step.build}: {step.component} refers to what {key} did not return: {value}")

    def _captured(self, subject: str, sequence: int, data: bytes) -> None:
        body = json.loads(data)
        names = body.get("service"), body.get("_component_id"), ""
        name, component, identity = self._tokens.get(subject, names)
        build = self._builds.get(name)
        one = build.components.get(component) if build is not None else None
        if one is None:
            return
        # On a shared subject it does not say which attempt it is about: it is taken for the last one.
        attempt = one.attempt(identity) if identity else one.current
        if attempt is not None:
            attempt.replies.append(Reply(sequence, self._now, body["_state"]))

    def _replies_lost(self, step: Step) -> None:
        for build in self._builds.values():
            for one in build.components.values():
                for attempt in one.attempts.values():
                    attempt.replies = [
                        reply for reply in attempt.replies if reply.sequence not in step.detail
                    ]

    # What operators ask for, and are told.

    def _order_left(self, step: Step) -> None:
        verb, reply, document = step.detail
        self._orders[reply] = (self._now, verb, step.build, step.component)
        if verb in DECISIONS:
            self._gating.ordered(verb, step.build, step.component)
        if verb in {"pause", "resume"}:
            self._builds[step.build].resuming = verb == "resume"
        if verb == "skip" or document.get("now"):
            self._gauges.dropped(step.build)

    def _told_left(self, step: Step) -> None:
        """Check that a command which was reported as carried out is in the log."""
        subject, done = step.detail
        asked, verb, name, component = self._orders[subject]
        build = self._builds[name]
        if verb == "resume" and not done:
            build.resuming = False
        if not done or verb not in _DEEDS:
            return
        kind = _DEEDS[verb]
        if verb == "cancel" and build.cancelled:
            return
        found = (deed for deed in build.deeds if deed[0] >= asked and deed[1] == kind)
        if not any(verb == "retry" or deed[2] == component for deed in found):
            self._wrong(f"told {name}: an operator is told that {verb} is done, and the log does not have it")

    # Reports, and what clients hear.

    def _report_kept(self, name: str, number: int, data: bytes) -> None:
        build = self._builds[name]
        run = build.run(number)
        if run.report is not None:
            self._wrong(f"G6 {name}: a second report of run {number} is stored")
        if number != build.last_run:
            self._wrong(f"G6 {name}: a report of run {number} is stored in run {build.last_run}")
        run.report = data
        if build.history.status is not Status.FINISHED or build.history.in_flight:
            self._wrong(f"G6 {name}: it is reported before it is over")
        report = json.loads(data)
        said = {one["_component_id"]: one["_state"] for one in report["changes"]}
        for component, one in build.components.items():
            mine = "waiting" if one.settled is None else one.settled["_state"]
            if said[component] != mine:
                self._wrong(f"G3 {name}: {component} is {mine} in the log, {said[component]} in the report")
        failed = [component for component, state in said.items() if state != "completed"]
        # Who cancels it is told so, although what was in flight may have been all that was left.
        if bool(failed) != bool(report.get("error")) and not (build.cancelled and not failed):
            self._wrong(f"{name}: the report says {report.get('error')!r}, and {failed} are not completed")

    def _report_left(self, step: Step) -> None:
        build = self._builds[step.build]
        subject, identity, data = step.detail
        run = build.runs.get(int(identity.split("/")[1])) if identity.count("/") == 2 else None
        if run is None or data != run.report:
            self._wrong(f"G6 {step.build}: a report is published that was not stored, as {identity!r}")
            return
        run.report_id = run.report_id or identity
        if identity != run.report_id:
            self._wrong(f"G6 {step.build}: the report is published as {identity!r}, not {run.report_id!r}")
        suffix = "error" if json.loads(data).get("error") else "done"
        if subject != f"{subject_of(build.document)}.{suffix}":
            self._wrong(f"G6 {step.build}: the report is published on {subject}")
        if build.knows(step.who, run.reported_at):
            self._wrong(f"G6 {step.build}: the report is published again, although that was noted")

    def _report_arrived(self, step: Step) -> None:
        identity = step.detail[1]
        if identity.count("/") == 2:
            self._builds[step.build].run(int(identity.split("/")[1])).published += 1

    def _accepted_left(self, step: Step) -> None:
        if self._builds[step.build].history.accepted is None:
            self._wrong(
                f"G1 {step.build}: a caller is told that it is accepted, and the log does not have it"
            )

    def _answered(self, step: Step) -> None:
        status, code, altered = step.detail
        build = self._builds[step.build]
        accepted = build.history.accepted
        document = accepted.document if accepted is not None else {}
        other = bytes(document["name"]) == b'"other content"' if accepted is not None else False
        if status == "accepted" and other is not altered:
            self._wrong(f"G1 {step.build}: accepted, and the log has other content")
        # One that another instance passed on carries a time at which it is too late, by that one's clock.
        apart = code == "busy" and not self._scenario.clocks.agree
        if status != "accepted" and not apart and code not in {"running", "finished", "shutting_down"}:
            self._wrong(f"G1 {step.build}: refused as {code}")
        if code == "shutting_down":
            self._handing_over.refused(step.build, self._now)
        if code in {"running", "finished"} and (accepted is None or other is altered):
            self._wrong(f"G1 {step.build}: refused as {code}, and its content is the one in the log")

    # What vanishes.

    def _stream_removed(self, step: Step) -> None:
        if step.who == LEASES:
            self._tenures.removed()
        if step.who == "SCHEDULER_REPORTS":
            # What was stored is gone; it may have been published, and is made again where that is not noted.
            for build in self._builds.values():
                for run in build.runs.values():
                    if not run.reported_at:
                        run.report, run.report_id = None, ""

    def _log_removed(self, _: Step) -> None:
        self._log_gone = True

    def _log_restored(self, _: Step) -> None:
        self._log_gone = False
        self._log_back_at = self._now

    def _log_purged(self, step: Step) -> None:
        self._builds[step.build].purged_at = self._now
        # When its slots are given back is on no record any more.
        self._gauges.dropped(step.build)

    def _is_about_a_purged_build(self, step: Step) -> bool:
        """From the purge of its log on only one thing is looked at of a build: that it is reported."""
        name = step.build
        if step.kind == "kept" and step.who in {"SCHEDULER_LOG", "SCHEDULER_REPORTS"}:
            name = step.detail[0].split(".")[2]
        build = self._builds.get(name)
        if build is None or build.purged_at is None or step.kind == "log purged":
            return False
        if step.kind == "report arrived":
            build.reported_since += 1
        return True

    def _end_of_the_run(self, step: Step) -> None:
        self._ended_at = step.time
        self._gauges.end()

    def _reading_took(self, build: Build, who: str) -> float:
        """Seconds that a process had, from its record of taking a build up until the log was purged."""
        return (build.purged_at or self._now) - build.loaded_at.get(who, 0.0)

    def _purged_at_the_end(self, name: str, build: Build) -> None:
        """Check that every process which had the build, and still runs, has reported it."""
        holder = build.holder
        if build.given_by:
            # Nobody has read it since it was given away.
            return
        if build.instances[-1] != holder:
            # Whoever was about to take it up may not have read what it is.
            return
        gone = any(
            time < self._ended_at and kind in {"killed", "ends"}
            for time, kind in self._interruptions.get(holder, ())
        )
        before = build.run(build.last_run).published
        # Of a log that goes while it is still being read nobody holds anything.
        last = len(build.instances)
        read = build.loaded.get(holder) != last or self._reading_took(build, holder) > _READING
        if read and not gone and not before and not build.reported_since:
            self._wrong(f"G1 {name}: its log was purged, {holder} had it, and there is no report")

    def _fails(self, step: Step) -> None:
        if "LogMissing" in step.detail and (self._log_gone or self._now < self._log_back_at + _LONG_ENOUGH):
            return
        if step.detail.startswith("Superseded") and self._tenures.is_replaced(step.who):
            return
        if (other := _IN_USE.match(step.detail)) and self._lives(other[1]):
            return
        self._wrong(f"{step.who} fails: {step.detail}")

    def _lives(self, who: str) -> bool:
        """Tell whether a process had neither ended nor been killed a moment ago."""
        return not any(
            kind in {"killed", "ends"} and time < self._now - _ANSWER
            for time, kind in self._interruptions.get(who, ())
        )

    def _at_the_end(self, name: str, build: Build, *, stuck: bool) -> None:
        if build.purged_at is not None:
            self._purged_at_the_end(name, build)
            return
        if build.history.accepted is None:
            if stuck:
                self._wrong(f"G1 {name}: it is never accepted")
            return
        if build.history.status is not Status.REPORTED:
            self._wrong(f"G1 {name}: it is not over: {build.history.status.value}")
        for number in range(1, build.last_run + 1):
            if build.history.status is Status.REPORTED and not build.run(number).published:
                self._wrong(f"G6 {name}: its report of run {number} never arrived")
