"""One control over several instances: whoever is asked, the owner of a build answers."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from support.brokers import nats_server

from integration.builds import chain, component, held
from integration.conftest import World
from integration.harness import JSON, Client, Connectors, Scheduler, Submitter, eventually, states

pytestmark = pytest.mark.integration

TIMES = 12
"""Times that a question is asked so that, all but surely, each instance has got it."""
COUNT = 8
"""Builds that are submitted so that, all but surely, each instance has one."""


class Pair:
    """Two instances, ``alpha`` and ``beta``, each with builds whose first component waits."""

    def __init__(self, stack: ExitStack) -> None:
        self.world = World(stack, stack.enter_context(nats_server(jetstream=True)))
        self.instances: dict[str, Scheduler] = {
            name: self.world.scheduler(
                env={
                    "NATS_URL": self.world.server.url,
                    "SCHEDULER_STORE": "jetstream",
                    "SCHEDULER_INSTANCE": name,
                }
            )
            for name in ("alpha", "beta")
        }
        for scheduler in self.instances.values():
            scheduler.await_log("another instance has come")
        self.connectors: Connectors = self.world.connectors()
        self.submitter: Submitter = self.world.submitter()
        self.client: Client = self.submitter.client
        self.builds = {
            f"b{number}": chain(held("vpc::1", f"go-{number}"), component("net::1"), id=f"b{number}")
            for number in range(COUNT)
        }
        for name, document in self.builds.items():
            self.submitter.accepted(document)
            self.connectors.await_requests(name, "vpc::1")
        self.owners = {name: self.ask("get", name)["owner"] for name in self.builds}
        assert set(self.owners.values()) == {"alpha", "beta"}

    def ask(self, verb: str, build: str = "", **fields: Any) -> JSON:
        return self.client.request(f"scheduler.build.{verb}", {"id": build, **fields})

    def of(self, owner: str) -> list[str]:
        """The builds of an instance."""
        return [name for name, one in self.owners.items() if one == owner]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two instances that the tests of this module share."""
    with ExitStack() as stack:
        yield Pair(stack)


def test_the_owner_answers_whoever_is_asked(pair: Pair) -> None:
    """Every answer is the same, in a build of either instance."""
    for name, owner in pair.owners.items():
        for verb in ("get", "why"):
            answers = [pair.ask(verb, name) for _ in range(TIMES // 2)]
            assert {(one["owner"], one["epoch"]) for one in answers} == {(owner, 1)}
        assert len({pair.ask("get", name)["source"] for _ in range(TIMES // 2)}) == 1


def test_the_owner_carries_out_what_anyone_is_told(pair: Pair) -> None:
    """Each order once; a refusal comes from the owner, too."""
    for name in pair.builds:
        assert pair.ask("pause", name)["status"] == "paused"
        assert {pair.ask("get", name)["status"] for _ in range(4)} == {"paused"}
        assert pair.ask("resume", name)["status"] == "running"
        refused = [pair.ask("resume", name)["error"]["code"] for _ in range(4)]
        assert set(refused) == {"conflict"}
        assert [one["verb"] for one in pair.ask("history", name)["orders"]] == ["pause", "resume"]


def test_a_list_has_the_builds_of_all(pair: Pair) -> None:
    """Page by page, whoever makes each page."""
    for _ in range(TIMES):
        page = pair.ask("list", limit=3)
        found = page["builds"]
        while page["next"]:
            page = pair.ask("list", limit=3, after=page["next"])
            found += page["builds"]
        assert {one["id"]: one["owner"] for one in found} == pair.owners


def test_the_instances_are_told_apart(pair: Pair) -> None:
    """By the command, with what each has; and by service discovery."""
    command = pair.world.command("instances", "--json")
    assert command.code == 0, command.errors

    def loads() -> dict[str, int]:
        answer = pair.ask("instances")
        return {one["name"]: one["builds"] for one in answer["instances"]}

    expected = {name: len(pair.of(name)) for name in pair.instances}
    eventually(lambda: loads() == expected, what="the load in the leases")
    lines = pair.world.command("instances").output.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["alpha", "active"], ["beta", "active"]]
    assert max(map(len, lines)) <= 80
    for verb in ("PING", "INFO", "STATS"):
        answers = pair.client.request_many(f"$SRV.{verb}.scheduler", 2)
        assert {one["metadata"]["name"] for one in answers} == {"alpha", "beta"}
        assert len({one["metadata"]["instance"] for one in answers}) == 2
        assert len({one["id"] for one in answers}) == 2
        assert all(one["metadata"]["key"] == one["metadata"]["name"] for one in answers)


def test_a_build_that_has_ended_is_anyones(pair: Pair) -> None:
    """From its log; so is what nobody knows."""
    document = chain(component("vpc::1"), id="ended")
    assert set(states(pair.submitter.run(document)).values()) == {"completed"}
    answers = [pair.ask("get", "ended") for _ in range(TIMES)]
    assert {one["status"] for one in answers} == {"done"}
    assert {pair.ask("pause", "ended")["error"]["code"] for _ in range(4)} == {"conflict"}
    assert {pair.ask("get", "nobody")["error"]["code"] for _ in range(TIMES)} == {"unknown"}


def test_nobody_answers_for_an_owner_that_hangs(pair: Pair) -> None:
    """Its name and its lease are told within the time of a question; a list names it, and has the rest."""
    mine, other = pair.of("alpha"), pair.of("beta")
    pair.instances["beta"].send(signal.SIGSTOP)
    try:
        answer = patiently(pair, "get", other[0])
        assert answer["error"]["code"] == "unavailable"
        assert "owned by beta, which does not answer; its lease is " in answer["error"]["message"]
        listing = patiently(pair, "list", "")
        assert [one["id"] for one in listing["builds"]] == mine
        assert [one["name"] for one in listing["silent"]] == ["beta"]
        assert patiently(pair, "get", mine[0])["owner"] == "alpha"
    finally:
        pair.instances["beta"].send(signal.SIGCONT)
    eventually(lambda: "error" not in pair.ask("get", other[0]), what="the owner's answer")


_COPIES = 4


def patiently(pair: Pair, verb: str, build: str) -> JSON:
    """Ask until an instance answers that does not hang; several times at once, as any may get each."""
    until = time.monotonic() + 12
    with ThreadPoolExecutor(_COPIES) as pool:
        while True:
            asked = [
                pool.submit(pair.client.request, f"scheduler.build.{verb}", {"id": build}, 4)
                for _ in range(_COPIES)
            ]
            for one in as_completed(asked):
                with suppress(NatsTimeoutError):
                    return one.result()
            assert time.monotonic() < until


def test_the_doctor_finds_that_the_instances_agree(pair: Pair) -> None:
    """By their leases."""
    command = pair.world.command("doctor", "--json", "--store", "jetstream")
    [found] = [one for one in json.loads(command.output)["findings"] if one["check"] == "instances"]
    assert (found["level"], found["text"][:20]) == ("ok", "2 instances at work,")
