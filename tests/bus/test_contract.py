"""What every bus does: the one over a real broker, and its twin in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import trio
import trio.testing
from support.brokers import NatsServer, eventually, nats_server
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.bus.endpoint import Endpoint
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import (
    BusClosed,
    BusError,
    BusFull,
    InvalidSubject,
    MessageTooLarge,
    NoResponders,
    NotPermitted,
)

MAX_PAYLOAD = 2000
FORBIDDEN = "forbidden.thing"


class World:
    """A bus, and the means to have its broker go away and come back."""

    def __init__(self, bus: Endpoint, server: NatsServer | None) -> None:
        self.bus = bus
        self.server = server

    async def disconnect(self) -> None:
        if self.server is None:
            assert isinstance(self.bus, FakeBus)
            self.bus.disconnect()
            return
        self.server.kill()
        await eventually(lambda: not self.bus.connected)

    async def reconnect(self) -> None:
        before = self.bus.generation
        if self.server is None:
            assert isinstance(self.bus, FakeBus)
            self.bus.reconnect()
        else:
            self.server.start()
            await eventually(lambda: self.bus.generation > before)
        assert self.bus.generation == before + 1


OpenWorld = Callable[..., Any]


@asynccontextmanager
async def fake_world(**limits: int) -> AsyncIterator[World]:
    bus = FakeBus(max_payload=MAX_PAYLOAD, **limits)
    bus.forbidden.add(FORBIDDEN)
    yield World(bus, None)
    bus.close()


@asynccontextmanager
async def real_world(**limits: Any) -> AsyncIterator[World]:
    deny = {"deny": [FORBIDDEN]}
    user = {"user": "me", "password": "pw", "permissions": {"publish": deny, "subscribe": deny}}
    with nats_server({"max_payload": MAX_PAYLOAD, "authorization": {"users": [user]}}) as server:
        options = BusOptions((server.url,), user="me", password="pw", **limits)
        async with open_bus(options) as bus:
            yield World(bus, server)


@pytest.fixture(params=[fake_world, pytest.param(real_world, marks=pytest.mark.integration)])
def open_world(request: pytest.FixtureRequest) -> OpenWorld:
    result: OpenWorld = request.param
    return result


class Received:
    """A handler that remembers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def subjects(self) -> list[str]:
        return [message.subject for message in self.messages]

    @property
    def bodies(self) -> list[bytes]:
        return [message.data for message in self.messages]


async def test_a_message_arrives_whole(open_world: OpenWorld) -> None:
    """Subject, payload, reply subject and headers come out as they went in."""
    got = Received()
    async with open_world() as world:
        await world.bus.subscribe("vpc.create.aws", got)
        world.bus.publish(
            "vpc.create.aws", b"\x00\r\n{}", reply="r.1", headers={"Nats-Msg-Id": "a/b/1", "X": ""}
        )
        world.bus.publish("vpc.create.aws", b"")
        await world.bus.flush()
    assert got.messages == [
        Message("vpc.create.aws", b"\x00\r\n{}", "r.1", {"Nats-Msg-Id": "a/b/1", "X": ""}),
        Message("vpc.create.aws", b"", "", None),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.b.c", ["a.b.c"]),
        ("a.*.c", ["a.b.c", "a.x.c"]),
        ("a.>", ["a.b", "a.b.c", "a.x.c"]),
        ("*", ["a"]),
        (">", ["a", "a.b", "a.b.c", "a.x.c"]),
        ("a.*", ["a.b"]),
    ],
)
async def test_wildcards(open_world: OpenWorld, pattern: str, expected: list[str]) -> None:
    """A star is one token, a closing angle bracket one or more."""
    got = Received()
    async with open_world() as world:
        await world.bus.subscribe(pattern, got)
        for subject in ("a", "a.b", "a.b.c", "a.x.c"):
            world.bus.publish(subject, b"")
        await world.bus.flush()
    assert got.subjects == expected


async def test_a_queue_group_shares_and_others_get_everything(open_world: OpenWorld) -> None:
    """Of a queue group one member gets each message; every plain subscription gets it, too."""
    one, two, other, plain, again = (Received() for _ in range(5))
    async with open_world() as world:
        await world.bus.subscribe("s", one, queue="g")
        await world.bus.subscribe("s", two, queue="g")
        await world.bus.subscribe("s", other, queue="h")
        await world.bus.subscribe("s", plain)
        await world.bus.subscribe("*", again)
        bodies = [b"%d" % i for i in range(60)]
        for body in bodies:
            world.bus.publish("s", body)
        await world.bus.flush()
    assert sorted(one.bodies + two.bodies) == sorted(bodies)
    assert one.bodies
    assert two.bodies
    assert other.bodies == plain.bodies == again.bodies == bodies


async def test_nothing_comes_in_during_publish(open_world: OpenWorld) -> None:
    """A handler is never called from inside ``publish``."""
    got = Received()
    async with open_world() as world:
        await world.bus.subscribe("s", got)
        world.bus.publish("s", b"")
        assert got.messages == []
        await world.bus.flush()
        assert len(got.messages) == 1


async def test_publishing_to_nobody_tells_the_reply_subject(open_world: OpenWorld) -> None:
    """Without a subscriber the broker says 503 on the reply subject, and only there."""
    got = Received()
    async with open_world() as world:
        await world.bus.subscribe("scheduler.reply.*", got)
        world.bus.publish("nobody.there", b"x", reply="scheduler.reply.1")
        world.bus.publish("nobody.there", b"x")
        await world.bus.flush()
    (message,) = got.messages
    assert message.no_responders
    assert message.subject == "scheduler.reply.1"


async def test_request(open_world: OpenWorld) -> None:
    """A request gets its own answer, however many are under way; without a subscriber it fails at once."""
    async with open_world() as world:
        bus: Endpoint = world.bus

        def double(message: Message) -> None:
            bus.publish(message.reply, message.data * 2, headers={"H": "v"})

        await bus.subscribe("double", double)
        answers: dict[int, bytes] = {}

        async def ask(i: int) -> None:
            answers[i] = (await bus.request("double", b"%d" % i)).data

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for i in range(100):
                    nursery.start_soon(ask, i)
            with pytest.raises(NoResponders, match=r"nobody subscribes to 'nobody\.there'"):
                await bus.request("nobody.there", b"")
    assert answers == {i: b"%d%d" % (i, i) for i in range(100)}


async def test_a_cancelled_request_leaves_nothing(open_world: OpenWorld) -> None:
    """Its place is given back, and an answer that comes later disturbs no other request."""
    held = Received()
    async with open_world() as world:
        bus: Endpoint = world.bus
        await bus.subscribe("slow", held)
        with trio.move_on_after(0.05):
            await bus.request("slow", b"1")
        assert len(bus.inbox) == 0
        await bus.flush()
        for message in held.messages * 2:
            bus.publish(message.reply, b"late")

        def answer(message: Message) -> None:
            bus.publish(message.reply, b"now")

        await bus.subscribe("quick", answer)
        with trio.fail_after(5):
            assert (await bus.request("quick", b"2")).data == b"now"


async def test_a_handler_that_raises_does_no_harm(open_world: OpenWorld) -> None:
    """Its exception is logged; the subscription, the others and the bus live on."""
    got = Received()
    numbers = count()

    def bad(_: Message) -> None:
        raise RuntimeError(next(numbers))

    async with open_world() as world:
        await world.bus.subscribe("s", bad)
        await world.bus.subscribe("s", got)
        for _ in range(3):
            world.bus.publish("s", b"")
        await world.bus.flush()
        assert world.bus.generation == 1
    assert len(got.messages) == 3
    assert next(numbers) == 3


async def test_after_unsubscribe_nothing_comes_in(open_world: OpenWorld) -> None:
    """It can be called twice, on a closed bus as well."""
    got = Received()
    async with open_world() as world:
        subscription = await world.bus.subscribe("s", got)
        await subscription.unsubscribe()
        world.bus.publish("s", b"")
        await world.bus.flush()
        await subscription.unsubscribe()
        other = await world.bus.subscribe("s", got)
    await other.unsubscribe()
    assert got.messages == []


@pytest.mark.parametrize(
    "subject",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a\r\nPUB x 0\r\n",
        "a\tb",
        "a\x00b",
        "a.*",
        "a.>",
        ">",
        "a*b",
        "\ud800",
        "x" * 513,
    ],
)
async def test_bad_subjects_are_refused(open_world: OpenWorld, subject: str) -> None:
    """What would break the protocol never reaches the broker, as a subject or as a reply subject."""
    async with open_world() as world:
        with pytest.raises(InvalidSubject):
            world.bus.publish(subject, b"")
        with pytest.raises(InvalidSubject):
            world.bus.publish("a", b"", reply=subject or "a..b")
        with pytest.raises(InvalidSubject):
            await world.bus.request(subject, b"")
        assert world.bus.queued == 0
        assert len(world.bus.inbox) == 0


@pytest.mark.parametrize("subject", ["", "a..b", "a b", "a.>.b", "a*", "a.b>", "x" * 513, "a\r\nb"])
async def test_bad_patterns_and_queues_are_refused(open_world: OpenWorld, subject: str) -> None:
    """The same goes for what is subscribed to."""
    got = Received()
    async with open_world() as world:
        before = len(world.bus.interests)
        with pytest.raises(InvalidSubject):
            await world.bus.subscribe(subject, got)
        if subject:
            with pytest.raises(InvalidSubject):
                await world.bus.subscribe("a", got, queue=subject)
        assert len(world.bus.interests) == before


@pytest.mark.parametrize(
    "headers",
    [{"": "v"}, {"a b": "v"}, {"a:": "v"}, {"k": "a\r\nb"}, {"k": "é"}, {"k\n": "v"}, {"k": "\x00"}],
)
async def test_bad_headers_are_refused(open_world: OpenWorld, headers: dict[str, str]) -> None:
    """Keys are tokens, values printable ASCII."""
    async with open_world() as world:
        with pytest.raises(InvalidSubject, match="header"):
            world.bus.publish("a", b"", headers=headers)


async def test_a_message_over_the_limit_is_refused(open_world: OpenWorld) -> None:
    """Header bytes count; one at the limit passes."""
    got = Received()
    async with open_world() as world:
        bus: Endpoint = world.bus
        assert bus.max_payload == MAX_PAYLOAD
        await bus.subscribe("s", got)
        headers = {"K": "v"}
        block = len(b"NATS/1.0\r\nK: v\r\n\r\n")
        with pytest.raises(MessageTooLarge) as plain:
            bus.publish("s", b"x" * (MAX_PAYLOAD + 1))
        with pytest.raises(MessageTooLarge) as with_headers:
            bus.publish("s", b"x" * (MAX_PAYLOAD - block + 1), headers=headers)
        bus.publish("s", b"x" * MAX_PAYLOAD)
        bus.publish("s", b"x" * (MAX_PAYLOAD - block), headers=headers)
        await bus.flush()
        assert bus.generation == 1
    assert (plain.value.size, plain.value.limit) == (MAX_PAYLOAD + 1, MAX_PAYLOAD)
    assert (with_headers.value.size, with_headers.value.limit) == (MAX_PAYLOAD + 1, MAX_PAYLOAD)
    assert [len(body) for body in got.bodies] == [MAX_PAYLOAD, MAX_PAYLOAD - block]


async def test_an_outage_keeps_messages_and_subscriptions(open_world: OpenWorld) -> None:
    """While the broker is away messages wait, can be withdrawn, and leave once when it is back."""
    got = Received()
    async with open_world() as world:
        bus: Endpoint = world.bus
        await bus.subscribe("s.*", got)
        early = bus.publish("s.early", b"")
        await bus.flush()
        assert not early.withdraw()
        await world.disconnect()
        outgoing = [bus.publish(f"s.{i}", b"x", reply="r") for i in range(6)]
        assert [outgoing[i].withdraw() for i in (0, 3, 3)] == [True, True, True]
        assert bus.queued == 4
        await world.reconnect()
        with trio.fail_after(5):
            await bus.flush()
        assert bus.queued == 0
        assert [one.withdraw() for one in outgoing] == [True, False, False, True, False, False]
    assert got.subjects == ["s.early", "s.1", "s.2", "s.4", "s.5"]


async def test_what_is_asked_during_an_outage_is_done_after_it(open_world: OpenWorld) -> None:
    """A subscription, a flush and a request wait for the broker; a cancelled request is not sent."""
    got = Received()
    async with open_world() as world:
        bus: Endpoint = world.bus
        await bus.subscribe("old", got)
        await world.disconnect()
        with trio.move_on_after(0.02):
            await bus.request("old", b"cancelled")
        with trio.move_on_after(0.02):
            await bus.subscribe("given.up", got)
        with trio.move_on_after(0.02):
            await bus.flush()
        done: list[str] = []

        async def run(name: str, what: Callable[[], Any]) -> None:
            await what()
            done.append(name)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, "subscribe", lambda: bus.subscribe("new", got))
                nursery.start_soon(run, "flush", bus.flush)
                await trio.testing.wait_all_tasks_blocked()
                assert done == []
                await world.reconnect()
            bus.publish("new", b"1")
            bus.publish("given.up", b"2")
            await bus.flush()
    assert sorted(done) == ["flush", "subscribe"]
    assert got.bodies == [b"1"]


async def test_what_is_withheld_waits_while_others_leave(open_world: OpenWorld) -> None:
    """It can be withdrawn, a flush waits behind it, and it leaves in its order once it may."""
    got = Received()
    async with open_world() as world:
        bus: Endpoint = world.bus
        await bus.subscribe("s.*.*", got)
        bus.withhold(lambda subject: subject.startswith("s.held."))
        outgoing = [bus.publish(f"s.{way}.{i}", b"") for i in range(3) for way in ("held", "free")]
        await trio.testing.wait_all_tasks_blocked(0.01)
        await eventually(lambda: len(got.subjects) == 3)
        assert outgoing[2].withdraw()
        assert bus.queued == 2
        with trio.move_on_after(0.05) as flushing:
            await bus.flush()
        assert flushing.cancelled_caught
        bus.publish("s.held.3", b"")
        bus.withhold(None)
        with trio.fail_after(5):
            await bus.flush()
        assert bus.queued == 0
    assert got.subjects == ["s.free.0", "s.free.1", "s.free.2", "s.held.0", "s.held.2", "s.held.3"]


async def test_what_is_withheld_has_the_bounds_of_the_queue(open_world: OpenWorld) -> None:
    """What is withdrawn makes room, for ever, and what is left never leaves with a bus that is closed."""
    got = Received()
    async with open_world(max_queued_messages=3, max_queued_bytes=1000) as world:
        bus: Endpoint = world.bus
        await bus.subscribe("s", got)
        bus.withhold(lambda subject: subject == "s")
        first = bus.publish("s", b"")
        for _ in range(5000):
            assert bus.publish("s", b"x" * 980).withdraw()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(bus.outbox._stayed) + len(bus.outbox._queue) < 2500
        assert bus.queued == 1
        bus.close()
        assert first.withdraw()
    assert got.subjects == []


async def test_what_may_leave_has_room_beside_what_is_withheld(open_world: OpenWorld) -> None:
    """Or what is withheld would keep back the very question whose answer it waits for."""
    got = Received()
    async with open_world(max_queued_messages=3, max_queued_bytes=1000) as world:
        bus: Endpoint = world.bus
        await bus.subscribe("free", got)
        bus.withhold(lambda subject: subject == "s")
        for _ in range(3):
            bus.publish("s", b"x" * 300)
        with pytest.raises(BusFull):
            bus.publish("s", b"")
        for _ in range(3):
            bus.publish("free", b"x" * 300)
        await eventually(lambda: got.subjects == ["free"] * 3)
        await world.disconnect()
        for _ in range(100):
            bus.publish("free", b"")
        with pytest.raises(BusFull):
            bus.publish("free", b"")


async def test_a_full_queue_says_so(open_world: OpenWorld) -> None:
    """It is bounded by number and by size; what is withdrawn makes room, for ever."""
    async with open_world(max_queued_messages=3, max_queued_bytes=1000) as world:
        bus: Endpoint = world.bus
        await world.disconnect()
        outgoing = [bus.publish("s", b"x" * 10) for _ in range(3)]
        with pytest.raises(BusFull, match="is the broker reachable"):
            bus.publish("s", b"")
        outgoing[1].withdraw()
        with pytest.raises(BusFull):
            bus.publish("s", b"x" * 990)
        for _ in range(5000):
            assert bus.publish("s", b"x" * 980).withdraw()
        assert len(bus.outbox._queue) < 2500
        assert bus.queued == 2


async def test_a_forbidden_subject_is_told(open_world: OpenWorld) -> None:
    """The broker's refusal of a message reaches the handlers; that of a subscription is an error there."""
    refused: list[str] = []
    got = Received()
    async with open_world() as world:
        bus: Endpoint = world.bus
        bus.on_refused(refused.append)
        bus.publish(FORBIDDEN, b"x", reply="r.1")
        await bus.flush()
        with pytest.raises(BusError, match="allow it in the broker's permissions"):
            await bus.subscribe(FORBIDDEN, got)
        await bus.subscribe("fine", got)
        bus.publish("fine", b"")
        await bus.flush()
        assert bus.generation == 1
    assert refused == [FORBIDDEN]
    assert got.subjects == ["fine"]


async def test_a_forbidden_request_fails_at_once(open_world: OpenWorld) -> None:
    """The broker's word counts, without a deadline; one on another subject still gets its answer."""
    answers: list[bytes] = []

    async def ask(bus: Endpoint) -> None:
        answers.append((await bus.request("fine", b"?")).data)

    async with open_world() as world:
        bus: Endpoint = world.bus
        send, questions = trio.open_memory_channel[Message](1)
        await bus.subscribe("fine", send.send_nowait)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, bus)
            with trio.fail_after(2), pytest.raises(NotPermitted, match=f"refused to publish on {FORBIDDEN}"):
                await bus.request(FORBIDDEN, b"")
            with trio.fail_after(2):
                question = await questions.receive()
            bus.publish(question.reply, b"!")
        with trio.fail_after(2), pytest.raises(NotPermitted, match=f"refused to subscribe to {FORBIDDEN}"):
            await bus.subscribe(FORBIDDEN, send.send_nowait)
        assert not len(bus.inbox)
    assert answers == [b"!"]


async def test_a_closed_bus_refuses_everything(open_world: OpenWorld) -> None:
    """Waiting tasks are released with the same error."""
    failures: list[BaseException] = []

    async def expect(what: Callable[[], Any]) -> None:
        with pytest.raises(BusClosed) as caught:
            await what()
        failures.append(caught.value)

    async with trio.open_nursery() as nursery, open_world() as world:
        bus: Endpoint = world.bus
        await bus.subscribe("silent", lambda _: None)
        nursery.start_soon(expect, lambda: bus.request("silent", b""))
        await trio.testing.wait_all_tasks_blocked(0.01)
        await world.disconnect()
        nursery.start_soon(expect, bus.flush)
        nursery.start_soon(expect, lambda: bus.subscribe("s", lambda _: None))
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(failures) == 3
    with pytest.raises(BusClosed):
        bus.publish("s", b"")
    await expect(lambda: bus.request("s", b""))
    await expect(bus.flush)
    await expect(lambda: bus.subscribe("s", lambda _: None))


async def test_inboxes_differ(open_world: OpenWorld) -> None:
    """Each is new, and can be answered on."""
    got = Received()
    async with open_world() as world:
        one, two = world.bus.new_inbox(), world.bus.new_inbox()
        assert one != two
        await world.bus.subscribe(one, got)
        world.bus.publish(one, b"1")
        world.bus.publish(two, b"2")
        await world.bus.flush()
    assert got.bodies == [b"1"]
