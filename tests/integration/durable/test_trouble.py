"""A store that is gone, full, or has something in it that nobody understands."""

import json
import time
from typing import Any

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.reader import LOG, REPLIES, REPORTS
from integration.durable.scene import Scene, check_text
from integration.durable.shapes import line, plain
from integration.durable.shared import held
from scheduler.fleet.lease import Lease, encode_lease
from scheduler.journal.records.headers import record_id_of

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
MEBIBYTE = 1 << 20


def test_a_log_that_is_gone_is_not_made_again(start_scene: SceneFactory) -> None:
    """Where there was one the service ends with a line that says so, and leaves everything as it is."""
    scene = start_scene()
    document = build(component("vpc::1"), id="before")
    scene.start()
    scene.submit(document)
    scene.submitter.done(document)
    scene.settle()
    scene.end()
    scene.reader.delete_stream(LOG)
    service = scene.start(ready=False)
    assert service.code not in {0, -9}
    assert LOG in service.errors
    check_text(service)
    assert scene.reader.stream(LOG) is None
    assert scene.reader.stream(REPORTS) is not None


@pytest.mark.long
def test_a_log_that_is_deleted_while_it_is_written_ends_the_service(start_scene: SceneFactory) -> None:
    """Nothing more is sent, and the stream is not made anew."""
    scene = start_scene()
    document = line("deleted", held("vpc::1", "go"), component("net::1"))
    scene.start()
    scene.submit(document)
    scene.recorder.await_request("deleted", "vpc::1")
    scene.reader.delete_stream(LOG)
    scene.recorder.release("go")
    assert scene.service.code not in {0, -9}
    assert LOG in scene.service.errors
    check_text(scene.service)
    assert scene.reader.stream(LOG) is None
    assert not scene.recorder.requests("deleted", "net::1")
    assert not scene.submitter.reports_of("deleted")


def goes_on_when(scene: Scene, document: JSON, enlarge: Any) -> None:
    """The builds are suspended, nothing is sent meanwhile, and with more room they go on."""
    scene.service.await_log("builds are suspended: nothing can be committed")
    sent = len(scene.recorder.requests())
    scene.recorder.idle()
    time.sleep(1)
    assert len(scene.recorder.requests()) == sent
    assert not scene.submitter.reports_of(document["id"])
    began = time.monotonic()
    enlarge()
    scene.service.await_log("commits go through again: builds resume")
    took = time.monotonic() - began
    print(f"it went on {took:.2f} s after there was room")
    assert took < 6
    scene.submitter.done(document)
    scene.settle()
    scene.check()
    scene.end()


def test_a_full_stream_suspends_builds_until_there_is_room(start_scene: SceneFactory) -> None:
    """Nothing fails."""
    scene = start_scene({"latency": 0.02, "pad": 20_000})
    document = plain("full", 60, width=5)
    scene.start()
    scene.reader.change_stream(LOG, max_bytes=scene.reader.size(LOG) + 300_000)
    scene.submit(document)
    goes_on_when(scene, document, lambda: scene.reader.change_stream(LOG, max_bytes=-1))


def test_a_full_store_suspends_builds_until_there_is_room(start_scene: SceneFactory) -> None:
    """The broker has less room than the builds need, and is given more."""
    # Captured replies have room of their own put by, all of it from the beginning.
    jetstream: JSON = {"max_file_store": 18 * MEBIBYTE}
    scene = start_scene(
        {"latency": 0.02, "pad": 60_000},
        config={"jetstream": jetstream},
        env={"SCHEDULER_REPLY_BYTES": str(16 * MEBIBYTE)},
    )
    document = plain("full", 200, width=10)
    scene.start()
    scene.submit(document)

    def enlarge() -> None:
        with scene.outage():
            scene.server.stop()
            scene.server.config["jetstream"]["max_file_store"] = 512 * MEBIBYTE
            scene.server.start()

    goes_on_when(scene, document, enlarge)


FORGED = record_id_of("forged", 1, 1, "00000000")


def forged(n: int, *events: JSON) -> tuple[bytes, dict[str, str]]:
    """A record as the service writes them, and its headers."""
    record = {
        "v": 1,
        "n": n,
        "epoch": 1,
        "instance": "somebody",
        "record_id": FORGED,
        "at": int(time.time() * 1_000),
        "reply_position": [0, 0],
        "events": list(events),
    }
    headers = {"Scheduler-Record": FORGED, "Scheduler-Status": "open", "Scheduler-Loads": "0"}
    return json.dumps(record, separators=(",", ":")).encode(), headers


def test_a_build_whose_log_is_not_understood_is_left_alone(start_scene: SceneFactory) -> None:
    """An event that this version does not know: that is said, and other builds go on and come in."""
    scene = start_scene()
    poisoned = line("poisoned", held("vpc::1", "go"), component("net::1"))
    well = line("well", held("vpc::1", "go"), component("net::1"))
    scene.start()
    scene.submit(poisoned, well)
    scene.recorder.await_request("poisoned", "vpc::1")
    scene.recorder.await_request("well", "vpc::1")
    scene.kill()
    last = json.loads(scene.reader.messages(LOG, "scheduler.log.poisoned")[-1].data)["n"]
    record, headers = forged(last + 1, {"event": "teleported", "component": "net::1"})
    scene.reader.append("scheduler.log.poisoned", record, headers)
    service = scene.start()
    found = service.err.first(lambda entry: "teleported" in entry, what="a word on the poisoned build")
    assert json.loads(found)["level"] in {"error", "critical", "warning"}
    assert "poisoned" in found
    scene.recorder.release("go")
    scene.submitter.done(well)
    later = build(component("vpc::1"), id="later")
    scene.submit(later)
    scene.submitter.done(later)
    answer = scene.submitter.submit({**poisoned, "name": "other"})
    assert answer["status"] == "rejected"
    assert not scene.recorder.requests("poisoned", "net::1")
    assert not scene.submitter.reports_of("poisoned")
    scene.submitted.pop("poisoned")
    scene.settle()
    assert len(scene.reader.messages(LOG, "scheduler.log.poisoned")) == last + 1
    scene.end()


def test_a_build_that_somebody_else_writes_is_let_go(start_scene: SceneFactory) -> None:
    """A record of another live instance ends our part in the build: nothing is written or sent any more."""
    scene = start_scene()
    fenced = line("fenced", held("vpc::1", "go"), component("net::1"))
    well = line("well", held("vpc::1", "go"), component("net::1"))
    scene.start()
    scene.submit(fenced, well)
    scene.recorder.await_request("fenced", "vpc::1")
    scene.recorder.await_request("well", "vpc::1")

    def quiet() -> bool:
        """Whether the last word was that the request has left."""
        last = scene.reader.messages(LOG, "scheduler.log.fenced")[-1]
        return b'"event":"sent"' in last.data

    scene.until(quiet, 10, "the last word")
    # It has a lease, and does not answer: it is live until that has run out.
    scene.reader.listen("scheduler.instance.forged.*")
    scene.reader.append("$KV.SCHEDULER.lease.forged", encode_lease(Lease("forged", "forged")))
    last = json.loads(scene.reader.messages(LOG, "scheduler.log.fenced")[-1].data)["n"]
    record, headers = forged(last + 1, {"event": "loading"})
    scene.reader.append("scheduler.log.fenced", record, headers)
    scene.recorder.release("go")
    scene.submitter.done(well)
    scene.service.err.first(lambda entry: "fenced" in entry and "forged" in entry)
    assert not scene.recorder.requests("fenced", "net::1")
    assert not scene.submitter.reports_of("fenced")
    assert len(scene.reader.messages(LOG, "scheduler.log.fenced")) == last + 1
    scene.end()


def test_a_missing_stream_of_replies_is_made_again(start_scene: SceneFactory) -> None:
    """What it held is lost, and everything else goes on."""
    scene = start_scene()
    document = line("made", held("vpc::1", "go"), component("net::1"))
    scene.start()
    scene.submit(document)
    scene.recorder.await_request("made", "vpc::1")
    scene.kill()
    scene.reader.delete_stream(REPLIES)
    scene.start()
    assert scene.reader.stream(REPLIES) is not None
    scene.recorder.release("go")
    scene.submitter.done(document)
    scene.settle()
    scene.check()
    scene.end()
