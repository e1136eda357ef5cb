"""Another JetStream that answers appends: found before ours is relied on, and while it is."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator

import pytest
import structlog
import trio
from support.accepting import accept, start
from support.durable import Broker
from support.fake_bus import Published
from support.fake_jetstream import FakeJetStream, _FakeBroker
from trio.testing import MockClock

from scheduler.errors import ForeignAnswer, StoreError
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.rivals import CURE, PROBE_SUBJECT, Rivals, find_rival
from scheduler.jetstream.streams import LOG, StreamLayout
from scheduler.stores.account_streams import AccountStreams
from scheduler.stores.jetstream import JetStreamStore


class Account:
    """An account with a JetStream of ours, and maybe one more that hears our appends."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.broker.jetstream.domain = "hub"
        self.bus = self.broker.bus
        self.js = JetStream(self.bus)

    def add_rival(self, name: str = LOG, domain: str = "leaf", *, faster: bool = True) -> None:
        """Have a stream of another JetStream on the subjects of the log."""
        other = FakeJetStream(_FakeBroker(self.bus))
        other.domain = domain
        config = {"name": name, "subjects": ["scheduler.log.*"]}
        other.take(Published(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode(), "", None))

        def take(message: Published) -> bool:
            return message.subject.startswith("scheduler.log.") and other.take(message)

        self.bus.taps.insert(0 if faster else len(self.bus.taps), take)

    def remove_rivals(self) -> None:
        """Have ours alone."""
        self.bus.taps[:] = [self.broker.line.take]


@pytest.fixture
async def account() -> Account:
    """One with streams of ours."""
    account = Account()
    await account.broker.set_up()
    return account


async def test_ours_alone_is_right(autojump_clock: MockClock, account: Account) -> None:
    """And the question leaves nothing behind."""
    await Rivals(account.js).check()
    assert await find_rival(account.js) == ""
    assert [one.subject for one in account.bus.published].count(PROBE_SUBJECT) == 2
    assert not account.broker.jetstream.streams[LOG].messages
    assert len(account.bus.subjects) == 0


@pytest.mark.parametrize("faster", [True, False])
async def test_two_that_answer_are_refused_with_the_cure(
    autojump_clock: MockClock, account: Account, faster: bool
) -> None:
    """Whichever is faster, and however alike they are."""
    account.add_rival(domain="hub", faster=faster)
    with pytest.raises(StoreError) as refused:
        await Rivals(account.js).check()
    assert str(refused.value) == (
        f"1 stream of another JetStream answers what is appended to scheduler.log.* (SCHEDULER_LOG); {CURE}"
    )


async def test_two_answers_once_are_a_leader_that_changes(
    autojump_clock: MockClock, account: Account
) -> None:
    """It is asked again before anything is said."""
    account.add_rival()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Rivals(account.js).check)
        await trio.sleep(0.2)
        account.remove_rivals()


async def test_nothing_is_made_where_another_one_answers(autojump_clock: MockClock) -> None:
    """Before the first start there are no streams of ours, so no answer is expected."""
    account = Account()
    account.add_rival("THEIRS")
    streams = AccountStreams(account.js, StreamLayout())
    await streams.look()
    with pytest.raises(StoreError, match=r"another JetStream answers.*\(THEIRS\)"):
        await streams.make()
    assert not account.broker.jetstream.streams


async def test_streams_are_made_where_nobody_answers(autojump_clock: MockClock) -> None:
    """A look that a standby process began long ago is begun again."""
    account = Account()
    streams = AccountStreams(account.js, StreamLayout())
    await streams.look()
    await trio.sleep(1000)
    await streams.make()
    assert LOG in account.broker.jetstream.streams
    assert [one.subject for one in account.bus.published].count(PROBE_SUBJECT) == 2


@pytest.mark.parametrize(("name", "domain"), [(LOG, "leaf"), (LOG, ""), ("THEIRS", "hub")])
async def test_a_foreign_acknowledgement_is_none(
    autojump_clock: MockClock, account: Account, name: str, domain: str
) -> None:
    """By its domain, or by its stream: nothing counts as stored, and nothing more is published then."""
    await Rivals(account.js).check()
    account.add_rival(name, domain)
    stored: list[int] = []
    with pytest.raises(ForeignAnswer, match=f"stream {name} of JetStream domain '{domain}' answers"):
        await account.js.publish("scheduler.log.b", b"1", stored=stored.append)
    assert not stored
    published = len(account.bus.published)
    with pytest.raises(Exception, match="was not sent"):
        await account.js.publish("scheduler.log.b", b"2")
    assert len(account.bus.published) == published


@pytest.fixture
async def store(account: Account) -> AsyncIterator[JetStreamStore]:
    """A store that watches for rivals."""
    store = JetStreamStore(account.bus, instance="me")
    streams = AccountStreams(store.js, StreamLayout())
    await streams.make()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        nursery.start_soon(streams.watch)
        yield store
        nursery.cancel_scope.cancel()


async def test_appends_are_suspended_while_another_one_answers(
    autojump_clock: MockClock, account: Account, store: JetStreamStore
) -> None:
    """What was stored is known by our own log; what follows waits, and is stored once."""
    with structlog.testing.capture_logs() as logs:
        await store.append("b1", [accept("b1")])
        account.add_rival()
        with trio.fail_after(5):
            await store.append("b1", [start("x")])
        await trio.sleep(70)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append, "b1", [start("y")])
            await trio.sleep(130)
            assert account.broker.told() == [["accepted"], ["started x"]]
            assert not store.available
            account.remove_rivals()
        assert account.broker.told() == [["accepted"], ["started x"], ["started y"]]
    said = [(line["log_level"], line["event"]) for line in logs]
    loud = ("error", "builds are suspended: another JetStream answers")
    assert 2 <= said.count(loud) <= 4
    assert ("warning", "no other JetStream answers any more: builds resume") in said
    assert store.available


async def test_an_append_that_another_one_acknowledged_is_read_back(
    autojump_clock: MockClock, account: Account, store: JetStreamStore
) -> None:
    """It is in our log, once; the next one waits from this very moment."""
    account.add_rival()
    with trio.fail_after(5):
        await store.append("b1", [accept("b1")])
    assert account.broker.told() == [["accepted"]]
    assert store.js.suspended
    with trio.move_on_after(100):
        await store.append("b1", [start("x")])
    assert account.broker.told() == [["accepted"]]


async def test_a_rival_without_a_domain_is_found_within_a_minute(
    autojump_clock: MockClock, account: Account, store: JetStreamStore
) -> None:
    """Its acknowledgements are as ours: only the question tells."""
    account.add_rival(domain="hub", faster=False)
    await trio.sleep(70)
    assert store.js.suspended


async def test_a_connection_to_another_domain_suspends_builds(
    autojump_clock: MockClock, account: Account, store: JetStreamStore
) -> None:
    """Among the servers to connect to there is one of another domain: our logs are not there."""
    account.bus.disconnect()
    account.broker.jetstream.domain = "leaf"
    account.bus.reconnect()
    await trio.sleep(0.1)
    assert "connected to JetStream domain 'leaf'" in store.js.suspended
    account.broker.jetstream.domain = "hub"
    await trio.sleep(10)
    assert not store.js.suspended


async def test_who_cannot_be_asked_is_asked_again(
    autojump_clock: MockClock, account: Account, store: JetStreamStore
) -> None:
    """Silence of JetStream says nothing of others, and ends nothing."""
    account.broker.jetstream.silent = True
    await trio.sleep(90)
    assert not store.js.suspended
    account.broker.jetstream.silent = False
    account.add_rival(domain="hub", faster=False)
    await trio.sleep(20)
    assert store.js.suspended
