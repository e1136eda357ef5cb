"""Receivers of notifications: a real HTTP server in threads, and a poster in memory."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen

from scheduler.errors import NotPosted
from scheduler.notifying import Kind, Notice
from scheduler.notifying.notice import notice_of
from scheduler.notifying.poster import Answer

JSON = dict[str, Any]

SECRET = "a-secret-of-some-thirty-characters"
NOW = 1_800_000_000.25


def notice(kind: Kind = Kind.FINISHED, build: str = "b1", **given: Any) -> Notice:
    """A notification that says the usual, except what is given."""
    fields: dict[str, Any] = {
        "mark": "m1",
        "run": 1,
        "at": NOW,
        "status": "errored",
        "name": "shop",
        "action": "build.create",
        "counts": {"completed": 1, "errored": 1},
        "total": 2,
        "instance": "s1",
    }
    return notice_of(kind, build, **fields | given)


@frozen
class Post:
    """A notification as it came in."""

    path: str
    headers: Mapping[str, str]
    """Headers, by their names in lower case."""
    body: bytes

    @property
    def json(self) -> JSON:
        document: JSON = json.loads(self.body)
        return document

    def is_signed_with(self, secret: str) -> bool:
        """Whether a receiver that knows the secret believes it, by the standard library alone."""
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@define(eq=False)
class Receiver:
    """A server on a free port of this machine; ``answer`` may be exchanged while it runs."""

    port: int
    answer: "Answering"
    posts: list[Post] = field(factory=list)
    changed: threading.Condition = field(factory=threading.Condition)

    def take(self, post: Post) -> None:
        with self.changed:
            self.posts.append(post)
            self.changed.notify_all()

    def wait(self, number: int, deadline: float = 40.0) -> list[Post]:
        """Wait until so many have come, from a thread; returns them."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.posts) >= number, deadline), self.posts
            return list(self.posts)

    async def until(self, number: int) -> list[Post]:
        """Wait until so many have come; returns them."""
        return await trio.to_thread.run_sync(self.wait, number)

    def of(self, kind: str) -> list[JSON]:
        """The bodies of one type."""
        return [post.json for post in self.posts if post.json["type"] == kind]


Answering = Callable[[Post, BaseHTTPRequestHandler], None]


def answering(status: int, body: bytes = b"", **headers: str) -> Answering:
    """An answer with a status."""

    def answer(_: Post, to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name.replace("_", "-"), value)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Say nothing of connections that the other side closed."""


@contextmanager
def run_receiver(certificates: Path | None = None) -> Iterator[Receiver]:
    """Run a receiver that answers 204; by HTTPS where there are certificates."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            post = Post(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.take(post)
            receiver.answer(post, self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server.server_address[1], answering(204))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@define(eq=False)
class FakePoster:
    """A poster in memory; ``answers`` decides, by URL and number of the post, from 1."""

    answers: Callable[[str, int], Answer | NotPosted | Exception] = lambda _url, _number: Answer(204)
    posts: list[tuple[str, Post]] = field(factory=list)
    at: list[float] = field(factory=list)
    """Times of the posts, by Trio's clock."""
    held: dict[str, trio.Event] = field(factory=dict)
    """Events that posts to a URL wait for."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.posts.append((url, Post(url, headers, body)))
        self.at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if url in self.held:
            await self.held[url].wait()
        answer = self.answers(url, sum(one == url for one, _ in self.posts))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def bodies(self, url: str = "") -> list[JSON]:
        """The bodies posted (to a URL), in order."""
        return [post.json for to, post in self.posts if url in {"", to}]
