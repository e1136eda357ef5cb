"""What has to hold once everything has ended, told from the evidence that three parties left behind.

The store's streams say what the scheduler made of it, the connectors' record what they saw and did, a
client what was reported. None of the package's own code is used to read them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

from attrs import define, field, frozen

JSON = dict[str, Any]

SETTLING = 0.15
"""Seconds after a kill in which the broker may still read what the process wrote before; the next process
takes longer than this to say anything."""


@frozen
class Logged:
    """A record of a build's log, and where it stands in the stream."""

    build: str
    sequence: int
    time: float
    """The broker's stamp, in seconds."""
    record: JSON


@frozen
class Stored:
    """A report that the store keeps."""

    build: str
    run: str
    body: JSON


@frozen
class Published:
    """A report as somebody saw it go by."""

    subject: str
    key: str
    """Its message id."""
    body: JSON


@frozen
class Evidence:
    """Everything that is known of a time in which things were killed."""

    submitted: Mapping[str, JSON]
    """The builds that were accepted, by id."""
    log: Sequence[Logged]
    reports: Sequence[Stored]
    records: Sequence[JSON]
    """What the connectors wrote down, in order."""
    published: Sequence[Published] | None = None
    """None where nobody was there all the time to see it."""
    kills: Sequence[float] = ()
    """When a service was dead."""
    outages: Sequence[tuple[float, float]] = ()
    """From when to when a service may have lost its connection, once each time."""
    resend: str = "unsent"
    excuses: Sequence[str] = ()
    """Texts of errors that may stand in a component without a connector having said so."""


@define
class Component:
    """What the log says of one component."""

    attempts: dict[str, float] = field(factory=dict)
    """When each attempt was logged as started."""
    sent: dict[str, float] = field(factory=dict)
    """When each was logged as known to have left."""
    settled: float | None = None
    body: JSON | None = None
    record: int = 0
    """The number of the record that it settled in."""

    @property
    def completed(self) -> bool:
        return self.body is not None and self.body["_state"] == "completed"


@define
class Story:
    """A build's log, read from its beginning."""

    build: str
    document: JSON = field(factory=dict)
    components: dict[str, Component] = field(factory=lambda: defaultdict(Component))
    order: list[str] = field(factory=list)
    """Components in the order in which they settled."""
    endings: list[str] = field(factory=list)
    """``finished`` and ``reported``, as they came."""
    faults: list[str] = field(factory=list)

    def unsure(self, begin: float, end: float) -> set[str]:
        """Attempts that may or may not have left, as far as the log said at some moment of that time."""
        found = set()
        for component in self.components.values():
            for attempt, started in component.attempts.items():
                sent, settled = component.sent.get(attempt, inf), component.settled or inf
                if started <= end and min(sent, settled) > begin:
                    found.add(attempt)
        return found


def read(build: str, log: Iterable[Logged]) -> Story:
    """Read a build's log; what should not be in it is among the story's faults."""
    story = Story(build)
    for expected, logged in enumerate(log, 1):
        if logged.record["n"] != expected:
            story.faults.append(f"record {expected} says that it is number {logged.record['n']}")
        for event in logged.record["events"]:
            _tell(story, event, logged)
    return story


def _tell(story: Story, event: JSON, logged: Logged) -> None:
    kind = event["event"]
    place = f"record {logged.record['n']}"
    if not story.document and kind != "accepted":
        story.faults.append(f"{place}: {kind} before the build was accepted")
    if kind == "accepted":
        if story.document:
            story.faults.append(f"{place}: accepted twice")
        story.document = event["document"]
    elif kind == "started":
        component = story.components[event["component"]]
        if story.endings or component.body is not None:
            story.faults.append(f"{place}: {event['component']} starts after its end or the build's")
        if event["attempt"] in component.attempts:
            story.faults.append(f"{place}: {event['attempt']} starts twice")
        component.attempts.setdefault(event["attempt"], logged.time)
    elif kind == "sent":
        story.components[event["component"]].sent.setdefault(event["attempt"], logged.time)
    elif kind == "withdrawn":
        story.components[event["component"]].attempts.clear()
    elif kind == "settled":
        component = story.components[event["component"]]
        if component.body is not None and {**event["body"], "adoptable": 0} != {
            **component.body,
            "adoptable": 0,
        }:
            story.faults.append(f"{place}: {event['component']} has a second outcome")
        if component.body is None:
            component.settled, component.record = logged.time, logged.record["n"]
            story.order.append(event["component"])
        component.body = event["body"]
    elif kind in {"finished", "reported"}:
        story.endings.append(kind)


def stories(evidence: Evidence) -> dict[str, Story]:
    """All builds' logs."""
    logs: dict[str, list[Logged]] = defaultdict(list)
    for logged in evidence.log:
        logs[logged.build].append(logged)
    return {build: read(build, logs.get(build, ())) for build in {*evidence.submitted, *logs}}


def violations(evidence: Evidence) -> list[str]:
    """Everything that does not hold; empty where all is well."""
    told = stories(evidence)
    return [
        *check_reports(evidence),
        *check_builds(evidence, told),
        *(problem for story in told.values() for problem in check_log(story)),
        *check_contents(evidence, told),
        *check_connectors(evidence, told),
        *check_order(evidence, told),
        *check_repeats(evidence, told),
    ]


def check_builds(evidence: Evidence, told: Mapping[str, Story]) -> Iterator[str]:
    """The log holds what was accepted, and nothing else."""
    for build, story in told.items():
        if build not in evidence.submitted:
            yield f"{build}: has a log and was not accepted"
        elif not story.document:
            yield f"{build}: was accepted and has no log"
        else:
            for key, value in evidence.submitted[build].items():
                if story.document.get(key) != value:
                    yield f"{build}: its log has another {key} than was submitted"


def check_reports(evidence: Evidence) -> Iterator[str]:
    """Each build has one report stored, and what was published is that one, under one message id."""
    stored: dict[str, list[Stored]] = defaultdict(list)
    for report in evidence.reports:
        stored[report.build].append(report)
    for build in {*evidence.submitted, *stored}:
        if build not in evidence.submitted:
            yield f"{build}: was reported and not accepted"
        if len(stored[build]) != 1:
            yield f"{build}: has {len(stored[build])} reports in the store"
    if evidence.published is None:
        return
    published: dict[str, list[Published]] = defaultdict(list)
    for one in evidence.published:
        published[one.body.get("id", "")].append(one)
    for build, reports in stored.items():
        if not published[build]:
            yield f"{build}: its report was never published"
        if len({one.key for one in published[build]}) > 1 or not all(one.key for one in published[build]):
            yield f"{build}: was published under the message ids {[one.key for one in published[build]]}"
        if len(published[build]) > 1 + len(evidence.kills) + len(evidence.outages):
            yield f"{build}: was published {len(published[build])} times"
        for one in published[build]:
            suffix = "error" if "error" in one.body else "done"
            if one.subject != f"{one.body['action']}.{suffix}":
                yield f"{build}: a report was published on {one.subject}"
            if one.body != reports[0].body:
                yield f"{build}: was published with another content than was stored"


def check_log(story: Story) -> Iterator[str]:
    """A log ends with the build's end; dependencies settle before what depends on them starts."""
    for fault in story.faults:
        yield f"{story.build}: {fault}"
    if story.document and story.endings != ["finished", "reported"]:
        yield f"{story.build}: its log ends with {story.endings}"
    for source, destination in dependencies(story.document):
        before, after = story.components.get(source), story.components.get(destination)
        if after is None or not after.attempts:
            continue
        if before is None or not before.completed or before.settled is None:
            yield f"{story.build}: {destination} started although {source} is not completed"
        elif min(after.attempts.values()) < before.settled:
            yield f"{story.build}: {destination} started before {source} was logged as completed"


def dependencies(document: JSON) -> Iterator[tuple[str, str]]:
    """The edges between changes of a build."""
    changes = {change["_component_id"] for change in document.get("changes", [])}
    for edge in document.get("edges", []):
        if edge["source"] in changes and edge["destination"] in changes:
            yield edge["source"], edge["destination"]


def check_contents(evidence: Evidence, told: Mapping[str, Story]) -> Iterator[str]:
    """A report says what the log says."""
    for report in evidence.reports:
        story = told.get(report.build)
        if story is None or not story.document:
            continue
        expected = expected_report(story)
        for key in {*expected, *report.body}:
            if key == "error":
                continue
            if report.body.get(key) != expected.get(key):
                difference = _difference(report.body.get(key), expected.get(key))
                yield f"{report.build}: the report's {key} differ from the log: {difference}"
        errored = [name for name in story.order if not story.components[name].completed]
        done = all(change["_state"] == "completed" for change in expected["changes"])
        error = report.body.get("error")
        if done is not (error is None):
            yield f"{report.build}: the report's error is {error!r}, and all is done: {done}"
        causes = [f"{name}: {(story.components[name].body or {}).get('error')}" for name in errored]
        if causes and error not in causes:
            yield f"{report.build}: the report's error {error!r} is none of {causes}"


def _difference(left: Any, right: Any) -> str:
    if not isinstance(left, list) or not isinstance(right, list):
        return f"{str(left)[:200]} instead of {str(right)[:200]}"
    if len(left) != len(right):
        return f"{len(left)} instead of {len(right)}"
    for one, other in zip(left, right, strict=True):
        if one != other:
            return f"{str(one)[:300]} instead of {str(other)[:300]}"
    return "?"


def expected_report(story: Story) -> JSON:
    """What a build's log makes of it."""
    existing = {one["_component_id"]: one for one in story.document.get("components", [])}
    by_id = {change["_component_id"]: change for change in story.document["changes"]}
    for name in story.order:
        body, action = story.components[name].body, by_id[name]["_action"]
        if body is None or not story.components[name].completed or action == "none":
            continue
        if action == "delete":
            existing.pop(name, None)
        elif action == "find":
            for element in body.get("components", []):
                existing[element["_component_id"]] = {**element, "service": story.build}
        else:
            existing[name] = body
    changes = [
        story.components[name].body
        if name in story.components and story.components[name].body is not None
        else {**change, "_state": "waiting"}
        for name, change in by_id.items()
    ]
    return {**story.document, "components": list(existing.values()), "changes": changes}


def check_connectors(evidence: Evidence, told: Mapping[str, Story]) -> Iterator[str]:
    """What the connectors saw and said is what the log has, and each component has one attempt id."""
    attempts: dict[tuple[str, str], set[str]] = defaultdict(set)
    answers: dict[tuple[str, str], dict[str, JSON]] = defaultdict(dict)
    for record in evidence.records:
        key = record["build"], record["component"]
        attempts[key].add(record["attempt"])
        if record["event"] == "answer":
            answers[key][record["out"]] = record
    for (build, name), ids in attempts.items():
        if len(ids) > 1:
            yield f"{build}: {name} was requested under the attempt ids {sorted(ids)}"
        for unknown in ids - set(told[build].components[name].attempts if build in told else ()):
            yield f"{build}: {name} was requested as {unknown}, which the log doesn't know"
    for build, story in told.items():
        for change in story.document.get("changes", []):
            name = change["_component_id"]
            component = story.components[name]
            if component.body is None or change["_action"] == "none":
                continue
            answer = answers[build, name].get(component.body.get("out", ""))
            if answer is not None and answer["state"] != component.body["_state"]:
                state = component.body["_state"]
                yield f"{build}: {name} is {state} and its connector said {answer['state']}"
            elif answer is None and component.completed:
                yield f"{build}: {name} is completed, and nobody answered so"
            elif answer is None and not any(
                excuse in component.body.get("error", "") for excuse in evidence.excuses
            ):
                yield f"{build}: {name} failed without an answer: {component.body.get('error')}"


def check_order(evidence: Evidence, told: Mapping[str, Story]) -> Iterator[str]:
    """Nothing is requested before it is logged, nor before its dependencies answered and were logged."""
    answered: dict[tuple[str, str], set[str]] = defaultdict(set)
    needs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for build, story in told.items():
        for source, destination in dependencies(story.document):
            needs[build, destination].append(source)
    for record in evidence.records:
        build, name = record["build"], record["component"]
        if record["event"] == "answer":
            answered[build, name].add(record["out"])
            continue
        if build not in told:
            yield f"{build}: {name} was requested for a build that has no log"
            continue
        story = told[build]
        started = story.components[name].attempts.get(record["attempt"])
        if started is not None and record["time"] < started:
            yield f"{build}: {name} was requested before the log said so"
        actions = {one["_component_id"]: one["_action"] for one in story.document.get("changes", [])}
        for source in needs[build, name]:
            dependency = story.components[source]
            if actions[source] != "none" and not answered[build, source]:
                yield f"{build}: {name} was requested before {source} was answered"
            if dependency.settled is None or record["time"] < dependency.settled:
                yield f"{build}: {name} was requested before the log had the outcome of {source}"
            ref = record.get("refs", {}).get(f"ref {source}")
            if ref is not None and ref != (dependency.body or {}).get("out"):
                yield f"{build}: {name} was requested with another {source} than was logged"


def check_repeats(evidence: Evidence, told: Mapping[str, Story]) -> Iterator[str]:
    """No request comes again but for a reason.

    With ``unsent`` an attempt may come once more for each kill, and for each lost connection, at which the
    log had it as started and neither as sent nor as settled: whether it had left could not be known then.
    With ``always`` once more for each kill and each lost connection; with ``never`` not at all.
    """
    came = Counter(record["attempt"] for record in evidence.records if record["event"] == "request")
    allowed: Counter[str] = Counter()
    if evidence.resend == "unsent":
        times = [(kill + SETTLING, kill + SETTLING) for kill in evidence.kills]
        for begin, end in [*times, *evidence.outages]:
            for story in told.values():
                allowed.update(story.unsure(begin, end))
    always = len(evidence.kills) + len(evidence.outages)
    for attempt, number in came.items():
        most = always if evidence.resend == "always" else allowed[attempt]
        if number - 1 > most:
            yield f"{attempt} was requested {number} times, and {most} repetitions can be explained"
