"""Notifications over a real broker, with real processes and a real receiver."""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from support.brokers import nats_server
from support.certificates import write_certificates
from support.receivers import SECRET, Post, Receiver, answering, run_receiver

from integration.builds import build, chain, component, failing, held
from integration.conftest import World
from integration.harness import ROOT, Process, within
from scheduler.notifying.signing import signed_headers

pytestmark = pytest.mark.integration


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker has JetStream."""
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(nats_server(jetstream=True)))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as receiver:
        yield receiver


def variables(world: World, **more: str) -> dict[str, str]:
    """The environment of a service that signs, and reaches this machine directly."""
    return {"NATS_URL": world.server.url, "SCHEDULER_NOTIFY_SECRET": SECRET, "NO_PROXY": "*", **more}


def test_a_build_is_notified_to_the_operator_and_to_whom_it_names(
    world: World, receiver: Receiver, tmp_path: Path
) -> None:
    """By HTTP on this machine and by HTTPS; signed, counted, and without a secret in the log."""
    folder = write_certificates(tmp_path)
    with run_receiver(folder) as theirs:
        scheduler = world.scheduler(
            "--store=jetstream",
            f"--notify=http://127.0.0.1:{receiver.port}/hunter2hunter2",
            f"--notify-hosts=localhost:{theirs.port}",
            "--log-level=debug",
            env=variables(world, SSL_CERT_FILE=str(folder / "ca.pem")),
        )
        world.connectors()
        submitter = world.submitter()
        document = chain(
            component("vpc::1"), failing("net::1"), notify=f"https://localhost:{theirs.port}/hunter3hunter3"
        )
        submitter.accepted(document)
        submitter.failed(document)
        for posts in (receiver.wait(2), theirs.wait(2)):
            assert [post.json["type"] for post in posts] == ["build.failing", "build.finished"]
            assert {post.json["id"] for post in posts} == {document["id"]}
            assert {post.json["component"] for post in posts} == {"net::1"}
            assert all(post.is_signed_with(SECRET) for post in posts)
        client = world.client()
        until = time.monotonic() + 30
        while client.request("$SRV.STATS.scheduler", b"")["notifications"]["delivered"] < 4:
            assert time.monotonic() < until
        scheduler.end()
        assert "hunter" not in scheduler.errors
        assert SECRET not in scheduler.errors


def test_after_a_kill_the_next_process_tells_again_under_the_same_id(
    world: World, receiver: Receiver
) -> None:
    """Of a failure that it finds; the end is told once, by the one that reports it."""
    start = (f"--notify=http://127.0.0.1:{receiver.port}/", "--store=jetstream")
    scheduler = world.scheduler(*start, env=variables(world))
    connectors, submitter = world.connectors(), world.submitter()
    document = build(failing("vpc::1"), held("net::1", "gate"))
    submitter.accepted(document)
    receiver.wait(1)
    connectors.await_requests(document["id"], "net::1")
    scheduler.kill()
    scheduler = world.scheduler(*start, env=variables(world))
    receiver.wait(2)
    connectors.release("gate")
    submitter.failed(document)
    posts = receiver.wait(3)
    assert [post.json["type"] for post in posts] == ["build.failing", "build.failing", "build.finished"]
    assert posts[0].headers["webhook-id"] == posts[1].headers["webhook-id"]
    assert (posts[2].json["status"], posts[2].json["component"]) == ("errored", "vpc::1")
    scheduler.end()


def test_a_silent_receiver_delays_neither_a_build_nor_a_stop(world: World, receiver: Receiver) -> None:
    """The report is out while it is silent, and the service ends within two seconds."""
    over = Event()

    def answer(got: Post, to: BaseHTTPRequestHandler) -> None:
        over.wait(60)
        answering(204)(got, to)

    receiver.answer = answer

    def stop() -> float:
        url = f"http://127.0.0.1:{receiver.port}/"
        scheduler = world.scheduler("--store=memory", "--notify", url, env=variables(world))
        document = build(component("vpc::1"))
        submitter.accepted(document)
        submitter.done(document)
        receiver.wait(1)
        code, seconds = scheduler.stop()
        assert code == 0
        scheduler.await_log("notifications were not delivered before the end", count=1)
        scheduler.check_log()
        return seconds

    world.connectors()
    submitter = world.submitter()
    try:
        within(2, stop)
    finally:
        over.set()


@pytest.mark.parametrize("given", [("--notify", "http://hunter2"), ("--notify-hosts", "a b")], ids=str)
def test_a_wrong_setting_is_told_before_anything_starts(world: World, given: tuple[str, str]) -> None:
    """In one line, with exit code 2."""
    command = world.command(*given)
    assert command.code == 2
    assert len(command.errors.strip().splitlines()) == 1
    assert "hunter2" not in command.errors


def test_the_receiver_of_the_documentation_believes_us_and_nobody_else(world: World) -> None:
    """It runs as it is printed, but for the port."""
    text = (ROOT / "scheduler" / "docs" / "operating.md").read_text()
    [code] = [block for block in re.findall(r"(?ms)^```python\n(.*?)^```", text) if "webhook-id" in block]
    port = free_port()
    code = code.replace("9000", str(port))
    with Process(sys.executable, "-c", code, env={"SCHEDULER_NOTIFY_SECRET": SECRET}) as printed:
        url = f"http://127.0.0.1:{port}/"
        scheduler = world.scheduler("--store=memory", "--notify", url, env=variables(world))
        world.connectors()
        document = build(component("vpc::1"))
        submitter = world.submitter()
        submitter.accepted(document)
        submitter.done(document)
        line = printed.out.first(lambda line: document["id"] in line)
        assert json.loads(line)["type"] == "build.finished"
        for forged in (
            signed_headers("msg_1", b"{}", 0.0, [SECRET.encode()]),
            signed_headers("m", b"{}", time.time(), [b"x" * 24]),
        ):
            request = Request(url, b"{}", {**forged}, method="POST")
            with pytest.raises(HTTPError, match="401"):
                urlopen(request, timeout=30)
        assert len(printed.out) == 1
        scheduler.end()


def free_port() -> int:
    """A port that is free just now; a receiver that finds it taken would end, and the test fail."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
