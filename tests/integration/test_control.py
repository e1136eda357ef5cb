"""Operators at work on a real broker: builds that are asked about, steered, tried again and limited."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from support.brokers import nats_server

from integration.builds import build, chain, component, failing, held
from integration.conftest import World
from integration.harness import JSON, Connectors, Scheduler, Submitter, errors, eventually, states

pytestmark = pytest.mark.integration


class Desk:
    """A broker with JetStream, a service on it, connectors, and somebody who submits and steers."""

    def __init__(self, stack: ExitStack, **env: str) -> None:
        self._world = World(stack, stack.enter_context(nats_server(jetstream=True)))
        self._env = {"NATS_URL": self._world.server.url, "SCHEDULER_STORE": "jetstream", **env}
        self.scheduler: Scheduler = self._world.scheduler(env=self._env)
        self.connectors: Connectors = self._world.connectors()
        self.submitter: Submitter = self._world.submitter()

    def ask(self, verb: str, build: JSON | str, **document: Any) -> JSON:
        id_ = build if isinstance(build, str) else build["id"]
        return self.submitter.client.request(f"scheduler.build.{verb}", {"id": id_, **document})

    def state(self, build: JSON, component: str) -> str:
        found: dict[str, str] = {one["id"]: one["state"] for one in self.ask("get", build)["components"]}
        return found[component]

    def await_state(self, build: JSON, component: str, state: str) -> None:
        eventually(lambda: self.state(build, component) == state, what=f"{component} {state}")

    def captured(self, subject: str, build: JSON) -> bool:
        """Whether the last reply on a subject that was captured is of this build."""
        question = {"last_by_subj": subject}
        answer = self.submitter.client.request("$JS.API.STREAM.MSG.GET.SCHEDULER_REPLIES", question)
        data = answer.get("message", {}).get("data", "")
        return f'"service": "{build["id"]}"' in base64.b64decode(data).decode()

    def second_report(self, build: JSON) -> JSON:
        """That of the second run, which is done."""
        reports = self.submitter.reports.count(2, lambda message: message.json.get("id") == build["id"])
        assert reports[-1].subject == "build.create.done"
        report: JSON = reports[-1].json
        return report

    def restart(self) -> None:
        """Kill the service, and start it again."""
        self.scheduler.kill()
        self.scheduler = self._world.scheduler(env=self._env)

    def command(self, *arguments: str) -> Scheduler:
        return self._world.command(*arguments)

    def attempts(self, build: JSON, component: str) -> list[str]:
        return [
            # Without the mark of the build's acceptance.
            one["headers"]["Nats-Msg-Id"].rpartition("/")[0]
            for one in self.connectors.requests(build["id"])
            if one["id"] == component
        ]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """One that the tests of this module share."""
    with ExitStack() as stack:
        yield Desk(stack)


@pytest.fixture
def open_desk() -> Iterator[Callable[..., Desk]]:
    """Desks of a test's own, with variables of its service."""
    with ExitStack() as stack:
        yield lambda **env: Desk(stack, **env)


def flaky(name: str, times: int = 1, /, **fields: Any) -> JSON:
    """A change that fails so many times, and then is done."""
    failures = [[{"state": "errored", "set": {"error": f"busy {number}"}}] for number in range(times)]
    return component(name, behaviour={"attempts": [*failures, [{}]]}, **fields)


def test_a_paused_build_sends_nothing_until_it_is_resumed(desk: Desk) -> None:
    """What is in flight ends meanwhile; what depends on it waits, and says why."""
    document = chain(held("vpc::1", "pause"), component("net::1"))
    desk.submitter.accepted(document)
    desk.connectors.await_requests(document["id"], "vpc::1")
    assert desk.ask("pause", document)["status"] == "paused"
    desk.connectors.release("pause")
    desk.await_state(document, "vpc::1", "completed")
    (reason,) = desk.ask("why", document, component="net::1")["reasons"]
    assert "paused" in reason["text"]
    assert desk.connectors.ids(document["id"]) == ["vpc::1"]
    assert desk.ask("resume", document)["status"] == "running"
    assert set(states(desk.submitter.done(document)).values()) == {"completed"}


def test_a_cancelled_build_awaits_what_is_in_flight(desk: Desk) -> None:
    """Its report says that it was cancelled and why, and what was never sent."""
    document = chain(held("vpc::1", "cancel"), component("net::1"))
    desk.submitter.accepted(document)
    desk.connectors.await_requests(document["id"], "vpc::1")
    assert desk.ask("cancel", document, reason="wrong region")["status"] == "halted"
    assert not desk.submitter.reports_of(document["id"])
    desk.connectors.release("cancel")
    report = desk.submitter.failed(document)
    assert report["error"] == "cancelled: wrong region"
    assert states(report) == {"vpc::1": "completed", "net::1": "waiting"}


def test_cancelled_now_it_gives_up_on_what_is_in_flight(desk: Desk) -> None:
    """The outcome of that is unknown, and the report says so."""
    document = chain(held("vpc::1", "never"), component("net::1"))
    desk.submitter.accepted(document)
    desk.connectors.await_requests(document["id"], "vpc::1")
    desk.ask("cancel", document, now=True)
    report = desk.submitter.failed(document)
    assert states(report) == {"vpc::1": "errored", "net::1": "waiting"}
    assert "outcome unknown" in errors(report)["vpc::1"]
    refused = desk.ask("cancel", document)
    assert refused["error"]["code"] == "conflict"


def test_a_failed_build_is_gone_on_with_in_a_new_run(desk: Desk) -> None:
    """Only what had failed is sent again, under another attempt id; the new run has a report of its own."""
    document = chain(component("vpc::1"), flaky("net::1"), component("vm::1"))
    desk.submitter.accepted(document)
    assert states(desk.submitter.failed(document)) == {
        "vpc::1": "completed",
        "net::1": "errored",
        "vm::1": "waiting",
    }
    answer = desk.ask("retry", document, component="net::1")
    assert answer["components"] == 2
    assert set(states(desk.second_report(document)).values()) == {"completed"}
    assert [one.rpartition("/")[2] for one in desk.attempts(document, "net::1")] == ["1", "2"]
    assert desk.attempts(document, "vpc::1") == [f"{document['id']}/vpc::1/1"]
    assert desk.ask("get", document)["run"] == 2


def test_a_success_that_came_after_the_end_is_not_made_twice(desk: Desk) -> None:
    """It timed out, was reported, and answered then: another run takes that answer and asks nobody."""
    document = chain(held("vpc::1", "late", _timeout=0.5), component("net::1"))
    desk.submitter.accepted(document)
    assert states(desk.submitter.failed(document))["vpc::1"] == "errored"
    desk.connectors.release("late")
    eventually(lambda: desk.captured("vpc.create.aws.done", document), "captured")
    answer = desk.ask("retry", document)
    assert "late success" in answer["text"]
    assert set(states(desk.second_report(document)).values()) == {"completed"}
    assert desk.connectors.ids(document["id"]) == ["vpc::1", "net::1"]


def test_a_success_that_comes_before_the_next_attempt_is_not_made_twice(desk: Desk) -> None:
    """It is to be sent again and held up by a pause: what its first attempt has made counts."""
    document = build(
        held("vpc::1", "first", _timeout=0.5), held("net::1", "second"), options={"on_error": "continue"}
    )
    desk.submitter.accepted(document)
    desk.await_state(document, "vpc::1", "errored")
    desk.ask("pause", document)
    desk.ask("retry", document)
    desk.connectors.release("first")
    desk.await_state(document, "vpc::1", "completed")
    desk.ask("resume", document)
    desk.connectors.release("second")
    desk.submitter.done(document)
    assert desk.connectors.ids(document["id"]).count("vpc::1") == 1


def test_a_skipped_component_has_the_output_that_others_refer_to(desk: Desk) -> None:
    """It is never sent; what depends on it is, filled with what was supplied."""
    document = chain(
        held("vpc::1", "skip"),
        component("net::1"),
        component("vm::1", ref='$(components.#[_component_id="net::1"].net_aws_id)'),
    )
    desk.submitter.accepted(document)
    desk.connectors.await_requests(document["id"], "vpc::1")
    desk.ask("skip", document, component="net::1", output={"net_aws_id": "net-7"})
    desk.connectors.release("skip")
    report = desk.submitter.done(document)
    assert desk.connectors.ids(document["id"]) == ["vpc::1", "vm::1"]
    assert next(one for one in report["changes"] if one["_component_id"] == "vm::1")["ref"] == "net-7"


def test_a_component_is_tried_again_under_ids_of_its_own(desk: Desk) -> None:
    """As often as it says, with pauses between; then it fails for good, and says after how many attempts."""
    retry = {"attempts": 3, "backoff": 0.05}
    document = build(flaky("vpc::1", 2, _retry=retry), failing("net::1", "no quota", _retry=retry))
    desk.submitter.accepted(document)
    report = desk.submitter.failed(document)
    assert states(report)["net::1"] == "errored"
    assert errors(report)["net::1"] == "no quota (after 3 attempts)"
    for name in ("vpc::1", "net::1"):
        numbers = [one.rpartition("/")[2] for one in desk.attempts(document, name)]
        assert numbers == ["1", "2", "3"][: len(numbers)]
    assert len(desk.attempts(document, "net::1")) == 3


@pytest.mark.parametrize("killed", [False, True], ids=["at once", "across a kill"])
def test_an_attempt_that_hangs_is_given_up_for_another(
    open_desk: Callable[..., Desk], *, killed: bool
) -> None:
    """The second one completes it, under an id of its own; what was in flight beside it is not touched."""
    desk = open_desk()
    behaviour = {"attempts": [[{"hold": "never"}], [{"hold": "again"}]]}
    document = build(
        component("vpc::1", behaviour=behaviour),
        held("disk::1", "again"),
        component("net::1"),
        edges="vpc::1 net::1",
    )
    desk.submitter.accepted(document)
    desk.connectors.await_requests(document["id"], "vpc::1", "disk::1")
    said = desk.command("retry", document["id"], "vpc::1", "--now", "--reason", "it hangs")
    assert (said.code, said.errors) == (0, "")
    assert "gave up on attempt 1 of vpc::1; it is sent again now" in said.output
    eventually(lambda: len(desk.attempts(document, "vpc::1")) == 2)
    if killed:
        desk.restart()
    desk.connectors.release("again")
    desk.submitter.done(document)
    numbers = [one.rpartition("/")[2] for one in desk.attempts(document, "vpc::1")]
    # What is not known to have left before the kill is sent again, under the same id.
    assert (list(dict.fromkeys(numbers)) if killed else numbers) == ["1", "2"]
    assert len(set(desk.attempts(document, "disk::1"))) == 1
    told = desk.command("history", document["id"]).output.splitlines()
    assert told[1].endswith("it hangs")


def test_a_build_goes_on_without_what_failed(desk: Desk) -> None:
    """With on_error continue: independent branches end, dependents are left out, one report, an error."""
    document = build(
        failing("vpc::1"),
        component("net::1"),
        held("disk::1", "later"),
        component("vm::1"),
        edges="vpc::1 net::1, disk::1 vm::1",
        options={"on_error": "continue"},
    )
    desk.submitter.accepted(document)
    desk.await_state(document, "net::1", "skipped")
    desk.connectors.release("later")
    report = desk.submitter.failed(document)
    assert states(report) == {
        "vpc::1": "errored",
        "net::1": "waiting",
        "disk::1": "completed",
        "vm::1": "completed",
    }
    assert report["error"] == "vpc::1: no more quota"


def test_a_timeout_is_extended(desk: Desk) -> None:
    """What would have timed out is answered in the added time."""
    document = build(held("vpc::1", "extended", _timeout=1.0))
    desk.submitter.accepted(document)
    desk.connectors.await_requests(document["id"], "vpc::1")
    assert "600 s more" in desk.ask("extend", document, component="vpc::1", seconds=600)["text"]
    other = build(held("vpc::1", "never", _timeout=1.2))
    desk.submitter.accepted(other)
    assert errors(desk.submitter.failed(other))["vpc::1"] == "timed out after 1.2 s"
    desk.connectors.release("extended")
    desk.submitter.done(document)


def test_limits_of_a_build_are_kept_and_changed(desk: Desk) -> None:
    """No more are in flight than it says, until it says otherwise."""
    names = [f"vpc::{number}" for number in range(6)]
    document = build(*(held(name, "limited") for name in names), options={"limits": {"vpc.create.*": 2}})
    desk.submitter.accepted(document)
    waiting = {"limit": "options.limits vpc.create.*=2", "waiting": 4}
    eventually(lambda: waiting in desk.ask("get", document)["limits"], what="two that have slots")
    # Who has a slot leaves when that is persisted.
    desk.connectors.await_event("request", build=document["id"], times=2)
    assert len(desk.connectors.ids(document["id"])) == 2
    desk.ask("limit", document, limits={"vpc.create.*": 5})
    eventually(lambda: len(desk.connectors.ids(document["id"])) == 5, what="five in flight")
    desk.connectors.release("limited")
    desk.submitter.done(document)


def test_rates_are_kept_as_the_connector_sees_them(open_desk: Callable[..., Desk]) -> None:
    """Of 12 with 4 a second none comes within a second of the fourth before it; and one at a time is one."""
    desk = open_desk(SCHEDULER_LIMITS="*.create.*=4/s, net.create.*=1")
    document = build(*(component(f"vpc::{number}") for number in range(12)))
    desk.submitter.accepted(document)
    desk.submitter.done(document)
    times = [one["time"] for one in desk.connectors.requests(document["id"])]
    assert len(times) == 12
    assert all(later - earlier >= 0.99 for earlier, later in zip(times, times[4:], strict=False))
    one_by_one = build(*(held(f"net::{number}", f"net {number}") for number in range(3)))
    desk.submitter.accepted(one_by_one)
    for number in range(3):
        desk.connectors.await_event("request", build=one_by_one["id"], times=number + 1)
        asked = desk.connectors.ids(one_by_one["id"])
        assert len(asked) == number + 1
        desk.connectors.release(asked[-1].replace("::", " "))
    desk.submitter.done(one_by_one)


def test_what_an_operator_did_survives_a_kill(open_desk: Callable[..., Desk]) -> None:
    """A pause, a skip, a cancel and a pause between attempts are in the log, and hold in the next process."""
    desk = open_desk()
    paused = chain(held("vpc::1", "go"), component("net::1"))
    skipped = chain(held("vpc::1", "go"), component("net::1"), component("vm::1"))
    cancelled = chain(held("vpc::1", "go"), component("net::1"))
    tried = build(flaky("vpc::1", 1, _retry={"attempts": 2, "backoff": 0.0}), held("net::1", "go"))
    tried["changes"][0]["behaviour"]["attempts"][0][0]["set"]["retry_after"] = 10
    desk.submitter.accepted(paused, skipped, cancelled)
    for document in (paused, skipped, cancelled):
        desk.connectors.await_requests(document["id"], "vpc::1")
    desk.ask("pause", paused, reason="waiting for quota", by="anna")
    desk.ask("skip", skipped, component="net::1", output={"out": "supplied"})
    desk.ask("cancel", cancelled)
    # Of what is not known to have left in a build that is cancelled nobody could tell the outcome.
    eventually(lambda: '"sent"' in desk.command("export", cancelled["id"]).output, "known to have left")
    # Last: its pause is short, and is to go on in the next process.
    desk.submitter.accepted(tried)
    desk.await_state(tried, "vpc::1", "retrying")
    desk.restart()
    eventually(lambda: desk.ask("get", paused)["status"] == "paused")
    assert desk.state(tried, "vpc::1") == "retrying"
    desk.connectors.release("go")
    assert states(desk.submitter.failed(cancelled)) == {"vpc::1": "completed", "net::1": "waiting"}
    report = desk.submitter.done(skipped)
    assert next(one for one in report["changes"] if one["_component_id"] == "net::1")["out"] == "supplied"
    assert desk.connectors.ids(skipped["id"]) == ["vpc::1", "vm::1"]
    desk.submitter.done(tried)
    assert [one.rpartition("/")[2] for one in desk.attempts(tried, "vpc::1")] == ["1", "2"]
    desk.await_state(paused, "vpc::1", "completed")
    assert desk.connectors.ids(paused["id"]) == ["vpc::1"]
    desk.ask("resume", paused)
    desk.submitter.done(paused)
    told = desk.command("history", paused["id"]).output.splitlines()
    assert [line.split()[2] for line in told[1:]] == ["paused", "resumed"]
    assert told[1].endswith("anna (claimed)  waiting for quota")


def test_a_gate_survives_a_kill_and_is_approved_after_it(open_desk: Callable[..., Desk]) -> None:
    """It waits in the next process, and what was approved before a kill stays so."""
    desk = open_desk()
    gated = chain(component("vpc::1"), component("gate::1", action="approve"), component("net::1"))
    approved = chain(component("gate::1", action="approve"), held("net::1", "go"))
    desk.submitter.accepted(gated, approved)
    for document in (gated, approved):
        desk.await_state(document, "gate::1", "gated")
    assert desk.command("approve", approved["id"], "gate::1", "--reason", "seen", "--as", "ann").code == 0
    desk.connectors.await_requests(approved["id"], "net::1")
    desk.restart()
    eventually(lambda: desk.ask("get", gated).get("gated") == 1, what="it waits again")
    why = desk.command("why", gated["id"]).output
    assert f"scheduler approve {gated['id']} gate::1" in why
    refused = desk.command("approve", approved["id"], "gate::1")
    assert (refused.code, "approved already, by ann" in refused.errors) == (1, True)
    desk.connectors.release("go")
    report = desk.submitter.done(approved)
    assert (
        next(one for one in report["changes"] if one["_component_id"] == "gate::1")["approval_reason"]
        == "seen"
    )
    assert "is approved" in desk.command("approve", gated["id"], "gate::1").output
    desk.submitter.done(gated)
    assert desk.connectors.ids(gated["id"]) == ["vpc::1", "net::1"]
    history = desk.command("history", gated["id"]).output
    assert "approved" in history.splitlines()[1]


def test_commands_ask_and_steer(desk: Desk) -> None:
    """Each command does over the broker what it says, and says what went wrong, with its exit code."""
    document = chain(held("vpc::1", "commands"), failing("net::1"))
    name = document["id"]
    desk.submitter.accepted(document)
    desk.connectors.await_requests(name, "vpc::1")
    listed = desk.command("list")
    assert (listed.code, listed.errors) == (0, "")
    assert name in listed.output
    assert "1 running" in desk.command("status", name).output
    assert "vpc.create.aws" in desk.command("why", name, "vpc::1").output
    assert "waits for vpc::1" in desk.command("why", name, "net::1").output
    assert desk.command("pause", name).code == 0
    assert json.loads(desk.command("resume", name, "--json").output)["status"] == "running"
    refused = desk.command("resume", name)
    assert (refused.code, refused.output) == (1, "")
    assert "not paused" in refused.errors
    plan = json.loads(json.dumps(desk.ask("plan", name)))
    assert [wave["components"] for wave in plan["waves"]] == [["vpc::1"], ["net::1"]]
    desk.connectors.release("commands")
    watched = desk.command("watch", name)
    assert watched.code == 1
    assert "no more quota" in watched.output
    timeline = json.loads(desk.command("timeline", name, "--json").output)
    assert timeline["critical_path"] == ["vpc::1", "net::1"]
    assert desk.command("skip", name, "net::1", "--output", '{"out": 1}').code == 0
    assert set(states(desk.second_report(document)).values()) == {"completed"}
    assert "digraph" in desk.command("graph", name).output
    unknown = desk.command("status", "nobody")
    assert unknown.code == 1
    assert "there is no build" in unknown.errors


def test_service_discovery_shows_what_can_be_asked(desk: Desk) -> None:
    """Each endpoint is there, with the schemas of what it takes and gives."""
    (info,) = desk.submitter.client.request_many("$SRV.INFO.scheduler", 1)
    found = {one["subject"]: one["metadata"] for one in info["endpoints"] if ".build." in one["subject"]}
    questions = "list get why plan instances report unmasked history"
    commands = "cancel pause resume retry skip approve reject extend limit"
    assert set(found) == {f"scheduler.build.{verb}" for verb in f"{questions} {commands}".split()}
    for metadata in found.values():
        assert json.loads(metadata["request_schema"])["type"] == "object"
        assert json.loads(metadata["response_schema"])["type"] == "object"


def test_many_small_orders_are_in_order(desk: Desk) -> None:
    """What is asked one after another takes effect one after another."""
    document = build(held("vpc::1", "orders"))
    desk.submitter.accepted(document)
    desk.connectors.await_requests(document["id"], "vpc::1")
    orders = ["pause", "resume"] * 10
    answers = [desk.ask(order, document)["status"] for order in orders]
    assert all(first != second for first, second in pairwise(answers))
    desk.connectors.release("orders")
    desk.submitter.done(document)
