"""The object store, over a real server, and together with the one of nats-py."""

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
import trio
from nats.js import JetStreamContext
from nats.js.errors import ObjectNotFoundError
from structlog.testing import capture_logs
from support.brokers import NatsServer, eventually

from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import InvalidSubject, JetStreamError, JetStreamUnavailable
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.consumers import Delivered
from scheduler.jetstream.objects import CHUNK, ObjectInfo, Objects
from scheduler.jetstream.setup import set_up
from scheduler.jetstream.streams import BUCKET, OBJECTS, StreamLayout

pytestmark = pytest.mark.integration

PLENTY = 1024**3
MEGABYTE = 1024**2


@asynccontextmanager
async def open_objects(server: NatsServer, *, patience: float = 5.0) -> AsyncIterator[Objects]:
    with trio.fail_after(60):
        async with open_bus(BusOptions((server.url,)), connect_deadline=5) as bus:
            js = JetStream(bus, timeout=patience)
            await set_up(js, StreamLayout())
            yield Objects(js)


@pytest.fixture
async def objects(jetstream_server: NatsServer) -> AsyncIterator[Objects]:
    async with open_objects(jetstream_server) as objects:
        yield objects


def some(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def kept(objects: Objects) -> dict[str, int]:
    """How many messages each subject of the bucket has, by its last two tokens."""
    answer = await objects._js.call(f"STREAM.INFO.{OBJECTS}", {"subjects_filter": ">"})
    subjects = answer["state"].get("subjects") or {}
    return {subject.removeprefix(f"$O.{BUCKET}."): count for subject, count in subjects.items()}


async def put_meta(objects: Objects, name: str, meta: dict[str, Any]) -> None:
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
    await objects._js.publish(
        subject, json.dumps({"name": name, **meta}).encode(), headers={"Nats-Rollup": "sub"}
    )


async def names(objects: Objects, prefix: str = "") -> list[str]:
    return [one.name async for one in objects.names(prefix)]


# What goes in comes out.


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 8 * MEGABYTE + 5])
async def test_what_was_put_is_got(objects: Objects, size: int) -> None:
    """Of any size, in as many chunks as it takes."""
    data = some(size)
    await objects.put("name", data)
    assert await objects.get("name", most=size) == data
    assert sum((await kept(objects)).values()) == 1 + -(-size // CHUNK)


@asynccontextmanager
async def counting_turns() -> AsyncIterator[Callable[[], int]]:
    """Count how often another task could have run."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        yield lambda: turns
        nursery.cancel_scope.cancel()


@pytest.mark.alone
async def test_64_megabytes(objects: Objects) -> None:
    """They are read about as fast as they are written, and other tasks have a turn at every megabyte."""
    data = some(64 * MEGABYTE)
    async with counting_turns() as turns:
        before = trio.current_time()
        await objects.put("large", data)
        put, turns_of_put = trio.current_time(), turns()
        got = await objects.get("large", most=PLENTY)
        # 6 s for half as much is what it is without care.
        assert trio.current_time() - put < 3 * (put - before) + 1
        assert turns_of_put >= 60
    assert got == data


@pytest.mark.parametrize(
    "sizes", [[], [0, 0], [5 * CHUNK + 1], [1] * 1000, [CHUNK - 1, 2, CHUNK, 0, 3 * CHUNK]]
)
async def test_what_is_put_in_pieces_is_got(objects: Objects, sizes: list[int]) -> None:
    """Pieces of any size become chunks of the usual one, but for the last."""
    pieces = [some(size) for size in sizes]
    await objects.put_pieces("name", iter(pieces))
    assert await objects.get("name", most=PLENTY) == b"".join(pieces)
    assert sum((await kept(objects)).values()) == 1 + -(-sum(sizes) // CHUNK)


async def test_objects_leave_room_for_other_messages(objects: Objects) -> None:
    """Pieces are made as they are sent, and of all objects together there is a megabyte on its way."""
    most = 0

    def pieces() -> Iterator[bytes]:
        nonlocal most
        for _ in range(200):
            most = max(most, sum(len(window._unacknowledged) for window in objects._windows.values()))
            yield bytes(CHUNK)

    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(objects.put_pieces, name, pieces())
    assert 0 < most * CHUNK <= MEGABYTE
    assert [len(await objects.get(name, most=PLENTY) or b"") for name in "abcde"] == [200 * CHUNK] * 5


async def test_there_is_no_such_object(objects: Objects) -> None:
    """That is no error, for get and for delete."""
    assert await objects.get("none", most=PLENTY) is None
    await objects.delete("none")
    assert await names(objects) == []


async def test_any_name_will_do(objects: Objects) -> None:
    """It is no part of a subject as it stands."""
    for name in ("a/b.c *>", "ü" * 50, "a b\r\n"):
        await objects.put(name, name.encode())
        assert await objects.get(name, most=PLENTY) == name.encode()


@pytest.mark.parametrize("name", ["", "x" * 1_000])
async def test_a_name_that_will_not_do(objects: Objects, name: str) -> None:
    """It is refused, and nothing is left of what was put."""
    with pytest.raises(InvalidSubject):
        await objects.put(name, some(CHUNK))
    assert await kept(objects) == {}


async def test_what_is_too_large_is_not_fetched(objects: Objects) -> None:
    """The limit is the reader's, and the size is said."""
    await objects.put("name", bytes(1000))
    with pytest.raises(JetStreamError, match="'name' takes 1000 bytes, over the limit of 999 bytes"):
        await objects.get("name", most=999)


async def test_objects_are_listed(objects: Objects) -> None:
    """By prefix, in the order in which they were put, without those that were deleted."""
    for name in ("b/1", "a/1", "a/2", "a/3"):
        await objects.put(name, bytes(len(name)))
    await objects.put("a/1", b"again")
    await objects.delete("a/3")
    found = [one async for one in objects.names("a/")]
    assert [(one.name, one.size) for one in found] == [("a/2", 3), ("a/1", 5)]
    assert isinstance(found[0], ObjectInfo)
    assert found[0].time < found[1].time
    assert await names(objects) == ["b/1", "a/2", "a/1"]


async def test_deleting_leaves_nothing(objects: Objects) -> None:
    """Neither chunks nor a mark; the name can be used again."""
    await objects.put("name", some(3 * CHUNK))
    await objects.put("other", b"1")
    await objects.delete("name")
    assert await objects.get("name", most=PLENTY) is None
    assert len(await kept(objects)) == 2
    await objects.delete("name")
    await objects.put("name", b"2")
    assert await objects.get("name", most=PLENTY) == b"2"


# Versions.


async def test_a_newer_version_replaces_the_older(objects: Objects) -> None:
    """The chunks of the older are removed."""
    await objects.put("name", some(3 * CHUNK))
    await objects.put("name", some(2 * CHUNK))
    assert await objects.get("name", most=PLENTY) == some(2 * CHUNK)
    assert sorted((await kept(objects)).values()) == [1, 2]


async def test_several_put_the_same_name_at_once(objects: Objects) -> None:
    """One of them is it in the end, whole; of the others nothing is left."""
    versions = [some(number * CHUNK) for number in range(1, 9)]
    async with trio.open_nursery() as nursery:
        for data in versions:
            nursery.start_soon(objects.put, "name", data)
    got = await objects.get("name", most=PLENTY)
    assert got in versions
    assert len(await kept(objects)) == 2


async def test_an_object_is_replaced_while_it_is_got(objects: Objects) -> None:
    """What is got is one version or the other."""
    await objects.put("name", some(3 * CHUNK))

    class Slow(Objects):
        async def _fetch(self, meta: Any) -> bytes | None:
            if meta.size == 3 * CHUNK:
                await objects.put("name", some(CHUNK))
            return await super()._fetch(meta)

    assert await Slow(objects._js).get("name", most=PLENTY) == some(CHUNK)


@pytest.mark.parametrize("damage", ["missing", "more", "other", "size"])
async def test_a_damaged_object_is_not_got(objects: Objects, damage: str) -> None:
    """Whatever its chunks are, if they are not what the metadata says."""
    await objects.put("name", some(3 * CHUNK))
    chunks = f"$O.{BUCKET}.C." + next(key for key in await kept(objects) if key.startswith("C."))[2:]
    if damage == "missing":
        await objects._js.purge(OBJECTS, chunks)
    elif damage == "more":
        await objects._js.publish(chunks, b"1")
    elif damage == "size":
        stored = await objects._js.last(OBJECTS, f"$O.{BUCKET}.M.*")
        assert stored is not None
        await put_meta(objects, "name", {**json.loads(stored.data), "size": 3 * CHUNK + 1})
    else:
        await objects._js.call(f"STREAM.PURGE.{OBJECTS}", {"filter": chunks, "keep": 2})
        await objects._js.publish(chunks, some(CHUNK))
    with pytest.raises(JetStreamError, match="'name' of bucket SCHEDULER_OBJECTS is damaged"):
        await objects.get("name", most=PLENTY)


async def test_no_more_is_fetched_than_was_promised(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endless chunks do not fill the memory; many at once do not hold up other tasks."""
    await objects.put("name", b"1")
    chunk = Delivered("", bytes(CHUNK), {}, 1, 1)
    fetched = 0

    async def endless(*_: Any, **__: Any) -> AsyncIterator[list[Delivered]]:
        nonlocal fetched
        while True:
            fetched += 1
            yield [chunk] * 60

    monkeypatch.setattr("scheduler.jetstream.objects.read", endless)
    async with counting_turns() as turns:
        with pytest.raises(JetStreamError, match="is damaged"):
            await objects.get("name", most=PLENTY)
        assert turns() >= 60
    assert fetched == 1


# What goes wrong.


async def some_of_it(objects: Objects) -> None:
    """Wait until some chunks are there."""
    while (await objects._js.info(OBJECTS)).messages < 20:  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.001)


async def cancelled_put(objects: Objects) -> None:
    """Put 64 MiB, and think better of it when some of it is there."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(objects.put, "name", bytes(64 * MEGABYTE))
        await some_of_it(objects)
        nursery.cancel_scope.cancel()


async def test_a_put_that_is_cancelled_leaves_nothing(objects: Objects) -> None:
    """Nothing to be got, and no chunks."""
    await cancelled_put(objects)
    assert await objects.get("name", most=PLENTY) is None
    assert await kept(objects) == {}


async def test_a_put_that_is_cancelled_leaves_the_older(objects: Objects) -> None:
    """An object is replaced as a whole or not at all."""
    await objects.put("name", b"older")
    await cancelled_put(objects)
    assert await objects.get("name", most=PLENTY) == b"older"


@pytest.mark.parametrize("refused", [False, True])
async def test_a_put_whose_metadata_is_not_stored(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    """Its chunks are kept where it may yet be stored, and removed where it is known not to be."""
    error = JetStreamError("no") if refused else JetStreamUnavailable("not now")

    async def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(objects._js, "publish", fail)
    with pytest.raises(type(error)):
        await objects.put("name", some(2 * CHUNK))
    assert list((await kept(objects)).values()) == ([] if refused else [2])


async def test_the_server_dies_during_a_put(jetstream_server: NatsServer) -> None:
    """The put ends with the next connection, and can be done again; nothing of it is visible before."""
    async with open_objects(jetstream_server) as objects:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing_put, objects, "the connection was lost")
            await some_of_it(objects)
            jetstream_server.restart()
        assert await objects.get("name", most=PLENTY) is None
        await objects.put("name", b"1")
        assert await names(objects) == ["name"]


async def test_a_put_that_nobody_acknowledges_ends(jetstream_server: NatsServer) -> None:
    """A server that stalls is unavailable."""
    async with open_objects(jetstream_server, patience=0.3) as objects:
        with trio.fail_after(5), capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(failing_put, objects, "chunks were not acknowledged within 0.3 s")
                await some_of_it(objects)
                jetstream_server.pause()
        assert [entry["event"] for entry in logs] == ["chunks of an object are left behind"]
        jetstream_server.resume()
        await objects._js.bus.flush()
        assert await names(objects) == []


async def test_chunks_that_have_not_left_never_leave(jetstream_server: NatsServer) -> None:
    """With the broker away a put ends as well, and what was on its way is taken back."""
    async with open_objects(jetstream_server, patience=0.3) as objects:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing_put, objects, "not acknowledged")
            await some_of_it(objects)
            jetstream_server.stop()
        assert objects._js.bus.queued == 0  # type: ignore[attr-defined]


async def failing_put(objects: Objects, problem: str) -> None:
    with pytest.raises(JetStreamUnavailable, match=problem):
        await objects.put("name", bytes(64 * MEGABYTE))


async def test_a_bucket_that_is_not_there(objects: Objects) -> None:
    """No stream takes the chunks."""
    elsewhere = Objects(objects._js, "NONE")
    with pytest.raises(JetStreamUnavailable):
        await elsewhere.put("name", b"1")
    with pytest.raises(JetStreamError):
        await elsewhere.get("name", most=PLENTY)


async def test_a_smaller_limit_for_messages(start_nats_server: Callable[..., NatsServer]) -> None:
    """Chunks are as large as the server allows."""
    server = start_nats_server({"max_payload": 50_000}, jetstream=True)
    async with open_objects(server) as objects:
        await objects.put("name", some(120_000))
        assert await objects.get("name", most=PLENTY) == some(120_000)
        assert sorted((await kept(objects)).values()) == [1, 3]


async def test_metadata_of_others_that_makes_no_sense(objects: Objects) -> None:
    """It is said where that object is asked for, passed over where objects are listed, and can be deleted."""
    await objects.put("good", b"1")
    await put_meta(objects, "bad", {"size": "large"})
    with pytest.raises(JetStreamError, match="metadata cannot be read"):
        await objects.get("bad", most=PLENTY)
    with capture_logs() as logs:
        assert await names(objects) == ["good"]
    assert [entry["event"] for entry in logs] == ["an object's metadata cannot be read"]
    await objects.delete("bad")
    assert await objects.get("bad", most=PLENTY) is None
    await put_meta(objects, "bad", {"size": "large"})
    await objects.put("bad", b"2")
    assert await objects.get("bad", most=PLENTY) == b"2"


@pytest.mark.parametrize("nuid", [">", "*", "a.>"])
async def test_metadata_of_others_that_would_remove_everything(objects: Objects, nuid: str) -> None:
    """A nuid becomes part of a subject that is purged, so it is no wildcard."""
    await objects.put("good", some(CHUNK))
    await put_meta(objects, "bad", {"nuid": nuid})
    await objects.put("bad", b"2")
    await put_meta(objects, "bad", {"nuid": nuid})
    await objects.delete("bad")
    assert await objects.get("good", most=PLENTY) == some(CHUNK)


async def test_links_are_not_followed(objects: Objects) -> None:
    """An object that is a link to another is refused with a word."""
    await put_meta(objects, "link", {"options": {"link": {"bucket": "b", "name": "n"}}})
    with pytest.raises(JetStreamError, match="'link' of bucket SCHEDULER_OBJECTS is a link"):
        await objects.get("link", most=PLENTY)


async def test_chunks_of_the_dead_are_swept(objects: Objects) -> None:
    """Those that no object has, once they are old enough; all others stay."""
    await objects.put("name", some(2 * CHUNK))
    await objects._js.publish(f"$O.{BUCKET}.C.dead", b"1")
    last = await objects._js.last(OBJECTS, f"$O.{BUCKET}.C.dead")
    assert last is not None
    assert await objects.sweep(last.time) == 0
    assert await objects.sweep(last.time + 1) == 1
    assert await objects.sweep(last.time + 1) == 0
    assert sorted((await kept(objects)).values()) == [1, 2]
    assert await objects.get("name", most=PLENTY) == some(2 * CHUNK)


# Together with nats-py.


async def with_nats_py(objects: Objects, use: Callable[[JetStreamContext], Awaitable[None]]) -> None:
    """Run nats-py in an asyncio of its own."""
    url = objects._js.bus.url  # type: ignore[attr-defined]

    async def main() -> None:
        client = await nats.connect(url)
        try:
            async with asyncio.timeout(20):
                await use(client.jetstream())
        finally:
            await client.close()  # noqa: ASYNC102 - asyncio, on a server that answers

    await trio.to_thread.run_sync(asyncio.run, main())


async def test_nats_py_reads_what_we_put(objects: Objects) -> None:
    """Data, size, digest; and it sees what we deleted as gone."""
    data = some(3 * CHUNK + 7)
    await objects.put("a/name", data)
    await objects.put("gone", b"1")
    await objects.delete("gone")

    async def check(js: JetStreamContext) -> None:
        store = await js.object_store(BUCKET)
        result = await store.get("a/name")
        assert result.data == data
        info = await store.get_info("a/name")
        assert (info.size, info.chunks, info.name, info.bucket) == (len(data), 4, "a/name", BUCKET)
        with pytest.raises(ObjectNotFoundError):
            await store.get("gone")
        assert [one.name for one in await store.list()] == ["a/name"]

    await with_nats_py(objects, check)


async def test_we_read_what_nats_py_puts(objects: Objects) -> None:
    """Replace it, list it and delete it; and what it deleted is gone for us."""
    data = some(3 * CHUNK + 7)

    async def put(js: JetStreamContext) -> None:
        store = await js.object_store(BUCKET)
        await store.put("a/name", data)
        await store.put("empty", b"")
        await store.put("gone", b"1")
        await store.delete("gone")

    await with_nats_py(objects, put)
    assert await objects.get("a/name", most=PLENTY) == data
    assert await objects.get("empty", most=PLENTY) == b""
    assert await objects.get("gone", most=PLENTY) is None
    assert await names(objects) == ["a/name", "empty"]
    await objects.put("a/name", b"1")
    await objects.put("gone", b"2")
    assert await objects.get("gone", most=PLENTY) == b"2"
    await objects.delete("a/name")
    await objects.delete("empty")
    assert sorted((await kept(objects)).values()) == [1, 1]


async def test_a_bucket_that_nats_py_made(jetstream_server: NatsServer) -> None:
    """It is set up as ours: no deviation is reported."""
    async with open_bus(BusOptions((jetstream_server.url,)), connect_deadline=5) as bus:
        js = JetStream(bus)

        async def make(context: JetStreamContext) -> None:
            await context.create_object_store(BUCKET)

        objects = Objects(js)
        await with_nats_py(objects, make)
        await eventually(lambda: bus.connected)
        await js.call(
            "STREAM.CREATE.SCHEDULER_LOG",
            {"name": "SCHEDULER_LOG", "subjects": ["scheduler.log.*"], "discard": "new"},
        )
        assert await set_up(js, StreamLayout()) == []
        await objects.put("name", b"1")
        assert await objects.get("name", most=PLENTY) == b"1"
