"""With the Ernest store on a broker with JetStream: the scheduler that works is elected by lease."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM

import pytest
from support.brokers import nats_server

from integration.builds import build, chain, component, held
from integration.conftest import World
from integration.ernest import JSON, Ernest
from integration.harness import Scheduler, eventually, states

pytestmark = pytest.mark.integration

STANDING_BY = "standing by: another scheduler has the lease"
ELECTED = "elected: this scheduler has the lease"


@pytest.fixture(params=[(), ("--all",)], ids=["", "a store that hears everything"])
def ernest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ernest]:
    """An installation whose broker has JetStream."""
    with ExitStack() as stack:
        yield Ernest(stack, tmp_path, *request.param, jetstream=True)


def pair(ernest: Ernest) -> tuple[Scheduler, Scheduler]:
    """One that works, and one that stands by."""
    first = ernest.scheduler("--instance", "one", "--grace", "20")
    first.await_log(ELECTED)
    second = ernest.scheduler("--instance", "two", "--grace", "20", ready=False)
    second.await_log(STANDING_BY, other="one")
    return first, second


def test_both_are_seen(ernest: Ernest) -> None:
    """By `instances`, and the one that works by service discovery and the doctor."""
    first, second = pair(ernest)
    listed = ernest.world.command("instances")
    assert [line.split()[:2] for line in listed.out][1:3] == [["one", "active"], ["two", "standby"]]
    doctor = ernest.world.command("doctor", "--store", "ernest")
    assert "one (version" in doctor.output
    (found,) = ernest.submitter.client.request_many("$SRV.PING.scheduler", 1)
    assert (found["metadata"]["name"], found["metadata"]["elected"]) == ("one", "lease")
    second.stop()
    first.end()


def in_flight(ernest: Ernest, gate: str) -> JSON:
    """A build whose second component is in flight."""
    document = chain(component("vpc::1"), held("net::1", gate), component("vm::1"))
    ernest.submitter.accepted(document)
    ernest.connectors.await_requests(document["id"], "net::1")
    return document


def check_finished(ernest: Ernest, document: JSON) -> None:
    """Each component was sent once, and all is reported once."""
    assert set(states(ernest.submitter.done(document)).values()) == {"completed"}
    assert ernest.connectors.ids(document["id"]) == ["vpc::1", "net::1", "vm::1"]
    ernest.check_one_report(document)


@pytest.mark.long
def test_after_a_kill_the_other_one_finishes_the_build(ernest: Ernest) -> None:
    """Within 20 s it works."""
    first, second = pair(ernest)
    document = in_flight(ernest, "killed")
    began = time.monotonic()
    first.kill()
    second.await_log("build taken up", build=document["id"])
    assert time.monotonic() - began < 20
    ernest.connectors.release("killed")
    check_finished(ernest, document)
    second.end()


@pytest.mark.alone
def test_at_a_stop_in_order_the_other_one_works_at_once(ernest: Ernest) -> None:
    """Within 2 s, although something is in flight, of which it awaits the reply."""
    first, second = pair(ernest)
    document = in_flight(ernest, "stopped")
    began = time.monotonic()
    first.send(SIGTERM)
    second.await_log("ready")
    assert time.monotonic() - began < 2
    assert first.wait() == 0
    first.check_log()
    ernest.connectors.release("stopped")
    check_finished(ernest, document)
    ernest.submitter.run(build(component("vpc::1")))
    second.end()


def test_a_reply_during_the_hand_over_counts(ernest: Ernest) -> None:
    """One of the two hears it, whenever it comes."""
    first, second = pair(ernest)
    documents = [
        chain(component("vpc::1"), held("net::1", f"over {n}"), component("vm::1")) for n in range(20)
    ]
    ernest.submitter.accepted(*documents)
    for document in documents:
        ernest.connectors.await_requests(document["id"], "net::1")
    first.send(SIGTERM)
    for number in range(20):
        ernest.connectors.release(f"over {number}")
    assert first.wait() == 0
    for document in documents:
        check_finished(ernest, document)
    second.end()


@pytest.mark.long
def test_one_that_stood_still_sends_nothing_once_it_goes_on(ernest: Ernest) -> None:
    """Neither a request nor a report, nor a word to the store; it ends, and started again it stands by."""
    first, second = pair(ernest)
    document = in_flight(ernest, "stood still")
    queued = in_flight(ernest, "answered meanwhile")
    first.send(SIGSTOP)
    began = time.monotonic()
    second.await_log("build taken up", build=document["id"])
    assert time.monotonic() - began < 20
    # What the first one hears of it, it hears as it goes on.
    ernest.connectors.release("answered meanwhile")
    check_finished(ernest, queued)
    time.sleep(max(0.0, began + 20 - time.monotonic()))
    heard = ernest.submitter.client.listen("*.*.aws", "build.>")
    first.send(SIGCONT)
    assert first.wait() == 1
    assert "two was elected" in first.errors or "was elected, as the lease of one" in first.errors
    ernest.submitter.client.flush()
    assert list(heard) == []
    ernest.connectors.release("stood still")
    check_finished(ernest, document)
    third = ernest.scheduler("--instance", "one", ready=False)
    third.await_log(STANDING_BY, other="two")
    second.end()


def test_under_the_same_name_it_works_at_once_after_a_kill(ernest: Ernest) -> None:
    """The lease of the name is not waited for."""
    first = ernest.scheduler("--instance", "one")
    first.await_log(ELECTED)
    document = in_flight(ernest, "again")
    first.kill()
    began = time.monotonic()
    second = ernest.scheduler("--instance", "one")
    assert time.monotonic() - began < 5
    ernest.connectors.release("again")
    check_finished(ernest, document)
    second.end()


def test_of_two_that_begin_at_once_one_works(ernest: Ernest) -> None:
    """The other one stands by, and takes over without a word from anybody."""
    both = [ernest.scheduler(ready=False) for _ in range(2)]
    eventually(lambda: any('"ready"' in line for one in both for line in one.err), what="one works")
    works, waits = sorted(both, key=lambda one: '"ready"' not in one.errors)
    waits.await_log(STANDING_BY)
    assert '"ready"' not in waits.errors
    works.end()
    waits.await_log("ready")
    waits.end()


PUBLISH_DENIED = ["$JS.>", "$KV.>"]


def test_without_the_right_to_the_lease_it_is_found_by_presence() -> None:
    """That is said once, with the cure; one with a lease and one without respect each other."""
    users: list[JSON] = [
        {"user": "all", "password": "pw"},
        {"user": "few", "password": "pw", "permissions": {"publish": {"deny": PUBLISH_DENIED}}},
    ]
    with ExitStack() as stack:
        server = stack.enter_context(nats_server({"authorization": {"users": users}}, jetstream=True))
        world = World(stack, server)
        urls = {one["user"]: server.url.replace("//", f"//{one['user']}:pw@") for one in users}

        def scheduler(user: str) -> Scheduler:
            return world.scheduler("--store", "ernest", ready=False, env={"NATS_URL": urls[user]})

        few = scheduler("few")
        said = few.await_log("no scheduler is elected by lease: others stand by while one is present")
        assert (said["level"], "scheduler permissions" in said["cure"]) == ("warning", True)
        few.await_log("ready")
        everything = scheduler("all")
        everything.await_log("standing by: a scheduler without a lease is there")
        few.end()
        everything.await_log("ready")
        few = scheduler("few")
        few.await_log("standing by: another scheduler is there")
        everything.end()
        few.await_log("ready")
        few.end()
