"""The simulated connectors."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.errors import BusFull
from scheduler.local.results import OutputRule, parse_output
from scheduler.local.simulator import QUEUE, Behaviour, Counts, ReplyTo, Simulator

VPC = {
    "_component_id": "vpc::a",
    "_component": "vpc",
    "_provider": "aws",
    "_state": "running",
    "service": "b",
}


class Bench:
    """A bus with simulated connectors on it, and what they answered."""

    def __init__(self, bus: FakeBus, nursery: trio.Nursery) -> None:
        self.bus = bus
        self.nursery = nursery
        self.simulator: Simulator

    async def start(self, behaviour: Behaviour) -> None:
        self.simulator = Simulator(self.bus, behaviour)
        await self.nursery.start(self.simulator.run)

    def ask(self, subject: str, component: Any, reply: str = "scheduler.reply.1") -> None:
        data = component if isinstance(component, bytes) else json.dumps(component).encode()
        self.bus.publish(subject, data, reply=reply)

    def answers(self) -> list[tuple[str, dict[str, Any]]]:
        suffixes = (".done", ".error")
        return [
            (message.subject, json.loads(message.data))
            for message in self.bus.published
            if message.subject.endswith(suffixes) or message.subject.startswith("scheduler.reply.")
        ]


@pytest.fixture
async def bench(fake_bus: FakeBus) -> AsyncIterator[Bench]:
    """Simulated connectors, yet to be started."""
    async with trio.open_nursery() as nursery:
        yield Bench(fake_bus, nursery)
        nursery.cancel_scope.cancel()


async def test_an_answer_comes_after_the_latency(bench: Bench, autojump_clock: trio.abc.Clock) -> None:
    """A request is answered on its subject with .done, completed, when the latency has passed."""
    await bench.start(Behaviour(latency=5, jitter=0))
    bench.ask("vpc.create.aws", VPC | {"size": 2**70})
    await trio.sleep(4.9)
    assert bench.answers() == []
    await trio.sleep(0.2)
    ((subject, reply),) = bench.answers()
    assert subject == "vpc.create.aws.done"
    assert reply["_state"] == "completed"
    assert reply["size"] == 2**70
    assert reply["vpc_aws_id"].startswith("vpc-")


async def test_latency_holds_nobody_else_up(bench: Bench, autojump_clock: trio.abc.Clock) -> None:
    """A thousand requests at a time take no longer than one, and a later sooner one overtakes."""
    await bench.start(Behaviour(latency=10, jitter=9, seed=3))
    for number in range(1_000):
        bench.ask("vpc.create.aws", VPC | {"_component_id": f"vpc::{number}"})
    began = trio.current_time()
    await trio.sleep(0.5)
    assert bench.simulator.at_work == 1_000
    await trio.sleep(began + 19.1 - trio.current_time())
    ids = [reply["_component_id"] for _, reply in bench.answers()]
    assert len(set(ids)) == len(ids) == 1_000
    assert ids != [f"vpc::{number}" for number in range(1_000)]


@pytest.mark.parametrize(
    ("reply_to", "inbox", "subjects"),
    [
        ("subject", "scheduler.reply.1", {"vpc.create.aws.done"}),
        ("inbox", "scheduler.reply.1", {"scheduler.reply.1"}),
        ("both", "scheduler.reply.1", {"vpc.create.aws.done", "scheduler.reply.1"}),
        ("inbox", "", {"vpc.create.aws.done"}),
        ("both", "", {"vpc.create.aws.done"}),
    ],
)
async def test_where_answers_go(
    bench: Bench, autojump_clock: trio.abc.Clock, reply_to: ReplyTo, inbox: str, subjects: set[str]
) -> None:
    """Answers go to the subject, the reply subject or both; without a reply subject to the subject."""
    await bench.start(Behaviour(reply_to=reply_to))
    bench.ask("vpc.create.aws", VPC, inbox)
    await trio.sleep(1)
    assert {subject for subject, _ in bench.answers()} == subjects


async def test_failures_say_so(bench: Bench, autojump_clock: trio.abc.Clock) -> None:
    """A failure is published on .error, says errored and why, and invents nothing."""
    await bench.start(Behaviour(failure_rate=1))
    bench.ask("vpc.create.aws", VPC)
    await trio.sleep(1)
    ((subject, reply),) = bench.answers()
    assert subject == "vpc.create.aws.error"
    assert reply["_state"] == "errored"
    assert "simulated failure" in reply["error"]
    assert "vpc_aws_id" not in reply
    assert bench.simulator.counts.errored == 1


def test_fates_depend_on_the_seed_and_not_on_the_order() -> None:
    """One seed gives each component one fate; the share of failures is what was asked for."""
    ids = [f"vpc::{number}" for number in range(2_000)]
    one, other = Behaviour(failure_rate=0.3, seed=1), Behaviour(failure_rate=0.3, seed=2)
    fates = {name: one.fate(name, "vpc.create.aws") for name in ids}
    assert fates == {name: one.fate(name, "vpc.create.aws") for name in reversed(ids)}
    assert fates != {name: other.fate(name, "vpc.create.aws") for name in ids}
    assert 500 < sum(fails for _, fails in fates.values()) < 700
    assert all(0.3 <= delay <= 0.7 for delay, _ in fates.values())
    assert not any(Behaviour().fate(name, "vpc.create.aws")[1] for name in ids)


@pytest.mark.parametrize(
    "subject",
    [
        "build.create.done", "build.create.error", "service.delete.error", "x.create.done", "x.get.mapping",
        "build.get.mapping", "environment.create.aws", "scheduler.create.x", "vpc.delete.error",
        "build.find.x", "vpc.get.definition", "vpc.get.validation",
    ],
)  # fmt: skip
async def test_the_systems_own_messages_are_left_alone(
    bench: Bench, autojump_clock: trio.abc.Clock, subject: str
) -> None:
    """What only looks like a request is not answered, or it would be a forged message."""
    await bench.start(Behaviour())
    bench.ask(subject, VPC)
    await trio.sleep(2)
    assert [message.subject for message in bench.bus.published] == [subject]
    assert bench.simulator.counts == Counts()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'"x"'])
async def test_unreadable_requests_are_counted(
    bench: Bench, autojump_clock: trio.abc.Clock, data: bytes
) -> None:
    """A body that is no object is not answered, and the next request is."""
    await bench.start(Behaviour())
    bench.ask("vpc.create.aws", data)
    bench.ask("vpc.create.aws", VPC)
    await trio.sleep(2)
    assert len(bench.answers()) == 1
    assert bench.simulator.counts.ignored == 1


async def test_a_search_finds_something(bench: Bench, autojump_clock: trio.abc.Clock) -> None:
    """The answer to find has a component with an id of its own among its components."""
    await bench.start(Behaviour())
    bench.ask("vpc.find.aws", VPC | {"name": "x"})
    await trio.sleep(1)
    ((_, reply),) = bench.answers()
    (found,) = reply["components"]
    assert found["_component_id"] == "vpc::found-x"
    assert found["_component"] == "vpc"
    assert found["vpc_aws_id"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("vpc", {"vpc_aws_id"}),
        ("internet_gateway", {"internet_gateway_aws_id"}),
        ("network", {"network_aws_id"}),
        ("firewall", {"security_group_aws_id"}),
        ("instance", {"instance_aws_id", "public_ip"}),
        ("elb", {"dns_name"}),
        ("nat", {"nat_gateway_aws_id", "nat_gateway_allocation_id"}),
        ("rds_instance", {"endpoint"}),
        ("gizmo", {"gizmo_id"}),
    ],
)
def test_creating_returns_what_ernests_connectors_return(
    fake_bus: FakeBus, kind: str, fields: set[str]
) -> None:
    """Each type gets its fields; an unknown one gets an id; the same component always the same ones."""
    simulator = Simulator(fake_bus)
    component = {"_component_id": f"{kind}::a", "service": "b", "name": "a", "_state": "running"}
    reply = simulator.result(f"{kind}.create.aws", component, fails=False)
    assert set(reply) - set(component) == fields
    assert all(reply[name] for name in fields)
    assert reply == simulator.result(f"{kind}.create.aws", component, fails=False)
    other = simulator.result(f"{kind}.create.aws", component | {"_component_id": f"{kind}::b"}, fails=False)
    assert all(other[name] != reply[name] for name in fields)


def test_what_exists_keeps_its_name(fake_bus: FakeBus) -> None:
    """A field that is there already is kept, and updating and deleting invent nothing."""
    simulator = Simulator(fake_bus)
    named = VPC | {"vpc_aws_id": "vpc-1"}
    assert simulator.result("vpc.create.aws", named, fails=False)["vpc_aws_id"] == "vpc-1"
    for verb in ("update", "delete"):
        assert simulator.result(f"vpc.{verb}.aws", VPC, fails=False) == VPC | {"_state": "completed"}


def test_outputs_can_be_given(fake_bus: FakeBus) -> None:
    """A given output is set where its pattern matches, whatever was there."""
    outputs = (parse_output("vpc.*.aws:vpc_aws_id=vpc-x"), parse_output('*.create.*:zones=["a", 1]'))
    simulator = Simulator(fake_bus, Behaviour(outputs=outputs))
    created = simulator.result("vpc.create.aws", VPC, fails=False)
    assert (created["vpc_aws_id"], created["zones"]) == ("vpc-x", ["a", 1])
    assert "zones" not in simulator.result("vpc.update.fake", VPC, fails=False)
    assert parse_output("a.b.c:d=e=f") == OutputRule(("a", "b", "c"), "d", "e=f")


@pytest.mark.parametrize(
    "text", ["", "x", "a.b:c=d", "a.b.c", "a.b.c:d", "a.b.c:=d", "a.b.>:c=d", "a b.c.d:e=f"]
)
def test_what_is_no_output_is_refused(text: str) -> None:
    """An output without pattern, field or value is refused."""
    with pytest.raises(ValueError, match=r"^"):
        parse_output(text)


async def test_a_full_queue_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """Where the bus has no room an answer is given later, and none is lost."""
    refused = 3

    class Narrow(FakeBus):
        def publish(self, subject: str, data: bytes, **rest: Any) -> Any:
            nonlocal refused
            if subject.endswith(".done") and refused:
                refused -= 1
                raise BusFull("no room")
            return super().publish(subject, data, **rest)

    bus = Narrow()
    async with trio.open_nursery() as nursery:
        await nursery.start(Simulator(bus, Behaviour()).run)
        for number in range(5):
            bus.publish("vpc.create.aws", json.dumps(VPC | {"_component_id": f"vpc::{number}"}).encode())
        await trio.sleep(5)
        assert sum(message.subject.endswith(".done") for message in bus.published) == 5
        nursery.cancel_scope.cancel()


async def test_answers_wait_until_everybody_is_back(bench: Bench, autojump_clock: trio.abc.Clock) -> None:
    """While the broker is away, and a while after, nothing is answered: the scheduler would miss it."""
    await bench.start(Behaviour(latency=1, jitter=0))
    bench.ask("vpc.create.aws", VPC)
    await trio.sleep(0.5)
    bench.bus.disconnect()
    await trio.sleep(10)
    bench.bus.reconnect()
    await trio.sleep(2)
    assert bench.answers() == []
    await trio.sleep(2)
    assert len(bench.answers()) == 1


async def test_two_simulators_share_the_work(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """They are in one queue group, so each request is answered once; stopping one ends its part."""
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            await nursery.start(Simulator(fake_bus, Behaviour()).run)
        fake_bus.publish("vpc.create.aws", json.dumps(VPC).encode())
        await trio.sleep(1)
        assert sum(message.subject == "vpc.create.aws.done" for message in fake_bus.published) == 1
        nursery.cancel_scope.cancel()
    heard: list[Message] = []
    await fake_bus.subscribe("vpc.create.aws", heard.append, queue=QUEUE)
    fake_bus.publish("vpc.create.aws", b"{}")
    await trio.sleep(1)
    assert len(heard) == 1
