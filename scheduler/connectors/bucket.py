"""A record in a bucket of JetStream, which processes on any machine may share.

For a component there are two keys: ``begun.<hash>`` while a process acts, and ``done.<hash>`` with its reply
afterwards. A claim is made by compare-and-set, and only then is looked whether the component is done: who
completes one writes ``done`` before the claim is removed, so nobody claims it in between unseen.

A process lives while it renews ``process.<name>``, by the server's clock. So one that is cut off from the
broker, or stopped, for longer than `GONE_AFTER` counts as gone although it may still act.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, Final

import msgspec
import trio

from scheduler.bus import Bus
from scheduler.connectors.stores import LONGEST_KEPT, MOST_KEPT, Begun, Busy, Claim, Completed
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import TOKEN
from scheduler.errors import BusError, JetStreamError, RecordError, WrongLastSequence
from scheduler.jetstream.answers import Stored
from scheduler.jetstream.api import JetStream
from scheduler.runtime.logger import Logger

RENEWAL: Final = 10.0
"""Seconds between two signs of life of a process."""
GONE_AFTER: Final = 30.0
"""Seconds without a sign of life after which a process counts as gone."""
MOST_BYTES_KEPT: Final = 1024 * 1024 * 1024
"""Bytes of a bucket."""
_BILLION: Final = 1_000_000_000
_NAME_IN_USE: Final = 10058
_TRIES: Final = 20
"""Attempts to claim a component, where other processes are faster each time."""
_MOST_LISTED: Final = 10_000
"""Attempts without an answer that are looked at."""
_GOODBYE: Final = 1.0

log = Logger()


class _Begun(msgspec.Struct):
    """Value of a claim."""

    owner: str
    attempt: str = ""


_read_begun = msgspec.json.Decoder(_Begun).decode


class BucketStore:
    """A `Store` in a bucket, which is made where it is missing.

    What the connector's user has to be permitted for that stands in `scheduler permissions`, as a comment.

    Args:
        bucket: name of the bucket, such as ``connectors_aws``.
        replicas: number of servers that keep it, where it is made.
        longest_kept: seconds for which anything is remembered, where it is made.
        most_kept: number of entries; the oldest are forgotten first.
        most_bytes: bytes of them.

    Raises:
        ValueError: the name cannot be one of a bucket.
    """

    durable = True

    def __init__(
        self,
        bucket: str,
        *,
        replicas: int = 1,
        longest_kept: float = LONGEST_KEPT,
        most_kept: int = MOST_KEPT,
        most_bytes: int = MOST_BYTES_KEPT,
    ) -> None:
        if not TOKEN.fullmatch(bucket):
            raise ValueError(f"bucket is {bucket!r}: expected {TOKEN.pattern}")
        self.bucket = bucket
        self.stream = f"KV_{bucket}"
        self.owner = ""
        """Name of this process, drawn at each opening."""
        self._config: dict[str, Any] = {
            "name": self.stream,
            "subjects": [f"$KV.{bucket}.>"],
            "storage": "file",
            "num_replicas": replicas,
            "max_age": int(longest_kept * _BILLION),
            "max_msgs": most_kept,
            "max_bytes": most_bytes,
            "max_msgs_per_subject": 1,
            # A bucket made by hand refuses what is new instead, and says so when it is full.
            "discard": "old",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "deny_delete": True,
        }
        self._js: JetStream | None = None
        self._claims: dict[str, int] = {}
        """Sequence of each claim of this process, by key."""

    @asynccontextmanager
    async def open(self, bus: Bus) -> AsyncIterator[None]:
        """Make the bucket, and show that this process lives.

        Raises:
            RecordError: the broker refuses the bucket, or does not answer.
        """
        js = self._js = JetStream(bus)
        self.owner = secrets.token_hex(8)
        try:
            await self._set_up(js)
            await js.publish(self._process(self.owner), b"{}")
        except BusError as error:
            raise RecordError(f"the bucket {self.bucket} cannot be used: {error}") from None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew, js)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self._js = None
            self._claims.clear()
            with trio.move_on_after(_GOODBYE, shield=True):
                await self._leave(js)

    async def begin(self, key: str, attempt: str) -> Claim:
        """See `Store.begin`."""
        js, value = self._opened(), encode({"owner": self.owner, "attempt": attempt})
        subject = self._subject("begun", key)
        for _ in range(_TRIES):
            expected, repeated = self._claims.get(key, 0), key in self._claims
            if not expected and (found := await js.last(self.stream, subject)) is not None:
                owner = _read_begun(found.data).owner
                if owner != self.owner and await self._is_alive(js, owner):
                    return Busy()
                expected, repeated = found.sequence, True
            try:
                ack = await js.publish(subject, value, expected=expected)
            except WrongLastSequence:
                # Another one was faster; or this process counted as gone, and has lost its claim.
                self._claims.pop(key, None)
                continue
            self._claims[key] = ack.sequence
            done = await js.last(self.stream, self._subject("done", key))
            if done is None:
                return Begun(repeated)
            await self._release(js, key)
            return Completed(done.data)
        return Busy()

    async def complete(self, key: str, reply: bytes) -> None:
        """See `Store.complete`."""
        js = self._opened()
        await js.publish(self._subject("done", key), reply)
        await self._release(js, key)

    async def forget(self, key: str) -> None:
        """See `Store.forget`."""
        await self._release(self._opened(), key)

    async def unanswered(self) -> Sequence[str]:
        """See `Store.unanswered`."""
        js = self._opened()
        answer = await js.call(f"STREAM.INFO.{self.stream}", {"subjects_filter": self._pattern("begun")})
        subjects = list((answer.get("state") or {}).get("subjects") or ())
        found: list[tuple[int, str]] = []
        alive = {self.owner: True}
        for subject in subjects[:_MOST_LISTED]:
            stored = await js.last(self.stream, subject)
            if stored is None:
                continue
            begun = _read_begun(stored.data)
            if begun.owner not in alive:
                alive[begun.owner] = await self._is_alive(js, begun.owner)
            if begun.attempt and not alive[begun.owner]:
                found.append((stored.sequence, begun.attempt))
        return [attempt for _, attempt in sorted(found)]

    # Processes.

    async def _renew(self, js: JetStream) -> None:
        while True:
            await trio.sleep(RENEWAL)
            try:
                await js.publish(self._process(self.owner), b"{}")
            except BusError as error:
                log.warning("this process may count as gone: its sign of life failed", reason=str(error))

    async def _leave(self, js: JetStream) -> None:
        try:
            await js.purge(self.stream, self._process(self.owner))
        except BusError:
            # It counts as gone all the same, half a minute later.
            return

    async def _is_alive(self, js: JetStream, owner: str) -> bool:
        """Whether a process has shown life shortly before this one did last, by the server's clock."""
        theirs = await js.last(self.stream, self._process(owner))
        ours = await js.last(self.stream, self._process(self.owner))
        return theirs is not None and (ours is None or _seconds_between(theirs, ours) < GONE_AFTER)

    # The bucket.

    def _opened(self) -> JetStream:
        if self._js is None:
            raise RecordError(f"the bucket {self.bucket} is not open")
        return self._js

    async def _set_up(self, js: JetStream) -> None:
        try:
            await js.call(f"STREAM.CREATE.{self.stream}", self._config)
        except JetStreamError as error:
            if error.err_code != _NAME_IN_USE:
                raise

    async def _release(self, js: JetStream, key: str) -> None:
        sequence = self._claims.pop(key, None)
        if sequence is not None:
            # Not the claim of another one that came after.
            await js.purge(self.stream, self._subject("begun", key), before=sequence + 1)

    def _subject(self, kind: str, key: str) -> str:
        return f"$KV.{self.bucket}.{kind}.{blake2b(key.encode(), digest_size=16).hexdigest()}"

    def _pattern(self, kind: str) -> str:
        return f"$KV.{self.bucket}.{kind}.*"

    def _process(self, owner: str) -> str:
        return f"$KV.{self.bucket}.process.{owner}"


def _seconds_between(earlier: Stored, later: Stored) -> float:
    return (later.time - earlier.time) / _BILLION
