"""What does not fit into a message."""

import json
from pathlib import Path

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.reader import REPORTS
from integration.harness import Scheduler, states

pytestmark = pytest.mark.integration

PADDING = "x" * 200_000
COUNT = 16


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "killed"])
def test_a_definition_beyond_a_message_travels_through_the_object_store(
    start_scene: SceneFactory, tmp_path: Path, *, killed: bool
) -> None:
    """`run` uploads and follows it; the report that goes by names an object that holds all of it."""
    scene = start_scene({"latency": 0.2})
    document = build(
        *(component(f"vm::{number}", padding=PADDING) for number in range(COUNT)),
        edges=" ".join(f"vm::{number}" for number in range(COUNT)),
        id="big/1",
    )
    document["changes"][3]["ref vm::2"] = '$(components.#[_component_id="vm::2"].out)'
    path = tmp_path / "build.json"
    path.write_text(json.dumps(document))
    assert path.stat().st_size > 3 << 20
    scene.start()
    scene.submitted["big/1"] = document
    command = Scheduler("run", str(path), env=scene.env)
    scene.stack.callback(command.close)
    if killed:
        scene.recorder.await_request("big/1", "vm::5")
        scene.restart()
    assert command.wait() == 0, command.errors
    message = scene.submitter.report("big/1")
    assert message.subject == "build.create.done"
    assert len(message.data) < 1 << 20
    report = scene.reader.whole(message.json)
    assert set(states(report).values()) == {"completed"}
    assert all(change["padding"] == PADDING for change in report["changes"])
    scene.settle()
    scene.check()
    (stored,) = scene.reader.messages(REPORTS)
    assert stored.data == message.data
    scene.end()


def test_an_object_can_be_submitted_by_name(start_scene: SceneFactory) -> None:
    """One that is not there is refused, and so is one that is no build."""
    scene = start_scene()
    scene.start()
    document = build(component("vm::1", padding=PADDING), id="named")
    scene.reader.put_object("upload/named", json.dumps(document).encode())
    scene.reader.put_object("upload/nonsense", b"[]")
    answer = scene.reader.request("build.create", {"id": "named", "object": "upload/nothing"})
    assert answer["status"] == "rejected", answer
    answer = scene.reader.request("build.create", {"id": "named", "object": "upload/nonsense"})
    assert answer["status"] == "rejected", answer
    answer = scene.reader.request("build.create", {"id": "other", "object": "upload/named"})
    assert answer["status"] == "rejected", answer
    answer = scene.reader.request("build.create", {"id": "named", "object": "upload/named"})
    assert answer == {"id": "named", "status": "accepted"}
    scene.submitted["named"] = document
    scene.settle()
    scene.check()
    scene.end()
