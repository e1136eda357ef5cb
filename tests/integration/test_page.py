"""The page of real processes, over real brokers: alone, in a fleet, over restarts and outages."""

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

import pytest
from support.brokers import nats_server

from integration.builds import build, chain, component, held
from integration.conftest import World
from integration.harness import ROOT, Process, eventually
from integration.pages import OPENER, TOKEN, Site

pytestmark = pytest.mark.integration


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker has JetStream."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server(jetstream=True)))


def test_a_build_is_seen_from_its_beginning_to_its_report(world: World) -> None:
    """Live, and after its end, with the secrets of its report masked."""
    site = Site(world.scheduler("--store=jetstream", "--web=0", env={"NATS_URL": world.server.url}))
    connectors, submitter = world.connectors(), world.submitter()
    document = chain(held("vpc::1", "gate", password="hunter2"), component("net::1"))
    name = document["id"]
    submitter.accepted(document)
    connectors.await_requests(name, "vpc::1")
    with site.stream(f"/api/builds/{quote(name, safe='')}/stream") as stream:
        assert stream.until("snapshot")["states"] == "rw"
        connectors.release("gate")
        assert stream.until("end") == {"reason": "finished"}
    submitter.done(document)
    # It is done as its report is about to leave, and has ended when that is stored.
    eventually(lambda: "ended" in site.build(name))
    assert site.build(name, "states")["states"] == "cc"
    report = site.build(name, "report")
    assert "hunter2" not in json.dumps(report)
    assert report["masked"]
    [row] = site.get("api/builds?state=done")[1]["builds"]
    assert (row["id"], row["progress"]) == (name, 1.0)
    found = site.build(name, "events")["events"]
    assert found[-1]["event"] == "ended", found


def test_any_instance_shows_the_builds_of_all(world: World) -> None:
    """Whoever owns a build, it is seen live, and takes orders; where its owner hangs, that is said."""
    schedulers, sites = {}, {}
    for name in ("alpha", "beta"):
        env = {
            "NATS_URL": world.server.url,
            "SCHEDULER_STORE": "jetstream",
            "SCHEDULER_INSTANCE": name,
            "SCHEDULER_WEB": "0",
            "SCHEDULER_WEB_ORDERS": "yes",
            "SCHEDULER_WEB_TOKEN": TOKEN,
        }
        schedulers[name] = world.scheduler(env=env)
        sites[name] = Site(schedulers[name], TOKEN)
    for one in schedulers.values():
        one.await_log("another instance has come")
    connectors, submitter = world.connectors(), world.submitter()
    document = build(held("vpc::1", "gate"), component("net::1"))
    name = document["id"]
    submitter.accepted(document)
    connectors.await_requests(name, "vpc::1")
    owner = submitter.client.request("scheduler.build.get", {"id": name})["owner"]
    [other] = sites.keys() - {owner}
    site = sites[other]
    assert site.build(name)["owner"] == owner
    assert [one["id"] for one in site.get("api/builds")[1]["builds"]] == [name]
    # What the owner refuses is refused here, in its words.
    assert site.get(f"api/builds/{name}/why?component=none")[0] == 404
    with site.stream(f"/api/builds/{name}/stream") as stream:
        assert stream.until("snapshot")["states"][0] == "r"
        status, answer = site.get(f"api/builds/{name}/orders", order="pause", reason="lunch")
        assert (status, answer["status"]) == (200, "paused")
        while stream.until("update").get("status", {}).get("status") != "paused":
            pass
        [order] = submitter.client.request("scheduler.build.history", {"id": name})["orders"]
        assert (order["verb"], order["by"], order["reason"]) == ("pause", "page", "lunch")
    schedulers[owner].send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        status, answer = site.get(f"api/builds/{name}/why")
        assert time.monotonic() - began < 8
        assert (status, answer["error"]) == (503, "unavailable")
        assert owner in answer["message"]
    finally:
        schedulers[owner].send(signal.SIGCONT)


def test_a_stop_ends_streams_and_waits_for_no_viewer(world: World) -> None:
    """One that reads is told that this process ends; those that do not read delay nothing."""
    scheduler = world.scheduler("--store=jetstream", "--web=0", env={"NATS_URL": world.server.url})
    site = Site(scheduler)
    connectors, submitter = world.connectors(), world.submitter()
    document = build(held("vpc::1", "gate"))
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::1")
    path = f"/api/builds/{document['id']}/stream"
    with ExitStack() as stack:
        for _ in range(10):
            one = stack.enter_context(closing(socket.create_connection(site.address)))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        stream = stack.enter_context(site.stream(path))
        stream.until("snapshot")
        scheduler.send(signal.SIGTERM)
        assert stream.until("end") == {"reason": "stopping"}
        began = time.monotonic()
        connectors.release("gate")
        assert scheduler.wait() == 0
        assert time.monotonic() - began < 10


def test_after_a_restart_the_same_page_goes_on(world: World) -> None:
    """A session outlives it, as the token does; and the build stands where it stood."""
    env = {"NATS_URL": world.server.url, "SCHEDULER_WEB_TOKEN": TOKEN, "SCHEDULER_INSTANCE": "alpha"}
    start = ("--store=jetstream", "--web=0")
    scheduler = world.scheduler(*start, env=env)
    connectors, submitter = world.connectors(), world.submitter()
    document = build(held("vpc::1", "gate"))
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::1")
    with Site(scheduler, TOKEN).stream(f"/api/builds/{document['id']}/stream") as stream:
        assert stream.until("snapshot")["states"] == "r"
        scheduler.kill()
    scheduler = world.scheduler(*start, env=env)
    site = Site(scheduler, TOKEN)
    eventually(lambda: site.get(f"api/builds/{document['id']}")[0] == 200)
    with site.stream(f"/api/builds/{document['id']}/stream") as stream:
        assert stream.until("snapshot")["states"] == "r"
        connectors.release("gate")
        assert stream.until("end") == {"reason": "finished"}


def test_over_an_outage_of_the_broker_a_stream_goes_on(world: World) -> None:
    """It says what is wrong meanwhile, or just waits; afterwards nothing is missing."""
    scheduler = world.scheduler("--store=jetstream", "--web=0", env={"NATS_URL": world.server.url})
    site = Site(scheduler)
    connectors, submitter = world.connectors(), world.submitter()
    document = chain(held("vpc::1", "gate"), component("net::1"))
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::1")
    with site.stream(f"/api/builds/{document['id']}/stream") as stream:
        assert stream.until("snapshot")["states"] == "rw"
        world.server.kill()
        world.server.start()
        connectors.release("gate")
        assert stream.until("end") == {"reason": "finished"}


def test_an_embedded_scheduler_prints_where_its_page_is(world: World, tmp_path: Path) -> None:
    """And `run` says where that of its build is."""
    scheduler = world.scheduler("--embedded", f"--data-dir={tmp_path}")
    broker, page = (
        scheduler.out.first(lambda line, name=name: line.startswith(name)).removeprefix(name).strip()  # type: ignore[misc]
        for name in ("broker: ", "page: ")
    )
    with OPENER.open(f"{page}api/builds", timeout=20) as answer:
        assert json.load(answer)["builds"] == []
    example = ROOT / "scheduler" / "examples" / "create.json"
    words = ("run", str(example), "--nats-url", broker, "--simulate", "--latency=10ms")
    with Process(sys.executable, "-m", "scheduler", *words) as run:
        assert run.wait() == 0
        assert f"its page is {page}builds/" in run.errors
