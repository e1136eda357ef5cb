"""Judges a trace by what the service promises: the log is what the stream has, not what the process says.

A rule that is broken raises nothing; it adds a line to what is wrong. The letters are those of the promises:
G1 durable acceptance, G2 order, G3 one outcome, G4 at least once and known by its attempt, G5 stop on error,
G6 one report, G7 fencing.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fake_jetstream import DAY_ZERO, SECOND

from scheduler.errors import UnreadableLog
from scheduler.events import Accepted, Finished, Loading, Reported, Sent, Settled, Started, Withdrawn
from scheduler.records import Elsewhere, Position, Status, decode_record
from simulation.knowledge import Build, Component, Reply
from simulation.scenario import Scenario, dependencies
from simulation.trace import Step

_LONG_ENOUGH = 5.0
"""Seconds within which processes that are there know of each other."""
_TICK = 1.1
"""Seconds by which the service may be wrong about the length of an outage."""


class Checker:
    """Goes through a trace once; `problems` is empty where all promises were kept."""

    def __init__(self, scenario: Scenario) -> None:
        self.problems: list[str] = []
        self._scenario = scenario
        self._builds: dict[str, Build] = {}
        for document in scenario.builds:
            needed = dependencies(document)
            components = {name: Component() for name in needed}
            self._builds[document["id"]] = Build(document, needed, components)
        self._tokens: dict[str, tuple[str, str]] = {}
        self._worked: dict[str, float] = {}
        """Since when a process has had builds."""
        self._interruptions: dict[str, list[tuple[float, str]]] = {}
        self._rules: dict[str, Callable[[Step], None]] = {
            "kept": self._kept,
            "request left": self._request_left,
            "request arrived": self._request_arrived,
            "request unheard": self._unheard,
            "append left": self._append_left,
            "read back": self._read_back,
            "report left": self._report_left,
            "report arrived": self._report_arrived,
            "answers": self._answers,
            "taken": self._taken,
            "replies lost": self._replies_lost,
            "accepted left": self._accepted_left,
            "answered": self._answered,
            "fails": self._fails,
            "fault": self._fails,
            "connected": self._interrupted,
            "silent": self._interrupted,
            "heard": self._interrupted,
            "lost": self._interrupted,
            "killed": self._interrupted,
            "ends": self._interrupted,
        }
        self._now = 0.0

    def _wrong(self, text: str) -> None:
        self.problems.append(f"{self._now:.4f} {text}")

    def check(self, steps: Iterable[Step], *, stuck: bool) -> list[str]:
        """All that is wrong, each with the time at which it shows."""
        for step in steps:
            self._now = step.time
            rule = self._rules.get(step.kind)
            if rule is not None:
                rule(step)
        for name, build in self._builds.items():
            self._at_the_end(name, build, stuck=stuck)
        return self.problems

    # What the log says.

    def _kept(self, step: Step) -> None:
        subject, sequence, data, headers = step.detail
        match step.who:
            case "SCHEDULER_LOG":
                self._record(subject.rpartition(".")[2], data, dict(headers))
            case "SCHEDULER_REPLIES":
                self._captured(subject, sequence, data)
            case "SCHEDULER_REPORTS":
                self._report_kept(subject.split(".")[2], data)

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
        if headers.get("Scheduler-Status") != build.history.status.value:
            self._wrong(f"{name}: record {n} says {headers.get('Scheduler-Status')}")
        for event in record.events:
            assert not isinstance(event, Elsewhere)
            self._event(name, build, n, who, event)
        self._position(name, build, record.position)

    def _taken_up(self, name: str, build: Build, n: int, who: str) -> None:
        """A build is not taken away from a process that works, as far as the two can know of each other."""
        before = build.instances[n - 2]
        # What one decided when it began may be long in coming: only who has been at work knows the others.
        at_work = self._worked.setdefault(who, self._now) < self._now - _LONG_ENOUGH
        if who != before and at_work and self._is_there(before) and self._is_there(who):
            self._wrong(f"G7 {name}: {who} takes it away from {before}, which works")

    def _is_there(self, who: str) -> bool:
        """Whether nothing has kept a process from others for a while."""
        time, kind = self._interruptions[who][-1]
        return kind in {"connected", "heard"} and time < self._now - _LONG_ENOUGH

    def _position(self, name: str, build: Build, position: Position) -> None:
        """Every reply up to the position is in the log, or nobody waits for it."""
        until = (position.time - DAY_ZERO) / SECOND + 1e-6
        for component, one in build.components.items():
            if not one.started or one.settled is not None or not one.departures:
                continue
            first = one.departures[0][0]
            for reply in one.replies:
                if first <= reply.time <= until and reply.sequence <= position.sequence:
                    self._wrong(
                        f"G1 {name}: the position is {position.sequence}, behind a reply to {component}"
                    )

    def _event(self, name: str, build: Build, n: int, who: str, event: Any) -> None:
        match event:
            case Accepted():
                self._worked.setdefault(who, self._now)
                build.loaded[who] = n
            case Loading():
                self._taken_up(name, build, n, who)
                build.loaded[who] = n
                build.loaded_at[who] = self._now
                build.fenced.discard(who)
            case Started(component=component, attempt=attempt):
                one = build.components[component]
                if one.started not in {"", attempt}:
                    self._wrong(f"G4 {name}: {component} is started as {attempt}, after {one.started}")
                one.started = attempt
                if missing := self._incomplete(build, component):
                    self._wrong(f"G2 {name}: {component} is started before {missing} is completed")
            case Sent(component=component):
                build.components[component].sent = True
                build.sent_at.setdefault(component, n)
                if not build.components[component].arrived:
                    self._wrong(f"G4 {name}: {component} is said to be sent, and never arrived")
            case Withdrawn(component=component):
                build.components[component].started = ""
            case Settled(component=component, body=body):
                self._settled(name, build, n, component, body)
            case Finished():
                pass
            case Reported():
                build.reported_at = n
                if not build.published:
                    self._wrong(f"G6 {name}: it is said to be reported, and no report has arrived")

    def _settled(self, name: str, build: Build, n: int, component: str, body: Mapping[str, Any]) -> None:
        one = build.components[component]
        if one.settled is not None:
            if "adoptable" not in body or body["_state"] != one.settled["_state"]:
                self._wrong(f"G3 {name}: {component} has a second outcome, {body['_state']}")
            one.settled = body
            return
        one.settled = body
        build.settled_at[component] = n
        if body["_state"] == "errored":
            build.error_at = build.error_at or n
            self._failed(name, build, component, one, body)
        elif body["_action"] != "none" and one.answers.get(body.get("serial", "")) != "completed":
            self._wrong(f"G3 {name}: {component} is completed, and no connector said so")

    def _failed(
        self, name: str, build: Build, component: str, one: Component, body: Mapping[str, Any]
    ) -> None:
        """Whether there is a reason for a failure that is none of our own making."""
        text = body.get("error", "")
        if body.get("serial") in one.answers and "cannot" in text:
            return
        first = one.departures[0][0] if one.departures else None
        kept = [reply for reply in one.replies if first is not None and reply.time >= first]
        if text.startswith("timed out after"):
            seconds = float(text.split()[3])
            if first is None:
                self._wrong(f"{name}: {component} timed out and never left")
                return
            if any(reply.time < first + seconds - 0.001 for reply in kept):
                self._wrong(f"{name}: {component} timed out, and its reply was captured in time")
            # What may have left before another one failed is not sent again.
            lost = not one.arrived and not one.ever_unheard
            if lost and build.error_at == build.history.n and self._scenario.resend != "never":
                self._wrong(f"G4 {name}: {component} timed out, and never reached the broker")
            self._too_early(name, build, component, one, seconds)
        elif text.startswith("no connector is subscribed"):
            if not one.ever_unheard:
                self._wrong(f"{name}: {component} fails for want of a connector, and was heard")
        elif text.startswith("outcome unknown"):
            taken_up = max(build.loaded_at.values(), default=0.0)
            if any(reply.time < taken_up for reply in kept):
                self._wrong(f"{name}: the outcome of {component} is unknown, and its reply was captured")
            if len(build.loaded) < 2:
                self._wrong(f"{name}: the outcome of {component} is unknown without a restart")
        else:
            self._wrong(f"{name}: {component} fails by a fault of ours: {text[:200]}")

    def _too_early(self, name: str, build: Build, component: str, one: Component, seconds: float) -> None:
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
        alone = len(build.loaded) == 1 and len({sender for _, sender in one.departures}) == 1
        if alone and self._now < first + seconds + outage - 0.05:
            self._wrong(f"{name}: {component} timed out {self._now - first:.2f} s after it left")

    def _incomplete(self, build: Build, component: str) -> str:
        for other in sorted(build.needed[component]):
            settled = build.components[other].settled
            if settled is None or settled["_state"] != "completed":
                return other
        return ""

    # What processes do.

    def _interrupted(self, step: Step) -> None:
        self._interruptions.setdefault(step.who, []).append((step.time, step.kind))

    def _knows(self, build: Build, who: str, n: int) -> bool:
        """Whether a process has to know of a record: it wrote it, or took the build up after it."""
        return n > 0 and (build.instances[n - 1] == who or build.loaded.get(who, 0) > n)

    def _request_left(self, step: Step) -> None:
        name, component, who = step.build, step.component, step.who
        build = self._builds[name]
        one = build.components[component]
        attempt, _, reply = step.detail
        self._tokens[reply] = (name, component)
        if one.started != attempt and component not in build.settled_at:
            self._wrong(f"G2 {name}: {component} leaves before its start is committed")
        if missing := self._incomplete(build, component):
            self._wrong(f"G2 {name}: {component} leaves before {missing} is completed")
        one.attempts.add(attempt)
        if len(one.attempts) > 1:
            self._wrong(f"G4 {name}: {component} is sent as {sorted(one.attempts)}")
        if who in build.fenced:
            self._wrong(f"G7 {name}: {component} is sent by {who}, which is fenced")
        if self._knows(build, who, build.settled_at.get(component, 0)):
            self._wrong(f"G3 {name}: {component} is sent after its outcome")
        if not one.departures and self._knows(build, who, build.error_at):
            self._wrong(f"G5 {name}: {component} is sent for the first time after an error")
        if one.departures:
            self._sent_again(name, build, component, one, who)
        one.departures.append((step.time, who))
        one.unheard = False

    def _sent_again(self, name: str, build: Build, component: str, one: Component, who: str) -> None:
        if one.unheard:
            return
        resend = self._scenario.resend
        if resend != "always" and self._knows(build, who, build.sent_at.get(component, 0)):
            self._wrong(f"G4 {name}: {component} is sent again, and was known to have left")
        when, before = one.departures[-1]
        if any(reply.time < build.loaded_at.get(who, 0.0) for reply in one.replies):
            self._wrong(f"G4 {name}: {component} is sent again, and its reply had been captured")
        if before != who:
            return  # who takes a build over cannot know
        if resend == "never":
            self._wrong(f"G4 {name}: {component} is sent again, which it never should be")
        lost = [at for at, kind in self._interruptions.get(who, ()) if kind == "lost" and at >= when]
        if not lost:
            self._wrong(f"G4 {name}: {component} is sent again over the same connection")

    def _request_arrived(self, step: Step) -> None:
        self._builds[step.build].components[step.component].arrived += 1

    def _unheard(self, step: Step) -> None:
        one = self._builds[step.build].components[step.component]
        one.unheard = one.ever_unheard = True
        one.arrived -= 1

    def _append_left(self, step: Step) -> None:
        build = self._builds[step.build]
        record, takes_up = step.detail
        build.asked[step.who] = int(record.rpartition("-")[2])
        # One that would be the first of a log is how a second submission is settled: it is refused.
        if step.who in build.fenced and not takes_up and not record.endswith("-1-1"):
            self._wrong(f"G7 {step.build}: {step.who} is fenced, and writes {record}")

    def _read_back(self, step: Step) -> None:
        """A process whose append was refused sees another's record after its own: it is fenced."""
        build = self._builds[step.build]
        who = step.detail.rpartition("-")[0].rpartition("-")[0].rpartition("-")[0]
        mine = [n for n, instance in enumerate(build.instances, 1) if instance == step.who]
        number = int(step.detail.rpartition("-")[2])
        refused = mine and build.asked.get(step.who, 0) > mine[-1]
        if who != step.who and refused and number > mine[-1] and step.who in build.loaded:
            build.fenced.add(step.who)

    # Replies.

    def _answers(self, step: Step) -> None:
        one = self._builds[step.build].components.get(step.component)
        if one is not None:
            state, serial, _ = step.detail
            one.answers[serial] = state

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
        name, component = self._tokens.get(subject, (body.get("service"), body.get("_component_id")))
        build = self._builds.get(name)
        one = build.components.get(component) if build is not None else None
        if one is not None:
            one.replies.append(Reply(sequence, self._now, body["_state"]))

    def _replies_lost(self, step: Step) -> None:
        for build in self._builds.values():
            for one in build.components.values():
                one.replies = [reply for reply in one.replies if reply.sequence not in step.detail]

    # Reports, and what clients hear.

    def _report_kept(self, name: str, data: bytes) -> None:
        build = self._builds[name]
        if build.report is not None:
            self._wrong(f"G6 {name}: a second report is stored")
        build.report = data
        if build.history.status is not Status.FINISHED or build.history.in_flight:
            self._wrong(f"G6 {name}: it is reported before it is over")
        report = json.loads(data)
        said = {one["_component_id"]: one["_state"] for one in report["changes"]}
        for component, one in build.components.items():
            mine = "waiting" if one.settled is None else one.settled["_state"]
            if said[component] != mine:
                self._wrong(f"G3 {name}: {component} is {mine} in the log, {said[component]} in the report")
        failed = [component for component, state in said.items() if state != "completed"]
        if bool(failed) != bool(report.get("error")):
            self._wrong(f"{name}: the report says {report.get('error')!r}, and {failed} are not completed")

    def _report_left(self, step: Step) -> None:
        build = self._builds[step.build]
        subject, identity, data = step.detail
        if data != build.report:
            self._wrong(f"G6 {step.build}: a report is published that was not stored")
            return
        build.report_id = build.report_id or identity
        if not identity or identity != build.report_id:
            self._wrong(f"G6 {step.build}: the report is published as {identity!r}, not {build.report_id!r}")
        suffix = "error" if json.loads(data).get("error") else "done"
        if subject != f"{build.document['action']}.{suffix}":
            self._wrong(f"G6 {step.build}: the report is published on {subject}")
        if self._knows(build, step.who, build.reported_at):
            self._wrong(f"G6 {step.build}: the report is published again, although that was noted")

    def _report_arrived(self, step: Step) -> None:
        self._builds[step.build].published += 1

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
        if status != "accepted" and code not in {"running", "finished", "shutting_down"}:
            self._wrong(f"G1 {step.build}: refused as {code}")
        if code in {"running", "finished"} and (accepted is None or other is altered):
            self._wrong(f"G1 {step.build}: refused as {code}, and its content is the one in the log")

    def _fails(self, step: Step) -> None:
        self._wrong(f"{step.who} fails: {step.detail}")

    def _at_the_end(self, name: str, build: Build, *, stuck: bool) -> None:
        if build.history.accepted is None:
            if stuck:
                self._wrong(f"G1 {name}: it is never accepted")
            return
        if build.history.status is not Status.REPORTED:
            self._wrong(f"G1 {name}: it is not over: {build.history.status.value}")
        elif not build.published:
            self._wrong(f"G6 {name}: its report never arrived")
