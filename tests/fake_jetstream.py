"""The in-memory twin of a nats-server's JetStream, as far as this package uses it.

It is plugged into a broker twin, sees every message that reaches it, keeps what its streams are for, and
answers ``$JS.API.>``. Times are Trio's clock on top of a fixed day, so that a run under a mock clock gives
the same stamps each time. ``tests/test_fake_jetstream.py`` holds it to what a real server does.
"""

import base64
import heapq
import json
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any, Protocol, TypeAlias

import trio
from attrs import define, field, frozen
from fake_bus import FakeBus, Published

from scheduler.bus.subjects import encode_headers, matches

JSON: TypeAlias = dict[str, Any]

SECOND = 10**9
DAY_ZERO = 1_800_000_000 * SECOND
"""What the server's clock says when Trio's says 0: nanoseconds since 1970."""
_API = "$JS.API."
_NEXT = "$JS.API.CONSUMER.MSG.NEXT."
_NEVER = "0001-01-01T00:00:00Z"
_DUPLICATES = 120 * SECOND

_STREAM_DEFAULTS: JSON = {
    "subjects": [],
    "retention": "limits",
    "max_consumers": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "discard": "old",
    "storage": "file",
    "num_replicas": 1,
    "duplicate_window": _DUPLICATES,
    "compression": "none",
    "allow_direct": False,
    "mirror_direct": False,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_rollup_hdrs": False,
    "consumer_limits": {},
    "allow_msg_ttl": False,
}
_CONSUMER_DEFAULTS: JSON = {
    "deliver_policy": "all",
    "ack_policy": "none",
    "max_deliver": -1,
    "replay_policy": "instant",
    "max_waiting": 512,
    "inactive_threshold": 5 * SECOND,
    "num_replicas": 0,
}


class Later:
    """Calls functions at times of Trio's clock, in order: one task for all of them, outside every nursery."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._running = False
        self._wake: trio.Event | None = None

    def after(self, seconds: float, job: Callable[[], None]) -> None:
        """Call ``job`` once ``seconds`` have passed; it must not raise."""
        self.at(trio.current_time() + seconds, job)

    def at(self, when: float, job: Callable[[], None]) -> None:
        """Call ``job`` at that time."""
        first = not self._heap or when < self._heap[0][0]
        heapq.heappush(self._heap, (when, next(self._number), job))
        if not self._running:
            self._running = True
            trio.lowlevel.spawn_system_task(self._run)
        elif first and self._wake is not None:
            self._wake.set()

    async def _run(self) -> None:
        heap = self._heap
        while True:
            now = trio.current_time()
            while heap and heap[0][0] <= now:
                heapq.heappop(heap)[2]()
            self._wake = trio.Event()
            with trio.CancelScope(deadline=heap[0][0] if heap else float("inf")):
                await self._wake.wait()


class Broker(Protocol):
    """What the twin needs of the broker that it is plugged into."""

    def route(self, to: str, message: Published) -> bool:
        """Hand a message to whoever subscribes to ``to``, and say whether there was anybody."""

    def interested(self, to: str) -> bool:
        """Whether anybody subscribes to what a message on ``to`` would reach."""


@frozen
class Refusal:
    """An error as the server words it."""

    code: int
    err_code: int
    description: str

    @property
    def document(self) -> JSON:
        return {"code": self.code, "err_code": self.err_code, "description": self.description}


NO_STREAM = Refusal(404, 10059, "stream not found")
NO_CONSUMER = Refusal(404, 10014, "consumer not found")
NO_MESSAGE = Refusal(404, 10037, "no message found")
UNAVAILABLE = Refusal(503, 10008, "JetStream system temporarily unavailable")
NO_ROOM = Refusal(503, 10023, "insufficient resources")
_FULL = Refusal(503, 10077, "maximum bytes exceeded")
_OTHER_CONFIG = Refusal(400, 10058, "stream name already in use with a different configuration")
_OVERLAP = Refusal(400, 10065, "subjects overlap with an existing stream")
_NEEDS_NO_ACK = Refusal(500, 10052, "subjects that overlap with jetstream api require no-ack to be true")
_NO_CLUSTER = Refusal(500, 10074, "replicas > 1 not supported in non-clustered mode")
_NO_ROLLUP = Refusal(500, 10111, "rollup not permitted")
_NEEDS_FILTER = Refusal(
    400, 10094, "consumer delivery policy is deliver last per subject, but optional filter subject is not set"
)
_OTHER_NAME = Refusal(400, 10056, "stream name in subject does not match request")


@frozen
class Kept:
    """A message in a stream."""

    sequence: int
    subject: str
    data: bytes = field(repr=False)
    headers: Mapping[str, str] | None
    time: int
    """Nanoseconds since 1970."""

    @property
    def size(self) -> int:
        """What it takes of ``max_bytes``, as the server counts files."""
        head = 4 + len(encode_headers(self.headers)) if self.headers else 0
        return 30 + len(self.subject) + len(self.data) + head


class Stream:
    """One stream: its messages, by sequence and by subject."""

    def __init__(self, config: JSON, created: int) -> None:
        self.config = config
        self.created = created
        self.messages: dict[int, Kept] = {}
        """In the order of their sequences."""
        self.first = 0
        self.last = 0
        self.last_time = 0
        self.bytes = 0
        self.consumers: dict[str, Consumer] = {}
        self._by_subject: dict[str, list[int]] = {}
        self._known: dict[str, tuple[int, int]] = {}

    @property
    def name(self) -> str:
        name: str = self.config["name"]
        return name

    def takes(self, subject: str) -> bool:
        """Whether a message on ``subject`` is for this stream."""
        return any(matches(pattern, subject) for pattern in self.config["subjects"])

    def of(self, subject: str) -> list[int]:
        """The sequences of the messages on one subject, ascending."""
        return self._by_subject.get(subject, [])

    def last_of(self, subject: str) -> int:
        """The sequence of the last message on a subject, or 0."""
        sequences = self._by_subject.get(subject)
        return sequences[-1] if sequences else 0

    def subjects(self, pattern: str) -> list[str]:
        """The subjects of messages, of those that match."""
        if pattern in self._by_subject:
            return [pattern]
        if "*" not in pattern and ">" not in pattern:
            return []
        return [subject for subject in self._by_subject if matches(pattern, subject)]

    def duplicate(self, identity: str, now: int) -> int:
        """The sequence of the message that had this ``Nats-Msg-Id``, while the server knows it, or 0."""
        sequence, time = self._known.get(identity, (0, 0))
        return sequence if now - time < self.config["duplicate_window"] else 0

    def add(self, message: Published, now: int) -> Kept:
        """Keep a message at the end."""
        now = max(now, self.last_time + 1)
        self.last += 1
        kept = Kept(self.last, message.subject, message.data, message.headers, now)
        self.messages[kept.sequence] = kept
        self._by_subject.setdefault(kept.subject, []).append(kept.sequence)
        self.bytes += kept.size
        self.last_time = now
        if len(self.messages) == 1:
            self.first = kept.sequence
        if message.headers and "Nats-Msg-Id" in message.headers:
            self._known[message.headers["Nats-Msg-Id"]] = (kept.sequence, now)
        return kept

    def remove(self, sequences: list[int]) -> int:
        """Delete messages, and say how many there were."""
        for sequence in sequences:
            kept = self.messages.pop(sequence)
            mine = self._by_subject[kept.subject]
            mine.remove(sequence)
            if not mine:
                del self._by_subject[kept.subject]
            self.bytes -= kept.size
        if sequences:
            self.first = next(iter(self.messages), self.last + 1)
            for consumer in self.consumers.values():
                consumer.recount()
        return len(sequences)

    def lose_tail(self, number: int) -> list[Kept]:
        """Forget the last messages as if they had never been: their numbers are given out again."""
        lost = [self.messages[sequence] for sequence in list(self.messages)[len(self.messages) - number :]]
        self.remove([kept.sequence for kept in lost])
        if lost:
            self.last = lost[0].sequence - 1
            self.first = next(iter(self.messages), self.last + 1 if self.last else 0)
            self.last_time = max((kept.time for kept in self.messages.values()), default=0)
            self._known = {key: known for key, known in self._known.items() if known[0] <= self.last}
        return lost

    def make_room(self, now: int) -> None:
        """Drop what is too old, and with ``discard: old`` what is too much."""
        gone: list[int] = []
        age = self.config["max_age"]
        most = self.config["max_bytes"] if self.config["discard"] == "old" else -1
        size = self.bytes
        for kept in self.messages.values():
            if not (0 < age < now - kept.time) and not 0 <= most < size:
                break
            gone.append(kept.sequence)
            size -= kept.size
        if gone:
            self.remove(gone)

    @property
    def state(self) -> JSON:
        """As in STREAM.INFO."""
        first, last = self.messages.get(self.first), self.last_time
        state: JSON = {
            "messages": len(self.messages),
            "bytes": self.bytes,
            "first_seq": self.first,
            "first_ts": _stamp(first.time) if first else _NEVER,
            "last_seq": self.last,
            "last_ts": _stamp(last) if last else _NEVER,
            "consumer_count": len(self.consumers),
        }
        if self._by_subject:
            state["num_subjects"] = len(self._by_subject)
        deleted = self.last - self.first + 1 - len(self.messages)
        if self.messages and deleted:
            state["num_deleted"] = deleted
        return state


@define(eq=False)
class _Pull:
    """A pull request that waits for messages."""

    reply: str
    batch: int
    bytes: int
    expires: float
    """Trio's clock."""
    heartbeat: float
    """Seconds between signs of life; 0: none."""
    no_wait: bool
    over: bool = False
    quiet_since: float = 0.0


class Consumer:
    """One pull consumer without acknowledgements."""

    def __init__(self, stream: Stream, config: JSON, now: int) -> None:
        if config["ack_policy"] != "none":
            msg = f"the twin has no ack_policy {config['ack_policy']!r}"
            raise NotImplementedError(msg)
        self.stream = stream
        self.config = config
        self.created = now
        self.filters = _filters(config)
        self.waiting: deque[_Pull] = deque()
        self.delivered = 0
        """The consumer sequence of the last message."""
        self.active = 0.0
        """When a pull request came, or ended, last (Trio's clock)."""
        self._chosen: list[int] | None = None
        """With ``last_per_subject``, what is still to be delivered of what was there at the beginning."""
        self.next = self._begin()
        self.pending = 0
        self.recount()

    def wants(self, subject: str) -> bool:
        return not self.filters or any(matches(pattern, subject) for pattern in self.filters)

    def _begin(self) -> int:
        stream = self.stream
        match self.config["deliver_policy"]:
            case "all":
                return 1
            case "new":
                return stream.last + 1
            case "last":
                patterns = self.filters or [">"]
                ends = [stream.last_of(one) for pattern in patterns for one in stream.subjects(pattern)]
                return max(ends, default=stream.last + 1)
            case "last_per_subject":
                subjects = {one for pattern in self.filters or [">"] for one in stream.subjects(pattern)}
                self._chosen = sorted(stream.last_of(subject) for subject in subjects)
                return stream.last + 1
            case "by_start_sequence":
                return max(1, int(self.config["opt_start_seq"]))
            case "by_start_time":
                start = _nanoseconds(self.config["opt_start_time"])
                times = list(stream.messages.values())
                position = bisect_left(times, start, key=lambda kept: kept.time)
                return times[position].sequence if position < len(times) else stream.last + 1
            case other:
                raise NotImplementedError(other)

    def recount(self) -> None:
        """Count anew what is pending: messages were deleted."""
        messages = self.stream.messages
        if self._chosen is not None:
            self._chosen = [sequence for sequence in self._chosen if sequence in messages]
        later = list(messages)
        later = later[bisect_left(later, self.next) :]
        self.pending = len(self._chosen or ()) + sum(self.wants(messages[one].subject) for one in later)

    def take(self, most: int | None) -> Kept | None:
        """The next message, unless it takes more than ``most`` bytes: then None, and it stays the next."""
        chosen = self._chosen
        if chosen:
            kept = self.stream.messages[chosen[0]]
            if most is not None and self.size_of(kept) > most:
                return None
            del chosen[0]
            return self._count(kept)
        for sequence in range(max(self.next, self.stream.first), self.stream.last + 1):
            candidate = self.stream.messages.get(sequence)
            if candidate is not None and self.wants(candidate.subject):
                if most is not None and self.size_of(candidate) > most:
                    return None
                self.next = sequence + 1
                return self._count(candidate)
        self.next = self.stream.last + 1
        return None

    def _count(self, kept: Kept) -> Kept:
        self.pending -= 1
        self.delivered += 1
        return kept

    def shown(self, kept: Kept) -> tuple[bytes, Mapping[str, str] | None]:
        """What is sent of a message."""
        if not self.config.get("headers_only"):
            return kept.data, kept.headers
        return b"", {**(kept.headers or {}), "Nats-Msg-Size": str(len(kept.data))}

    def ack_subject(self, kept: Kept, delivered: int, pending: int) -> str:
        """The reply subject of a delivered message: it says where it stands."""
        stream, name = self.stream.name, self.config["name"]
        return f"$JS.ACK.{stream}.{name}.1.{kept.sequence}.{delivered}.{kept.time}.{pending}"

    def size_of(self, kept: Kept) -> int:
        """What a message takes of a request's ``max_bytes``."""
        data, headers = self.shown(kept)
        reply = self.ack_subject(kept, self.delivered + 1, self.pending - 1)
        return len(kept.subject) + len(reply) + len(data) + (len(encode_headers(headers)) if headers else 0)

    def info(self) -> JSON:
        """As in CONSUMER.INFO."""
        last = {"consumer_seq": self.delivered, "stream_seq": self.next - 1}
        return {
            "stream_name": self.stream.name,
            "name": self.config["name"],
            "created": _stamp(self.created),
            "config": self.config,
            "delivered": last,
            "ack_floor": last,
            "num_ack_pending": 0,
            "num_redelivered": 0,
            "num_waiting": len(self.waiting),
            "num_pending": self.pending,
        }


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
        self.refusal: Refusal | None = None
        """What all of the API and every publish is answered with instead of being done."""
        self.no_room = False
        """The disk is full: nothing is stored."""
        self.kept: Callable[[Stream, Kept], None] | None = None
        """Is told of every message that a stream takes."""
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
            return self._api(message)
        found = False
        for stream in self.streams.values():
            if stream.takes(message.subject):
                found = True
                if not self.silent:
                    self._publish(stream, message)
        return found

    def restart(self) -> None:
        """The server process ended and begins anew: whoever waited does so no more."""
        for stream in self.streams.values():
            for consumer in list(stream.consumers.values()):
                for pull in consumer.waiting:
                    pull.over = True
                consumer.waiting.clear()
                if consumer.config.get("mem_storage"):
                    del stream.consumers[consumer.config["name"]]

    def _publish(self, stream: Stream, message: Published) -> None:
        answer: JSON = {"stream": stream.name, "seq": 0}
        outcome = self._store(stream, message)
        if isinstance(outcome, Refusal):
            answer = {"error": outcome.document, **answer}
        else:
            answer["seq"] = outcome[0]
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
        rollup = headers.get("Nats-Rollup")
        if rollup and not stream.config["allow_rollup_hdrs"]:
            return _NO_ROLLUP
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        last = stream.last_of(message.subject)
        if expected is not None and expected != str(last):
            return Refusal(400, 10071, f"wrong last sequence: {last}")
        identity = headers.get("Nats-Msg-Id")
        if identity and (sequence := stream.duplicate(identity, now)):
            return sequence, True
        if self.no_room:
            return NO_ROOM
        if stream.config["discard"] == "new" and stream.config["max_bytes"] >= 0:
            kept = Kept(0, message.subject, message.data, message.headers, now)
            if stream.bytes + kept.size > stream.config["max_bytes"]:
                return _FULL
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
        self, consumer: Consumer, pull: _Pull, status: int = 0, words: str = "", *, counted: bool = False
    ) -> None:
        """A request is over; with a ``status`` whoever made it is told."""
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
        pull = _Pull(
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

    def _expire(self, consumer: Consumer, pull: _Pull) -> None:
        if not pull.over:
            self._end(consumer, pull, 408, "Request Timeout", counted=True)

    def _beat(self, consumer: Consumer, pull: _Pull) -> None:
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
        """Have a consumer that nobody pulls from end."""
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

    # The API.

    def _api(self, message: Published) -> bool:
        if message.subject.startswith("$JS.ACK."):
            return True
        if message.subject.startswith(_NEXT):
            return True if self.silent else self._next(message)
        words = message.subject[len(_API) :].split(".")
        found = self._endpoint(words)
        if found is None or not message.subject.startswith(_API):
            # A server listens to all of its API, and does not answer to what it does not know.
            return message.subject.startswith(_API)
        if self.silent:
            return True
        kind, answer, rest = found
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

    def _endpoint(
        self, words: list[str]
    ) -> tuple[str, Callable[[list[str], JSON], JSON | Refusal], list[str]] | None:
        endpoints: dict[tuple[str, ...], tuple[str, Callable[[list[str], JSON], JSON | Refusal]]] = {
            ("INFO",): ("account_info", self._account),
            ("STREAM", "NAMES"): ("stream_names", self._stream_names),
            ("STREAM", "LIST"): ("stream_list", self._stream_list),
            ("STREAM", "CREATE"): ("stream_create", self._stream_create),
            ("STREAM", "UPDATE"): ("stream_update", self._stream_update),
            ("STREAM", "INFO"): ("stream_info", self._stream_info),
            ("STREAM", "DELETE"): ("stream_delete", self._stream_delete),
            ("STREAM", "PURGE"): ("stream_purge", self._stream_purge),
            ("STREAM", "MSG", "GET"): ("stream_msg_get", self._message_get),
            ("STREAM", "MSG", "DELETE"): ("stream_msg_delete", self._message_delete),
            ("CONSUMER", "CREATE"): ("consumer_create", self._consumer_create),
            ("CONSUMER", "INFO"): ("consumer_info", self._consumer_info),
            ("CONSUMER", "DELETE"): ("consumer_delete", self._consumer_delete),
        }
        for length in (3, 2, 1):
            found = endpoints.get(tuple(words[:length]))
            if found is not None:
                return (*found, words[length:])
        return None

    def _account(self, _: list[str], __: JSON) -> JSON:
        return {
            "memory": 0,
            "storage": sum(stream.bytes for stream in self.streams.values()),
            "streams": len(self.streams),
            "consumers": sum(len(stream.consumers) for stream in self.streams.values()),
            "limits": {"max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1},
            "api": {"level": 5, "total": 0, "errors": 0},
        }

    def _matching(self, body: JSON) -> Iterator[Stream]:
        wanted = body.get("subject")
        for stream in self.streams.values():
            if wanted is None or any(_overlap(wanted, one) for one in stream.config["subjects"]):
                yield stream

    def _stream_names(self, _: list[str], body: JSON) -> JSON:
        names = [stream.name for stream in self._matching(body)][body.get("offset", 0) :]
        return {"total": len(names), "offset": 0, "limit": 1024, "streams": names}

    def _stream_list(self, _: list[str], body: JSON) -> JSON:
        infos = [self._info(stream) for stream in self._matching(body)][body.get("offset", 0) :]
        return {"total": len(infos), "offset": 0, "limit": 256, "streams": infos}

    def _info(self, stream: Stream) -> JSON:
        return {
            "config": stream.config,
            "created": _stamp(stream.created),
            "state": stream.state,
            "cluster": {"leader": "TWIN"},
            "ts": _stamp(self.now()),
        }

    def _stream_create(self, rest: list[str], body: JSON) -> JSON | Refusal:
        [name] = rest
        if body.get("name") != name:
            return _OTHER_NAME
        config = {**_STREAM_DEFAULTS, **body}
        config["duplicate_window"] = config["duplicate_window"] or _DUPLICATES
        existing = self.streams.get(name)
        if existing is not None:
            if _essence(existing.config) != _essence(config):
                return _OTHER_CONFIG
            return {**self._info(existing), "did_create": True}
        problem = self._config_problem(config)
        if problem is not None:
            return problem
        config["metadata"] = {**body.get("metadata", {}), "_nats.ver": "2.15.1"}
        stream = self.streams[name] = Stream(config, self.now())
        return {**self._info(stream), "did_create": True}

    def _config_problem(self, config: JSON) -> Refusal | None:
        subjects = config["subjects"]
        for other in self.streams.values():
            if other.name != config["name"] and any(
                _overlap(mine, theirs) for mine in subjects for theirs in other.config["subjects"]
            ):
                return _OVERLAP
        # A leading wildcard reaches into the server's own subjects.
        if not config.get("no_ack") and any(subject[0] in "*>" for subject in subjects):
            return _NEEDS_NO_ACK
        return _NO_CLUSTER if config["num_replicas"] > 1 else None

    def _stream_update(self, rest: list[str], body: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        config = {**_STREAM_DEFAULTS, **body}
        problem = self._config_problem(config)
        if problem is not None:
            return problem
        config["metadata"] = {**body.get("metadata", {}), "_nats.ver": "2.15.1"}
        stream.config = config
        return self._info(stream)

    def _stream_info(self, rest: list[str], body: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return {"error": NO_STREAM.document, "total": 0, "offset": 0, "limit": 0}
        info: JSON = {"total": 0, "offset": 0, "limit": 0, **self._info(stream)}
        if "subjects_filter" in body:
            counts = {one: len(stream.of(one)) for one in stream.subjects(body["subjects_filter"])}
            info["state"]["subjects"] = counts
            info |= {"total": len(counts), "limit": 100_000}
        return info

    def _stream_delete(self, rest: list[str], _: JSON) -> JSON | Refusal:
        stream = self.streams.pop(rest[0], None)
        if stream is None:
            return NO_STREAM
        for consumer in stream.consumers.values():
            for pull in list(consumer.waiting):
                self._end(consumer, pull, 409, "Consumer Deleted")
        return {"success": True}

    def _stream_purge(self, rest: list[str], body: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        wanted = [one for subject in stream.subjects(body.get("filter", ">")) for one in stream.of(subject)]
        wanted.sort()
        if "seq" in body:
            wanted = wanted[: bisect_left(wanted, body["seq"])]
        if "keep" in body:
            wanted = wanted[: max(0, len(wanted) - body["keep"])]
        return {"success": True, "purged": stream.remove(wanted)}

    def _message_get(self, rest: list[str], body: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        if body.get("last_by_subj") == ">":
            # A server does not search then: where that message was deleted, there is none.
            sequence = stream.last
        elif "last_by_subj" in body:
            sequence = max((stream.last_of(one) for one in stream.subjects(body["last_by_subj"])), default=0)
        elif "next_by_subj" in body:
            found = []
            for subject in stream.subjects(body["next_by_subj"]):
                mine = stream.of(subject)
                position = bisect_right(mine, body.get("seq", 0) - 1)
                found += mine[position : position + 1]
            sequence = min(found, default=0)
        else:
            sequence = body.get("seq", 0)
        kept = stream.messages.get(sequence)
        if kept is None:
            return NO_MESSAGE
        message: JSON = {"subject": kept.subject, "seq": kept.sequence}
        if kept.headers:
            message["hdrs"] = base64.b64encode(encode_headers(kept.headers)).decode()
        if kept.data:
            message["data"] = base64.b64encode(kept.data).decode()
        return {"message": {**message, "time": _stamp(kept.time)}}

    def _message_delete(self, rest: list[str], body: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        if body.get("seq") not in stream.messages:
            return Refusal(400, 10043, "no message found")
        stream.remove([body["seq"]])
        return {"success": True}

    def _consumer_create(self, rest: list[str], body: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        wanted = {key: value for key, value in body["config"].items() if value not in (None, [], "")}
        config = {**_CONSUMER_DEFAULTS, **wanted}
        config.setdefault("name", rest[1] if len(rest) > 1 else f"twin{self.now():x}")
        if config["deliver_policy"] == "last_per_subject" and not _filters(config):
            return _NEEDS_FILTER
        name = config["name"]
        consumer = stream.consumers.get(name)
        if consumer is None:
            consumer = stream.consumers[name] = Consumer(stream, config, self.now())
            consumer.active = trio.current_time()
            self._watch_inactivity(consumer)
        elif consumer.config != config:
            return Refusal(400, 10148, "consumer already exists")
        return {**consumer.info(), "ts": _stamp(self.now())}

    def _consumer_info(self, rest: list[str], _: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        consumer = stream.consumers.get(rest[1])
        return NO_CONSUMER if consumer is None else {**consumer.info(), "ts": _stamp(self.now())}

    def _consumer_delete(self, rest: list[str], _: JSON) -> JSON | Refusal:
        stream = self.streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        consumer = stream.consumers.pop(rest[1], None)
        if consumer is None:
            return NO_CONSUMER
        for pull in list(consumer.waiting):
            self._end(consumer, pull, 409, "Consumer Deleted")
        return {"success": True}


def _filters(config: JSON) -> list[str]:
    alone = config.get("filter_subject")
    return [*config.get("filter_subjects", ()), *([alone] if alone else ())]


def _essence(config: JSON) -> JSON:
    return {key: value for key, value in config.items() if key != "metadata"}


def _overlap(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    mine, theirs = one.split("."), other.split(".")
    for position, (left, right) in enumerate(zip(mine, theirs, strict=False)):
        if left == ">" or right == ">":
            return True
        if left != right and "*" not in (left, right):
            return False
        if position == min(len(mine), len(theirs)) - 1 and len(mine) != len(theirs):
            return False
    return len(mine) == len(theirs)


def _encode(document: JSON) -> bytes:
    return json.dumps(document).encode()


def _stamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _nanoseconds(stamp: str) -> int:
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return int(seconds) * SECOND + int(fraction.ljust(9, "0")[:9] or 0)


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
