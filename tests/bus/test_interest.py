"""Asking the broker for the subscribers of a subject."""

import json

import pytest
import trio
from conftest import ServerFactory
from support.brokers import NatsServer, eventually
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.bus.interest import SUBJECT, subscribers
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.bus.subjects import matches
from scheduler.errors import BusError


def ignore(_: Message) -> None:
    pass


@pytest.mark.integration
async def test_others_subscriptions_are_listed(nats_server: NatsServer) -> None:
    """Of every other connection, ours with the same name included in none; nothing is published there."""
    heard: list[Message] = []
    where = BusOptions((nats_server.url,))
    async with open_bus(where) as one, open_bus(where) as two, open_bus(where) as asking:
        await one.subscribe("vpc.create.*", heard.append)
        await one.subscribe("x.>", heard.append, queue="q")
        await two.subscribe("x.>", heard.append, queue="q")
        await asking.subscribe("mine.only", ignore)
        found = await subscribers(asking)
        assert [subject for subject in found if not subject.startswith("_INBOX.")] == ["vpc.create.*", "x.>"]
        assert any(matches(subject, "vpc.create.aws") for subject in found)
        assert not any(matches(subject, "vpc.delete.aws") for subject in found)
        assert await subscribers(asking, page=1) == found
        before = len(asking.interests)
        await subscribers(asking)
        assert len(asking.interests) == before
    assert heard == []


@pytest.mark.integration
async def test_several_servers_answer(start_nats_server: ServerFactory) -> None:
    """In a cluster each tells of its own connections."""
    one = start_nats_server({"cluster": {"name": "c", "listen": "127.0.0.1:-1"}})
    route = next(line for line in one.log.splitlines() if "Listening for route connections" in line).split()[
        -1
    ]
    two = start_nats_server(
        {"cluster": {"name": "c", "listen": "127.0.0.1:-1", "routes": [f"nats://{route}"]}}
    )
    await eventually(lambda: "Route connection created" in one.log)
    async with open_bus(BusOptions((one.url,))) as asking, open_bus(BusOptions((two.url,))) as other:
        await other.subscribe("far.away", ignore)
        with trio.fail_after(10):
            while "far.away" not in await subscribers(asking):
                pass


@pytest.mark.integration
async def test_accounts_see_themselves_only(start_nats_server: ServerFactory) -> None:
    """Another account's subscriptions are not told."""
    server = start_nats_server(
        {
            "accounts": {
                "A": {"users": [{"user": "a", "password": "p"}]},
                "B": {"users": [{"user": "b", "password": "p"}]},
            }
        }
    )
    where = (server.url,)
    async with (
        open_bus(BusOptions(where, user="a", password="p")) as ours,
        open_bus(BusOptions(where, user="a", password="p")) as friend,
        open_bus(BusOptions(where, user="b", password="p")) as foreign,
    ):
        await friend.subscribe("friend", ignore)
        await foreign.subscribe("foreign", ignore)
        found = await subscribers(ours)
        assert "friend" in found
        assert "foreign" not in found


@pytest.mark.integration
async def test_not_being_allowed_is_told(start_nats_server: ServerFactory) -> None:
    """The error names the subject that the permissions are to allow."""
    user = {"user": "u", "password": "p", "permissions": {"publish": {"deny": ["$SYS.>"]}}}
    server = start_nats_server({"authorization": {"users": [user]}})
    async with open_bus(BusOptions((server.url,), user="u", password="p")) as bus:
        with pytest.raises(BusError, match=r"permissions let us publish on \$SYS\.REQ"):
            await subscribers(bus, deadline=0.2)


async def test_nobody_to_ask(fake_bus: FakeBus) -> None:
    """A broker without the service says so at once."""
    with trio.fail_after(1), pytest.raises(BusError, match="it has no service on"):
        await subscribers(fake_bus)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": 3}', b"\xff"])
async def test_nonsense_is_told(fake_bus: FakeBus, body: bytes) -> None:
    """An answer that is none is an error, with its beginning."""

    def answer(message: Message) -> None:
        assert json.loads(message.data)["subscriptions"] is True
        fake_bus.publish(message.reply, body)

    await fake_bus.subscribe(SUBJECT, answer)
    with pytest.raises(BusError, match="it answered"):
        await subscribers(fake_bus, quiet=0.01)
