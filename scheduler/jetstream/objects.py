"""An object store bucket: data beyond the payload limit, in chunks, in the format of other NATS clients.

The chunks of an object are messages on ``$O.<bucket>.C.<nuid>``, where each version has a nuid of its own.
Its metadata is the one message on ``$O.<bucket>.M.<name, base64>``. Written last, the metadata makes the
object visible; replaced by compare-and-set, the next version. Only then are the old chunks removed.
"""

import base64
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import msgspec
import trio
from attrs import frozen

from scheduler.errors import (
    BusError,
    JetStreamError,
    JetStreamUnavailable,
    MessageTooLarge,
    NotPermitted,
    WrongLastSequence,
)
from scheduler.jetstream.answers import Stored
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.chunks import Sum, recut
from scheduler.jetstream.reading import read
from scheduler.jetstream.streams import BUCKET
from scheduler.jetstream.window import Window
from scheduler.runtime.executor import ThreadExecutor
from scheduler.runtime.logger import Logger

CHUNK: Final = 128 * 1024
"""Bytes of a chunk: the other clients' default."""

_WINDOW = 4
"""Chunks of an object on their way at a time."""
_AT_ONCE = 2
"""Objects whose chunks are on their way: other messages have at most a megabyte before them."""
_NUID = re.compile(r"[A-Za-z0-9_-]*")
_ATTEMPTS = 3
_GOODBYE = 2.0
# Bytes from which chunks are joined in a thread, which releases the interpreter's lock meanwhile.
_LARGE = 1024 * 1024

log = Logger()


@frozen
class ObjectInfo:
    """Description of an object by its bucket."""

    name: str
    size: int
    """Size in bytes."""
    time: int
    """Time of storage by the server's clock, in nanoseconds since 1970."""


class _Meta(msgspec.Struct, frozen=True):
    """Metadata of one version of an object; its other fields are ignored."""

    name: str
    nuid: str = ""
    size: int = 0
    digest: str = ""
    deleted: bool = False
    options: dict[str, Any] | None = None


class Objects:
    """The objects of one bucket. All methods raise BusError as `JetStream` does."""

    def __init__(self, js: JetStream, bucket: str = BUCKET) -> None:
        self._js = js
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._windows: dict[str, Window] = {}
        """Windows of messages that are being sent, by subject."""
        self._lane = trio.CapacityLimiter(_AT_ONCE)
        js.bus.on_refused(self._on_refused)

    def _on_refused(self, subject: str) -> bool:
        window = self._windows.get(subject)
        if window is not None:
            error = NotPermitted("publish on", subject)
            unavailable = JetStreamUnavailable(str(error))
            unavailable.__cause__ = error
            window.fail(unavailable)
        return window is not None

    async def put(self, name: str, data: bytes) -> None:
        """Store an object in place of an older one with its name; it becomes visible all at once, at the end.

        If this raises JetStreamUnavailable, it is unknown whether the object is visible.
        """
        await self.put_pieces(name, [data])

    async def put_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Store an object as `put` does, without ever holding all of its data.

        Args:
            name: the name of the object.
            pieces: the data, in pieces of any size, each made quickly; they are taken once.
        """
        nuid = secrets.token_hex(11)
        chunk_bytes = min(CHUNK, self._js.bus.max_payload)
        sent = Sum()
        await self._lane.acquire()
        try:
            try:
                await self._send(self._chunks(nuid), sent.of(recut(pieces, chunk_bytes)))
            finally:
                self._lane.release()
            older = await self._js.last(self._stream, self._meta_subject(name))
        except BaseException:
            await self._discard(nuid)  # noqa: ASYNC102, ASYNC120 - it shields itself, with a deadline
            raise
        meta = msgspec.json.encode(
            {
                "name": name,
                "bucket": self._bucket,
                "nuid": nuid,
                "size": sent.size,
                "chunks": sent.count,
                "digest": sent.digest,
                "options": {"max_chunk_size": chunk_bytes},
            }
        )
        replaced = await self._publish(name, meta, older, nuid)
        if replaced:
            await self._discard(replaced)

    async def get(self, name: str, *, most: int) -> bytes | None:
        """Return the data of an object, complete and checked against its digest; None where there is none.

        Args:
            name: the name of the object.
            most: most bytes; a larger object is refused before any of it is fetched.

        Raises:
            JetStreamError: the object is larger than ``most``, or damaged.
        """
        damaged: str | None = None
        for _ in range(_ATTEMPTS):
            meta = await self._meta(name)
            if meta is None:
                return None
            if meta.size > most:
                raise JetStreamError(
                    f"object {name!r} takes {meta.size} bytes, over the limit of {most} bytes"
                )
            if meta.nuid == damaged:
                break
            data = await self._fetch(meta)
            if data is not None:
                return data
            # Unless it was replaced meanwhile.
            damaged = meta.nuid
        raise JetStreamError(
            f"object {name!r} of bucket {self._bucket} is damaged: its chunks are not as its digest"
        )

    async def delete(self, name: str) -> None:
        """Remove an object and its chunks; it is not an error if there is none."""
        subject = self._meta_subject(name)
        stored = await self._js.last(self._stream, subject)
        if stored is None:
            return
        await self._js.purge(self._stream, subject)
        nuid = _nuid(stored.data)
        if nuid:
            await self._js.purge(self._stream, self._chunks(nuid))

    async def names(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield the objects whose names begin with ``prefix``, oldest first."""
        batches = read(self._js, self._stream, subjects=[self._subject("M", ">")])
        try:
            async for batch in batches:
                for one in batch:
                    meta = _decode_or_none(one.data)
                    if meta is None:
                        log.warning("an object's metadata cannot be read", subject=one.subject)
                    elif meta.name.startswith(prefix) and not meta.deleted:
                        yield ObjectInfo(meta.name, meta.size, one.time)
        finally:
            await batches.aclose()  # noqa: ASYNC102 - it shields itself, with a deadline

    async def sweep(self, before: int) -> int:
        """Remove chunks without an object: the remains of processes that were killed.

        Args:
            before: time in nanoseconds since 1970; younger chunks stay: they may be part of an object that is
                being put.

        Returns:
            The number of versions of objects that they were part of.
        """
        chunks = self._subject("C", ">")
        options = {"last_per_subject": True, "headers_only": True}
        old: set[str] = set()
        async for batch in read(self._js, self._stream, subjects=[chunks], **options):
            old |= {one.subject.rpartition(".")[2] for one in batch if one.time < before}
        if old:
            async for batch in read(self._js, self._stream, subjects=[self._subject("M", ">")]):
                old -= {_nuid(one.data) for one in batch}
        for nuid in old:
            await self._js.purge(self._stream, self._chunks(nuid))
        return len(old)

    def _subject(self, kind: str, rest: str) -> str:
        return f"$O.{self._bucket}.{kind}.{rest}"

    def _chunks(self, nuid: str) -> str:
        return self._subject("C", nuid)

    def _meta_subject(self, name: str) -> str:
        return self._subject("M", base64.urlsafe_b64encode(name.encode()).decode())

    async def _meta(self, name: str) -> _Meta | None:
        stored = await self._js.last(self._stream, self._meta_subject(name))
        if stored is None:
            return None
        meta = _decode(stored.data)
        if meta.options is not None and meta.options.get("link"):
            raise JetStreamError(f"object {name!r} of bucket {self._bucket} is a link, which is not followed")
        return None if meta.deleted else meta

    async def _publish(self, name: str, meta: bytes, older: Stored | None, nuid: str) -> str:
        """Make a version visible under its name; return the nuid of the version that it replaces, if any."""
        subject = self._meta_subject(name)
        while True:
            expected = 0 if older is None else older.sequence
            try:
                await self._js.publish(subject, meta, expected=expected, headers={"Nats-Rollup": "sub"})
            except WrongLastSequence:
                # Another put was first: its version is the one to replace.
                older = await self._js.last(self._stream, subject)
            except JetStreamUnavailable:
                # It may still be stored, and would need its chunks.
                raise
            except BusError:
                await self._discard(nuid)  # noqa: ASYNC120 - it shields itself, with a deadline
                raise
            else:
                return "" if older is None else _nuid(older.data)

    async def _send(self, subject: str, chunks: Iterable[bytes]) -> None:
        self._js.check_suspended(subject)
        window = Window(self._js, subject)
        bus = self._js.bus
        inbox = bus.new_inbox()
        subscription = await self._js.subscribe(inbox, window.receive)
        self._windows[subject] = window
        try:
            with self._js.in_flight() as scope:
                try:
                    for chunk in chunks:
                        await trio.lowlevel.checkpoint()
                        await window.room(_WINDOW)
                        window.sent(bus.publish(subject, chunk, reply=inbox))
                except MessageTooLarge as error:
                    # The limit was lowered meanwhile: the caller starts again, with smaller pieces.
                    raise JetStreamUnavailable(f"an object was not stored: {error}") from error
                await window.room(1)
            if scope.cancelled_caught:
                raise JetStreamUnavailable("an object was not stored: the connection was lost")
        finally:
            with trio.move_on_after(_GOODBYE, shield=True):
                await window.end(bus.generation)
            del self._windows[subject]
            with trio.move_on_after(_GOODBYE, shield=True):
                await subscription.unsubscribe()

    async def _fetch(self, meta: _Meta) -> bytes | None:
        """Return the data of a version; None where it is not what its metadata says, or no longer."""
        chunks: list[bytes] = []
        found = Sum()
        async with aclosing(read(self._js, self._stream, subjects=[self._chunks(meta.nuid)])) as batches:
            async for batch in batches:
                for one in batch:
                    chunks.append(one.data)
                    found.add(one.data)
                    await trio.lowlevel.checkpoint()
                if found.size > meta.size:
                    return None
        if found.size != meta.size or found.digest != meta.digest:
            return None
        if found.size < _LARGE:
            return b"".join(chunks)
        return await ThreadExecutor().run("joined", partial(b"".join, chunks))

    async def _discard(self, nuid: str) -> None:
        """Remove the chunks of an invisible version if possible; otherwise `sweep` will."""
        with trio.move_on_after(_GOODBYE, shield=True) as scope:
            try:
                await self._js.purge(self._stream, self._chunks(nuid))
            except BusError as error:
                log.warning("chunks of an object are left behind", nuid=nuid, reason=str(error))
        if scope.cancelled_caught:
            log.warning("chunks of an object are left behind", nuid=nuid, reason="the broker does not answer")


def _decode(data: bytes) -> _Meta:
    try:
        meta = msgspec.json.decode(data, type=_Meta)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JetStreamError(f"an object's metadata cannot be read: {error}") from None
    if not _NUID.fullmatch(meta.nuid):
        # It becomes part of a subject that is purged: a wildcard in it would take every object along.
        raise JetStreamError(f"an object's metadata has an invalid nuid: {meta.nuid[:80]!r}")
    return meta


def _decode_or_none(data: bytes) -> _Meta | None:
    try:
        return _decode(data)
    except JetStreamError:
        return None


def _nuid(data: bytes) -> str:
    """Return the nuid in an object's metadata; empty where none can be read."""
    meta = _decode_or_none(data)
    return "" if meta is None else meta.nuid
