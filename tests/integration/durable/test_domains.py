"""A hub and a leaf node in one account, each with a JetStream: only one of them may answer appends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.brokers import NatsServer
from support.clusters import ask, hub_and_leaf

from integration.builds import build, component, held
from integration.harness import Client, Connectors, Scheduler, Submitter
from scheduler.jetstream.rivals import PROBE_SUBJECT

pytestmark = pytest.mark.integration

OURS = ("SCHEDULER_LOG", "SCHEDULER_REPLIES", "SCHEDULER_REPORTS", "OBJ_SCHEDULER_OBJECTS")
Start = Callable[..., Scheduler]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: ExitStack) -> Start:
    """Start a service at a server; it takes builds on return, where ``ready`` is to be awaited."""

    def start(server: NatsServer, *, ready: bool = True) -> Scheduler:
        service = Scheduler(env={"NATS_URL": server.url, "SCHEDULER_STORE": "jetstream"})
        stack.callback(service.close)
        if ready:
            service.await_log("ready")
        return service

    return start


def streams(server: NatsServer) -> list[str]:
    """The streams in a server's own JetStream."""
    return ask(server.url, "$JS.API.STREAM.NAMES").get("streams") or []


def make_a_copy(server: NatsServer) -> None:
    """Make a stream on the subjects of the log, as a scheduler of before would have."""
    config = {"name": "SCHEDULER_LOG", "subjects": ["scheduler.log.*"]}
    assert "error" not in ask(server.url, "$JS.API.STREAM.CREATE.SCHEDULER_LOG", config)


def test_who_stands_by_makes_no_streams(stack: ExitStack, start: Start) -> None:
    """A scheduler at the leaf, beside one that works at the hub, leaves nothing behind."""
    hub, leaf = stack.enter_context(hub_and_leaf())
    first = start(hub)
    second = start(leaf, ready=False)
    second.await_log("standing by: a scheduler without a lease here is there")
    assert set(streams(hub)) == {*OURS, "KV_SCHEDULER"}
    assert streams(leaf) == []
    second.stop()
    first.end()


def test_no_streams_are_made_where_another_domain_has_them(stack: ExitStack, start: Start) -> None:
    """The first start at the leaf is refused with the cure: the hub's streams answer already."""
    hub, leaf = stack.enter_context(hub_and_leaf())
    start(hub).end()
    service = start(leaf, ready=False)
    assert service.code == 1
    assert "1 stream of another JetStream answers" in service.errors
    assert "deny_imports" in service.errors
    assert streams(leaf) == []


@pytest.mark.parametrize("domains", [("hub", "leaf"), ("", "leaf"), ("", "")])
def test_nobody_starts_while_two_answer(stack: ExitStack, start: Start, domains: tuple[str, str]) -> None:
    """With streams in both, doctor and service say so, whether or not the domains have names."""
    hub, leaf = stack.enter_context(hub_and_leaf(hub_domain=domains[0], leaf_domain=domains[1]))
    start(hub).end()
    left = ask(hub.url, "$JS.API.STREAM.INFO.SCHEDULER_LOG", {"subjects_filter": PROBE_SUBJECT})
    assert "subjects" not in left["state"]
    make_a_copy(leaf)
    service = start(hub, ready=False)
    assert service.code == 1
    assert "1 stream of another JetStream answers" in service.errors
    doctor = Scheduler("doctor", env={"NATS_URL": hub.url, "SCHEDULER_STORE": "jetstream"})
    stack.callback(doctor.close)
    assert doctor.wait() == 1
    assert "another JetStream" in " ".join(doctor.output.split())


def test_the_cure_works(stack: ExitStack, start: Start) -> None:
    """Where the subjects do not pass the leaf, each side has its log to itself."""
    deny = (
        "scheduler.log.>",
        "scheduler.report.>",
        "$O.SCHEDULER_OBJECTS.>",
        "*.*.*.done",
        "*.*.*.error",
    )
    hub, leaf = stack.enter_context(hub_and_leaf(deny=(*deny, "scheduler.reply.>")))
    make_a_copy(leaf)
    service = start(hub)
    connectors = Connectors(hub.url)
    stack.callback(connectors.close)
    client = Client(hub.url)
    stack.callback(client.close)
    Submitter(client).run(build(component("vpc::1"), component("net::1"), edges="vpc::1 net::1"))
    assert ask(leaf.url, "$JS.API.STREAM.INFO.SCHEDULER_LOG")["state"]["messages"] == 0
    service.end()


def test_a_rival_that_comes_later_suspends_builds(stack: ExitStack, start: Start) -> None:
    """Nothing is sent twice, the log says what to do, and once the other stream is gone builds go on."""
    hub, leaf = stack.enter_context(hub_and_leaf())
    service = start(hub)
    connectors = Connectors(hub.url)
    stack.callback(connectors.close)
    client = Client(hub.url)
    stack.callback(client.close)
    submitter = Submitter(client)
    names = [f"net::{number}" for number in range(30)]
    document = build(
        held("vpc::1", "go"), *(component(name) for name in names), edges=" ".join(["vpc::1", *names])
    )
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::1")
    make_a_copy(leaf)
    connectors.release("go")
    said = service.await_log("builds are suspended: another JetStream answers")
    assert "--js-domain" in said["cure"]
    ask(leaf.url, "$JS.API.STREAM.DELETE.SCHEDULER_LOG")
    service.await_log("no other JetStream answers any more: builds resume")
    submitter.done(document)
    assert connectors.ids(document["id"]) == ["vpc::1", *names]
    service.end()
