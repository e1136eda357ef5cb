"""The checker lets a true story pass, and finds each lie in a false one."""

import copy
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from integration.builds import build, component
from integration.durable.checker import Evidence, Logged, Published, Stored, violations

JSON = dict[str, Any]
Lie = Callable[[Evidence], Evidence]

NAME = "b/1"
DOCUMENT = build(
    component("vpc::1"),
    component("net::1", **{"ref vpc::1": "$(...)"}),
    component("net::2", action="find"),
    component("old::1", action="delete"),
    component("note::1", action="none"),
    edges="vpc::1 net::1, vpc::1 net::2",
    id=NAME,
    components=[component("old::1", _state="completed")],
)
ORDER = ["note::1", "vpc::1", "old::1", "net::1", "net::2"]


def true_story() -> Evidence:
    """A build of five, of which the service was killed once when ``old::1`` was started and not yet sent."""
    clock = 100.0
    log: list[Logged] = []
    records: list[JSON] = []
    bodies: dict[str, JSON] = {}
    kills: list[float] = []

    def append(*events: JSON) -> None:
        nonlocal clock
        clock += 1
        number = len(log) + 1
        log.append(Logged(NAME, number, clock, {"v": 1, "n": number, "events": list(events)}))

    def note(event: str, name: str, **context: Any) -> None:
        nonlocal clock
        clock += 1
        key = {"build": NAME, "component": name, "attempt": f"{NAME}/{name}/1"}
        records.append({"event": event, "time": clock, **key, **context})

    append({"event": "accepted", "document": DOCUMENT})
    for change in (one for name in ORDER for one in DOCUMENT["changes"] if one["_component_id"] == name):
        name = change["_component_id"]
        body = {**change, "_state": "completed", "out": f"out-{name}"}
        if name == "net::2":
            body["components"] = [{"_component_id": "found::1"}]
        if name != "note::1":
            append({"event": "started", "component": name, "attempt": f"{NAME}/{name}/1"})
            refs = {"ref vpc::1": "out-vpc::1"} if name == "net::1" else {}
            note("request", name, refs=refs)
            if name == "old::1":
                clock += 1
                kills.append(clock)
                clock += 1
                note("request", name, refs=refs)
            note("answer", name, out=body["out"], state="completed")
        append(
            {"event": "sent", "component": name, "attempt": f"{NAME}/{name}/1"},
            {"event": "settled", "component": name, "body": body},
        )
        bodies[name] = body
    append({"event": "finished"})
    append({"event": "reported"})
    existing = [bodies["vpc::1"], bodies["net::1"], {"_component_id": "found::1", "service": NAME}]
    changes = [bodies[change["_component_id"]] for change in DOCUMENT["changes"]]
    report = {**DOCUMENT, "components": existing, "changes": changes}
    return Evidence(
        submitted={NAME: DOCUMENT},
        log=log,
        reports=[Stored(NAME, "1", report)],
        records=records,
        published=[Published("build.create.done", "key", report)],
        kills=kills,
    )


def log_without(evidence: Evidence, event: str, name: str = "") -> Evidence:
    """The log as if something had not been written."""
    log = copy.deepcopy(list(evidence.log))
    for logged in log:
        logged.record["events"] = [
            one
            for one in logged.record["events"]
            if one["event"] != event or name != one.get("component", "")
        ]
    return attrs.evolve(evidence, log=log)


def log_with(evidence: Evidence, record: int, event: JSON) -> Evidence:
    """The log as if something more had been written, at the end of a record."""
    log = copy.deepcopy(list(evidence.log))
    log[record].record["events"].append(event)
    return attrs.evolve(evidence, log=log)


def records_without(evidence: Evidence, event: str, name: str) -> Evidence:
    """The connectors' record as if something had not happened."""
    records = [one for one in evidence.records if (one["event"], one["component"]) != (event, name)]
    return attrs.evolve(evidence, records=records)


def records_with(evidence: Evidence, event: str, name: str, **changes: Any) -> Evidence:
    """The connectors' record as if a thing had happened otherwise."""
    records = [
        {**one, **changes} if (one["event"], one["component"]) == (event, name) else one
        for one in evidence.records
    ]
    return attrs.evolve(evidence, records=records)


def again(evidence: Evidence, name: str) -> Evidence:
    """As if a request had come once more at the end."""
    one = next(one for one in evidence.records if (one["event"], one["component"]) == ("request", name))
    return attrs.evolve(evidence, records=[*evidence.records, {**one, "time": 1_000.0}])


def reported(evidence: Evidence, **changes: Any) -> Evidence:
    """As if the report had said something else."""
    body = {**evidence.reports[0].body, **changes}
    return attrs.evolve(
        evidence,
        reports=[Stored(NAME, "1", body)],
        published=[
            Published("build.create.error" if "error" in changes else "build.create.done", "key", body)
        ],
    )


def published(evidence: Evidence, *changes: JSON) -> Evidence:
    """As if the report had gone by as often as there are ``changes``, each time changed like that."""
    assert evidence.published
    seen = [attrs.evolve(evidence.published[0], **each) for each in changes]
    return attrs.evolve(evidence, published=seen)


LIES: dict[str, tuple[Lie, str]] = {
    "no report": (lambda e: attrs.evolve(e, reports=[], published=[]), "has 0 reports"),
    "two runs reported": (
        lambda e: attrs.evolve(e, reports=[*e.reports, attrs.evolve(e.reports[0], run="2")]),
        "has 2 reports",
    ),
    "a foreign report": (
        lambda e: attrs.evolve(e, reports=[*e.reports, Stored("b/2", "1", {})]),
        "b/2: was reported and not accepted",
    ),
    "never published": (lambda e: attrs.evolve(e, published=[]), "never published"),
    "published under two keys": (
        lambda e: published(e, {}, {"key": "other"}),
        "message ids",
    ),
    "published without a key": (
        lambda e: published(e, {"key": ""}),
        "message ids",
    ),
    "published too often": (lambda e: published(e, {}, {}, {}), "published 3 times"),
    "published elsewhere": (
        lambda e: published(e, {"subject": "build.create.error"}),
        "was published on build.create.error",
    ),
    "published otherwise": (
        lambda e: published(e, {"body": {**e.reports[0].body, "name": "x"}}),
        "another content than was stored",
    ),
    "no log": (lambda e: attrs.evolve(e, log=[]), "has no log"),
    "a foreign log": (
        lambda e: attrs.evolve(e, log=[*e.log, attrs.evolve(e.log[0], build="b/2")]),
        "b/2: has a log",
    ),
    "another document": (
        lambda e: attrs.evolve(e, submitted={NAME: {**DOCUMENT, "name": "x"}}),
        "another name than was submitted",
    ),
    "a record missing": (lambda e: attrs.evolve(e, log=[*e.log[:3], *e.log[4:]]), "says that it is number 5"),
    "no beginning": (lambda e: log_without(e, "accepted"), "before the build was accepted"),
    "two beginnings": (
        lambda e: log_with(e, 2, {"event": "accepted", "document": DOCUMENT}),
        "accepted twice",
    ),
    "not finished": (lambda e: log_without(e, "finished"), "its log ends with ['reported']"),
    "not marked as reported": (lambda e: log_without(e, "reported"), "its log ends with ['finished']"),
    "reported twice": (lambda e: log_with(e, -1, {"event": "reported"}), "its log ends with"),
    "started twice": (
        lambda e: log_with(e, 3, {"event": "started", "component": "vpc::1", "attempt": f"{NAME}/vpc::1/1"}),
        "starts",
    ),
    "started after its end": (
        lambda e: log_with(e, -2, {"event": "started", "component": "vpc::1", "attempt": f"{NAME}/vpc::1/2"}),
        "starts after its end",
    ),
    "a second outcome": (
        lambda e: log_with(
            e, -3, {"event": "settled", "component": "vpc::1", "body": {"_state": "errored", "out": "x"}}
        ),
        "second outcome",
    ),
    "started before its dependency ended": (
        lambda e: log_with(e, 1, {"event": "started", "component": "net::1", "attempt": f"{NAME}/net::1/1"}),
        "started before vpc::1 was logged",
    ),
    "an outcome missing": (lambda e: log_without(e, "settled", "old::1"), "differ from the log"),
    "no outcome of a dependency": (
        lambda e: log_without(e, "settled", "vpc::1"),
        "net::1 started although vpc::1",
    ),
    "a change reported otherwise": (
        lambda e: reported(
            e, changes=[{**e.reports[0].body["changes"][0], "out": "x"}, *DOCUMENT["changes"][1:]]
        ),
        "the report's changes differ",
    ),
    "components reported otherwise": (
        lambda e: reported(e, components=[*e.reports[0].body["components"], DOCUMENT["components"][0]]),
        "the report's components differ",
    ),
    "a field reported otherwise": (lambda e: reported(e, name="x"), "the report's name differ"),
    "an error without a cause": (lambda e: reported(e, error="vpc::1: broke"), "all is done: True"),
    "two attempt ids": (
        lambda e: records_with(e, "request", "old::1", attempt=f"{NAME}/old::1/2"),
        "under the attempt ids",
    ),
    "a request that was not logged": (
        lambda e: log_without(e, "started", "vpc::1"),
        "which the log doesn't know",
    ),
    "completed and not answered": (
        lambda e: records_without(e, "answer", "old::1"),
        "old::1 is completed, and nobody answered so",
    ),
    "completed and answered otherwise": (
        lambda e: records_with(e, "answer", "old::1", out="x"),
        "old::1 is completed, and nobody answered so",
    ),
    "the answer was an error": (
        lambda e: records_with(e, "answer", "old::1", state="errored"),
        "its connector said errored",
    ),
    "requested before the log": (
        lambda e: records_with(e, "request", "vpc::1", time=1.0),
        "before the log said so",
    ),
    "requested before its dependency's outcome": (
        lambda e: records_with(e, "request", "net::1", time=1.0),
        "before the log had the outcome of vpc::1",
    ),
    "requested before its dependency's answer": (
        lambda e: attrs.evolve(e, records=sorted(e.records, key=lambda one: one["component"])),
        "before vpc::1 was answered",
    ),
    "requested with other content": (
        lambda e: records_with(e, "request", "net::1", refs={"ref vpc::1": "x"}),
        "with another vpc::1",
    ),
    "requested for nobody": (
        lambda e: attrs.evolve(e, records=[*e.records, {**e.records[0], "build": "b/2"}]),
        "for a build that has no log",
    ),
    "requested again without a reason": (lambda e: again(e, "vpc::1"), "requested 2 times"),
    "requested again too often": (lambda e: again(e, "old::1"), "requested 3 times"),
    "requested again although that is forbidden": (
        lambda e: attrs.evolve(e, resend="never"),
        "requested 2 times",
    ),
    "requested again although it was known to be sent": (
        lambda e: log_with(e, 4, {"event": "sent", "component": "old::1", "attempt": f"{NAME}/old::1/1"}),
        "requested 2 times",
    ),
}


def test_a_true_story_passes() -> None:
    """Nothing is found where all is well."""
    assert violations(true_story()) == []


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str) -> None:
    """Each doctored story has a violation that names what was done to it."""
    tell, words = LIES[lie]
    found = violations(tell(true_story()))
    assert any(words in one for one in found), found


def failed_story(error: str, *, excuses: tuple[str, ...] = ()) -> Evidence:
    """A build of two whose first failed, without an answer."""
    document = build(component("vpc::1"), component("net::1"), edges="vpc::1 net::1", id=NAME)
    body = {**document["changes"][0], "_state": "errored", "error": error}
    events: list[JSON] = [
        {"event": "accepted", "document": document},
        {"event": "started", "component": "vpc::1", "attempt": f"{NAME}/vpc::1/1"},
        {"event": "settled", "component": "vpc::1", "body": body},
        {"event": "finished"},
        {"event": "reported"},
    ]
    report = {**document, "error": f"vpc::1: {error}", "changes": [body, document["changes"][1]]}
    return Evidence(
        submitted={NAME: document},
        log=[
            Logged(NAME, number, float(number), {"n": number, "events": [event]})
            for number, event in enumerate(events, 1)
        ],
        reports=[Stored(NAME, "1", report)],
        records=[],
        excuses=excuses,
    )


def test_a_failure_needs_an_answer_or_an_excuse() -> None:
    """A component that no connector failed has failed for a reason that the test expects, or for none."""
    assert violations(failed_story("timed out after 3 s", excuses=("timed out",))) == []
    (found,) = violations(failed_story("lost"))
    assert "failed without an answer: lost" in found


def test_the_cause_of_a_failure_is_reported() -> None:
    """The report's error names a component that failed, and how."""
    story = failed_story("timed out", excuses=("timed out",))
    story.reports[0].body["error"] = "something else"
    (found,) = violations(story)
    assert "is none of" in found


def test_with_always_each_kill_and_outage_explains_one_repetition() -> None:
    """As many as there were, and no more."""
    story = attrs.evolve(true_story(), resend="always", outages=[(0.0, 1.0)])
    assert violations(again(story, "old::1")) == []
    assert any("requested 4 times" in one for one in violations(again(again(story, "old::1"), "old::1")))


@pytest.mark.parametrize(
    ("outage", "explained"), [((0.0, 100.0), 0), ((102.0, 104.0), 1), ((107.0, 2_000.0), 0)]
)
def test_with_unsent_a_lost_connection_explains_what_was_unsure_then(
    outage: tuple[float, float], explained: int
) -> None:
    """A request that was started then and not known to be sent; not one of before or after."""
    story = attrs.evolve(again(true_story(), "vpc::1"), outages=[outage])
    found = [one for one in violations(story) if "repetitions" in one]
    assert len(found) == 1 - explained, found
