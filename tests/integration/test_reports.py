"""Reports of builds that have ended, and waits for the end, over a real broker and with real processes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.brokers import nats_server

from integration.builds import build, chain, component, failing, held
from integration.conftest import World, WorldFactory

pytestmark = pytest.mark.integration

SECRET = "hunter2hunter2"


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker has JetStream."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server(jetstream=True)))


def test_a_report_many_times_a_message_is_had_whole(start_world: WorldFactory, tmp_path: Path) -> None:
    """From the object store, after a restart as well; masked in every page of it, or as it was published."""
    world = start_world({"max_payload": 100_000}, jetstream=True)
    scheduler = world.scheduler("--store=jetstream")
    world.connectors()
    parts = (component(f"vpc::{one}", password=SECRET, text=f"{SECRET} " + "x" * 9_000) for one in range(60))
    document = build(*parts, id="large")
    path, output = tmp_path / "build.json", tmp_path / "report.json"
    path.write_text(json.dumps(document))
    run = world.command("run", str(path), "--output", str(output))
    assert run.code == 0, run.errors
    assert f"written: {output}, the report of run 1 (done)" in run.errors
    masked = json.loads(output.read_bytes())
    assert len(output.read_bytes()) > 1_000_000
    assert SECRET not in output.read_text()
    assert {(one["password"], one["text"][:4]) for one in masked["changes"]} == {("***", "*** ")}
    assert [one["_component_id"] for one in masked["changes"]] == [f"vpc::{one}" for one in range(60)]
    scheduler.end()
    world.scheduler("--store=jetstream")
    report = world.command("report", "large", "--secrets")
    assert report.code == 0, report.errors
    whole = json.loads(report.output)
    assert {one["text"] for one in whole["changes"]} == {f"{SECRET} " + "x" * 9_000}
    assert len(whole["components"]) == 60


def test_each_run_has_its_report(world: World) -> None:
    """The last one where none is named."""
    world.scheduler("--store=jetstream")
    world.connectors()
    submitter = world.submitter()
    document = chain(component("vpc::1"), failing("net::1"))
    submitter.accepted(document)
    submitter.failed(document)
    assert world.command("retry", document["id"]).code == 0
    waited = world.command("wait", document["id"])
    assert (waited.code, waited.output) == (1, f"{document['id']}: errored: net::1: no more quota")
    for run, arguments in ((2, ()), (1, ("--run", "1"))):
        report = world.command("report", document["id"], *arguments)
        assert report.code == 0, report.errors
        assert json.loads(report.output)["changes"][1]["_state"] == "errored", run
    value = world.command("report", document["id"], "--component", "vpc::1", "--field", "_state")
    assert (value.code, value.output, value.errors) == (0, "completed", "")
    missing = world.command("report", document["id"], "--run", "7")
    assert missing.errors.endswith("has no report of run 7; there is that of run 1, 2")


def test_memory_has_the_last_reports(world: World) -> None:
    """Of builds that no other command knows any more."""
    world.scheduler("--store=memory")
    world.connectors()
    submitter = world.submitter()
    document = build(component("vpc::1", password=SECRET))
    submitter.run(document)
    report = world.command("report", document["id"], "--component", "vpc::1", "--field", "password")
    assert (report.code, report.output) == (0, "***")
    waited = world.command("wait", document["id"])
    assert (waited.code, waited.output) == (0, f"{document['id']}: done")
    unknown = world.command("report", f"{document['id']}x")
    assert unknown.code == 1
    assert unknown.errors.endswith(f"did you mean {document['id']!r}?")


def test_wait_outlives_the_scheduler_and_the_broker(world: World) -> None:
    """Both are killed while it waits; the end comes after that."""
    scheduler, connectors = world.scheduler("--store=jetstream"), world.connectors()
    submitter = world.submitter()
    document = build(held("vpc::1", "gate"))
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::1")
    waiting = world.started(type(scheduler)("wait", document["id"], env={"NATS_URL": world.server.url}))
    refused = world.command("report", document["id"])
    assert (refused.code, "is running, and its report comes at the end" in refused.errors) == (1, True)
    late = world.command("wait", document["id"], "--timeout", "300ms")
    assert (late.code, late.errors.endswith("has not ended within 0.3s: running, 0 of 1")) == (124, True)
    scheduler.kill()
    world.server.restart()
    connectors.await_event("reconnected")
    world.scheduler("--store=jetstream")
    assert waiting.running
    connectors.release("gate")
    assert waiting.wait() == 0
    assert waiting.output == f"{document['id']}: done"
