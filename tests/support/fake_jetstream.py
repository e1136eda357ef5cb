"""In-memory twin of a nats-server's JetStream, as far as this package uses it.

It is plugged into a broker twin, sees every message that reaches it, stores those of its streams, and
answers ``$JS.API.>``. Times are Trio's clock on top of a fixed day, so that a run under a mock clock gives
the same stamps each time. ``tests/jetstream/test_twin.py`` compares it with a real server. It is one server,
and so one module, longer than most.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import trio

from scheduler.bus.subjects import encode_headers, matches
from support.fake_bus import FakeBus, Published
from support.fake_jetstream_api import (
    FULL,
    MOST_STORED,
    NO_ROLLUP,
    NO_ROOM,
    NOT_THE_STREAM,
    TOO_LARGE,
    TOO_LARGE_FOR_STREAM,
    UNAVAILABLE,
    Api,
    Refusal,
)
from support.fake_streams import DAY_ZERO, JSON, SECOND, Consumer, Kept, Later, Pull, Stream

__all__ = [
    "DAY_ZERO",
    "NO_ROOM",
    "SECOND",
    "UNAVAILABLE",
    "Broker",
    "FakeJetStream",
    "Kept",
    "Later",
    "Refusal",
    "Stream",
    "plug_into",
]

_API = "$JS.API."
_NEXT = "$JS.API.CONSUMER.MSG.NEXT."


class Broker(Protocol):
    """Port of the broker into which the twin is plugged."""

    def route(self, to: str, message: Published) -> bool:
        """Hand a message to whoever subscribes to ``to``, and say whether there was anybody."""

    def interested(self, to: str) -> bool:
        """Tell whether a message on ``to`` would reach a subscriber."""


class FakeJetStream:
    """All streams of one server.

    Args:
        broker: what it is plugged into, which calls `take` with every message that reaches it.
        later: the clock to share; one of its own where it is None.
    """

    def __init__(self, broker: Broker, later: Later | None = None) -> None:
        self.streams: dict[str, Stream] = {}
        self.silent = False
        """No quorum: nothing is stored, nothing is answered."""
        self.leaderless: set[str] = set()
        """Streams that store nothing, while everything else works."""
        self.domain = ""
        """As acknowledgements and the account name it; none where it is empty."""
        self.refusal: Refusal | None = None
        """Answer to every call of the API and every publish, instead of carrying it out."""
        self.broken: set[str] = set()
        """Streams whose file store has failed: they say nothing to what is published, and are read."""
        self.refusals: deque[Refusal] = deque()
        """Answers to the next messages for a stream, one after another."""
        self.no_room = False
        """The disk is full: nothing is stored."""
        self.kept: Callable[[Stream, Kept], None] | None = None
        """Callback for every message that a stream takes."""
        self._api = Api(
            self.streams,
            self.now,
            self._end,
            self._watch_inactivity,
            lambda *asked: self._account(*asked),  # noqa: PLW0108 - a test may replace it
        )
        self._broker = broker
        self._later = later or Later()
        self._last = 0

    def now(self) -> int:
        """The server's clock, in nanoseconds since 1970; never twice the same."""
        self._last = max(self._last + 1, DAY_ZERO + round(trio.current_time() * SECOND))
        return self._last

    # What comes in.

    def take(self, message: Published) -> bool:
        """Look at a message that reached the broker; False where it is none of JetStream's business."""
        if message.subject.startswith("$JS."):
            return self._ask(message)
        found = False
        for stream in self.streams.values():
            if stream.takes(message.subject):
                found = True
                if not self.silent and stream.name not in self.leaderless:
                    self._publish(stream, message)
        return found

    def remove_stream(self, name: str) -> None:
        """Remove a stream, and tell the clients that pulled from it."""
        self._api.remove_stream(name)

    def restart(self) -> None:
        """Restart the server: clients that waited no longer do."""
        for stream in self.streams.values():
            for consumer in list(stream.consumers.values()):
                for pull in consumer.waiting:
                    pull.over = True
                consumer.waiting.clear()
                if consumer.config.get("mem_storage"):
                    del stream.consumers[consumer.config["name"]]

    def _publish(self, stream: Stream, message: Published) -> None:
        if stream.name in self.broken:
            return
        answer: JSON = {"stream": stream.name, "seq": 0}
        outcome = self._store(stream, message)
        if isinstance(outcome, Refusal):
            answer = {"error": outcome.document, **answer}
        else:
            answer["seq"] = outcome[0]
            if self.domain:
                answer["domain"] = self.domain
            if outcome[1]:
                answer["duplicate"] = True
        if message.reply and not stream.config.get("no_ack"):
            self._broker.route(message.reply, Published(message.reply, _encode(answer), "", None))
        if not isinstance(outcome, Refusal) and not outcome[1]:
            for consumer in list(stream.consumers.values()):
                if consumer.waiting:
                    self._deliver(consumer)

    def _store(self, stream: Stream, message: Published) -> Refusal | tuple[int, bool]:
        """Keep a message; gives its sequence, and whether it was there already."""
        headers = message.headers or {}
        now = self.now()
        stream.make_room(now)
        if self.refusal is not None:
            return self.refusal
        if self.refusals and not stream.config.get("no_ack"):
            return self.refusals.popleft()
        rollup = headers.get("Nats-Rollup")
        if rollup and not stream.config["allow_rollup_hdrs"]:
            return NO_ROLLUP
        if headers.get("Nats-Expected-Stream", stream.name) != stream.name:
            return NOT_THE_STREAM
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        last = stream.last_of(message.subject)
        if expected is not None and expected != str(last):
            return Refusal(400, 10071, f"wrong last sequence: {last}")
        identity = headers.get("Nats-Msg-Id")
        if identity and (sequence := stream.duplicate(identity, now)):
            return sequence, True
        if self.no_room:
            return NO_ROOM
        head = len(encode_headers(headers)) if headers else 0
        if 0 <= stream.config["max_msg_size"] < len(message.data) + head:
            return TOO_LARGE_FOR_STREAM
        if len(message.subject) + head + len(message.data) > MOST_STORED - 36:
            return TOO_LARGE
        if stream.config["discard"] == "new" and stream.config["max_bytes"] >= 0:
            kept = Kept(0, message.subject, message.data, message.headers, now)
            if stream.bytes + kept.size > stream.config["max_bytes"]:
                return FULL
        kept = stream.add(message, now)
        for consumer in stream.consumers.values():
            consumer.pending += consumer.wants(kept.subject)
        if rollup:
            # ``sub``: it replaces all that came before it on its subject; ``all``: in the whole stream.
            before = list(stream.messages) if rollup == "all" else list(stream.of(kept.subject))
            stream.remove(before[:-1])
        stream.make_room(now)
        if self.kept is not None:
            self.kept(stream, kept)
        return kept.sequence, False

    # What is delivered.

    def _deliver(self, consumer: Consumer) -> None:
        """Serve the requests that wait, in order, as far as there are messages."""
        while consumer.waiting and consumer.pending:
            pull = consumer.waiting[0]
            if pull.over or not self._broker.interested(pull.reply):
                self._end(consumer, pull)
                continue
            kept = consumer.take(pull.bytes or None)
            if kept is None:
                if not consumer.pending:
                    return
                self._end(consumer, pull, 409, "Message Size Exceeds MaxBytes", counted=True)
                continue
            data, headers = consumer.shown(kept)
            reply = consumer.ack_subject(kept, consumer.delivered, consumer.pending)
            pull.batch -= 1
            if pull.bytes:
                head = len(encode_headers(headers)) if headers else 0
                pull.bytes -= len(kept.subject) + len(reply) + len(data) + head
            pull.quiet_since = trio.current_time()
            if pull.batch:
                consumer.waiting.rotate(-1)
            else:
                self._end(consumer, pull)
            self._broker.route(pull.reply, Published(kept.subject, data, reply, headers))

    def _end(
        self, consumer: Consumer, pull: Pull, status: int = 0, words: str = "", *, counted: bool = False
    ) -> None:
        """End a request; with a ``status``, tell its sender."""
        pull.over = True
        consumer.waiting.remove(pull)
        consumer.active = trio.current_time()
        self._watch_inactivity(consumer)
        if status:
            headers = {"Status": str(status), "Description": words}
            if counted:
                headers["Nats-Pending-Messages"] = str(pull.batch)
                headers["Nats-Pending-Bytes"] = str(pull.bytes)
            self._say(pull.reply, headers)

    def _say(self, to: str, headers: Mapping[str, str]) -> None:
        self._broker.route(to, Published(to, b"", "", headers))

    def _next(self, message: Published) -> bool:
        stream_name, _, name = message.subject[len(_NEXT) :].partition(".")
        stream = self.streams.get(stream_name)
        consumer = stream.consumers.get(name) if stream else None
        if stream is None or consumer is None:
            return False
        body: Any = json.loads(message.data) if message.data else 1
        body = {"batch": body} if isinstance(body, int) else body
        now = trio.current_time()
        expires = body.get("expires", 0) / SECOND
        heartbeat = body.get("idle_heartbeat", 0) / SECOND
        if heartbeat and heartbeat * 2 > expires:
            words = "Bad Request - heartbeat value too large"
            self._say(message.reply, {"Status": "400", "Description": words})
            return True
        pull = Pull(
            message.reply,
            max(1, body.get("batch", 1)),
            body.get("max_bytes", 0),
            now + expires if expires else float("inf"),
            heartbeat,
            bool(body.get("no_wait")),
            quiet_since=now,
        )
        consumer.active = now
        consumer.waiting.append(pull)
        stream.make_room(self.now())
        self._deliver(consumer)
        if pull.over:
            return True
        if pull.no_wait and not expires:
            self._end(consumer, pull, 404, "No Messages")
            return True
        if expires:
            self._later.at(pull.expires, lambda: self._expire(consumer, pull))
        if heartbeat:
            self._later.after(heartbeat, lambda: self._beat(consumer, pull))
        return True

    def _expire(self, consumer: Consumer, pull: Pull) -> None:
        if not pull.over:
            self._end(consumer, pull, 408, "Request Timeout", counted=True)

    def _beat(self, consumer: Consumer, pull: Pull) -> None:
        if pull.over:
            return
        now = trio.current_time()
        due = pull.quiet_since + pull.heartbeat
        if due <= now + 1e-9:
            pull.quiet_since = now
            due = now + pull.heartbeat
            self._say(
                pull.reply,
                {
                    "Status": "100",
                    "Description": "Idle Heartbeat",
                    "Nats-Last-Consumer": str(consumer.delivered),
                    "Nats-Last-Stream": str(consumer.next - 1),
                },
            )
        self._later.at(due, lambda: self._beat(consumer, pull))

    def _watch_inactivity(self, consumer: Consumer) -> None:
        """End a consumer from which no client pulls."""
        threshold = consumer.config["inactive_threshold"] / SECOND

        def look() -> None:
            known = consumer.stream.consumers.get(consumer.config["name"]) is consumer
            for pull in list(consumer.waiting):
                if not self._broker.interested(pull.reply):
                    pull.over = True
                    consumer.waiting.remove(pull)
            if known and not consumer.waiting and trio.current_time() >= consumer.active + threshold - 1e-9:
                del consumer.stream.consumers[consumer.config["name"]]

        if threshold:
            self._later.at(consumer.active + threshold, look)

    def _account(self, _: list[str], __: JSON) -> JSON:
        return {
            "memory": 0,
            "storage": sum(stream.bytes for stream in self.streams.values()),
            "streams": len(self.streams),
            "consumers": sum(len(stream.consumers) for stream in self.streams.values()),
            "limits": {"max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1},
            "api": {"level": 5, "total": 0, "errors": 0},
            **({"domain": self.domain} if self.domain else {}),
        }

    def _ask(self, message: Published) -> bool:
        if message.subject.startswith("$JS.ACK."):
            return True
        if message.subject.startswith(_NEXT):
            return True if self.silent else self._next(message)
        words = message.subject[len(_API) :].split(".")
        found = self._api.find(words)
        if found is None or not message.subject.startswith(_API):
            # A server listens to all of its API, and does not answer to what it does not know.
            return message.subject.startswith(_API)
        if self.silent:
            return True
        kind, answer, rest = found
        if kind == "stream_msg_get" and rest[0] in self.leaderless:
            return True
        try:
            body: JSON = json.loads(message.data) if message.data else {}
        except ValueError:
            body = {}
        for stream in self.streams.values():
            stream.make_room(self.now())
        outcome = self.refusal or answer(rest, body)
        document: JSON = {"type": f"io.nats.jetstream.api.v1.{kind}_response"}
        document |= {"error": outcome.document} if isinstance(outcome, Refusal) else outcome
        if message.reply:
            self._broker.route(message.reply, Published(message.reply, _encode(document), "", None))
        return True


def _encode(document: JSON) -> bytes:
    return json.dumps(document).encode()


class _FakeBroker:
    """The broker in a `FakeBus`."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus

    def route(self, to: str, message: Published) -> bool:
        return self._bus.connected and self._bus.dispatch(message, to)

    def interested(self, to: str) -> bool:
        return self._bus.connected and any(matches(one.subject, to) for one in self._bus.interests.values())


def plug_into(bus: FakeBus) -> FakeJetStream:
    """Give the broker in ``bus`` a JetStream."""
    jetstream = FakeJetStream(_FakeBroker(bus))
    bus.taps.append(jetstream.take)
    return jetstream
