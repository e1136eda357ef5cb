"""Pages that are open while things die: the service, its drawing process, the owner of a build."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM, Signals

import pytest
from support.brokers import nats_server
from support.children import children_of

from integration.builds import build, chain, component, held
from integration.conftest import World
from integration.harness import JSON, Scheduler, await_death, eventually, within
from integration.pages import TOKEN, Site

pytestmark = pytest.mark.integration

READERS, STALLED = 10, 10
ASKED = 200
"""Files that a stalled viewer asks for before its stream: megabytes, of which it reads none."""
MUCH = 8 * 1024
"""Bytes that wait in the kernel for one that does not read: there is no room for more."""


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker has JetStream."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server(jetstream=True)))


def stall(stack: ExitStack, site: Site, path: str) -> int:
    """Ask for a stream, and read nothing; returns our port."""
    one = stack.enter_context(closing(socket.socket()))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
    one.connect(site.address)
    asked = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    one.sendall(asked % b"/static/graph.js" * ASKED + asked % path.encode())
    port: int = one.getsockname()[1]
    return port


def unsent(ports: list[int]) -> list[int]:
    """Bytes that wait in the kernel to be sent to clients on this machine, by their ports."""
    waiting = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, _, queues, *_ = line.split()
        waiting[int(remote.rpartition(":")[2], 16)] = int(queues.partition(":")[0], 16)
    return [waiting.get(port, 0) for port in ports]


class Viewers:
    """Viewers of a stream: those that read, and those that do not."""

    def __init__(self, stack: ExitStack, site: Site, path: str) -> None:
        self.readers = [stack.enter_context(site.stream(path)) for _ in range(READERS)]
        for reader in self.readers:
            reader.until("snapshot")
        stalled = [stall(stack, site, path) for _ in range(STALLED // 2)]
        eventually(lambda: min(unsent(stalled)) > MUCH, "writes that nobody reads", 10)
        for _ in range(STALLED - len(stalled)):
            # Those have room for all that comes, and read none of it either.
            stack.enter_context(site.stream(path))

    def see_the_end(self) -> None:
        """See the last event of each stream that is read, which is whole."""
        for reader in self.readers:
            assert reader.until("end") == {"reason": "stopping"}
            assert reader.next() is None


def test_idle_with_viewers_it_ends_at_once(world: World) -> None:
    """Within two seconds, with exit code 0, and each stream that is read has its last event."""

    def stop() -> float:
        with ExitStack() as stack:
            scheduler = world.scheduler("--web=0")
            viewers = Viewers(stack, Site(scheduler), "/api/stream")
            began = time.monotonic()
            scheduler.send(SIGTERM)
            viewers.see_the_end()
            assert scheduler.wait() == 0
            seconds = time.monotonic() - began
            scheduler.check_log()
            return seconds

    within(2, stop)


@pytest.mark.parametrize("store", ["memory", "jetstream"])
def test_the_grace_is_for_builds_and_not_for_their_viewers(world: World, store: str) -> None:
    """Streams end at the signal; the build in flight is awaited, and nothing but that."""

    def stop() -> float:
        with ExitStack() as stack:
            scheduler = world.scheduler("--web=0", f"--store={store}", "--grace=30")
            site, connectors, submitter = Site(scheduler), world.connectors(), world.submitter()
            document = build(held("vpc::1", "gate"))
            submitter.accepted(document)
            connectors.await_requests(document["id"], "vpc::1")
            path = f"api/builds/{document['id']}"
            viewers = Viewers(stack, site, f"/{path}/stream")
            began = time.monotonic()
            scheduler.send(SIGTERM)
            viewers.see_the_end()
            seconds = time.monotonic() - began
            # Who looks for it meanwhile is told, and none of them is waited for.
            assert site.get(f"{path}/stream")[1]["message"] == "the scheduler is shutting down"
            assert site.build(document["id"])["counts"]["running"] == 1
            began = time.monotonic()
            connectors.release("gate")
            submitter.done(document)
            assert scheduler.wait() == 0
            scheduler.check_log()
            return max(seconds, time.monotonic() - began)

    within(2, stop)


def test_a_stop_waits_for_no_drawing(world: World) -> None:
    """A process that hangs over a graph is ended with the service, within two seconds."""

    def stop() -> float:
        with ExitStack() as stack:
            scheduler = world.scheduler("--web=0", "--store=jetstream")
            site, submitter = Site(scheduler), world.submitter()
            document = chain(component("vpc::1", action="none"), component("net::1", action="none"))
            submitter.run(document)
            asking = stack.enter_context(closing(socket.create_connection(site.address)))
            asking.sendall(
                f"GET /api/builds/{document['id']}/layout HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            drawing = hold_drawing(scheduler)
            code, seconds = scheduler.stop()
            assert code == 0
            await_death(drawing, 1)
            scheduler.check_log()
            return seconds

    within(2, stop)


def hold_drawing(scheduler: Scheduler) -> int:
    """Stop the drawing process as soon as it is there; returns its id."""
    found: list[int] = []

    def look() -> bool:
        found.extend(children_of(scheduler.pid, "scheduler.web.drawing.worker"))
        return bool(found)

    eventually(look, "a drawing process", 10)
    os.kill(found[0], SIGSTOP)
    return found[0]


class Fleet:
    """Two instances with their pages, and a build of each."""

    def __init__(self, world: World) -> None:
        self.instances: dict[str, Scheduler] = {}
        for name in ("alpha", "beta"):
            env = {
                "NATS_URL": world.server.url,
                "SCHEDULER_STORE": "jetstream",
                "SCHEDULER_INSTANCE": name,
                "SCHEDULER_WEB": "0",
                "SCHEDULER_WEB_ORDERS": "yes",
                "SCHEDULER_WEB_TOKEN": TOKEN,
            }
            self.instances[name] = world.scheduler(env=env, ready=False)
        for one in self.instances.values():
            one.await_log("another instance has come")
        self.connectors, self.submitter = world.connectors(), world.submitter()
        self.builds: dict[str, JSON] = {}
        """A build by its owner."""
        while self.builds.keys() != self.instances.keys():
            document = chain(held("vpc::1", "first"), held("net::1", "second"))
            self.submitter.accepted(document)
            self.connectors.await_requests(document["id"], "vpc::1")
            owner = self.submitter.client.request("scheduler.build.get", {"id": document["id"]})["owner"]
            self.builds.setdefault(owner, document)


@pytest.mark.parametrize("number", [SIGTERM, SIGKILL], ids=["handed over", "killed"])
def test_a_build_is_watched_on_while_it_changes_its_owner(world: World, number: Signals) -> None:
    """At the page of the next owner: no wrong state, nothing to be done, and orders reach that one."""
    fleet = Fleet(world)
    site = Site(fleet.instances["beta"], TOKEN)
    lost, kept = (fleet.builds[name]["id"] for name in ("alpha", "beta"))
    with site.stream(f"/api/builds/{lost}/stream") as stream, site.stream("/api/stream") as overview:
        assert stream.until("snapshot")["status"]["owner"] == "alpha"
        listed = {row["id"]: row["owner"] for row in overview.until("snapshot")["builds"]}
        assert (listed[lost], listed[kept]) == ("alpha", "beta")
        fleet.instances["alpha"].send(number)
        began, silent = time.monotonic(), False
        # What an update leaves out stays as it is.
        while listed.get(lost) != "beta":
            data = overview.until("update")
            silent = bool(data.get("silent", silent))
            listed |= {row["id"]: row["owner"] for row in data.get("builds", ())}
            listed = {name: owner for name, owner in listed.items() if name not in data.get("gone", ())}
            # It is there, or somebody is named who has not told of it.
            assert lost in listed or silent
            assert kept in listed
        status: JSON = {"owner": "alpha", "status": "running", "epoch": 1}
        states, troubles = "rw", list[str]()
        while status["owner"] != "beta":
            found = stream.next()
            assert found is not None
            name, data = found
            assert name != "end"
            states = data.get("states", states)
            troubles += filter(None, [data.get("trouble")])
            status |= data.get("status", {})
            # It is halted for a moment where its owner leaves it in order.
            assert status["status"] == "running" or number == SIGTERM
            assert (states, data.get("rows", [])) == ("rw", [])
        assert time.monotonic() - began < 20
        assert all("alpha, which does not answer" in one or "taken over" in one for one in troubles), troubles
        assert (status["status"], status["epoch"]) == ("running", 2)
        found = site.build(lost)
        assert (found["owner"], found["status"]) == ("beta", "running")
        assert site.build(lost, "states")["states"] == "rw"
        assert site.build(lost, "layout")["method"] == "ordered"
        assert "connector" in site.build(lost, "why")["reasons"][0]["text"]
        assert site.get(f"api/builds/{lost}/orders", order="pause", reason="lunch")[0] == 200
        while status["status"] != "paused":
            status |= stream.until("update").get("status", {})
        assert site.get(f"api/builds/{lost}/orders", order="resume")[0] == 200
        fleet.connectors.release("first")
        fleet.connectors.release("second")
        assert stream.until("end") == {"reason": "finished"}
    fleet.submitter.done(fleet.builds["alpha"])
