"""Several schedulers share the builds of one broker: what becomes of them when one goes."""

import json
import signal
import time
from base64 import b64decode

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.scene import Scene
from integration.durable.shapes import line
from integration.durable.shared import JSON, await_event, held
from integration.harness import eventually
from scheduler.fleet.fleet import MADE_AGAIN

pytestmark = pytest.mark.integration


def waiting(id_: str) -> JSON:
    """A build whose second component is answered once the gate ``go`` is open."""
    return line(id_, component("vpc::1"), held("net::1", "go"), component("vm::1"))


def test_all_take_builds(start_scene: SceneFactory) -> None:
    """None stands by: each is ready at once, and what they are given they run."""
    scene = start_scene()
    first, second = scene.start(), scene.start()
    builds = [build(component("vpc::1"), id=f"shared-{number}") for number in range(12)]
    scene.submit(*builds)
    for one in builds:
        scene.submitter.done(one)
    scene.settle()
    scene.check()
    for service in (first, second):
        assert "standing by" not in service.errors
        assert service.stop()[0] == 0


@pytest.mark.long
def test_what_a_killed_one_had_another_takes_over(start_scene: SceneFactory) -> None:
    """A single server says that it has gone, so within seconds; what is in flight is not sent again."""
    scene = start_scene()
    first = scene.start(env={"SCHEDULER_INSTANCE": "first"})
    document = waiting("handed")
    scene.submit(document)
    await_event(scene, "handed", "sent", "net::1")
    second = scene.start()
    began = time.monotonic()
    scene.kill(first)
    second.await_log("build taken up", build="handed")
    assert time.monotonic() - began < 12
    scene.recorder.release("go")
    scene.submitter.done(document)
    scene.settle()
    scene.check()
    assert len(scene.recorder.requests("handed")) == 3
    scene.end()


@pytest.mark.long
def test_what_a_stopped_one_had_another_takes_over(start_scene: SceneFactory) -> None:
    """Once its lease has run out, within 20 s; when it goes on it writes nothing more for that build."""
    scene = start_scene()
    first = scene.start(env={"SCHEDULER_INSTANCE": "first"})
    document = waiting("handed")
    scene.submit(document)
    await_event(scene, "handed", "sent", "net::1")
    second = scene.start()
    began = time.monotonic()
    first.send(signal.SIGSTOP)
    second.await_log("build taken up", deadline=25, build="handed")
    assert 10 < time.monotonic() - began < 20
    first.send(signal.SIGCONT)
    first.await_log("the lease of this instance ran out: nothing is sent until it is renewed")
    first.await_log("the lease of this instance is renewed")
    scene.recorder.release("go")
    scene.submitter.done(document)
    scene.settle()
    scene.check()
    assert len(scene.recorder.requests("handed")) == 3
    scene.end()
    assert first.stop()[0] == 0


def test_one_that_is_stopped_in_order_hands_its_builds_over(start_scene: SceneFactory) -> None:
    """At once: nobody waits for what is in flight, and the other one goes on with it."""
    scene = start_scene()
    first = scene.start(env={"SCHEDULER_INSTANCE": "first"})
    documents = [waiting(f"handed-{number}") for number in range(5)]
    scene.submit(*documents)
    for document in documents:
        await_event(scene, document["id"], "sent", "net::1")
    second = scene.start()
    # The first one knows of the second one.
    first.await_log("another instance has come")
    began = time.monotonic()
    code, _ = first.stop()
    for document in documents:
        second.await_log("build taken up", build=document["id"])
    assert time.monotonic() - began < 5
    assert code == 0
    scene.recorder.release("go")
    for document in documents:
        scene.submitter.done(document)
    scene.settle()
    scene.check()
    assert all(len(scene.recorder.requests(document["id"])) == 3 for document in documents)
    scene.end()


def test_a_limit_holds_over_all_and_is_there_for_the_one_that_is_left(start_scene: SceneFactory) -> None:
    """Two instances never have more in flight than the limit; after a kill the other one gets on with it."""
    scene = start_scene()
    limits = {"SCHEDULER_LIMITS": "net.create.*=2"}
    first = scene.start(env={"SCHEDULER_INSTANCE": "first", **limits})
    second = scene.start(env=limits)
    documents = [waiting(f"limited-{number}") for number in range(6)]
    scene.submit(*documents)
    time.sleep(4)
    assert in_flight(scene, documents) == 2
    scene.kill(first)
    second.await_log("another instance has gone: its builds are taken over", deadline=25)
    time.sleep(2)
    assert in_flight(scene, documents) == 2
    scene.recorder.release("go")
    for document in documents:
        scene.submitter.done(document)
    scene.settle()
    scene.check()
    scene.end()


def test_the_bucket_of_leases_and_limits_is_removed(start_scene: SceneFactory) -> None:
    """Builds stay, nothing is sent twice, the limit holds all the while, and both are listed again."""
    scene = start_scene()
    names = ("first", "second")
    env = {"SCHEDULER_LIMITS": "net.create.*=2"}
    services = [scene.start(env={"SCHEDULER_INSTANCE": name, **env}) for name in names]
    for service in services:
        service.await_log("another instance has come")
    documents = [line(f"kept-{number}", held("net::1", f"go-{number}")) for number in range(8)]
    scene.submit(*documents)
    await_requests(scene, documents, 2)
    removed = scene.reader.request("$JS.API.STREAM.DELETE.KV_SCHEDULER", b"")
    assert removed["success"] is True
    eventually(lambda: standings(scene) == dict.fromkeys(names, "active"), what="both leases")
    eventually(lambda: len(holders(scene)) == len(names), what="both in the document of the limits")
    for count in range(2, len(documents) + 1):
        assert in_flight(scene, documents) == count
        waiting = [one["build"] for one in scene.recorder.requests(component="net::1")]
        scene.recorder.release(waiting[count - 2].replace("kept", "go"))
        await_requests(scene, documents, min(count + 1, len(documents)))
    scene.recorder.release(waiting[-1].replace("kept", "go"))
    for document in documents:
        scene.submitter.done(document)
    scene.settle()
    scene.check()
    assert len(scene.recorder.requests()) == len(documents)
    assert any(one["event"] == MADE_AGAIN for service in services for one in service.log)
    scene.end()


def await_requests(scene: Scene, documents: list[JSON], number: int) -> None:
    """Wait until so many of the requests that wait for a gate were sent."""
    eventually(lambda: in_flight(scene, documents) == number, what=f"{number} requests")


def standings(scene: Scene) -> JSON:
    """Return what each instance does, as far as the bucket has it; empty while nobody can tell."""
    answer = scene.reader.request("scheduler.build.instances", {})
    stored = scene.reader.request(
        "$JS.API.STREAM.INFO.KV_SCHEDULER", {"subjects_filter": "$KV.SCHEDULER.lease.>"}
    )
    leases = stored.get("state", {}).get("subjects", {})
    return {
        one["name"]: one["standing"]
        for one in answer.get("instances", [])
        if f"$KV.SCHEDULER.lease.{one['name']}" in leases
    }


def holders(scene: Scene) -> JSON:
    """Return the shares in the document of the limits, by process."""
    question = {"last_by_subj": "$KV.SCHEDULER.limits"}
    answer = scene.reader.request("$JS.API.STREAM.MSG.GET.KV_SCHEDULER", question)
    found: JSON = json.loads(b64decode(answer["message"]["data"]))["holders"] if "message" in answer else {}
    return found


def in_flight(scene: Scene, documents: list[JSON]) -> int:
    """Return how many of the requests that wait for the gate were sent."""
    return sum(len(scene.recorder.requests(document["id"], "net::1")) for document in documents)
