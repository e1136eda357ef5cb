"""A broker that goes away and comes back."""

import json
import random
from functools import partial
from typing import Any

import pytest

from integration.builds import build, chain, component, held, layered
from integration.conftest import World
from integration.harness import Connectors, Scheduler, Submitter, states
from integration.orders import check_order

pytestmark = pytest.mark.integration

JSON = dict[str, Any]


class Parts:
    """Who is connected to the broker."""

    def __init__(self, world: World, *arguments: str) -> None:
        self.world = world
        self.scheduler: Scheduler = world.scheduler(*arguments)
        self.connectors: Connectors = world.connectors()
        self.submitter: Submitter = world.submitter()
        self.outages = 0

    def lose_broker(self, how: str) -> None:
        """The broker ends, and the service has noticed it."""
        self.outages += 1
        (self.world.server.kill if how == "kill" else self.world.server.stop)()
        self.scheduler.await_log("lost the connection to the broker", times=self.outages)

    def regain_broker(self) -> None:
        """It is there again, on the same port, and everybody is back."""
        self.world.server.start()
        self.scheduler.await_log("connected to the broker", times=self.outages + 1)
        self.connectors.await_event("reconnected", times=self.outages)
        self.submitter.client.reconnects.count(self.outages)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_of_the_broker_in_mid_build_fails_and_repeats_nothing(world: World, how: str) -> None:
    """What was in flight is still awaited, on both ways of replying, and the rest follows."""
    parts = Parts(world)
    nets = [
        component(f"net::{number}", {"hold": "back", "on": "inbox" if number % 2 else "subject"})
        for number in range(20)
    ]
    vms = [
        component(f"vm::{number}", net=f'$(components.#[_component_id="net::{number}"].out)')
        for number in range(20)
    ]
    document = build(component("vpc::1"), *nets, *vms, edges=",".join(f"vpc::1 net::{n}" for n in range(20)))
    parts.submitter.accepted(document)
    parts.connectors.await_requests(document["id"], *(net["_component_id"] for net in nets))
    parts.lose_broker(how)
    parts.regain_broker()
    parts.connectors.release("back")
    report = parts.submitter.done(document)
    assert set(states(report).values()) == {"completed"}
    assert len(check_order(document, parts.connectors)) == 41
    assert report["changes"][-1]["net"] == "out-of-net::19"
    parts.submitter.client.flush()
    assert len(parts.submitter.reports_of(document["id"])) == 1
    parts.scheduler.end()


def test_what_becomes_due_while_the_broker_is_away_leaves_when_it_is_back(world: World) -> None:
    """A component times out during the outage: the report waits for the connection, and is published once."""
    parts = Parts(world)
    document = build(held("vpc::1", "never", _timeout=1))
    parts.submitter.accepted(document)
    parts.connectors.await_requests(document["id"], "vpc::1")
    parts.lose_broker("kill")
    parts.scheduler.await_log("build failed", build=document["id"])
    assert not parts.submitter.reports_of(document["id"])
    # The submitter must not be later than the report: the service's own attempts have become rare by then.
    parts.regain_broker()
    parts.scheduler.end()


def test_after_restarts_without_builds_a_build_runs(world: World) -> None:
    """Subscriptions are back, each of them once."""
    parts = Parts(world)
    for how in ("stop", "kill"):
        parts.lose_broker(how)
        parts.regain_broker()
    document = chain(component("vpc::1"), component("net::1", {"on": "inbox"}))
    parts.submitter.run(document)
    assert parts.connectors.ids(document["id"]) == ["vpc::1", "net::1"]
    (_,) = parts.submitter.client.request_many("$SRV.PING.scheduler", 1)
    parts.scheduler.end()


def test_whatever_the_moment_of_a_restart_nothing_is_requested_twice(world: World) -> None:
    """Replies may be lost on the way, and then time out; every build ends all the same, once."""
    parts = Parts(world, "--attempt-timeout", "3")
    randomness = random.Random(4)
    builds = []
    for _ in range(3):
        before = len(parts.connectors.requests())
        more = [layered(randomness, size=60, failures=0, latency=0.1) for _ in range(5)]
        parts.submitter.client.publish_all([(one["action"], json.dumps(one).encode(), "") for one in more])
        for one in more:
            parts.scheduler.await_log("build started", build=one["id"])
        parts.connectors.await_event("request", times=before + 40)
        parts.lose_broker("kill")
        parts.regain_broker()
        builds += more
    for one in builds:
        log = parts.scheduler.err.first(partial(is_end, one["id"]))
        assert "timed out after 3 s" in log or '"build done"' in log
        check_order(one, parts.connectors)
    parts.submitter.run(build(component("vpc::1")))
    for one in builds:
        assert len(parts.submitter.reports_of(one["id"])) <= 1
    parts.scheduler.end()


def is_end(name: str, line: str) -> bool:
    """Whether a line of the log says that a build has ended."""
    entry = json.loads(line)
    return entry["event"] in {"build done", "build failed"} and entry["build"] == name


def test_a_broker_that_is_not_there_at_start_is_waited_for(world: World) -> None:
    """It is tried again and again, the log says so, and then builds are taken."""
    world.server.kill()
    scheduler = world.scheduler(ready=False)
    waits = [
        scheduler.await_log("cannot connect to the broker", times=times)["retry_in"] for times in (1, 2, 3)
    ]
    assert waits == sorted(waits)
    assert waits[0] < waits[2]
    world.server.start()
    scheduler.await_log("ready")
    world.connectors()
    world.submitter().run(build(component("vpc::1")))
    scheduler.end()
