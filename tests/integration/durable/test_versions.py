"""This version beside others: what builds become of that are shared, handed over, or not understood.

The others are the first version that shares builds, the first one that was whole, which cannot, and one to
come whose logs have an event more. The earlier ones are wheels built from the history of this repository.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.reader import LOG
from integration.durable.scene import Scene
from integration.durable.shapes import line
from integration.durable.shared import JSON, await_event, held
from integration.harness import Scheduler, eventually
from scheduler.recovery.loader import LEFT
from scheduler.recovery.reviewing import HAS_IT

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.upgrade]

STANDS_BY = "standing by: a scheduler without a lease here is there"
WHOLE_STANDS_BY = "standing by: another scheduler is there"
WHOLE_QUARANTINES = "build quarantined: it is left in the log as it is, and not gone on with"


def waiting(id_: str) -> JSON:
    """A build whose second component is answered once the gate ``go`` is open."""
    return line(id_, component("vpc::1"), held("net::1", "go"), component("vm::1"))


def submit(scene: Scene, name: str, number: int) -> list[JSON]:
    """Hand in builds, and wait until each waits for the gate."""
    builds = [waiting(f"{name}-{count}") for count in range(number)]
    scene.submit(*builds)
    for one in builds:
        scene.recorder.await_request(one["id"], "net::1")
        await_event(scene, one["id"], "sent", "net::1")
    return builds


def finish(scene: Scene) -> None:
    """Open the gate: each build is done, was reported once, and nothing was sent twice."""
    scene.recorder.release("go")
    scene.settle()
    scene.check()
    for document in scene.submitted.values():
        assert scene.submitter.done(document)
    sent = Counter((one["build"], one["component"]) for one in scene.recorder.requests())
    assert set(sent.values()) == {1}


def owners(scene: Scene) -> Counter[str]:
    """Number of builds by the process that wrote to their logs last."""
    last = {one.subject: json.loads(one.data) for one in scene.reader.messages(LOG, "scheduler.log.*")}
    return Counter(last[f"scheduler.log.{name}"]["instance"] for name in scene.submitted)


def process(service: Scheduler) -> str:
    """Name of a process, as its records have it."""
    return str(service.await_log("ready")["instance"])


@pytest.mark.parametrize("killed", ["earlier", "present"])
def test_builds_are_shared_with_an_earlier_version(
    start_scene: SceneFactory, shares: Path, killed: str
) -> None:
    """Each has its part; if one is killed, the other one takes its builds over."""
    scene = start_scene()
    both = {"earlier": scene.start(site=shares), "present": scene.start()}
    both["earlier"].await_log("another instance has come")
    submit(scene, "shared", 12)
    parts = owners(scene)
    assert len(parts) == 2
    dying = both.pop(killed)
    scene.kill(dying)
    [left] = both.values()
    left.await_log("build taken up", times=parts[process(dying)])
    finish(scene)
    assert left.stop()[0] == 0


@contextmanager
def submitting(scene: Scene) -> Iterator[None]:
    """Hand in one build after another; each is accepted."""
    ended = threading.Event()

    def run() -> None:
        number = 0
        while not ended.wait(0.03):
            number += 1
            scene.submit(line(f"rolling-{number}", component("vpc::1"), component("net::1")))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        try:
            yield
        finally:
            ended.set()
        done.result()


def settled(scene: Scene) -> None:
    """Wait until each instance is there for seven seconds.

    Until then the earlier version may pass it no builds, and refuse those that come while it ends itself.
    """

    def looks() -> list[float]:
        answer = scene.reader.request("scheduler.build.instances", {})
        at_work = [one for one in answer["instances"] if one["standing"] == "active"]
        return [one["renewed"] - one["began"] for one in at_work]

    eventually(lambda: min(looks()) > 7)


def test_an_upgrade_and_a_roll_back_go_unnoticed(start_scene: SceneFactory, shares: Path) -> None:
    """One instance at a time is replaced, while builds run and come in: none is refused, or done twice."""
    scene = start_scene({"latency": [0.02, 0.3]})
    names = ("first", "second")
    running = {name: scene.start(site=shares, env={"SCHEDULER_INSTANCE": name}) for name in names}
    running["first"].await_log("another instance has come", other="second")
    submit(scene, "long", 8)
    with submitting(scene):
        for site in (None, shares):
            for name in names:
                if (site, name) == (None, "second"):
                    settled(scene)
                assert running[name].stop()[0] == 0
                running[name] = scene.start(site=site, env={"SCHEDULER_INSTANCE": name})
                [other] = set(names) - {name}
                # Only now it can hand its builds over, in its turn.
                running[other].await_log("another instance has come", process=process(running[name]))
    assert len(scene.submitted) > 30
    finish(scene)
    for service in running.values():
        assert service.stop()[0] == 0


def test_what_a_newer_version_wrote_is_left_to_one_that_knows_it(
    start_scene: SceneFactory, newer: Path
) -> None:
    """This one says which build, which event, and what to do; it goes on with all others."""
    scene = start_scene()
    first = scene.start(site=newer)
    document = build(held("net::1", "go"), held("vpc::1", "first"), id="beyond")
    scene.submit(document)
    await_event(scene, "beyond", "posted", "net::1")
    # The last record can be read here, so that this version begins to take the build up.
    await_event(scene, "beyond", "posted", "vpc::1")
    scene.recorder.release("first")
    await_event(scene, "beyond", "settled", "vpc::1")
    scene.kill(first)
    present = scene.start()
    said = present.await_log(LEFT, build="beyond")
    assert "the event 'posted' is not known here" in said["reason"]
    assert "upgrade this instance" in said["cure"]
    scene.submit(waiting("known"))
    scene.recorder.await_request("known", "net::1")
    [shown] = [one for one in listed(scene) if one["id"] == "beyond"]
    assert shown["status"] == "quarantined"
    second = scene.start(site=newer)
    second.await_log("build taken up", build="beyond")
    present.await_log(HAS_IT, build="beyond")
    assert {one["id"]: one["status"] for one in listed(scene)} == {"beyond": "running", "known": "running"}
    finish(scene)
    for service in (second, present):
        assert service.stop()[0] == 0


def listed(scene: Scene) -> list[JSON]:
    """The builds that any instance runs, or has in quarantine."""
    builds: list[JSON] = scene.reader.request("scheduler.build.list", {})["builds"]
    return builds


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_builds_of_a_version_without_leases_are_taken_over(
    start_scene: SceneFactory, whole: Path, end: str
) -> None:
    """While it works this version stands by; afterwards it has its builds, and sends nothing again."""
    scene = start_scene()
    earlier = scene.start(site=whole, env={"SCHEDULER_GRACE": "0.5"})
    submit(scene, "inherited", 6)
    present = [scene.start(ready=False) for _ in range(2)]
    for service in present:
        service.await_log(STANDS_BY)
    scene.submit(waiting("late"))
    scene.recorder.await_request("late", "net::1")
    await_event(scene, "late", "sent", "net::1")
    assert len(owners(scene)) == 1
    if end == "stopped":
        assert earlier.stop()[0] == 0
    else:
        scene.kill(earlier)
    for service in present:
        service.await_log("ready")
    finish(scene)
    assert [service.stop()[0] for service in present] == [0, 0]


def test_a_version_without_leases_stands_by_until_the_last_new_one_is_gone(
    start_scene: SceneFactory, whole: Path
) -> None:
    """Then it works; what it cannot read it leaves as it is, and the next one of this version resumes it."""
    scene = start_scene()
    both = [scene.start(env={"SCHEDULER_GRACE": "0.5"}) for _ in range(2)]
    both[0].await_log("another instance has come")
    submit(scene, "left", 4)
    earlier = scene.start(site=whole, ready=False)
    earlier.await_log(WHOLE_STANDS_BY)
    left = owners(scene)[process(both[0])]
    assert both[0].stop()[0] == 0
    both[1].await_log("build taken up", times=left)
    scene.submit(build(component("vpc::1"), id="last"))
    assert "ready" not in [entry["event"] for entry in earlier.log]
    scene.kill(both[1])
    earlier.await_log("ready")
    earlier.await_log(WHOLE_QUARANTINES, times=4)
    own = build(component("vpc::1"), id="own")
    scene.submit(own)
    assert scene.submitter.done(own)
    present = scene.start(ready=False)
    present.await_log(STANDS_BY)
    assert earlier.stop()[0] == 0
    present.await_log("ready")
    finish(scene)
    assert present.stop()[0] == 0
