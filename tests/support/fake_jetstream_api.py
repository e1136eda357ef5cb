"""The endpoints of JetStream's API, for `fake_jetstream`: what is asked about streams and consumers."""

import base64
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import TypeAlias

import trio
from attrs import frozen

from scheduler.bus.subjects import encode_headers
from support.fake_streams import JSON, SECOND, Consumer, Pull, Stream, filters_of, stamp

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
MOST_STORED = 32 * 1024 * 1024
"""Bytes of a message that the file store takes, with its own head and check sum."""
TOO_LARGE = Refusal(503, 10077, "message too large")
TOO_LARGE_FOR_STREAM = Refusal(400, 10054, "message size exceeds maximum allowed")
FULL = Refusal(503, 10077, "maximum bytes exceeded")
_OTHER_CONFIG = Refusal(400, 10058, "stream name already in use with a different configuration")
_OVERLAP = Refusal(400, 10065, "subjects overlap with an existing stream")
_NEEDS_NO_ACK = Refusal(500, 10052, "subjects that overlap with jetstream api require no-ack to be true")
_NO_CLUSTER = Refusal(500, 10074, "replicas > 1 not supported in non-clustered mode")
NOT_THE_STREAM = Refusal(400, 10060, "expected stream does not match")
NO_ROLLUP = Refusal(500, 10111, "rollup not permitted")
_NEEDS_FILTER = Refusal(
    400, 10094, "consumer delivery policy is deliver last per subject, but optional filter subject is not set"
)
_OTHER_NAME = Refusal(400, 10056, "stream name in subject does not match request")


Answer: TypeAlias = JSON | Refusal
Endpoint: TypeAlias = Callable[[list[str], JSON], Answer]


class Api:
    """Answers requests.

    Args:
        streams: by name; it is changed.
        now: the server's clock, in nanoseconds since 1970.
        end: has a pull request end, with a status and its words.
        watch: has a consumer end when nobody pulls from it.
        account: says what the account may do.
    """

    def __init__(
        self,
        streams: dict[str, Stream],
        now: Callable[[], int],
        end: Callable[[Consumer, Pull, int, str], None],
        watch: Callable[[Consumer], None],
        account: Endpoint,
    ) -> None:
        self._streams = streams
        self._now = now
        self._end = end
        self._watch = watch
        self._endpoints: dict[tuple[str, ...], tuple[str, Endpoint]] = {
            ("INFO",): ("account_info", account),
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

    def find(self, words: list[str]) -> tuple[str, Endpoint, list[str]] | None:
        """Find the handler of a subject: the kind of its answer, a function, and its argument.

        Args:
            words: the tokens of the subject, without ``$JS.API``.
        """
        for length in (3, 2, 1):
            found = self._endpoints.get(tuple(words[:length]))
            if found is not None:
                return (*found, words[length:])
        return None

    def _matching(self, body: JSON) -> Iterator[Stream]:
        wanted = body.get("subject")
        for stream in self._streams.values():
            if wanted is None or any(overlap(wanted, one) for one in stream.config["subjects"]):
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
            "created": stamp(stream.created),
            "state": stream.state,
            "cluster": {"leader": "TWIN"},
            "ts": stamp(self._now()),
        }

    def _stream_create(self, rest: list[str], body: JSON) -> Answer:
        [name] = rest
        if body.get("name") != name:
            return _OTHER_NAME
        config = {**_STREAM_DEFAULTS, **body}
        config["duplicate_window"] = config["duplicate_window"] or _DUPLICATES
        existing = self._streams.get(name)
        if existing is not None:
            if essence(existing.config) != essence(config):
                return _OTHER_CONFIG
            return {**self._info(existing), "did_create": True}
        problem = self._config_problem(config)
        if problem is not None:
            return problem
        config["metadata"] = {**body.get("metadata", {}), "_nats.ver": "2.15.1"}
        stream = self._streams[name] = Stream(config, self._now())
        return {**self._info(stream), "did_create": True}

    def _config_problem(self, config: JSON) -> Refusal | None:
        subjects = config["subjects"]
        for other in self._streams.values():
            if other.name != config["name"] and any(
                overlap(mine, theirs) for mine in subjects for theirs in other.config["subjects"]
            ):
                return _OVERLAP
        # A leading wildcard reaches into the server's own subjects.
        if not config.get("no_ack") and any(subject[0] in "*>" for subject in subjects):
            return _NEEDS_NO_ACK
        return _NO_CLUSTER if config["num_replicas"] > 1 else None

    def _stream_update(self, rest: list[str], body: JSON) -> Answer:
        stream = self._streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        config = {**_STREAM_DEFAULTS, **body}
        problem = self._config_problem(config)
        if problem is not None:
            return problem
        config["metadata"] = {**body.get("metadata", {}), "_nats.ver": "2.15.1"}
        stream.config = config
        return self._info(stream)

    def _stream_info(self, rest: list[str], body: JSON) -> Answer:
        stream = self._streams.get(rest[0])
        if stream is None:
            return {"error": NO_STREAM.document, "total": 0, "offset": 0, "limit": 0}
        info: JSON = {"total": 0, "offset": 0, "limit": 0, **self._info(stream)}
        if "subjects_filter" in body:
            counts = {one: len(stream.of(one)) for one in stream.subjects(body["subjects_filter"])}
            info["state"]["subjects"] = counts
            info |= {"total": len(counts), "limit": 100_000}
        return info

    def _stream_delete(self, rest: list[str], _: JSON) -> Answer:
        if rest[0] not in self._streams:
            return NO_STREAM
        self.remove_stream(rest[0])
        return {"success": True}

    def remove_stream(self, name: str) -> None:
        """Remove a stream and its consumers."""
        stream = self._streams.pop(name)
        for consumer in stream.consumers.values():
            for pull in list(consumer.waiting):
                self._end(consumer, pull, 409, "Consumer Deleted")
        stream.consumers.clear()

    def _stream_purge(self, rest: list[str], body: JSON) -> Answer:
        stream = self._streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        wanted = [one for subject in stream.subjects(body.get("filter", ">")) for one in stream.of(subject)]
        wanted.sort()
        if "seq" in body:
            wanted = wanted[: bisect_left(wanted, body["seq"])]
        if "keep" in body:
            wanted = wanted[: max(0, len(wanted) - body["keep"])]
        return {"success": True, "purged": stream.remove(wanted)}

    def _message_get(self, rest: list[str], body: JSON) -> Answer:
        stream = self._streams.get(rest[0])
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
        return {"message": {**message, "time": stamp(kept.time)}}

    def _message_delete(self, rest: list[str], body: JSON) -> Answer:
        stream = self._streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        if body.get("seq") not in stream.messages:
            return Refusal(400, 10043, "no message found")
        stream.remove([body["seq"]])
        return {"success": True}

    def _consumer_create(self, rest: list[str], body: JSON) -> Answer:
        stream = self._streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        wanted = {key: value for key, value in body["config"].items() if value not in (None, [], "")}
        config = {**_CONSUMER_DEFAULTS, **wanted}
        config.setdefault("name", rest[1] if len(rest) > 1 else f"twin{self._now():x}")
        if config["deliver_policy"] == "last_per_subject" and not filters_of(config):
            return _NEEDS_FILTER
        name = config["name"]
        consumer = stream.consumers.get(name)
        if consumer is None:
            consumer = stream.consumers[name] = Consumer(stream, config, self._now())
            consumer.active = trio.current_time()
            self._watch(consumer)
        elif consumer.config != config:
            return Refusal(400, 10148, "consumer already exists")
        return {**consumer.info(), "ts": stamp(self._now())}

    def _consumer_info(self, rest: list[str], _: JSON) -> Answer:
        stream = self._streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        consumer = stream.consumers.get(rest[1])
        return NO_CONSUMER if consumer is None else {**consumer.info(), "ts": stamp(self._now())}

    def _consumer_delete(self, rest: list[str], _: JSON) -> Answer:
        stream = self._streams.get(rest[0])
        if stream is None:
            return NO_STREAM
        consumer = stream.consumers.pop(rest[1], None)
        if consumer is None:
            return NO_CONSUMER
        for pull in list(consumer.waiting):
            self._end(consumer, pull, 409, "Consumer Deleted")
        return {"success": True}


def essence(config: JSON) -> JSON:
    """Return the part of a configuration that makes two of them equal."""
    return {key: value for key, value in config.items() if key != "metadata"}


def overlap(one: str, other: str) -> bool:
    """Tell whether some subject matches both patterns."""
    mine, theirs = one.split("."), other.split(".")
    for position, (left, right) in enumerate(zip(mine, theirs, strict=False)):
        if left == ">" or right == ">":
            return True
        if left != right and "*" not in (left, right):
            return False
        if position == min(len(mine), len(theirs)) - 1 and len(mine) != len(theirs):
            return False
    return len(mine) == len(theirs)
