"""A loaded scheduler gives a build to an idle one while it runs, also where one of them dies then."""

import json

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.reader import LOG, token
from integration.durable.scene import Scene
from integration.durable.shared import JSON, await_event, held
from integration.harness import Scheduler

pytestmark = [pytest.mark.integration, pytest.mark.long]

_SIZE = 500
"""Components of each build: three of these builds are enough to be loaded."""
_NAMES = ("big-0", "big-1", "big-2")


def big(id_: str) -> JSON:
    """A build whose components wait for one that is answered once the gate ``go`` is open."""
    rest = [component(f"vm::{number}") for number in range(_SIZE)]
    edges = ",".join(f"net::1 {one['_component_id']}" for one in rest)
    return build(held("net::1", "go"), *rest, id=id_, edges=edges)


def begin(scene: Scene) -> tuple[list[JSON], Scheduler, Scheduler]:
    """Have the first of two schedulers run three builds; the second one comes then, and is idle."""
    first = scene.start(env={"SCHEDULER_INSTANCE": "first"})
    documents = [big(name) for name in _NAMES]
    scene.submit(*documents)
    for name in _NAMES:
        await_event(scene, name, "sent", "net::1")
    return documents, first, scene.start(env={"SCHEDULER_INSTANCE": "second"})


def finish(scene: Scene, documents: list[JSON]) -> None:
    """Let the builds go on: every component is requested exactly once, and each build reported once."""
    scene.recorder.release("go")
    for document in documents:
        scene.submitter.done(document, 60)
    scene.settle(60)
    scene.check()
    for document in documents:
        asked = [one["component"] for one in scene.recorder.requests(document["id"])]
        assert sorted(asked) == sorted(one["_component_id"] for one in document["changes"])


def writers(scene: Scene) -> dict[str, list[str]]:
    """Processes that wrote to the log of each build, each once."""
    found: dict[str, list[str]] = {}
    for name in _NAMES:
        messages = scene.reader.messages(LOG, f"scheduler.log.{token(name)}")
        found[name] = list(dict.fromkeys(json.loads(message.data)["instance"] for message in messages))
    return found


def test_an_idle_instance_gets_one_of_three_builds(start_scene: SceneFactory) -> None:
    """What is in flight is awaited there, and not sent again."""
    scene = start_scene()
    documents, first, second = begin(scene)
    first.await_log("a build is given to another instance", deadline=30)
    second.await_log("build taken up", deadline=5)
    finish(scene, documents)
    assert sorted(map(len, writers(scene).values())) == [1, 1, 2]
    assert [service.stop()[0] for service in (first, second)] == [0, 0]


def test_a_giver_that_is_killed_then_costs_nothing(start_scene: SceneFactory) -> None:
    """Whether its last word is stored or not, the other one takes all three builds over."""
    scene = start_scene()
    documents, first, second = begin(scene)
    first.await_log("a build is given to another instance", deadline=30)
    scene.kill(first)
    for name in _NAMES:
        second.await_log("build taken up", deadline=25, build=name)
    finish(scene, documents)
    scene.end()


def test_a_build_is_taken_back_from_one_that_is_killed_then(start_scene: SceneFactory) -> None:
    """Whether it has taken the build over or not."""
    scene = start_scene()
    documents, first, second = begin(scene)
    first.await_log("a build is given to another instance", deadline=30)
    scene.kill(second)
    first.await_log("build taken up", deadline=25)
    finish(scene, documents)
    assert first.stop()[0] == 0
