"""Connectors that misbehave, and replies from elsewhere."""

import json
from typing import Any

import pytest

from integration.builds import build, chain, component, held, silent
from integration.conftest import Site, World
from integration.harness import Submitter, errors, states

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
WRONG = {"wrong": True}
"""Stands in replies that must not count."""
DONE: dict[str, list[JSON]] = {
    "twice": [{}, {"set": WRONG}],
    "on both ways": [{"on": "both"}],
    "done and then an error": [{}, {"state": "errored", "set": WRONG}],
    "for another build, then right": [{"set": {"service": "build-of-another", **WRONG}}, {}],
    "with another id, then right": [{"set": {"_component_id": "vpc::9", **WRONG}}, {}],
    "for another type, then right": [{"subject": "disk.create.aws.done", "set": WRONG}, {}],
    "for another provider, then right": [{"subject": "vpc.create.gcp.done", "set": WRONG}, {}],
    "for another action, then right": [{"subject": "vpc.delete.aws.done", "set": WRONG}, {}],
    "with a list, then right": [{"raw": "[1, 2]"}, {}],
    "with nothing, then right": [{"raw": ""}, {}],
    "with text, then right": [{"raw": "done!"}, {}],
    "with nulls, then right": [{"set": {"service": None, "_component_id": None, **WRONG}}, {}],
    "with deep nesting, then right": [{"raw": "[" * 10_000}, {}],
    "from a typed struct": [{"drop": ["behaviour", "user_data", "_action", "_provider", "_component"]}],
    "without a state": [{"drop": ["_state"]}],
    "saying waiting": [{"state": "waiting"}],
    "from a typed struct, to the inbox": [{"on": "inbox", "drop": ["service", "_component_id", "_action"]}],
    "with a warning": [{"set": {"error": "but slowly"}}],
}
FAILED: dict[str, tuple[list[JSON], str]] = {
    "an error": ([{"state": "errored", "set": {"error": "no quota"}}], "no quota"),
    "an error that says running": ([{"state": "running", "suffix": "error", "set": {"error": "no"}}], "no"),
    "an error that says nothing": ([{"state": "errored"}], "did not say why"),
    "an error on done": ([{"state": "errored", "suffix": "done", "set": {"error": "no"}}], "no"),
    "an error that is an object": ([{"state": "errored", "set": {"error": {"code": 7}}}], '"code":7'),
    "an error and then done": ([{"state": "errored", "set": {"error": "no"}}, {}], "no"),
    "an error to the inbox": ([{"on": "inbox", "state": "errored", "set": {"error": "no"}}], "no"),
    "a list to the inbox": ([{"on": "inbox", "raw": "[1]"}], "cannot be read"),
    "nothing to the inbox": ([{"on": "inbox", "raw": ""}], "cannot be read"),
    "no state to the inbox": ([{"on": "inbox", "drop": ["_state"]}], "_state"),
    "running to the inbox": ([{"on": "inbox", "state": "running"}], "_state"),
    "another build to the inbox": ([{"on": "inbox", "set": {"service": "other"}}], "another component"),
    "another id to the inbox": ([{"on": "inbox", "set": {"_component_id": "vpc::9"}}], "another component"),
    "a service error": (
        [{"on": "inbox", "headers": {"Nats-Service-Error": "broken", "Nats-Service-Error-Code": "500"}}],
        "broken 500",
    ),
}


@pytest.mark.parametrize("on_verb", [True, False], ids=["alone", "beside another"])
@pytest.mark.parametrize("name", DONE)
def test_one_reply_counts(site: Site, name: str, *, on_verb: bool) -> None:
    """What is second, foreign or unreadable is dropped; the build is done, and what follows is sent once."""
    changes = [component("vpc::1", *DONE[name]), component("net::1")]
    document = chain(*changes) if on_verb else chain(component("vpc::0"), *changes)
    report = site.submitter.run(document)
    assert set(states(report).values()) == {"completed"}
    assert site.connectors.ids(document["id"])[-2:] == ["vpc::1", "net::1"]
    vpc = report["changes"][-2]
    assert (vpc["_component"], vpc["_action"], vpc["_provider"]) == ("vpc", "create", "aws")
    assert (vpc["_component_id"], vpc["service"]) == ("vpc::1", document["id"])
    assert "wrong" not in vpc
    site.client.flush()
    assert len(site.submitter.reports_of(document["id"])) == 1


@pytest.mark.parametrize("name", FAILED)
def test_a_failure_is_a_failure_at_once(site: Site, name: str) -> None:
    """However it is told, it ends the component with its text, and the build."""
    replies, expected = FAILED[name]
    document = chain(component("vpc::1", *replies), component("net::1"))
    site.submitter.accepted(document)
    report = site.submitter.failed(document)
    assert states(report) == {"vpc::1": "errored", "net::1": "waiting"}
    assert expected in errors(report)["vpc::1"]
    assert report["error"].startswith("vpc::1: ")
    assert site.connectors.ids(document["id"]) == ["vpc::1"]
    site.client.flush()
    assert len(site.submitter.reports_of(document["id"])) == 1


@pytest.mark.parametrize(
    "components",
    [{}, "x", [None], [{"id": 1}], [{"_component_id": 5}], [{"_component_id": "x" * 600}]],
    ids=repr,
)
def test_a_find_that_makes_no_sense_fails(site: Site, components: Any) -> None:
    """What it found has to be a list of components with ids."""
    document = build(component("vpc::1", {"set": {"components": components}}, action="find"))
    site.submitter.accepted(document)
    assert "components" in errors(site.submitter.failed(document))["vpc::1"]


def test_a_connector_that_answers_nothing_times_out(site: Site) -> None:
    """After the component's own timeout, which its error names; the rest is not sent."""
    document = chain(silent("vpc::1", _timeout=0.3), component("net::1"))
    site.submitter.accepted(document)
    report = site.submitter.failed(document)
    assert report["error"] == "vpc::1: timed out after 0.3 s"
    assert site.connectors.ids(document["id"]) == ["vpc::1"]


def test_a_reply_after_the_report_is_dropped(site: Site) -> None:
    """It changes nothing, and nobody is told but the log."""
    document = build(component("vpc::1", {"hold": "after the report"}, _timeout=0.3))
    site.submitter.accepted(document)
    site.submitter.failed(document)
    site.connectors.release("after the report")
    site.connectors.await_event("reply", build=document["id"])
    site.submitter.run(build(component("vpc::1")))
    assert len(site.submitter.reports_of(document["id"])) == 1


@pytest.mark.parametrize("on", ["subject", "inbox"])
def test_a_late_success_is_kept_beside_the_error(site: Site, on: str) -> None:
    """While the build still waits for others; so that a retry need not create twice."""
    gate = f"late {on}"
    document = build(
        component("vpc::1", {"hold": gate, "on": on}, _timeout=0.3), held("net::1", f"the rest {on}")
    )
    site.submitter.accepted(document)
    site.scheduler.await_log("component failed", build=document["id"])
    site.connectors.release(gate)
    site.scheduler.await_log("late success kept", build=document["id"])
    site.connectors.release(f"the rest {on}")
    report = site.submitter.failed(document)
    assert states(report) == {"vpc::1": "errored", "net::1": "completed"}
    assert report["changes"][0]["adoptable"]["out"] == "out-of-vpc::1"


def test_without_a_connector_the_component_fails_soon(site: Site) -> None:
    """After ``start_timeout`` (a second here), with the subject that nobody subscribes to."""
    document = chain(component("vpc::1", _provider="nobody"), component("net::1"))
    site.submitter.accepted(document)
    report = site.submitter.failed(document)
    assert report["error"] == "vpc::1: no connector is subscribed to vpc.create.nobody"
    assert states(report)["net::1"] == "waiting"


def test_a_connector_that_comes_late_is_waited_for(world: World) -> None:
    """Within ``start_timeout`` the request is tried again, and received once."""
    scheduler, submitter = world.scheduler("--start-timeout", "30"), world.submitter()
    document = build(component("vpc::1", {"on": "inbox"}))
    submitter.accepted(document)
    scheduler.await_log("build started", build=document["id"])
    connectors = world.connectors()
    submitter.done(document)
    assert connectors.ids() == ["vpc::1"]
    scheduler.end()


def test_foreign_replies_from_outside_do_no_harm(site: Site) -> None:
    """Whatever is published on replies' subjects, for builds that are there or not."""
    document = chain(held("vpc::1", "foreign"), component("net::1"))
    site.submitter.accepted(document)
    site.connectors.await_requests(document["id"], "vpc::1")
    mine = {"_component_id": "vpc::1", "service": document["id"]}
    bodies = [
        {"_component_id": "x"},
        {"_component_id": "vpc::1", "service": "unknown", "_state": "completed"},
        {"service": document["id"]},
        {**mine, "_component_id": "net::1", "_state": "completed"},
        {**mine, "_component_id": "start"},
        {"service": {}, "_component_id": []},
    ]
    raw = [b"", b"\xff\xfe", b"null", b"5", b'"x"', b"[" * 100_000, b'{"service": "' + b"x" * 500_000 + b'"}']
    for subject in ("net.create.aws.done", "vpc.delete.aws.error", "vpc.find.aws.done", "x.create.y.done"):
        for data in [*raw, *(json.dumps(body).encode() for body in bodies)]:
            if subject != "net.create.aws.done" or b"net::1" not in data:
                site.client.publish(subject, data)
    site.client.publish("scheduler.reply.unknown", b"{}")
    site.client.publish("net.create.aws.done", {**mine, "_component_id": "net::1", "_state": "completed"})
    site.client.flush()
    assert not site.submitter.reports_of(document["id"])
    site.connectors.release("foreign")
    report = site.submitter.done(document)
    assert site.connectors.ids(document["id"]) == ["vpc::1", "net::1"]
    assert report["changes"][1]["out"] == "out-of-net::1"


def test_two_schedulers_share_the_work(world: World) -> None:
    """With the memory store any number may run: every build is taken once."""
    schedulers = [world.scheduler(), world.scheduler()]
    connectors, submitter = world.connectors(), world.submitter()
    builds = [chain(component("vpc::1"), component("net::1", {"on": "inbox"})) for _ in range(50)]
    submitter.accepted(*builds)
    for one in builds:
        submitter.done(one)
    submitter.client.flush()
    assert len(submitter.reports) == 50
    assert len(connectors.requests()) == 100
    taken = [sum(entry["event"] == "build started" for entry in one.log) for one in schedulers]
    assert sum(taken) == 50
    for scheduler in schedulers:
        scheduler.end()


def test_a_connector_that_listens_to_everything_hides_that_nobody_does(world: World) -> None:
    """Beside a listener to ``>`` there is no 503: the attempt timeout answers instead."""
    scheduler = world.scheduler("--attempt-timeout", "0.5", "--start-timeout", "0.1")
    submitter: Submitter = world.submitter()
    submitter.client.listen(">")
    document = build(component("vpc::1"))
    submitter.accepted(document)
    assert submitter.failed(document)["error"] == "vpc::1: timed out after 0.5 s"
    scheduler.end()
