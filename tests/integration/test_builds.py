"""Builds that go well, and many at a time."""

import json
import random
import re
from importlib import resources
from typing import Any

import pytest

from integration.builds import build, chain, component, failing, held, layered
from integration.conftest import Site, World
from integration.harness import CANARY, Connectors, Submitter, errors, states
from integration.orders import JSON, check_order

pytestmark = pytest.mark.integration


def example(name: str, **fields: Any) -> JSON:
    """A build that ships with the package."""
    text = (resources.files("scheduler") / "examples" / f"{name}.json").read_text("utf-8")
    document: JSON = json.loads(text) | fields
    return document


@pytest.mark.parametrize("name", ["create", "delete"])
@pytest.mark.parametrize("kind", ["build", "service"])
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "published"])
def test_a_shipped_example_is_built(site: Site, name: str, kind: str, *, asked: bool) -> None:
    """Every component is requested once, after what it depends on; the report says that all is done."""
    action = f"{kind}.{name}"
    document = example(name, id=f"example/{name}-{kind}-{asked}", action=action)
    if asked:
        site.submitter.accepted(document)
    else:
        site.submitter.publish(document)
    report = site.submitter.done(document)
    ids = [change["_component_id"] for change in document["changes"]]
    assert states(report) == dict.fromkeys(ids, "completed")
    assert sorted(check_order(document, site.connectors)) == sorted(ids)
    assert report["edges"] == document["edges"]
    assert {key: report[key] for key in ("id", "name", "user_id", "username", "action", "options")} == {
        key: document[key] for key in ("id", "name", "user_id", "username", "action", "options")
    }
    assert len(site.submitter.reports_of(document["id"])) == 1
    existing = [one["_component_id"] for one in report["components"]]
    if name == "create":
        before = [one["_component_id"] for one in document["components"]]
        assert existing[: len(before)] == before
        assert sorted(existing[len(before) :]) == sorted(ids)
        assert report["components"][1]["vpc_aws_id"] == "made-vpc::test-vpc"
    else:
        assert existing == [one for one in existing if one not in ids]
    for request in site.connectors.requests(document["id"]):
        assert request["body"]["service"] == document["id"]
        assert request["body"]["_state"] == "running"
        assert "$(" not in json.dumps(request["body"])
        assert "{{" not in json.dumps(request["body"])


def sort_by_reply(connectors: Connectors, build_id: str) -> list[JSON]:
    """The replies of a build, in order."""
    return [one for one in connectors.records if one["event"] == "reply" and one["build"] == build_id]


def test_references_of_both_forms_are_filled_and_order_the_walk(site: Site) -> None:
    """What the earlier component returned stands in the request; the stored change keeps its template."""
    vm = component(
        "vm::1",
        ernest='$(components.#[_component_id="net::1"].net_aws_id)',
        jinja='net {{ components["net::1"].net_aws_id | upper }} of {{ build.id }}',
        typed='{{ components["net::1"].zones }}',
        literal="$() and {% this %}",
        _raw=["script"],
        script="{{ not ours }}",
    )
    big = 123456789012345678901234567890
    net = component("net::1", {"set": {"zones": ["a", "b"], "big": big}}, net_aws_id="")
    document = build(vm, net)  # in the wrong order, and without an edge
    report = site.submitter.run(document)
    assert site.connectors.ids(document["id"]) == ["net::1", "vm::1"]
    body = site.connectors.requests(document["id"])[1]["body"]
    assert body["ernest"] == "made-net::1"
    assert body["jinja"] == f"net MADE-NET::1 of {document['id']}"
    assert body["typed"] == ["a", "b"]
    assert body["literal"] == "$() and {% this %}"
    assert body["script"] == "{{ not ours }}"
    assert report["edges"] == []
    assert report["changes"][1]["big"] == big


def test_a_request_names_its_attempt_and_where_to_reply(site: Site) -> None:
    """Subject, reply subject and message id are as in the specification."""
    document = build(component("vpc::ü 1", {"on": "inbox"}))
    site.submitter.run(document)
    (request,) = site.connectors.requests(document["id"])
    assert request["subject"] == "vpc.create.aws"
    assert request["inbox"].startswith("scheduler.reply.")
    name = f"{document['id']}/vpc::%C3%BC 1"
    identity, key = request["headers"]["Nats-Msg-Id"], request["headers"]["Scheduler-Component-Key"]
    mark = key.removeprefix(f"{name}/")
    assert re.fullmatch("[0-9a-f]{16}", mark)
    assert identity == f"{name}/1/{mark}"


def test_every_action_changes_what_exists_as_it_should(site: Site) -> None:
    """Create appends, update replaces, delete removes, find brings in, none completes unsent."""
    found = [{"_component_id": "img::a", "_component": "img"}, {"_component_id": "old::1", "new": 1}]
    changes = [
        component("vpc::1"),
        component("net::1", action="update"),
        component("vm::1", action="delete"),
        component("img::q", {"set": {"components": found}}, action="find"),
        component("disk::1", action="get"),
        component("note::1", action="none"),
        component("past::1") | {"_state": "completed"},
    ]
    before = [
        {"_component_id": name, "_component": name.split("::")[0]} for name in ("net::1", "vm::1", "old::1")
    ]
    document = chain(*changes, components=before)
    report = site.submitter.run(document)
    assert site.connectors.ids(document["id"]) == ["vpc::1", "net::1", "vm::1", "img::q", "disk::1"]
    assert set(states(report).values()) == {"completed"}
    existing = {one["_component_id"]: one for one in report["components"]}
    assert list(existing) == ["net::1", "old::1", "vpc::1", "img::a", "disk::1"]
    assert existing["net::1"]["out"] == "out-of-net::1"
    assert existing["old::1"] == {"_component_id": "old::1", "new": 1, "service": document["id"]}


def test_a_failure_stops_the_rest_and_is_the_reports_error(site: Site) -> None:
    """What depends on it stays waiting, what exists stays as it was, and the text is where it belongs."""
    document = chain(component("vpc::1"), failing("net::1"), component("vm::1"))
    site.submitter.accepted(document)
    report = site.submitter.failed(document)
    assert report["error"] == "net::1: no more quota"
    assert states(report) == {"vpc::1": "completed", "net::1": "errored", "vm::1": "waiting"}
    assert errors(report) == {"net::1": "no more quota"}
    assert [one["_component_id"] for one in report["components"]] == ["vpc::1"]
    assert site.connectors.ids(document["id"]) == ["vpc::1", "net::1"]


def test_a_finished_build_may_run_again(site: Site) -> None:
    """The report of a failed build, handed in again, is a new run that does only what is left."""
    document = chain(component("vpc::1"), failing("net::1"), component("vm::1"))
    site.submitter.accepted(document)
    report = site.submitter.failed(document)
    del report["changes"][1]["behaviour"]
    again = site.submitter.client.listen("build.create.done")
    site.submitter.accepted(report)
    second = again.first(lambda message: message.json["id"] == document["id"]).json
    assert set(states(second).values()) == {"completed"}
    assert "error" not in second
    assert site.connectors.ids(document["id"]) == ["vpc::1", "net::1", "net::1", "vm::1"]
    assert len(site.submitter.reports_of(document["id"])) == 2


def test_fifty_random_builds_at_once(site: Site) -> None:
    """Each has one report, which agrees with what the connectors saw; nothing is sent twice or too early."""
    randomness = random.Random(20)
    builds = [
        layered(randomness, size=randomness.randint(1, 40), failures=0.02, latency=0.05) for _ in range(50)
    ]
    messages = [(one["action"], json.dumps(one).encode(), f"answers.{one['id']}") for one in builds]
    answers = site.client.listen("answers.>")
    site.client.publish_all(messages)
    for answer in answers.count(len(builds)):
        assert answer.json["status"] == "accepted", answer.json
    ends = [check_against_records(site, one) for one in builds]
    assert 5 < sum(ends) < 45, "the seed no longer gives both outcomes"
    site.client.flush()
    for one in builds:
        assert len(site.submitter.reports_of(one["id"])) == 1


def check_against_records(site: Site, document: JSON) -> bool:
    """The report of a build agrees with the connectors' records; returns whether it is done."""
    message = site.submitter.report(document["id"])
    report = message.json
    requested = check_order(document, site.connectors)
    replies = {one["id"]: one["state"] for one in sort_by_reply(site.connectors, document["id"])}
    assert sorted(replies) == sorted(requested), "something was still in flight at the report"
    assert states(report) == {
        change["_component_id"]: replies.get(change["_component_id"], "waiting")
        for change in document["changes"]
    }
    completed = [name for name, state in replies.items() if state == "completed"]
    assert sorted(one["_component_id"] for one in report["components"]) == sorted(completed)
    if "errored" not in replies.values():
        assert message.subject == "build.create.done"
        return True
    assert message.subject == "build.create.error"
    assert report["error"].partition(": ")[2].endswith(" broke")
    return False


def test_the_same_build_again_while_it_runs(site: Site) -> None:
    """The same content is accepted and changes nothing; other content is refused, and nothing published."""
    document = build(held("vpc::1", "again"))
    site.submitter.accepted(document)
    site.connectors.await_requests(document["id"], "vpc::1")
    site.submitter.accepted(json.loads(json.dumps(document, indent=3)))
    other = document | {"name": "other"}
    answer = site.submitter.submit(other)
    assert answer["status"] == "rejected"
    assert answer["error"]["code"] == "running"
    # Of rejections within a second the log has one: so it is published until its turn has come.
    lines = len([one for one in site.scheduler.log if one["event"] == "build rejected"])
    for attempt in range(1, 41):
        site.submitter.publish(other)
        try:
            site.scheduler.await_log("build rejected", 0.5, times=lines + 1)
        except AssertionError:
            assert attempt < 40, "no rejection was logged"
        else:
            break
    site.connectors.release("again")
    site.submitter.done(document)
    assert len(site.submitter.reports_of(document["id"])) == 1
    assert site.connectors.ids(document["id"]) == ["vpc::1"]


@pytest.mark.alone
def test_thousands_of_builds_at_a_time(world: World) -> None:
    """Two thousand, handed in at once, while two run: each is accepted, and reported once."""
    scheduler = world.scheduler("--log-level", "warning", ready=False)
    connectors = world.connectors()
    submitter = world.submitter()
    submitter_ready(submitter)
    builds = [build(component("vpc::1")) for _ in range(2_000)]
    answers = submitter.client.listen("answers.>")
    submitter.client.publish_all(
        [(one["action"], json.dumps(one).encode(), f"answers.{one['id']}") for one in builds]
    )
    ids = sorted(one["id"] for one in builds)
    submitter.reports.count(len(builds), deadline=90)
    submitter.client.flush()
    assert sorted(message.json["id"] for message in answers) == ids
    assert {message.json["status"] for message in answers} == {"accepted"}
    assert sorted(message.json["id"] for message in submitter.reports) == ids
    assert {message.subject for message in submitter.reports} == {"build.create.done"}
    assert sorted(request["build"] for request in connectors.requests()) == ids
    scheduler.end()


def submitter_ready(submitter: Submitter) -> None:
    """Wait for the service by what it answers to discovery, and by nothing else."""
    submitter.client.ping("scheduler")


def test_discovery(site: Site) -> None:
    """PING, INFO and STATS are answered for everybody, by name and by id, with the endpoints' counts."""
    (ping,) = site.client.request_many("$SRV.PING", 1)
    assert ping["type"] == "io.nats.micro.v1.ping_response"
    assert ping["name"] == "scheduler"
    assert site.client.request("$SRV.PING.scheduler", b"") == ping
    assert site.client.request(f"$SRV.PING.scheduler.{ping['id']}", b"") == ping
    info = site.client.request("$SRV.INFO.scheduler", b"")
    assert info["type"] == "io.nats.micro.v1.info_response"
    subjects = {endpoint["subject"] for endpoint in info["endpoints"]}
    assert {subject for subject in subjects if not subject.startswith("scheduler.build.")} == {
        f"{kind}.{verb}"
        for kind in ("build", "service")
        for verb in ("create", "delete", "import", "patch", "sync")
    }
    assert {endpoint["queue_group"] for endpoint in info["endpoints"]} == {"scheduler"}
    before = patches(site)
    site.submitter.run(build(component("vpc::1"), action="build.patch"))
    site.client.request("build.patch", b"not a build")
    after = patches(site)
    assert after["num_requests"] == before["num_requests"] + 2
    assert after["num_errors"] == before["num_errors"] + 1
    assert "JSON" in after["last_error"]


def patches(site: Site) -> JSON:
    """The counters of one endpoint."""
    stats = site.client.request("$SRV.STATS.scheduler", b"")
    assert stats["type"] == "io.nats.micro.v1.stats_response"
    found: JSON = next(one for one in stats["endpoints"] if one["subject"] == "build.patch")
    return found


def test_credentials_are_in_messages_and_not_in_the_log(site: Site) -> None:
    """Fields of components travel on the wire, and are never logged, not even when things go wrong."""
    document = build(failing("vpc::1", f"{'x' * 5_000}"), component("net::1"))
    site.submitter.accepted(document)
    assert CANARY in site.submitter.report(document["id"]).data.decode()
    site.client.request("build.create", build(component("vpc::1", _action="destroy")))
    site.client.request("build.create", json.dumps(build(component("vpc::1"))).encode()[:-40])
    site.scheduler.await_log("build failed", build=document["id"])
    site.scheduler.check_log()
