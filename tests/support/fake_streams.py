"""Streams and pull consumers in memory, for `fake_jetstream`.

Times are Trio's clock on top of a fixed day: under a mock clock every run gives the same stamps. A stream and
its consumers change together, so they are in one module, longer than most.
"""

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeAlias

import trio
from attrs import define, field, frozen

from scheduler.bus.subjects import encode_headers, matches
from support.fake_bus import Published

JSON: TypeAlias = dict[str, Any]

SECOND = 10**9
DAY_ZERO = 1_800_000_000 * SECOND
"""Time of the server's clock when Trio's is 0, in nanoseconds since 1970."""
_NEVER = "0001-01-01T00:00:00Z"


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
        """Bytes of ``max_bytes`` that it takes, as the server counts files."""
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
        """Tell whether a message on ``subject`` is for this stream."""
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
        if (most := self.config["max_msgs_per_subject"]) > 0:
            self.remove(list(self.of(kept.subject)[:-most]))
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
            "first_ts": stamp(first.time) if first else _NEVER,
            "last_seq": self.last,
            "last_ts": stamp(last) if last else _NEVER,
            "consumer_count": len(self.consumers),
        }
        if self._by_subject:
            state["num_subjects"] = len(self._by_subject)
        deleted = self.last - self.first + 1 - len(self.messages)
        if self.messages and deleted:
            state["num_deleted"] = deleted
        return state


@define(eq=False)
class Pull:
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
        self.filters = filters_of(config)
        self.waiting: deque[Pull] = deque()
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
                start = nanoseconds(self.config["opt_start_time"])
                times = list(stream.messages.values())
                position = bisect_left(times, start, key=lambda kept: kept.time)
                return times[position].sequence if position < len(times) else stream.last + 1
            case other:
                raise NotImplementedError(other)

    def recount(self) -> None:
        """Count the pending messages again, after messages were deleted."""
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
        """Return the part of a message that is sent."""
        if not self.config.get("headers_only"):
            return kept.data, kept.headers
        return b"", {**(kept.headers or {}), "Nats-Msg-Size": str(len(kept.data))}

    def ack_subject(self, kept: Kept, delivered: int, pending: int) -> str:
        """The reply subject of a delivered message: it says where it stands."""
        stream, name = self.stream.name, self.config["name"]
        return f"$JS.ACK.{stream}.{name}.1.{kept.sequence}.{delivered}.{kept.time}.{pending}"

    def size_of(self, kept: Kept) -> int:
        """Return the bytes of a request's ``max_bytes`` that a message takes."""
        data, headers = self.shown(kept)
        reply = self.ack_subject(kept, self.delivered + 1, self.pending - 1)
        return len(kept.subject) + len(reply) + len(data) + (len(encode_headers(headers)) if headers else 0)

    def info(self) -> JSON:
        """As in CONSUMER.INFO."""
        last = {"consumer_seq": self.delivered, "stream_seq": self.next - 1}
        return {
            "stream_name": self.stream.name,
            "name": self.config["name"],
            "created": stamp(self.created),
            "config": self.config,
            "delivered": last,
            "ack_floor": last,
            "num_ack_pending": 0,
            "num_redelivered": 0,
            "num_waiting": len(self.waiting),
            "num_pending": self.pending,
        }


def filters_of(config: JSON) -> list[str]:
    """The patterns of what a consumer wants; none where it wants everything."""
    alone = config.get("filter_subject")
    return [*config.get("filter_subjects", ()), *([alone] if alone else ())]


def stamp(nanoseconds: int) -> str:
    """A time as the server writes it, without zeros at its end."""
    seconds, rest = divmod(nanoseconds, SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def nanoseconds(stamp: str) -> int:
    """Read the time that `stamp` wrote."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return int(seconds) * SECOND + int(fraction.ljust(9, "0")[:9] or 0)
