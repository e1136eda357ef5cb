"""Our short cut through what the server sends takes the same messages out of it as nats-py's parser does."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client as NatsClient
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from scheduler.bus import Message
from scheduler.bus.guards import Connection
from scheduler.bus.parsing import FastParser, parse_headers

TEXTS = st.sampled_from(["a", "vpc.create.aws.done", "MSG", "HMSG", "_INBOX.x.1"])
BODIES = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"MSG a 1 2\r\n", b"\r\n", b"x" * 5_000, b"PING\r\n"])
)
HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"


class Client:
    """Notes what a parser has it do."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def _process_msg(self, *message: Any) -> None:
        self.seen.append(message)

    def take(self, *message: Any) -> bool:
        self.seen.append(message)
        # Every third time it is others' turn.
        return len(self.seen) % 3 == 0

    def answer_ping(self) -> None:
        self.seen.append("ping")

    def note_pong(self) -> None:
        self.seen.append("pong")

    async def _process_ping(self) -> None:
        self.seen.append("ping")

    async def _process_pong(self) -> None:
        self.seen.append("pong")

    async def _process_err(self, words: str) -> None:
        self.seen.append(words)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["msg", "hmsg", "other"]))
    if kind == "other":
        return draw(st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'No'\r\n"]))
    body = draw(BODIES)
    words = [draw(TEXTS), str(draw(st.integers(1, 99)))]
    words += [draw(TEXTS)] if draw(st.booleans()) else []
    if kind == "hmsg":
        words.append(str(len(HEADERS)))
        body = HEADERS + body
    words.append(str(len(body)))
    # The server writes one blank; its protocol allows more.
    blank = draw(st.sampled_from([" ", " ", " ", "  "]))
    return f"{kind.upper()} {blank.join(words)}\r\n".encode() + body + b"\r\n"


def seen(parser: type[Parser], pieces: Sequence[bytes]) -> list[Any]:
    client = Client()
    one: Any = parser(client)
    for piece in pieces:
        with pytest.raises(StopIteration):
            one.parse(piece).send(None)
    return client.seen


def seen_at_once(pieces: Sequence[bytes]) -> list[Any]:
    """The same where what is usual is handled by `feed`, as `stream` does it."""
    client = Client()
    parser = FastParser(client)
    for piece in pieces:
        data, at = piece, 0
        while at < len(data):
            unusual = not parser.clean
            if not unusual:
                data, at, unusual = parser.feed(data, at)
            if unusual:
                with pytest.raises(StopIteration):
                    parser.parse(data[at:]).send(None)
                at = len(data)
    return client.seen


@given(st.lists(messages(), max_size=12), st.lists(st.integers(0, 3_000), max_size=8))
def test_the_same_comes_out_however_it_is_cut_into_pieces(sent: list[bytes], cuts: list[int]) -> None:
    """Messages with headers and without, replies, keep-alives and errors, in order."""
    data = b"".join(sent)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    expected = seen(Parser, [data])
    assert seen(FastParser, pieces) == expected
    assert seen_at_once(pieces) == expected


@pytest.mark.parametrize(
    "line", [b"MSG a b 1\r\n", b"MSG a\r\n", b"HMSG a 1 5\r\n", b"NONSENSE\r\n", b"MSG a 1 b c 1\r\n"]
)
def test_what_no_server_says_is_refused(line: bytes) -> None:
    """As nats-py refuses it."""
    for parser in (Parser, FastParser):
        one: Any = parser(Client())
        with pytest.raises(ProtocolError):
            one.parse(b"MSG a 1 0\r\n\r\n" + line).send(None)


LINES = st.one_of(
    st.sampled_from(
        [b"A: b", b"A:b", b"a:  b:c ", b"Nats-Msg-Id: \xff\xc3\xa9", b"", b":", b"A", b"A b: c", b" A: b"]
    ),
    st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")),
)


@given(st.lists(LINES, max_size=5), st.sampled_from([b"NATS/1.0", b"NATS/1.0 503", b"NATS/1.0 100 Idle"]))
async def test_headers_are_what_nats_py_makes_of_them_or_left_to_it(lines: list[bytes], first: bytes) -> None:
    """None of those that connectors, servers and submitters write is left to it."""
    headers = b"\r\n".join([first, *lines, b"", b""])
    client = NatsClient()
    if found := parse_headers(headers):
        assert found == await client._process_headers(headers)


def test_the_usual_headers_are_not_left_to_nats_py() -> None:
    """Of a build from another account, and of a message out of a stream."""
    headers = b'NATS/1.0\r\nNats-Request-Info: {"acc":"A","user":"b"}\r\nNats-Msg-Id:b1/a/1\r\n\r\n'
    assert parse_headers(headers) == {"Nats-Request-Info": '{"acc":"A","user":"b"}', "Nats-Msg-Id": "b1/a/1"}


STARTS = st.sampled_from([b"", b"NATS/1.0", b"NATS/1.0\r\n", b"NATS/1.0 503 ", b"NATS/1.0 \xff"])


@given(st.binary(max_size=30), STARTS)
async def test_whatever_stands_in_headers_whoever_looks_at_them_is_spared(rest: bytes, first: bytes) -> None:
    """They may be read long after the message came in, where an exception would cost something else."""
    found: list[Message] = []
    connection = Connection({1: found.append}, lambda: None, lambda *_: None)
    connection.take(1, b"a", b"", b"x", first + rest)
    [message] = found
    assert message.headers is None or all(isinstance(name, str) for name in message.headers)
