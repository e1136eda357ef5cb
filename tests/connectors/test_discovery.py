"""A connector in service discovery: it is found while it serves, and tells what it takes and did."""

# ruff: noqa: ARG001 - pytest-trio takes fixtures that are async from a test's own arguments only

import json
from typing import Any

import pytest
import trio
import trio.testing
from support.fake_bus import FakeBus

from scheduler.connectors import Connectors, Permanent, Running
from scheduler.connectors.discovery import MOST, discovery, make_discovery
from scheduler.errors import NoResponders

JSON = dict[str, Any]
SERVICE = "connector-aws"


@pytest.fixture
def connectors() -> Connectors:
    """One handler that does what it is asked, and one that refuses."""
    made = Connectors("aws", instance="host-1")

    @made.create("vpc", concurrency=3)
    async def create(request: JSON) -> JSON:
        return request

    @made.delete("vpc")
    async def delete(request: JSON) -> None:
        raise Permanent(f"no {request['name']}")

    return made


@pytest.fixture
async def running(fake_bus: FakeBus, connectors: Connectors, nursery: trio.Nursery) -> Running:
    """The connector, which is found until the test ends."""

    async def run(task_status: trio.TaskStatus[Running]) -> None:
        beside = [discovery(connectors.queue)]
        await connectors.run(bus=fake_bus, beside=beside, signals=False, task_status=task_status)

    started: Running = await nursery.start(run)
    return started


async def ask(bus: FakeBus, subject: str, body: bytes = b"") -> JSON:
    with trio.fail_after(5):
        answer: JSON = json.loads((await bus.request(subject, body)).data)
    return answer


@pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
async def test_it_answers_to_all_to_its_name_and_to_its_own_id(
    fake_bus: FakeBus, running: Running, verb: str
) -> None:
    """With its instance, which is no token of a subject, among the metadata."""
    found = await ask(fake_bus, f"$SRV.{verb}")
    assert found["name"] == SERVICE
    assert found["metadata"] == {"instance": "host-1", "provider": "aws"}
    for tail in (SERVICE, f"{SERVICE}.{found['id']}"):
        assert (await ask(fake_bus, f"$SRV.{verb}.{tail}"))["id"] == found["id"]


async def test_each_handler_is_an_endpoint(fake_bus: FakeBus, running: Running) -> None:
    """With its subject, its queue group and its schemas."""
    found = await ask(fake_bus, f"$SRV.INFO.{SERVICE}")
    assert [(one["name"], one["subject"], one["queue_group"]) for one in found["endpoints"]] == [
        ("vpc-create", "vpc.create.aws", "connectors"),
        ("vpc-delete", "vpc.delete.aws", "connectors"),
    ]
    assert set(found["endpoints"][0]["metadata"]) == {"request_schema", "response_schema"}


async def test_it_counts_what_it_did_and_what_failed(fake_bus: FakeBus, running: Running) -> None:
    """With the last error of each handler."""
    for number in range(2):
        await ask(fake_bus, "vpc.create.aws", b'{"_component_id": "vpc::%d"}' % number)
    await ask(fake_bus, "vpc.delete.aws", b'{"_component_id": "vpc::1", "name": "web"}')
    created, deleted = (await ask(fake_bus, "$SRV.STATS"))["endpoints"]
    assert (created["num_requests"], created["num_errors"], created["last_error"]) == (2, 0, "")
    assert (deleted["num_requests"], deleted["num_errors"]) == (1, 1)
    assert "no web" in deleted["last_error"]
    assert created["processing_time"] > 0
    assert created["average_processing_time"] == created["processing_time"] // 2
    assert created["data"] == {"completed": 2, "concurrency": 3, "waiting": 0, "healthy": True}


async def test_once_it_stops_it_is_not_found(
    fake_bus: FakeBus, connectors: Connectors, nursery: trio.Nursery
) -> None:
    """A client that finds it may send requests."""
    engine = connectors.engine(fake_bus)
    await nursery.start(engine.run, [discovery(connectors.queue)])
    await ask(fake_bus, f"$SRV.PING.{SERVICE}")
    engine.stopping.set()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(NoResponders):
        await ask(fake_bus, f"$SRV.PING.{SERVICE}")


async def test_a_broker_that_forbids_it_keeps_nobody_from_serving(
    fake_bus: FakeBus, connectors: Connectors, nursery: trio.Nursery
) -> None:
    """Permissions of an earlier version do not have it."""
    fake_bus.forbidden.add("$SRV.*.connector-aws")
    await nursery.start(connectors.engine(fake_bus).run, [discovery(connectors.queue)])
    assert (await ask(fake_bus, "vpc.create.aws", b'{"_component_id": "vpc::1"}'))["_state"] == "completed"
    with pytest.raises(NoResponders):
        await ask(fake_bus, "$SRV.PING")


async def test_schemas_that_do_not_fit_in_a_message_are_left_out(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoints are told without them."""
    monkeypatch.setattr("scheduler.connectors.discovery.schemas_of", lambda _: {"request_schema": "x" * MOST})
    assert [one["metadata"] for one in make_discovery("q", running).info()["endpoints"]] == [{}, {}]
