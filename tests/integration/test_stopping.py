"""SIGTERM and SIGINT, once and twice."""

import json
from signal import SIGINT, SIGTERM, Signals
from typing import Any

import pytest

from integration.builds import build, chain, component, held, silent
from integration.conftest import World
from integration.harness import errors, states, within

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
BOTH = pytest.mark.parametrize("number", [SIGTERM, SIGINT], ids=lambda number: number.name)


@BOTH
def test_idle_it_ends_at_once(world: World, number: Signals) -> None:
    """Exit code 0 within two seconds, and nothing on standard error but its log."""

    def stop() -> float:
        scheduler = world.scheduler()
        code, seconds = scheduler.stop(number)
        assert code == 0
        scheduler.check_log()
        assert scheduler.output == ""
        return seconds

    within(2, stop)


@BOTH
def test_in_mid_build_what_is_in_flight_is_awaited(world: World, number: Signals) -> None:
    """No new build, no new component; with the memory store the rest is reported as an error."""
    scheduler, connectors, submitter = world.scheduler(), world.connectors(), world.submitter()
    document = chain(held("vpc::1", "stopping"), component("net::1"))
    last = build(held("vpc::2", "stopping"))
    submitter.accepted(document, last)
    connectors.await_requests(document["id"], "vpc::1")
    connectors.await_requests(last["id"], "vpc::2")
    scheduler.send(number)
    scheduler.await_log("stopping")
    refused = build(component("vpc::1"))
    answer = submitter.submit(refused)
    assert answer["status"] == "rejected"
    assert answer["error"]["code"] == "shutting_down"
    unasked = build(component("vpc::1"))
    submitter.publish(unasked)
    assert "shutting down" in submitter.failed(unasked)["error"]
    connectors.release("stopping")
    report = submitter.failed(document)
    assert states(report) == {"vpc::1": "completed", "net::1": "waiting"}
    assert "shut down" in report["error"]
    submitter.done(last)
    assert scheduler.wait() == 0
    scheduler.check_log()
    assert connectors.ids() == ["vpc::1", "vpc::2"]
    assert len(submitter.reports) == 3


def test_when_the_grace_is_over_it_ends(world: World) -> None:
    """Within two more seconds; what was in flight is reported as failed, its outcome unknown."""
    connectors, submitter = world.connectors(), world.submitter()

    def stop() -> float:
        scheduler = world.scheduler("--grace", "1")
        builds = [chain(silent("vpc::1"), component("net::1")) for _ in range(20)]
        submitter.accepted(*builds)
        for one in builds:
            connectors.await_requests(one["id"], "vpc::1")
        code, seconds = scheduler.stop()
        assert code == 0
        assert seconds >= 1
        for one in builds:
            report = submitter.failed(one)
            assert states(report) == {"vpc::1": "errored", "net::1": "waiting"}
            assert "unknown" in errors(report)["vpc::1"]
            assert len(submitter.reports_of(one["id"])) == 1
        scheduler.check_log()
        return seconds

    within(3, stop)


def test_a_stalled_broker_does_not_keep_it(world: World) -> None:
    """One signal is enough: it ends within the grace and two seconds."""
    connectors, submitter = world.connectors(), world.submitter()

    def stop() -> float:
        scheduler = world.scheduler("--grace", "1")
        document = build(silent("vpc::1"))
        submitter.accepted(document)
        connectors.await_requests(document["id"], "vpc::1")
        world.server.pause()
        code, seconds = scheduler.stop()
        world.server.resume()
        assert code == 0
        scheduler.check_log()
        return seconds

    within(3, stop)


def stop_twice(world: World, first: Signals, second: Signals, *, stalled: bool = False) -> None:
    connectors, submitter = world.connectors(), world.submitter()

    def stop() -> float:
        scheduler = world.scheduler()
        document = chain(silent("vpc::1"), component("net::1"))
        submitter.accepted(document)
        connectors.await_requests(document["id"], "vpc::1")
        if stalled:
            world.server.pause()
        scheduler.send(first)
        scheduler.await_log("stopping", signal=first.name)
        code, seconds = scheduler.stop(second)
        world.server.resume()
        assert code == 128 + second
        scheduler.check_log()
        return seconds

    within(1, stop)


@pytest.mark.parametrize(("first", "second"), [(SIGTERM, SIGTERM), (SIGTERM, SIGINT), (SIGINT, SIGINT)])
def test_a_second_signal_ends_it_at_once(world: World, first: Signals, second: Signals) -> None:
    """Within a second, with 128 and the signal's number, without a traceback."""
    stop_twice(world, first, second)


def test_a_second_signal_ends_it_while_the_broker_is_stalled(world: World) -> None:
    """As if the broker were not there."""
    stop_twice(world, SIGTERM, SIGTERM, stalled=True)


def large_builds(number: int) -> list[tuple[str, bytes, str]]:
    """Messages with builds of 10,000 components, which take a while to be read."""
    messages = []
    for _ in range(number):
        changes: list[JSON] = [{"_component_id": "vpc::0", "_component": "vpc"}]
        changes += [
            {
                "_component_id": f"net::{n}",
                "_component": "net",
                "before": f'{{{{ components["net::{n - 1}"].out | default("x") }}}}' if n > 1 else "",
            }
            for n in range(1, 10_000)
        ]
        document = build(*({**one, "_action": "create", "_provider": "aws"} for one in changes))
        messages.append((document["action"], json.dumps(document).encode(), ""))
    return messages


def test_a_second_signal_ends_it_while_large_builds_are_read(start_world: Any) -> None:
    """A thread that is at work keeps nobody waiting."""
    world: World = start_world({"max_payload": 8 << 20})
    submitter = world.submitter()

    def stop() -> float:
        scheduler = world.scheduler()
        submitter.client.publish_all(large_builds(4))
        scheduler.send(SIGTERM)
        scheduler.await_log("stopping")
        code, seconds = scheduler.stop(SIGTERM)
        # Without much to read it may have ended by the first one already.
        assert code in {128 + SIGTERM, 0}
        scheduler.check_log()
        return seconds

    within(1, stop)


def test_one_signal_while_large_builds_are_read(start_world: Any) -> None:
    """It ends within two seconds, and every build is refused."""
    world: World = start_world({"max_payload": 8 << 20})
    submitter = world.submitter()

    def stop() -> float:
        scheduler = world.scheduler()
        answers = submitter.client.listen("answers")
        submitter.client.publish_all([(subject, body, "answers") for subject, body, _ in large_builds(4)])
        code, seconds = scheduler.stop()
        assert {answer.json["error"]["code"] for answer in answers.count(4)} == {"shutting_down"}
        assert code == 0
        scheduler.check_log()
        return seconds

    within(2, stop)


@BOTH
def test_while_connecting_it_ends_at_once(world: World, number: Signals) -> None:
    """Nothing was begun: exit code 0."""
    world.server.kill()

    def stop() -> float:
        scheduler = world.scheduler(ready=False)
        scheduler.await_log("cannot connect to the broker")
        code, seconds = scheduler.stop(number)
        assert code == 0
        scheduler.check_log()
        return seconds

    within(2, stop)


@pytest.mark.alone
@pytest.mark.parametrize("action", ["create", "none"])
def test_in_a_flood_each_build_is_answered_and_each_accepted_one_reported(world: World, action: str) -> None:
    """Whatever the moment, no build is lost before its answer, nor between acceptance and report."""
    scheduler, connectors, submitter = world.scheduler("--grace", "10"), world.connectors(), world.submitter()
    builds = [
        chain(component("vpc::1", action=action), component("net::1", action=action)) for _ in range(1_500)
    ]
    answers = submitter.client.listen("answers.>")
    messages = [(one["action"], json.dumps(one).encode(), f"answers.{one['id']}") for one in builds]
    submitter.client.publish_all(messages[:500])
    answers.count(200)
    submitter.client.publish_all(messages[500:])
    scheduler.send(SIGTERM)
    assert scheduler.wait() == 0
    submitter.client.flush()
    by_status: dict[str, list[str]] = {"accepted": [], "rejected": []}
    for answer in answers:
        by_status[answer.json["status"]].append(answer.json["id"])
        assert answer.json["status"] == "accepted" or answer.json["error"]["code"] == "shutting_down"
    assert len(by_status["accepted"]) >= 200
    assert sorted(by_status["accepted"] + by_status["rejected"]) == sorted(one["id"] for one in builds)
    assert sorted(message.json["id"] for message in submitter.reports) == sorted(by_status["accepted"])
    scheduler.check_log()
    _check_each_once(connectors.requests())


def test_who_asks_while_it_closes_is_answered_or_told_that_nobody_listens(world: World) -> None:
    """No build is swallowed between the last answer and the end."""
    scheduler, client = world.scheduler(), world.client()
    answers = client.listen("answers.*")
    messages = [
        (one["action"], json.dumps(one).encode(), f"answers.{one['id']}")
        for one in (build(component("note::1", action="none")) for _ in range(4_000))
    ]
    client.publish_all(messages[:10])
    answers.count(10)
    scheduler.send(SIGTERM)
    sent = 10
    while scheduler.running:
        client.publish_all(messages[sent : sent + 5])
        sent = min(sent + 5, len(messages) - 5)
    assert scheduler.wait() == 0
    asked = {reply for _, _, reply in messages[:sent]}
    answers.wait(lambda items: asked <= {answer.subject for answer in items}, what="an answer to each")
    assert any(answer.headers.get("Status") == "503" for answer in answers)


def _check_each_once(requests: list[JSON]) -> None:
    keys = [(request["build"], request["id"]) for request in requests]
    assert len(keys) == len(set(keys))


def test_nothing_is_printed_and_nothing_left_when_it_is_interrupted_early(world: World) -> None:
    """A signal between the first line of the log and readiness ends it like any other."""

    def stop() -> float:
        scheduler = world.scheduler(ready=False)
        scheduler.await_log("connected to the broker")
        code, seconds = scheduler.stop()
        assert code == 0
        scheduler.check_log()
        return seconds

    within(2, stop)
