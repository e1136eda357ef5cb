"""What the next process makes of what an earlier one left."""

import json
import time
from signal import SIGTERM

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.shapes import line, plain
from integration.durable.shared import JSON, await_event, has_event, held
from integration.harness import errors, states, within

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("on", ["subject", "inbox"])
def test_an_answer_that_nobody_listened_to_is_found_at_the_next_start(
    start_scene: SceneFactory, on: str
) -> None:
    """With no grace the service ends at once in mid-build; the next one asks nobody again, and reports."""
    scene = start_scene({"on": on}, env={"SCHEDULER_GRACE": "0"})
    document = line("stopped", component("vpc::1"), held("net::1", "go"), component("vm::1"))
    scene.start()
    scene.submit(document)
    scene.recorder.await_request("stopped", "net::1")
    code, seconds = scene.service.stop(SIGTERM)
    assert code == 0
    assert seconds < 3
    assert not scene.submitter.reports_of("stopped")
    scene.recorder.release("go")
    scene.recorder.await_answer("stopped", "net::1")
    scene.start()
    report = scene.submitter.done(document)
    assert set(states(report).values()) == {"completed"}
    scene.settle()
    scene.check()
    assert [one["component"] for one in scene.recorder.requests("stopped")] == ["vpc::1", "net::1", "vm::1"]
    scene.end()


def test_a_stop_lets_what_waits_go_on_later(start_scene: SceneFactory) -> None:
    """What was not sent yet when the signal came is sent by the next process, which then reports."""
    scene = start_scene()
    document = line("drained", held("vpc::1", "go"), component("net::1"))
    scene.start()
    scene.submit(document)
    scene.recorder.await_request("drained", "vpc::1")
    scene.service.send(SIGTERM)
    scene.service.await_log("stopping")
    scene.recorder.release("go")
    assert scene.service.code == 0
    assert not scene.submitter.reports_of("drained")
    assert not scene.recorder.requests("drained", "net::1")
    scene.start()
    scene.submitter.done(document)
    scene.settle()
    scene.check()
    scene.end()


@pytest.mark.alone
@pytest.mark.parametrize(("size", "limit"), [(1_000, 2.0)])
def test_an_unfinished_build_goes_on_soon(start_scene: SceneFactory, size: int, limit: float) -> None:
    """From the start of the process to the first request of something new, answers captured in between."""
    scene = start_scene(config={"max_payload": 8 << 20})
    width = size // 10
    middle = range(5 * width, 6 * width)

    def gates(number: int) -> JSON:
        return {"hold": "go"} if number in middle else {}

    document = plain("large", size, width=width, behaviours=gates)
    scene.start()
    scene.submit(document)
    in_flight = min(500, width)
    scene.recorder.out.count(5 * width + in_flight, lambda entry: '"event": "request"' in entry)
    scene.kill()
    before = len(scene.recorder.requests())
    scene.recorder.release("go")
    scene.recorder.idle()
    began = time.time()
    scene.start(ready=False)
    seen = {one["attempt"] for one in scene.recorder.requests()}
    scene.settle(60)
    scene.check()
    new = next(one for one in scene.recorder.requests() if one["attempt"] not in seen)
    took = new["time"] - began
    print(f"{size} components: the first new request after {took:.2f} s, {before} were sent before")
    assert took < 2 * limit
    scene.end()


def test_what_may_have_left_is_sent_again_with_always(start_scene: SceneFactory) -> None:
    """Under the same attempt id, although it is known to have left; with the default it is awaited."""
    scene = start_scene({"idempotent": True}, env={"SCHEDULER_RESEND": "unsent, vpc.*.*=always"})
    again = build(component("vpc::1", behaviour={"silent": 1}), component("note::1"), id="again")
    awaited = build(held("net::1", "go"), component("note::1"), id="awaited")
    scene.start()
    scene.submit(again, awaited)
    await_event(scene, "again", "sent", "vpc::1")
    await_event(scene, "awaited", "sent", "net::1")
    scene.restart()
    scene.recorder.await_request("again", "vpc::1", times=2)
    scene.submitter.done(again)
    scene.recorder.release("go")
    scene.submitter.done(awaited)
    scene.settle()
    first, second = scene.recorder.requests("again", "vpc::1")
    assert first["attempt"] == second["attempt"]
    assert first["attempt"].startswith("again/vpc::1/1/")
    assert len(scene.recorder.requests("awaited", "net::1")) == 1
    scene.env["SCHEDULER_RESEND"] = "always"
    scene.check()
    scene.end()


def test_with_never_what_may_have_left_has_an_unknown_outcome(start_scene: SceneFactory) -> None:
    """It fails, and says what to do, and is not sent again; what is known to have left is awaited."""
    scene = start_scene(env={"SCHEDULER_RESEND": "never"})
    known = build(held("vpc::1", "go"), component("note::1"), id="known")
    scene.start()
    scene.submit(known)
    await_event(scene, "known", "sent", "vpc::1")
    number = 0
    while True:
        number += 1
        name = f"unknown-{number}"
        unknown = line(name, component("vpc::1", behaviour={"silent": True}), component("net::1"))
        scene.submit(unknown)
        # Killed in the breath in which it arrives: the log does not know yet that it has left.
        scene.recorder.await_request(name, "vpc::1")
        scene.kill()
        if not has_event(scene, name, "sent", "vpc::1"):
            break
        assert number < 10, "it is always too late"
        scene.submitted.pop(name)
        scene.start()
    scene.start()
    report = scene.submitter.failed(unknown)
    error = errors(report)["vpc::1"]
    assert error.startswith("outcome unknown"), error
    assert report["error"] == f"vpc::1: {error}"
    assert states(report) == {"vpc::1": "errored", "net::1": "waiting"}
    assert len(scene.recorder.requests(name)) == 1
    scene.recorder.release("go")
    scene.submitter.done(known)
    assert len(scene.recorder.requests("known", "vpc::1")) == 1
    scene.settle()
    if number == 1:
        scene.check(excuses=["outcome unknown"])
    scene.end()


def test_an_id_is_accepted_twice_only_with_the_same_content(start_scene: SceneFactory) -> None:
    """While it runs and after its end, in the same process and in the next; nothing is done twice."""
    scene = start_scene()
    document = build(held("vpc::1", "go"), id="twice")
    other = {**document, "name": "another"}
    scene.start()
    scene.submit(document)

    def judged(code: str) -> None:
        # The same text; the same content, spaced otherwise; and other content.
        for text in (json.dumps(document), json.dumps(document, indent=2)):
            answer = scene.reader.request("build.create", text.encode())
            assert (answer["id"], answer["status"]) == ("twice", "accepted"), answer
        answer = scene.submitter.submit(other)
        assert (answer["status"], answer["error"]["code"]) == ("rejected", code), answer

    judged("running")
    scene.restart()
    judged("running")
    scene.recorder.release("go")
    scene.submitter.done(document)
    scene.settle()
    judged("finished")
    scene.restart()
    judged("finished")
    scene.check()
    assert len(scene.recorder.requests("twice")) <= 2
    assert len(scene.submitter.reports_of("twice")) == 1
    scene.end()


@pytest.mark.alone
def test_idle_it_is_ready_soon(start_scene: SceneFactory) -> None:
    """The first start makes the streams, and the next ones find them."""
    scene = start_scene()

    def start() -> float:
        began = time.monotonic()
        scene.start()
        took = time.monotonic() - began
        scene.end()
        return took

    within(3, start)
    within(3, start)
