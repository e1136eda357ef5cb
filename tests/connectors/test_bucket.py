"""A record in a bucket of JetStream, on a real server."""

# ruff: noqa: ASYNC110 - nothing tells of a message that is stored

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from support.brokers import NatsServer

from scheduler.bus import Message
from scheduler.bus.nats import NatsBus, open_bus
from scheduler.bus.options import BusOptions
from scheduler.connectors import Begun, Busy, Completed, Connectors, bucket
from scheduler.connectors.bucket import BucketStore
from scheduler.errors import RecordError
from scheduler.jetstream.api import JetStream

pytestmark = pytest.mark.integration


@asynccontextmanager
async def open_connection(server: NatsServer) -> AsyncIterator[NatsBus]:
    async with open_bus(BusOptions((server.url,))) as bus:
        yield bus


async def test_a_bucket_remembers_successes_and_forgets_failures(jetstream_server: NatsServer) -> None:
    """It keeps the contract of every record, over reopening too."""
    async with open_connection(jetstream_server) as bus:
        store = BucketStore("connectors_aws")
        async with store.open(bus):
            assert await store.begin("k", "1") == Begun()
            await store.complete("k", b'{"reply": 1}')
            assert await store.begin("k", "2") == Completed(b'{"reply": 1}')
            assert await store.begin("failed", "1") == Begun()
            await store.forget("failed")
            assert await store.begin("failed", "2") == Begun()
            await store.forget("failed")
            await store.forget("k")
        async with store.open(bus):
            assert await store.begin("k", "3") == Completed(b'{"reply": 1}')
            assert await store.unanswered() == []


async def test_what_a_living_process_began_is_its_own_and_what_a_gone_one_began_is_not(
    jetstream_server: NatsServer,
) -> None:
    """Another process waits while it lives, then begins again, and can ask for the attempt."""
    async with open_connection(jetstream_server) as bus:
        one, other = BucketStore("b"), BucketStore("b")
        async with other.open(bus):
            async with one.open(bus):
                assert await one.begin("k", "1") == Begun()
                assert await one.begin("k", "2") == Begun(repeated=True)
                assert await other.begin("k", "3") == Busy()
                await other.forget("k")
                assert await other.begin("k", "3") == Busy()
                assert await other.unanswered() == []
            assert await other.unanswered() == ["2"]
            assert await other.begin("k", "3") == Begun(repeated=True)
            assert await other.unanswered() == []


async def test_a_process_without_a_sign_of_life_counts_as_gone(
    jetstream_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is cut off loses its claim, and may take it back only by a claim of its own."""
    monkeypatch.setattr(bucket, "GONE_AFTER", 0.0)
    async with open_connection(jetstream_server) as bus:
        one, other = BucketStore("b"), BucketStore("b")
        async with one.open(bus), other.open(bus):
            await one.begin("k", "1")
            assert await other.begin("k", "2") == Begun(repeated=True)
            monkeypatch.undo()
            assert await one.begin("k", "3") == Busy()
            # What it did nevertheless is on record.
            await one.complete("k", b"{}")
            assert await one.begin("k", "4") == Busy()
            await other.forget("k")
            assert await one.begin("k", "4") == Completed(b"{}")


async def test_of_many_processes_one_begins(jetstream_server: NatsServer) -> None:
    """A claim is compare-and-set: ten at a time give one that acts."""
    async with open_connection(jetstream_server) as bus:
        stores = [BucketStore("b") for _ in range(10)]
        claims: list[object] = []

        async def claim(
            store: BucketStore, opened: trio.Event, everybody: trio.Event, last: trio.Event
        ) -> None:
            async with store.open(bus):
                opened.set()
                await everybody.wait()
                claims.append(await store.begin("k", "1"))
                if len(claims) == len(stores):
                    last.set()
                await last.wait()

        everybody, last = trio.Event(), trio.Event()
        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                for store in stores:
                    opened = trio.Event()
                    nursery.start_soon(claim, store, opened, everybody, last)
                    await opened.wait()
                everybody.set()
        assert sorted(type(one).__name__ for one in claims) == ["Begun", *["Busy"] * 9]


async def test_its_signs_of_life_go_on(jetstream_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process renews its own while it is open, and takes it back at the end."""
    monkeypatch.setattr(bucket, "RENEWAL", 0.05)
    async with open_connection(jetstream_server) as bus:
        js, store = JetStream(bus), BucketStore("b")
        async with store.open(bus):
            subject = f"$KV.b.process.{store.owner}"
            first = await js.last(store.stream, subject)
            assert first is not None
            with trio.fail_after(20):
                while (now := await js.last(store.stream, subject)) is None or now.sequence == first.sequence:
                    await trio.sleep(0.01)
        assert await js.last(store.stream, subject) is None


async def test_a_connector_keeps_its_record_in_a_bucket(jetstream_server: NatsServer) -> None:
    """The next process answers from it what this one did."""
    calls = 0
    replies: list[bytes] = []
    answered = trio.Event()

    def hear(message: Message) -> None:
        replies.append(message.data)
        answered.set()

    async with open_connection(jetstream_server) as bus:
        await bus.subscribe("scheduler.reply.>", hear)
        for number in range(2):
            connectors = Connectors("aws", store=BucketStore("connectors_aws"))

            @connectors.create("vpc")
            async def create() -> dict[str, int]:
                nonlocal calls
                calls += 1
                return {"call": calls}

            async with trio.open_nursery() as nursery:
                await nursery.start(connectors.run, jetstream_server.url)
                answered = trio.Event()
                headers = {"Nats-Msg-Id": f"b/a/{number}", "Scheduler-Component-Key": "b/a"}
                bus.publish("vpc.create.aws", b"{}", reply=f"scheduler.reply.o.aws.{number}", headers=headers)
                with trio.fail_after(20):
                    await answered.wait()
                nursery.cancel_scope.cancel()
    assert calls == 1
    assert replies[0] == replies[1]


async def test_a_server_without_jetstream_is_told_at_the_start(nats_server: NatsServer) -> None:
    """The message names the bucket."""
    async with open_connection(nats_server) as bus:
        with pytest.raises(RecordError, match="the bucket b cannot be used"):
            async with BucketStore("b").open(bus):
                pass


def test_a_bucket_has_a_name_that_can_be_one() -> None:
    """Dots and blanks would end in another subject."""
    with pytest.raises(ValueError, match="expected"):
        BucketStore("a.b")
