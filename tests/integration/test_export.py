"""What `scheduler export` prints of a build that a service ran."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.brokers import nats_server

from integration.builds import chain, component, failing
from integration.conftest import World

pytestmark = pytest.mark.integration


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker has JetStream."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server(jetstream=True)))


def test_the_log_of_a_build(world: World) -> None:
    """Everything that happened to it stands there in order, while the service runs and after it has ended."""
    scheduler = world.scheduler("--store=jetstream")
    world.connectors()
    submitter = world.submitter()
    document = chain(component("vpc::1"), failing("net::1"), component("web::1"))
    submitter.accepted(document)
    submitter.failed(document)
    command = world.command("export", document["id"])
    assert command.code == 0, command.errors
    assert command.errors == "scheduler: secrets are masked (***); --secrets shows them as stored"
    records = [json.loads(line)["record"] for line in command.output.splitlines()]
    assert [record["n"] for record in records] == list(range(1, len(records) + 1))
    events = [event for record in records for event in record["events"]]
    assert events[0]["event"] == "accepted"
    assert events[0]["document"]["changes"] == document["changes"]
    steps = [(event["event"], event.get("component", "")) for event in events if event["event"] != "sent"]
    assert steps[1:6] == [
        ("started", "vpc::1"),
        ("settled", "vpc::1"),
        ("started", "net::1"),
        ("settled", "net::1"),
        ("finished", ""),
    ]
    assert "no more quota" in next(event for event in events if event["event"] == "finished")["error"]
    scheduler.end()
    again = world.command("export", document["id"])
    assert (again.code, again.errors) == (0, command.errors)
    assert again.output.startswith(command.output)
    last = json.loads(again.output.splitlines()[-1])["record"]["events"][-1]
    assert last == {"event": "reported", "run": 1}
