"""Several schedulers share the builds that come in: which of them gets which, and that none is refused."""

import json
import signal
from collections import Counter

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.reader import LOG
from integration.durable.scene import Scene
from integration.durable.shared import held

pytestmark = pytest.mark.integration


def owners(scene: Scene) -> Counter[str]:
    """Number of builds that each process has accepted."""
    found: dict[str, str] = {}
    for message in scene.reader.messages(LOG, "scheduler.log.*"):
        record = json.loads(message.data)
        if record.get("events") and record["events"][0]["event"] == "accepted":
            found[message.subject] = record["instance"]
    return Counter(found.values())


def test_builds_spread_over_three(start_scene: SceneFactory) -> None:
    """Within a tenth in number, as they are of one size; each runs once."""
    scene = start_scene()
    services = [scene.start() for _ in range(3)]
    scene.submit(*(build(held("net::1", "go"), id=f"spread-{number}") for number in range(240)))
    shares = owners(scene)
    assert len(shares) == 3
    assert all(72 <= share <= 88 for share in shares.values()), shares
    scene.recorder.release("go")
    scene.settle()
    scene.check()
    for service in services:
        assert service.stop()[0] == 0


def test_while_one_stops_no_build_is_refused(start_scene: SceneFactory) -> None:
    """What comes to it in its last moments it passes on."""
    scene = start_scene()
    first, second = scene.start(), scene.start()
    first.await_log("another instance has come")
    scene.submit(*(build(held("net::1", "go"), id=f"before-{number}") for number in range(20)))
    first.send(signal.SIGTERM)
    scene.submit(*(build(component("vpc::1"), id=f"after-{number}") for number in range(100)))
    first.await_log("stopped")
    scene.recorder.release("go")
    scene.settle()
    scene.check()
    assert second.stop()[0] == 0


def test_a_build_nobody_asks_about_runs_as_well(start_scene: SceneFactory) -> None:
    """It is published, and its sender hears nothing of who has it."""
    scene = start_scene()
    first, second = scene.start(), scene.start()
    first.await_log("another instance has come")
    builds = [build(component("vpc::1"), id=f"silent-{number}") for number in range(40)]
    for one in builds:
        scene.reader.publish(one["action"], one)
        scene.submitted[one["id"]] = one
    scene.settle()
    scene.check()
    assert len(owners(scene)) == 2
    assert [service.stop()[0] for service in (first, second)] == [0, 0]
