"""Metrics and health of a real process, over a real broker: by HTTP, by NATS and for systemd."""

import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.brokers import nats_server

from integration.builds import build, chain, component, failing, held
from integration.conftest import World
from integration.harness import Scheduler

pytestmark = pytest.mark.integration
_OPENER = build_opener(ProxyHandler({}))


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker has JetStream."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server(jetstream=True)))


class Probe:
    """What asks a scheduler by HTTP."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.address: str = scheduler.await_log("metrics and health are served")["address"]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer."""
        try:
            with _OPENER.open(Request(f"http://{self.address}{path}"), timeout=20) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def numbers(self) -> dict[str, Counter[tuple[str, ...]]]:
        """The samples by name, and by the values of their labels in alphabetical order of these."""
        found: dict[str, Counter[tuple[str, ...]]] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, Counter())[labels] = sample.value  # type: ignore[assignment]
        return found


def test_the_numbers_agree_with_the_reports(world: World) -> None:
    """By HTTP and over service discovery; the commits are measured, and the lease is fresh."""
    scheduler = world.scheduler("--store=jetstream", "--metrics=0", env={"NATS_URL": world.server.url})
    probe = Probe(scheduler)
    world.connectors()
    submitter = world.submitter()
    expected: Counter[tuple[str, ...]] = Counter()
    for document in [chain(*(component(f"vpc::{n}") for n in range(5))) for _ in range(3)]:
        submitter.accepted(document)
        for one in submitter.done(document)["changes"]:
            expected[one["_action"], one["_state"], one["_provider"], one["_component"]] += 1
    document = build(failing("net::1"))
    submitter.accepted(document)
    for one in submitter.failed(document)["changes"]:
        expected[one["_action"], one["_state"], one["_provider"], one["_component"]] += 1
    assert probe.get("/readyz") == (200, "ok\n")
    until = time.monotonic() + 30
    # A build is reported before it is counted.
    while sum((found := probe.numbers())["scheduler_builds_ended_total"].values()) < 4:
        assert time.monotonic() < until
    assert found["scheduler_builds"]["running",] == 0
    assert +found["scheduler_components_total"] == expected
    assert found["scheduler_builds_ended_total"]["done",] == 3
    assert found["scheduler_builds_ended_total"]["errored",] == 1
    assert found["scheduler_commit_duration_seconds_count"][()] >= 4
    assert found["scheduler_lease_age_seconds"][()] < 10
    assert found["scheduler_instances"]["active",] == 1
    assert found["scheduler_connection_up"]["requests",] == 1
    assert found["scheduler_loop_turn_seconds_count"][()] > 10
    assert found["process_resident_memory_bytes"][()] > 1e7
    stats = world.client().request("$SRV.STATS.scheduler", b"")
    assert (stats["builds"], stats["in_flight"], stats["ready"]) == (0, 0, True)
    assert stats["commits"]["count"] >= 4
    assert stats["commits"]["p99"] > 0
    scheduler.end()


def test_a_takeover_is_counted_by_the_process_that_has_the_build_then(world: World) -> None:
    """What an earlier process did is in no number of the later one, and what follows is."""
    start = ("--store=jetstream", "--metrics=0")
    env = {"NATS_URL": world.server.url}
    scheduler = world.scheduler(*start, env=env)
    connectors, submitter = world.connectors(), world.submitter()
    document = chain(component("vpc::1"), held("net::1", "gate"))
    submitter.accepted(document)
    connectors.await_requests(document["id"], "net::1")
    assert Probe(scheduler).numbers()["scheduler_builds_begun_total"]["submitted",] == 1
    scheduler.kill()
    scheduler = world.scheduler(*start, env=env)
    probe = Probe(scheduler)
    until = time.monotonic() + 30
    while probe.numbers()["scheduler_builds_begun_total"]["taken_over",] != 1:
        assert time.monotonic() < until
    connectors.release("gate")
    submitter.done(document)
    while not (found := probe.numbers())["scheduler_builds_ended_total"]["done",]:
        assert time.monotonic() < until
    assert +found["scheduler_components_total"] == {("create", "completed", "aws", "net"): 1}
    assert found["scheduler_builds_begun_total"]["submitted",] == 0
    scheduler.end()


def test_a_stop_is_seen_at_once_and_waits_for_no_client(world: World) -> None:
    """Not ready while builds drain, alive until the end; and a client that does not read delays nothing."""
    scheduler = world.scheduler("--store=memory", "--metrics=127.0.0.1:0", env={"NATS_URL": world.server.url})
    probe = Probe(scheduler)
    connectors = world.connectors()
    document = build(held("vpc::1", "gate"))
    submitter = world.submitter()
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::1")
    host, _, port = probe.address.rpartition(":")
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(socket.create_connection((host, int(port))))) for _ in range(5)]
        for one in silent:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            one.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        scheduler.send(signal.SIGTERM)
        until = time.monotonic() + 20
        while probe.get("/readyz")[0] != 503:
            assert time.monotonic() < until
        assert probe.get("/livez") == (200, "ok\n")
        began = time.monotonic()
        connectors.release("gate")
        assert scheduler.wait() == 0
        assert time.monotonic() - began < 10
    scheduler.check_log()


def test_it_lives_while_there_is_no_broker() -> None:
    """From its first moment on, so that no probe kills it for what no restart cures."""
    with Scheduler("serve", "--metrics=0", env={"NATS_URL": "nats://127.0.0.1:1"}) as scheduler:
        probe = Probe(scheduler)
        assert probe.get("/livez")[0] == 200
        assert probe.get("/readyz") == (503, "it connects to the broker\n")
        assert "scheduler_loop_turn_seconds" in probe.get("/metrics")[1]


def test_systemd_is_told_of_it(world: World) -> None:
    """Ready when builds are taken, alive in between, stopping at the signal."""
    name = f"@{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name[1:]}")
        heard.settimeout(30)
        env = {"NATS_URL": world.server.url, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000"}
        scheduler = world.scheduler("--store=memory", env=env)
        lines: list[str] = []

        def until(line: str) -> None:
            while line not in lines:
                lines.extend(heard.recv(4_096).decode().splitlines())

        until("READY=1")
        assert "STATUS=ready; 0 builds, 0 in flight, 0 queued" in lines
        lines.clear()
        until("WATCHDOG=1")
        scheduler.send(signal.SIGTERM)
        until("STOPPING=1")
        assert scheduler.wait() == 0


def test_a_port_in_use_is_one_line_and_exit_code_1(world: World) -> None:
    """Not half a service that nobody sees."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Scheduler("serve", f"--metrics={port}", env={"NATS_URL": world.server.url}) as scheduler:
            assert scheduler.wait() == 1
            assert f"--metrics: 127.0.0.1:{port} cannot be used: " in scheduler.errors
            assert "Traceback" not in scheduler.errors
