"""Telling a broker without JetStream from one where it is not ready, with a broker in memory."""

import pytest
import trio
from structlog.testing import capture_logs
from support.fake_bus import FakeBus
from support.fake_jetstream import UNAVAILABLE, FakeJetStream, Refusal, plug_into
from trio.testing import MockClock

from scheduler.bus import Message
from scheduler.bus.server import SUBJECT, ServerInfo, server_info
from scheduler.errors import UnsupportedServer
from scheduler.stores.absence import NONE, await_jetstream, find_absence


@pytest.fixture
def jetstream(fake_bus: FakeBus) -> FakeJetStream:
    return plug_into(fake_bus)


async def answer(bus: FakeBus, subject: str, data: bytes) -> None:
    """Answer every question on a subject."""

    def take(message: Message) -> None:
        bus.publish(message.reply, data)

    await bus.subscribe(subject, take)


async def test_where_it_answers_it_is_there(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """Nothing speaks against it, and nothing is waited for."""
    assert await find_absence(fake_bus) is None
    with capture_logs() as logs:
        await await_jetstream(fake_bus)
    assert logs == []
    assert not jetstream.streams


async def test_where_nobody_answers_there_is_none(fake_bus: FakeBus) -> None:
    """The server says so at once, and the exception has the choices."""
    with pytest.raises(UnsupportedServer, match=r"no JetStream.*--store ernest.*--store memory.*--embedded"):
        await await_jetstream(fake_bus)


@pytest.mark.parametrize("code", [10039, 10076])
async def test_an_account_without_it_has_none(fake_bus: FakeBus, jetstream: FakeJetStream, code: int) -> None:
    """The server has it, for others."""
    jetstream.refusal = Refusal(503, code, "not enabled")
    assert await find_absence(fake_bus) == NONE


@pytest.mark.parametrize("data", [b"", b"what?", b"[]"])
async def test_an_answer_of_somebody_else_is_no_reason_to_give_up(fake_bus: FakeBus, data: bytes) -> None:
    """What cannot be read is asked for again; what is no error is none."""
    await answer(fake_bus, "$JS.API.INFO", data)
    absence = await find_absence(fake_bus)
    assert absence is None if data == b"[]" else absence is not None and absence.passing


async def test_it_is_waited_for_and_that_is_said_once(
    fake_bus: FakeBus, jetstream: FakeJetStream, autojump_clock: MockClock
) -> None:
    """Silent, then without a leader, then there: one line in the log, and on it goes."""
    jetstream.silent = True
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(await_jetstream, fake_bus)
            await trio.sleep(60)
            jetstream.silent = False
            jetstream.refusal = UNAVAILABLE
            await trio.sleep(60)
            assert nursery.child_tasks
            jetstream.refusal = None
            await trio.sleep(5)
            assert not nursery.child_tasks
    assert [entry["event"] for entry in logs] == ["waiting for JetStream"]
    assert autojump_clock.current_time() > 120


@pytest.mark.parametrize(
    ("server", "passing"),
    [
        (b'{"server": {"ver": "2.15.1"}}', False),
        (b'{"server": {"ver": "2.15.1", "jetstream": true}}', True),
        (b'{"server": {"ver": "2.15.1", "cluster": "c"}}', True),
        (b"{}", True),
    ],
)
async def test_silence_is_judged_by_what_the_server_says_of_itself(
    fake_bus: FakeBus, jetstream: FakeJetStream, autojump_clock: MockClock, server: bytes, *, passing: bool
) -> None:
    """A server on its own that has none will not get one; in a cluster another one may have it."""
    jetstream.silent = True
    await answer(fake_bus, SUBJECT, server)
    absence = await find_absence(fake_bus)
    assert absence is not None
    assert absence.passing is passing
    assert autojump_clock.current_time() < 5


async def test_while_the_broker_is_away_nothing_is_concluded(
    fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Silence of a connection that is down is none of the server's."""
    fake_bus.disconnect()
    absence = await find_absence(fake_bus)
    assert absence is not None
    assert absence.passing
    assert autojump_clock.current_time() < 5


async def test_who_may_not_ask_is_told(fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """A refusal is no silence, and waiting does not cure it."""
    fake_bus.forbidden = {"$JS.API.>"}
    with pytest.raises(UnsupportedServer, match=r"let us publish on \$JS\.API\.INFO"):
        await await_jetstream(fake_bus)
    assert autojump_clock.current_time() < 5


async def test_a_server_says_what_it_is(fake_bus: FakeBus) -> None:
    """Name, version, cluster, and whether it has JetStream."""
    text = b'{"server": {"name": "n", "ver": "2.15.1", "cluster": "c", "jetstream": true}, "data": {}}'
    await answer(fake_bus, SUBJECT, text)
    assert await server_info(fake_bus) == ServerInfo("n", "2.15.1", "c", jetstream=True)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"server": 5}', b'{"data": {}}'])
async def test_what_is_no_server_s_answer_says_nothing(fake_bus: FakeBus, data: bytes) -> None:
    """Whatever else comes is taken for no answer."""
    await answer(fake_bus, SUBJECT, data)
    assert await server_info(fake_bus) is None


async def test_a_server_that_does_not_say_is_not_waited_for(
    fake_bus: FakeBus, jetstream: FakeJetStream, autojump_clock: MockClock
) -> None:
    """An older one, or one that does not let us ask."""
    assert await server_info(fake_bus) is None
    fake_bus.forbidden = {"$SYS.>"}
    assert await server_info(fake_bus) is None
    assert autojump_clock.current_time() < 3
    assert not jetstream.streams
