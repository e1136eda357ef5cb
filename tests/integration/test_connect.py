"""Connectors of the kit as processes, on real brokers: they serve, are found and checked, and end."""

import json
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from integration.builds import build, component
from integration.conftest import World
from integration.harness import Scheduler, eventually, states

JSON = dict[str, Any]
pytestmark = pytest.mark.integration

MODULE = '''
"""A connector for tests."""

from pathlib import Path

import trio

from scheduler.connectors import Connectors

connectors = Connectors(provider="aws", concurrency=20)


@connectors.create("vpc")
async def create(request, context):
    """Create a VPC, as fast as the request says."""
    await trio.sleep(request.get("seconds", 0))
    request["vpc_aws_id"] = "vpc-" + context.key.rpartition("::")[2]
    return request


@connectors.delete("vpc", concurrency=1)
async def delete(request):
    """End when a file is there."""
    while not Path("gate").exists():
        await trio.sleep(0.01)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module."""
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def connect(world: World, folder: Path, *arguments: str) -> Scheduler:
    """Run it there; the broker has its subscriptions on return."""
    found = world.started(
        Scheduler("connect", "mine:connectors", *arguments, env={"NATS_URL": world.server.url}, cwd=folder)
    )
    found.await_log("connector is ready")
    return found


def stats(world: World) -> list[JSON]:
    """What the connector's handlers did so far."""
    client = world.client()
    client.ping("connector-aws")
    endpoints: list[JSON] = client.request("$SRV.STATS.connector-aws", b"")["endpoints"]
    return endpoints


def test_a_build_runs_with_connectors_of_the_kit(world: World, folder: Path) -> None:
    """What a handler adds to its component is in the report; the connector ends with exit code 0."""
    connector = connect(world, folder)
    world.scheduler()
    report = world.submitter().run(build(component("vpc::1"), component("vpc::2")))
    assert set(states(report).values()) == {"completed"}
    assert "vpc_aws_id" in report["changes"][0]
    connector.end()


def test_what_is_begun_ends_before_the_connector_does(world: World, folder: Path) -> None:
    """After SIGTERM what it works on is answered as usual, and what waits is refused at once."""
    connector, submitter = connect(world, folder), world.submitter()
    world.scheduler()
    slow, late = (build(component(f"vpc::{n}", action="delete"), action="build.delete") for n in (1, 2))
    submitter.accepted(slow)
    connector.await_log("begun")
    submitter.accepted(late)
    eventually(lambda: stats(world)[1]["data"]["waiting"] == 1)
    connector.send(SIGTERM)
    refused = submitter.failed(late)
    assert "the connector is stopping" in refused["error"]
    (folder / "gate").touch()
    assert set(states(submitter.done(slow)).values()) == {"completed"}
    assert connector.wait() == 0, connector.errors


def test_a_second_signal_does_not_wait_for_what_is_begun(world: World, folder: Path) -> None:
    """It is answered as interrupted."""
    connector, submitter = connect(world, folder, "--drain", "1h"), world.submitter()
    world.scheduler()
    slow = build(component("vpc::1", action="delete"), action="build.delete")
    submitter.accepted(slow)
    connector.await_log("begun")
    connector.send(SIGTERM)
    connector.await_log("connector is stopping")
    code, _ = connector.stop()
    assert code == 0, connector.errors
    assert "the connector stopped before it was done" in submitter.failed(slow)["error"]


def test_it_is_found_by_service_discovery(world: World, folder: Path) -> None:
    """With its handlers, and what they did so far."""
    connect(world, folder)
    world.client().request("vpc.create.aws", {"_component_id": "vpc::1"})
    assert [(one["subject"], one["num_requests"]) for one in stats(world)] == [
        ("vpc.create.aws", 1),
        ("vpc.delete.aws", 0),
    ]


def test_a_connector_of_the_kit_keeps_the_contract(world: World, folder: Path) -> None:
    """All of it, with a slow component and messages that cannot be read."""
    connect(world, folder)
    (folder / "slow.json").write_text('{"seconds": 60}')
    (folder / "vpc.json").write_text('{"cidr": "10.0.0.0/16", "seconds": 0.1}')
    command = world.started(
        Scheduler(
            *("check-connector", "vpc.create.aws", "--body", "vpc.json", "--slow-body", "slow.json"),
            *("--within", "500ms", "--hostile", "--yes", "--json"),
            env={"NATS_URL": world.server.url},
            cwd=folder,
        )
    )
    assert command.wait() == 0, command.errors + command.output
    results = {one["check"]: one["result"] for one in json.loads(command.output)["checks"]}
    assert set(results.values()) == {"pass"}, command.output


def test_a_database_that_is_none_is_told_before_anything_is_taken(world: World, folder: Path) -> None:
    """The connector does not begin to serve."""
    (folder / "record.db").write_bytes(b"something else" * 1_000)
    command = world.started(
        Scheduler(
            *("connect", "mine:connectors", "--store", "sqlite:record.db"),
            env={"NATS_URL": world.server.url},
            cwd=folder,
        )
    )
    assert command.wait() == 1
    assert "record.db" in command.errors
    assert "Traceback" not in command.errors
