"""Posting over HTTP and HTTPS, to real servers on this machine."""

import gc
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest
from support.certificates import write_certificates
from support.receivers import Post, Receiver, answering, run_receiver

from scheduler.errors import InvalidSettings, NotPosted
from scheduler.notifying import http
from scheduler.notifying.http import open_poster
from scheduler.notifying.poster import Answer

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no proxy of the user between a test and its server."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as receiver:
        yield receiver


async def post(url: str, **headers: str) -> Answer:
    async with open_poster() as poster:
        return await poster.post(url, headers, b'{"a":1}')


async def test_a_post_arrives_whole_and_its_answer_comes_back(receiver: Receiver) -> None:
    """The body as JSON, our headers, the path with its parameters."""
    receiver.answer = answering(202, b"thanks", Retry_After="5")
    answer = await post(f"http://127.0.0.1:{receiver.port}/a/b?c=d", **{"webhook-id": "msg_1"})
    assert answer == Answer(202, "5")
    [got] = receiver.posts
    assert (got.path, got.body, got.headers["webhook-id"]) == ("/a/b?c=d", b'{"a":1}', "msg_1")
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"].startswith("nats-build-scheduler/")


async def test_a_user_in_the_url_is_a_login(receiver: Receiver) -> None:
    """As HTTP has it: Basic."""
    await post(f"http://joe:hunter2@127.0.0.1:{receiver.port}/")
    assert receiver.posts[0].headers["authorization"] == "Basic am9lOmh1bnRlcjI="


async def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    """Otherwise an allowed host could have us post anywhere."""
    receiver.answer = answering(307, Location=f"http://127.0.0.1:{receiver.port}/elsewhere")
    assert (await post(f"http://127.0.0.1:{receiver.port}/here")).status == 307
    assert [one.path for one in receiver.posts] == ["/here"]


async def test_a_cookie_is_not_kept(receiver: Receiver) -> None:
    """A receiver cannot have us remember anything."""
    receiver.answer = answering(204, Set_Cookie="a=b")
    async with open_poster() as poster:
        for _ in range(2):
            await poster.post(f"http://127.0.0.1:{receiver.port}/", {}, b"{}")
    assert not any("cookie" in one.headers for one in receiver.posts)


async def test_a_connection_is_used_again(receiver: Receiver) -> None:
    """Where the answer's body is short enough to be read."""
    ports = []

    def answer(got: Post, to: BaseHTTPRequestHandler) -> None:
        ports.append(to.client_address[1])
        answering(200, b"x" * 100)(got, to)

    receiver.answer = answer
    async with open_poster() as poster:
        for _ in range(3):
            await poster.post(f"http://127.0.0.1:{receiver.port}/", {}, b"{}")
    assert len(set(ports)) == 1


@pytest.mark.parametrize("length", [None, str(1 << 40)])
async def test_an_endless_answer_is_not_read_to_its_end(length: str | None, receiver: Receiver) -> None:
    """Its status counts; the connection is closed, and the server notices."""
    gone = threading.Event()

    def answer(_: Post, to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        if length is not None:
            to.send_header("Content-Length", length)
        to.end_headers()
        try:
            while True:
                to.wfile.write(b"x" * 65_536)
        except OSError:
            gone.set()

    receiver.answer = answer
    assert (await post(f"http://127.0.0.1:{receiver.port}/")).status == 200
    assert gone.wait(30)


async def test_a_silent_receiver_costs_no_more_than_the_deadline(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly it sends a byte now and then."""
    monkeypatch.setattr(http, "_WHOLE", 0.2)
    over = threading.Event()

    def answer(_got: Post, _to: BaseHTTPRequestHandler) -> None:
        over.wait(30)

    receiver.answer = answer
    try:
        with pytest.raises(NotPosted, match=r"^no answer within 0.2 s$"):
            await post(f"http://127.0.0.1:{receiver.port}/")
    finally:
        over.set()


async def test_nobody_there_is_said_without_the_url() -> None:
    """The path may be a secret."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(NotPosted) as caught:
            await post(f"http://joe:hunter2@127.0.0.1:{port}/hunter3")
    assert str(caught.value).startswith("ConnectError")
    assert "hunter" not in str(caught.value)


async def test_a_receiver_that_speaks_no_http_is_no_answer(receiver: Receiver) -> None:
    """As one that closes the connection."""

    def answer(_: Post, to: BaseHTTPRequestHandler) -> None:
        to.wfile.write(b"hello\r\n\r\n")

    receiver.answer = answer
    with pytest.raises(NotPosted, match="RemoteProtocolError"):
        await post(f"http://127.0.0.1:{receiver.port}/")


async def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the certificates of the system, or those that SSL_CERT_FILE names."""
    folder = write_certificates(tmp_path)
    with run_receiver(folder) as receiver:
        url = f"https://127.0.0.1:{receiver.port}/x"
        with pytest.raises(NotPosted, match="CERTIFICATE_VERIFY_FAILED"):
            await post(url)
        assert receiver.posts == []
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        assert (await post(url)).status == 204
        assert [one.path for one in receiver.posts] == ["/x"]


async def test_a_proxy_of_the_environment_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is the only way out of many networks."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{receiver.port}")
    await post("http://hooks.example.com/x")
    assert [one.path for one in receiver.posts] == ["http://hooks.example.com/x"]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_this_machine_is_reached_without_a_proxy(
    name: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not encrypted leaves it nowhere."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (await post(f"http://{name}:{receiver.port}/direct")).status == 204
    assert receiver.posts[-1].path == "/direct"


async def test_a_proxy_that_cannot_be_used_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables that may name it, and without its password."""
    monkeypatch.setenv("ALL_PROXY", "ftp://joe:hunter2@proxy.example.com")
    with pytest.raises(InvalidSettings, match="HTTPS_PROXY") as caught:
        async with open_poster():
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_post_leaves_no_cycle_behind(receiver: Receiver) -> None:
    """What it took is freed at once, without the garbage collector."""
    url = f"http://127.0.0.1:{receiver.port}/"
    async with open_poster() as poster:
        await poster.post(url, {}, b"{}")
        gc.collect()
        gc.disable()
        try:
            await poster.post(url, {}, b"{}")
            left = [one for one in gc.get_objects() if isinstance(one, httpx2.Response)]
            assert left == []
        finally:
            gc.enable()
