"""A client that reads the scheduler's streams, with nats-py's JetStream."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from attrs import frozen
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError, ServiceUnavailableError

from integration.durable.checker import Logged, Stored
from integration.harness import Client
from scheduler.jetstream.streams import SENTINEL

JSON = dict[str, Any]

LOG, REPLIES, REPORTS, OBJECTS = (
    "SCHEDULER_LOG",
    "SCHEDULER_REPLIES",
    "SCHEDULER_REPORTS",
    "SCHEDULER_OBJECTS",
)
_LEADERLESS = 50
"""Times that a consumer may be asked that has no leader."""
_BATCH = 500


@frozen
class InStream:
    """A message as it stands in a stream."""

    subject: str
    sequence: int
    time: float
    """The broker's stamp, in seconds."""
    data: bytes
    headers: JSON


@frozen
class LastWord:
    """The headers of the last record of a log, and its time in seconds; empty where there is none."""

    status: str = ""
    """``open``, ``finished`` or ``reported``."""
    loads: str = ""
    """How many processes began to take the build up, one after another, and have not written since."""
    time: float = 0.0


def token(build: str) -> str:
    """A build's id as it stands in subjects."""
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "-_") else f"={byte:02X}"
        for byte in build.encode()
    )


def build_of(text: str) -> str:
    """The build's id that a token stands for."""
    return unquote(text.replace("=", "%"))


class Reader(Client):
    """A client with JetStream, to be used from plain functions."""

    def messages(self, stream: str, subject: str = "") -> list[InStream]:
        """Everything that a stream holds, in order."""
        found: list[InStream] = self._call(self._messages(stream, subject))
        return found

    async def _messages(self, stream: str, subject: str) -> list[InStream]:
        context = self._client.jetstream()
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=30)
        subscription = await context.pull_subscribe(subject, stream=stream, config=config)
        info = await subscription.consumer_info()
        left = info.num_pending or 0
        found: list[InStream] = []
        leaderless = 0
        while left > 0:
            try:
                batch = await subscription.fetch(min(left, _BATCH), timeout=10)
            except ServiceUnavailableError:
                # In a cluster a consumer that was just made has no leader yet.
                leaderless += 1
                if leaderless > _LEADERLESS:
                    raise
                await asyncio.sleep(0.1)
                continue
            left -= len(batch)
            found += [_in_stream(message) for message in batch]
        await subscription.unsubscribe()
        await context.delete_consumer(stream, info.name)
        return found

    def object(self, name: str) -> bytes:
        """An object of the bucket."""

        async def get() -> bytes:
            bucket = await self._client.jetstream().object_store(OBJECTS)
            return (await bucket.get(name)).data or b""

        data: bytes = self._call(get())
        return data

    def put_object(self, name: str, data: bytes) -> None:
        """Put an object into the bucket."""

        async def put() -> None:
            bucket = await self._client.jetstream().object_store(OBJECTS)
            await bucket.put(name, data)

        self._call(put())

    def objects(self) -> list[str]:
        """The names of the objects in the bucket; none where there is no bucket."""

        async def names() -> list[str]:
            try:
                bucket = await self._client.jetstream().object_store(OBJECTS)
                return [info.name for info in await bucket.list()]
            except NotFoundError:
                return []

        found: list[str] = self._call(names())
        return found

    def log(self) -> list[Logged]:
        """The logs of all builds, events that stand in the object store included."""
        logged = []
        for message in self.messages(LOG):
            if message.subject == SENTINEL:
                continue  # of no build
            record = json.loads(message.data)
            record["events"] = [self._event(event) for event in record["events"]]
            build = build_of(message.subject.removeprefix("scheduler.log."))
            logged.append(Logged(build, message.sequence, message.time, record))
        return logged

    def _event(self, event: JSON) -> JSON:
        if event["event"] != "elsewhere":
            return event
        found: JSON = json.loads(self.object(event["object"]))
        return found

    def stored_reports(self) -> list[Stored]:
        """The reports that the store keeps."""
        reports = []
        for message in self.messages(REPORTS):
            build, run = message.subject.removeprefix("scheduler.report.").split(".")
            reports.append(Stored(build_of(build), run, self.whole(json.loads(message.data))))
        return reports

    def whole(self, report: JSON) -> JSON:
        """A report with what it left in the object store."""
        found: JSON = json.loads(self.object(report["object"])) if "object" in report else report
        return found

    def last_words(self, builds: Sequence[str]) -> dict[str, LastWord]:
        """What the last record of each build's log says; nothing at all where that cannot be read now."""

        async def ask(context: JetStreamContext, build: str) -> LastWord:
            try:
                last = await context.get_last_msg(LOG, f"scheduler.log.{token(build)}")
            except NotFoundError:
                return LastWord()
            headers = last.headers or {}
            time = last.time.timestamp() if last.time else 0.0
            return LastWord(headers.get("Scheduler-Status", ""), headers.get("Scheduler-Loads", ""), time)

        async def all_of_them() -> dict[str, LastWord]:
            context = self._client.jetstream(timeout=2)
            return {build: await ask(context, build) for build in builds}

        try:
            found: dict[str, LastWord] = self._call(all_of_them())
        except (NatsError, TimeoutError):
            return {}
        return found

    def stream(self, name: str) -> StreamConfig | None:
        """How a stream is set; None where there is none."""

        async def ask() -> StreamConfig | None:
            try:
                return (await self._client.jetstream().stream_info(name)).config
            except NotFoundError:
                return None

        config: StreamConfig | None = self._call(ask())
        return config

    def size(self, name: str) -> int:
        """Bytes that a stream holds."""

        async def ask() -> int:
            return (await self._client.jetstream().stream_info(name)).state.bytes

        size: int = self._call(ask())
        return size

    def change_stream(self, name: str, **values: Any) -> None:
        """Set a stream differently."""

        async def change() -> None:
            context = self._client.jetstream()
            config = (await context.stream_info(name)).config
            await context.update_stream(config.evolve(**values))

        self._call(change())

    def delete_stream(self, name: str) -> None:
        self._call(self._client.jetstream().delete_stream(name))

    def append(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """Publish into a stream; returns the sequence."""

        async def publish() -> int:
            return (await self._client.jetstream().publish(subject, data, headers=headers)).seq

        sequence: int = self._call(publish())
        return sequence


def _in_stream(message: Msg) -> InStream:
    # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's sequence>.<time>.<pending>
    parts = message.reply.split(".")
    return InStream(
        message.subject, int(parts[5]), int(parts[7]) / 1e9, message.data, dict(message.headers or {})
    )
