"""A connection of its own for questions; while it cannot be had, the first one hears them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import ServerFactory
from structlog.testing import capture_logs
from support.brokers import NatsServer, eventually
from support.clusters import Cluster, cluster

from scheduler.bus import Message
from scheduler.bus import beside as beside_module
from scheduler.bus.beside import BesideBus, open_beside
from scheduler.bus.nats import NatsBus, open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import NotPermitted

pytestmark = pytest.mark.integration


@asynccontextmanager
async def both(server: NatsServer) -> AsyncIterator[tuple[NatsBus, BesideBus]]:
    options = BusOptions((server.url,), name="scheduler test")
    async with open_bus(options) as bus, open_beside(bus, options, "questions") as beside:
        yield bus, beside


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The further connection is waited for, however slow this machine is."""
    monkeypatch.setattr(beside_module, "_PATIENCE", 20.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it waited for in vain."""
    monkeypatch.setattr(beside_module, "_PATIENCE", 0.05)


async def answering(beside: BesideBus) -> None:
    """Have it answer on ``q``, with what it was asked."""

    def answer(message: Message) -> None:
        beside.publish(message.reply, message.data)

    await beside.subscribe("q", answer, queue="scheduler")


async def ask(bus: NatsBus, data: bytes = b"x") -> bytes:
    with trio.fail_after(20):
        return (await bus.request("q", data)).data


async def test_what_comes_in_does_not_stand_before_the_first_connection(nats_server: NatsServer) -> None:
    """It is subscribed to on the further one alone, and answered there."""
    async with both(nats_server) as (bus, beside):
        await answering(beside)
        assert await ask(bus) == b"x"
        assert [one.subject for one in bus.interests.values() if one.queue] == []
        assert (bus.generation, beside.generation) == (1, 1)


async def test_two_busy_connections_take_turns(nats_server: NatsServer) -> None:
    """What comes in on the first one is not behind a thousand messages on the other."""
    order: list[str] = []
    async with both(nats_server) as (bus, beside):
        await beside.subscribe("q", lambda _: order.append("q"), queue="scheduler")
        await bus.subscribe("build", lambda _: order.append("build"))
        async with open_bus(BusOptions((nats_server.url,))) as sender:
            for _ in range(20_000):
                sender.publish("q", b"")
            sender.publish("build", b"")
            await eventually(lambda: len(order) == 20_001)
    assert order.index("build") < 19_000


@pytest.mark.usefixtures("impatient")
async def test_where_there_is_no_second_connection_the_first_one_hears_and_answers(
    start_nats_server: ServerFactory,
) -> None:
    """That is said once."""
    server = start_nats_server({"max_connections": 1})
    with capture_logs() as logs:
        async with both(server) as (bus, beside):
            await answering(beside)
            assert not beside.connected
            assert await ask(bus) == b"x"
            await eventually(lambda: any(map(_says_so, logs)), 20)
    assert len([*filter(_says_so, logs)]) == 1


def _says_so(line: Mapping[str, object]) -> bool:
    return str(line["event"]).startswith("no second connection: questions")


@pytest.mark.parametrize("failed", [False, True])
async def test_the_end_of_what_was_warned_of_is_told(nats_server: NatsServer, failed: bool) -> None:
    """A connection that could not be opened, and then is, is a line; one that only comes back is none."""
    async with both(nats_server) as (_, beside):
        await answering(beside)
        if failed:
            beside.say_failure("a test")
        with capture_logs() as logs:
            assert beside._connection is not None
            before = beside.generation
            beside._connection.lose("a test")
            await eventually(lambda: beside.connected and beside.generation > before)
    told = [line for line in logs if line["event"] == "a second connection is up again"]
    assert [line["purpose"] for line in told] == (["questions"] if failed else [])


async def test_while_the_further_connection_is_away_the_first_one_stands_in(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no longer."""
    async with both(nats_server) as (bus, beside):
        await answering(beside)
        back = trio.Event()
        connect = beside.connect

        async def later(**options: float) -> None:
            await back.wait()
            await connect(delay=options["delay"])

        monkeypatch.setattr(beside, "connect", later)
        assert beside._connection is not None
        beside._connection.lose("a test")
        await eventually(lambda: not beside.connected and len(beside._lent) == 1)
        assert await ask(bus) == b"x"
        back.set()
        await eventually(lambda: beside.connected and not beside._lent)
        assert await ask(bus) == b"x"
        await eventually(lambda: all(not one.queue for one in bus.interests.values()))


async def test_after_a_restart_of_the_broker_questions_are_heard(nats_server: NatsServer) -> None:
    """Both connections come back."""
    async with both(nats_server) as (bus, beside):
        await answering(beside)
        nats_server.kill()
        nats_server.start()
        await eventually(lambda: bus.generation == beside.generation == 2, 20)
        assert await ask(bus) == b"x"


@pytest.mark.usefixtures("impatient")
async def test_what_ended_is_heard_by_neither(start_nats_server: ServerFactory) -> None:
    """Also where the first one stands in."""
    server = start_nats_server({"max_connections": 1})
    async with both(server) as (bus, beside):
        found: list[Message] = []
        subscription = await beside.subscribe("q", found.append, queue="scheduler")
        await subscription.unsubscribe()
        bus.publish("q", b"")
        await bus.flush()
        assert (found, beside._lent) == ([], {})


async def test_a_subscription_that_is_forbidden_is_refused(start_nats_server: ServerFactory) -> None:
    """As on any bus."""
    permissions = {"subscribe": {"deny": ["q"]}}
    server = start_nats_server(
        {"authorization": {"users": [{"user": "u", "password": "p", "permissions": permissions}]}}
    )
    options = BusOptions((server.url,), user="u", password="p")
    async with open_bus(options) as bus, open_beside(bus, options, "questions") as beside:
        with pytest.raises(NotPermitted):
            await beside.subscribe("q", lambda _: None, queue="scheduler")


async def test_where_the_first_one_was_away_too_it_stands_in_at_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message is lost that comes after a restart of the broker to a connection that is back."""
    monkeypatch.setattr(beside_module, "_AWAY", 600.0)
    async with both(nats_server) as (bus, beside):
        await answering(beside)
        await beside.subscribe("p", lambda _: None, queue="scheduler")

        async def never(**_: float) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(beside, "connect", never)
        nats_server.kill()
        nats_server.start()
        await eventually(lambda: bus.generation == 2 and len(beside._lent) == 2, 20)
        assert await ask(bus) == b"x"


def _is_beyond(beside: BesideBus, generation: int) -> bool:
    return beside.generation > generation


async def test_where_it_alone_is_away_the_first_one_is_left_alone_for_a_moment(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back soon."""
    monkeypatch.setattr(beside_module, "_AWAY", 600.0)
    async with both(nats_server) as (bus, beside):
        await answering(beside)
        for _ in range(3):
            generation = beside.generation
            assert beside._connection is not None
            beside._connection.lose("a test")
            await eventually(partial(_is_beyond, beside, generation))
            assert not beside._lent
        assert await ask(bus) == b"x"


async def test_what_is_for_no_queue_group_the_first_one_never_has(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would come twice, in the moment in which both have it."""
    async with both(nats_server) as (bus, beside):
        found: list[bytes] = []
        await answering(beside)
        await beside.subscribe("p", lambda message: found.append(message.data))

        async def never(**_: float) -> None:
            beside._note_failure("", "a test", 0.0)
            await trio.sleep_forever()

        bus.publish("p", b"1")
        await eventually(lambda: found == [b"1"])
        monkeypatch.setattr(beside, "connect", never)
        assert beside._connection is not None
        beside._connection.lose("a test")
        await eventually(lambda: len(beside._lent) == 1)
        bus.publish("p", b"2")
        assert await ask(bus) == b"x"
        assert found == [b"1"]


async def test_where_it_cannot_be_had_the_first_one_stands_in_at_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure says so: there is nothing to wait for."""
    monkeypatch.setattr(beside_module, "_AWAY", 600.0)
    async with both(nats_server) as (bus, beside):
        await answering(beside)

        async def fail(*_: object, **__: float) -> bool:
            beside._note_failure("", "a test", 0.0)
            return False

        monkeypatch.setattr(beside, "_try", fail)
        assert beside._connection is not None
        beside._connection.lose("a test")
        await eventually(lambda: len(beside._lent) == 1)
        assert await ask(bus) == b"x"


@pytest.mark.parametrize("flooded", [True, False])
async def test_one_that_is_cut_off_again_and_again_is_stood_in_for_unless_that_is_a_flood(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, *, flooded: bool
) -> None:
    """What it is cut off for, by a proxy say, need not happen to the first one as well."""
    monkeypatch.setattr(beside_module, "_FLOOD", 0 if flooded else 1 << 40)
    monkeypatch.setattr(beside_module, "_AWAY_IN_A_FLOOD", 600.0)
    async with both(nats_server) as (bus, beside):
        await answering(beside)

        async def cut_off() -> None:
            while True:
                await eventually(lambda: beside._connection is not None, 20)
                assert beside._connection is not None
                beside._connection.lose("a test")
                await eventually(lambda: beside._connection is None, 20)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_off)
            if flooded:
                await eventually(lambda: beside.generation >= 5, 20)
                assert not beside._lent
            else:
                await eventually(lambda: len(beside._lent) == 1, 20)
                assert await ask(bus) == b"x"
            nursery.cancel_scope.cancel()


async def test_in_a_cluster_it_goes_where_the_first_one_goes() -> None:
    """On another server it might go together with the second connection for replies."""
    with cluster(jetstream=False) as servers:
        options = BusOptions(tuple(server.url for server in servers.servers), name="scheduler test")
        async with open_bus(options) as bus, open_beside(bus, options, "questions") as beside:
            await answering(beside)
            old = servers.at(bus.url)
            assert beside.server_id == bus.server_id
            # It alone is given up, as it holds what a server that stands still does not take.
            old.pause()
            for _ in range(40):
                bus.publish("a", bytes(500_000))

            def is_given_up() -> bool:
                bus.drop_buffered("as a test")
                return not bus.connected

            await eventually(is_given_up)
            old.resume()
            await eventually(lambda: bus.connected and bus.url != old.url, 20)
            await eventually(lambda: beside.connected and beside.server_id == bus.server_id)
            assert await ask(bus) == b"x"


async def test_in_a_cluster_it_is_on_no_other_server_than_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while their server is away, and it knows another one."""
    tries: list[str] = []
    original = BesideBus._try

    async def try_(bus: BesideBus, server: str, *args: Any, **named: Any) -> bool:
        tries.append(server)
        return await original(bus, server, *args, **named)

    monkeypatch.setattr(BesideBus, "_try", try_)
    servers = Cluster(tmp_path, 2, {}, jetstream=False, user_info="")
    for server in servers.servers:
        server.config["cluster"]["no_advertise"] = True
    try:
        servers.start()
        one, other = servers.servers
        options = BusOptions((one.url,), name="scheduler test")
        both_of_them = BusOptions((one.url, other.url), name="scheduler test")
        async with open_bus(options) as bus, open_beside(bus, both_of_them, "questions") as beside:
            seen: list[str] = []
            beside.on_connected(lambda: seen.append(beside.server))
            one.kill()
            await eventually(lambda: not (bus.connected or beside.connected))
            # It goes through all servers that it knows, and through them again.
            tried = len(tries)
            await eventually(lambda: len(tries) > tried + 3)
            one.start()
            await eventually(lambda: bus.connected and beside.connected, 20)
            assert set(seen) == {one.url}
    finally:
        servers.close()
