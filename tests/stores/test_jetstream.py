"""The durable store as a whole: how builds begin, what rides along, what is found again, what ends it."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator

import pytest
import trio
from attrs import define
from msgspec.structs import replace
from support.accepting import accept, start
from support.durable import LOGS, Broker, Fate, flat, log_of, open_store, until, wall_clock
from support.fake_jetstream import UNAVAILABLE
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Outgoing
from scheduler.errors import (
    AlreadyLogged,
    Fenced,
    JetStreamUnavailable,
    LogMissing,
    LogRemoved,
    StoreError,
    UnreadableLog,
)
from scheduler.jetstream.streams import LOG
from scheduler.journal.events import (
    Finished,
    Loading,
    Released,
    Reported,
    Sent,
    Settled,
    Withdrawn,
)
from scheduler.journal.records import Elsewhere, Position, Status, encode_event
from scheduler.stores import DocumentStore, Store
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.log import ignore
from scheduler.stores.log_reader import Entry


def sent(name: str) -> Sent:
    return Sent(name, f"b1/{name}/1")


def settle(name: str, size: int = 0) -> Settled:
    return Settled(name, {"_component_id": name, "_state": "completed", "x": "x" * size})


@define
class Departing:
    """A request on its way out."""

    outgoing: Outgoing | None
    unheard: bool = False
    closed: bool = False
    reached: bool = False


def available(store: JetStreamStore) -> bool:
    """As things are now."""
    return store.available


@pytest.fixture
async def broker() -> Broker:
    broker = Broker()
    await broker.set_up()
    return broker


@pytest.fixture
async def store(broker: Broker) -> AsyncIterator[JetStreamStore]:
    async with open_store(broker) as store:
        yield store


async def test_what_it_is(broker: Broker) -> None:
    """It outlives processes, and a later event is never persisted earlier."""
    store: Store = JetStreamStore(broker.bus, instance="me")
    assert (store.name, store.resumable, store.in_order) == ("jetstream", True, True)


# ---- telling


async def test_what_is_appended_is_committed_on_return(broker: Broker, store: JetStreamStore) -> None:
    """Several at a time, in order."""
    await store.append("b1", [accept()])
    await store.append("b1", [start("a"), start("b")])
    assert broker.told() == [["accepted"], ["started a", "started b"]]


async def test_what_is_noted_is_committed_soon_and_before_what_is_appended(
    broker: Broker, store: JetStreamStore
) -> None:
    """An outcome need not be awaited: whatever follows from it cannot be persisted without it."""
    await store.append("b1", [accept()])
    store.journal("b1", ignore).record(settle("a"))
    await store.append("b1", [start("b")])
    assert broker.told() == [["accepted"], ["settled a", "started b"]]
    store.journal("b1", ignore).record(settle("b"))
    await wait_all_tasks_blocked()
    assert broker.told()[2:] == [["settled b"]]


async def test_what_is_kept_is_what_a_restart_needs(broker: Broker, store: JetStreamStore) -> None:
    """What can be told from the accepted build or the outcome itself is not written down again."""
    await store.append("b1", [accept()])
    body = {"_component_id": "a", "_state": "completed"}
    withdrawn, settled = Withdrawn("b", b'{"secret":1}'), Settled("a", body, upserts=(body,))
    await store.append("b1", [start("a"), withdrawn, settled])
    data = broker.messages(LOG)[1].data
    assert b"secret" not in data
    assert data.count(b'"_state"') == 1


async def test_builds_do_not_wait_for_one_another(broker: Broker, store: JetStreamStore) -> None:
    """An append that is under way holds up its own build only."""
    for build in ("b1", "b2"):
        await store.append(build, [accept(build)])
    broker.line.plan(log_of("b1"), Fate.HOLD)
    store.journal("b1", ignore).record(settle("a"))
    await store.append("b2", [start("a")])
    assert (broker.told("b1"), broker.told("b2")) == ([["accepted"]], [["accepted"], ["started a"]])


async def test_the_status_of_a_record_is_that_of_the_build_with_it(
    broker: Broker, store: JetStreamStore
) -> None:
    """Headers alone tell the status of a build."""
    await store.append("b1", [accept()])
    await store.append("b1", [settle("a"), Finished(None)])
    await store.append("b1", [Reported(1)])
    assert [one["Scheduler-Status"] for one in broker.headers()] == ["open", "finished", "reported"]


async def test_a_record_does_not_say_finished_before_it_is(autojump_clock: MockClock) -> None:
    """Outcomes that are cut into records of their own come first, and are of a build that is open."""
    broker = Broker()
    await broker.set_up()
    broker.bus.max_payload = 20_000
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        store.journal("b1", ignore).record(*(settle(name, 8_000) for name in "abc"))
        await store.append("b1", [Finished(None)])
        told = broker.told()
        assert len(told) > 2
        shown = [one["Scheduler-Status"] for one in broker.headers()]
        assert shown == ["finished" if "finished" in record else "open" for record in told]


async def test_a_build_that_was_not_begun_here_cannot_be_told_of(store: JetStreamStore) -> None:
    """It has no journal, and appending is an error: its log belongs to another process."""
    with pytest.raises(StoreError, match="b1"):
        await store.append("b1", [start("a")])
    with pytest.raises(StoreError, match="b1"):
        store.journal("b1", ignore)
    store.note_lazily("b1", Released())
    store.close("b1")


async def test_what_is_closed_is_written_no_more(broker: Broker, store: JetStreamStore) -> None:
    """Closing is for good, and may be done twice."""
    await store.append("b1", [accept()])
    journal = store.journal("b1", ignore)
    store.close("b1")
    store.close("b1")
    journal.record(settle("a"))
    journal.record(settle("b"), lazily=True)
    journal.record_sent(sent("a"), Departing(broker.bus.publish("vpc.create.a", b"{}")))
    with pytest.raises(StoreError, match="b1"):
        await journal.commit(settle("c"))
    with pytest.raises(StoreError, match="b1"):
        await store.append("b1", [start("a")])
    await store.settle()
    assert broker.told() == [["accepted"]]


async def test_it_gives_no_documents(store: JetStreamStore) -> None:
    """A log is not a document: builds are resumed from histories."""
    assert not isinstance(store, DocumentStore)


# ---- beginning


@pytest.mark.parametrize(("end", "status"), [([], "open"), ([Finished(None)], "finished")])
async def test_an_id_that_has_a_log_says_what_stands_there(
    broker: Broker, store: JetStreamStore, end: list[Finished], status: str
) -> None:
    """The digest of its content, and how far it is; nothing is written."""
    broker.write(accept(), digest="d7")
    broker.write(*end, Loading(), status=status)
    with pytest.raises(AlreadyLogged) as caught:
        await store.append("b1", [accept()])
    assert (caught.value.digest, caught.value.status) == ("d7", status)
    assert len(broker.records()) == 2
    with pytest.raises(StoreError):
        await store.append("b1", [start("a")])


async def test_a_log_that_cannot_be_read_is_a_log_all_the_same(broker: Broker, store: JetStreamStore) -> None:
    """Whatever stands there, the id is taken."""
    broker.publish(log_of("b1"), b"rubbish")
    with pytest.raises(AlreadyLogged) as caught:
        await store.append("b1", [accept()])
    assert (caught.value.digest, caught.value.status) == ("", "unreadable")


async def test_a_build_that_begins_twice_in_one_process(broker: Broker, store: JetStreamStore) -> None:
    """The second one finds the first, which is not disturbed by it."""
    await store.append("b1", [accept()])
    with pytest.raises(AlreadyLogged) as caught:
        await store.append("b1", [accept(digest="d2")])
    assert caught.value.digest == "d1"
    await store.append("b1", [start("a")])
    assert broker.told() == [["accepted"], ["started a"]]


async def test_two_that_begin_at_once(autojump_clock: MockClock, broker: Broker) -> None:
    """Of two processes one has the build, and the other one learns whose it is."""
    ends: list[str] = []
    async with open_store(broker, instance="one") as one, open_store(broker, instance="two") as two:

        async def begin(store: JetStreamStore, digest: str) -> None:
            try:
                await store.append("b1", [accept(digest=digest)])
            except AlreadyLogged as error:
                ends.append(error.digest)
            else:
                ends.append("mine")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin, one, "d1")
            nursery.start_soon(begin, two, "d2")
    [record] = broker.records()
    assert sorted(ends) == sorted(["mine", {"one": "d1", "two": "d2"}[record.instance]])


async def test_a_large_build_that_loses_the_race_leaves_nothing(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """What it had put elsewhere is removed; what the winner put there stays."""
    broker.bus.max_payload = 20_000
    async with open_store(broker) as store:
        broker.line.plan(LOGS, Fate.HOLD)
        ends: list[str] = []

        async def begin() -> None:
            with pytest.raises(AlreadyLogged):
                await store.append("b1", [accept(size=30_000)])
            ends.append("lost")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            await broker.line.reached(LOGS)
            await store.objects.put("scheduler.log.b1/winner", b"x")
            broker.write(Elsewhere("scheduler.log.b1/winner"))
            broker.line.release()
        assert ends == ["lost"]
        assert broker.objects == ["scheduler.log.b1/winner"]


async def test_a_log_that_is_written_on_is_ours(broker: Broker, store: JetStreamStore) -> None:
    """Behind its last record; the earlier writer is fenced when it continues."""
    broker.write(accept())
    [message] = broker.messages(LOG)
    store.open("b1", sequence=message.sequence, n=1, epoch=2)
    await store.append("b1", [Loading()])
    assert [(record.n, record.epoch, record.instance) for record in broker.records()] == [
        (1, 1, "other"),
        (2, 2, "me"),
    ]


# ---- what has left


async def depart(broker: Broker, store: JetStreamStore, name: str) -> Departing:
    departure = Departing(broker.bus.publish(f"vpc.create.{name}", b"{}", reply=f"scheduler.reply.{name}"))
    store.journal("b1", ignore).record_sent(sent(name), departure)
    await wait_all_tasks_blocked()
    return departure


async def test_without_company_what_left_is_noted_after_a_moment(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """A build that waits for replies has it in the log that its requests are out."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        departures = [await depart(broker, store, name) for name in "abc"]
        await trio.sleep(1)
        assert broker.told() == [["accepted"], ["sent a", "sent b", "sent c"]]
        assert all(one.reached for one in departures)
        await trio.sleep(100)
        assert len(broker.told()) == 2


async def test_a_moment_is_at_most_a_second(autojump_clock: MockClock, broker: Broker) -> None:
    """So much later at most the log knows."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        await trio.sleep(0.1)
        await depart(broker, store, "a")
        assert await until(lambda: len(broker.told()) > 1) < 1.0


async def test_what_nobody_heard_is_not_noted(autojump_clock: MockClock, broker: Broker) -> None:
    """Nor is what was answered or taken back meanwhile."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        for name, why in (("a", "unheard"), ("b", "closed")):
            setattr(await depart(broker, store, name), why, True)
        await trio.sleep(10)
        assert broker.told() == [["accepted"]]


async def test_what_was_written_to_a_lost_connection_is_not_noted(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """Whether it goes out again is decided elsewhere."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        departure = await depart(broker, store, "a")
        broker.bus.disconnect()
        broker.bus.reconnect()
        await trio.sleep(10)
        assert not departure.reached
        assert broker.told() == [["accepted"]]


async def test_what_waits_for_a_connection_is_noted_when_it_has_left(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """However long that takes."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        broker.bus.disconnect()
        await depart(broker, store, "a")
        await trio.sleep(60)
        assert broker.told() == [["accepted"]]
        broker.bus.reconnect()
        await trio.sleep(10)
        assert broker.told() == [["accepted"], ["sent a"]]


async def test_a_flush_that_is_not_answered_shows_nothing(autojump_clock: MockClock, broker: Broker) -> None:
    """Neither does one that is answered over another connection."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        departure = await depart(broker, store, "a")
        original = broker.bus.flush

        async def across() -> None:
            broker.bus.disconnect()
            broker.bus.reconnect()
            await original()

        broker.bus.flush = across  # type: ignore[method-assign]
        await trio.sleep(1)
        broker.bus.flush = original  # type: ignore[method-assign]
        await trio.sleep(10)
        assert not departure.reached
        assert broker.told() == [["accepted"]]


async def test_all_that_was_told_can_be_committed(autojump_clock: MockClock, broker: Broker) -> None:
    """Before it leaves a process writes down what waits for company, and what has just left."""
    async with open_store(broker) as store:
        for build in ("b1", "b2"):
            await store.append(build, [accept(build)])
        await depart(broker, store, "a")
        store.journal("b2", ignore).record(settle("z"))
        await store.settle()
        assert broker.told("b1")[-1] == ["sent a"]
        assert broker.told("b2")[-1] == ["settled z"]


async def test_one_build_that_is_lost_keeps_no_other_from_being_committed(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """Nor does it make `settle` raise."""
    async with open_store(broker) as store:
        for build in ("b1", "b2"):
            await store.append(build, [accept(build)])
        broker.write(Loading(), epoch=2)
        for build in ("b1", "b2"):
            store.journal(build, ignore).record(settle("z"))
        await store.settle()
        assert broker.told("b2")[-1] == ["settled z"]


# ---- trouble


async def test_it_is_available_while_commits_go_through(autojump_clock: MockClock, broker: Broker) -> None:
    """While an append is tried again and again it is not; it is once all have gone through."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        assert available(store)
        broker.jetstream.no_room = True
        store.journal("b1", ignore).record(settle("a"))
        await trio.sleep(30)
        assert not available(store)
        broker.jetstream.no_room = False
        await trio.sleep(3)
        assert available(store)
        assert flat(broker.told()) == ["accepted", "settled a"]


async def test_a_fence_after_trouble_is_no_trouble(autojump_clock: MockClock, broker: Broker) -> None:
    """A lost build does not keep the clock of others standing still."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        broker.line.plan(LOGS, Fate.MUTE)
        store.journal("b1", ignore).record(settle("a"))
        await trio.sleep(1)
        broker.write(Loading(), epoch=2)
        await trio.sleep(30)
        with pytest.raises(Fenced):
            await store.append("b1", [start("b")])
        assert available(store)


async def test_commits_are_measured(autojump_clock: MockClock, broker: Broker) -> None:
    """How many there are, of which size, how long they take, and how often one had to be repeated."""
    async with open_store(broker) as store:
        tally = store.health.tally
        await store.append("b1", [accept()])
        await store.append("b1", [start("a")])
        seconds, sizes = tally.seconds.copy(), tally.sizes.copy()
        assert (seconds.total, sizes.total, tally.retries, tally.conflicts) == (2, 2, 0, 0)
        assert sizes.sum == sum(len(one.data) for one in broker.messages(LOG, log_of("b1")))
        broker.jetstream.no_room = True
        store.journal("b1", ignore).record(settle("a"))
        await trio.sleep(10)
        broker.jetstream.no_room = False
        await trio.sleep(3)
        assert tally.retries > 5
        assert tally.seconds.copy().total == 3
        assert tally.seconds.copy().sum >= seconds.sum + 10
        assert tally.document()["count"] == 3


async def test_a_conflict_is_a_log_that_another_process_has_written(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """A build that is submitted again is none."""
    broker.write(accept(), digest="d7")
    async with open_store(broker) as store:
        with pytest.raises(AlreadyLogged):
            await store.append("b1", [accept()])
        assert store.health.tally.conflicts == 0
        await store.append("b2", [accept("b2")])
        broker.write(Loading(), build="b2", epoch=2)
        with pytest.raises(Fenced):
            await store.append("b2", [start("b")])
        assert store.health.tally.conflicts == 1


async def test_a_question_that_was_answered_in_the_end_is_no_trouble(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """A second submission during trouble leaves none behind."""
    broker.write(accept(), digest="d7")
    async with open_store(broker) as store, trio.open_nursery() as nursery:
        broker.jetstream.refusal = UNAVAILABLE

        async def begin() -> None:
            with pytest.raises(AlreadyLogged, match="log"):
                await store.append("b1", [accept()])

        nursery.start_soon(begin)
        await trio.sleep(5)
        assert not available(store)
        broker.jetstream.refusal = None
        await trio.sleep(5)
        assert available(store)


async def test_a_missing_stream_ends_the_store(autojump_clock: MockClock, broker: Broker) -> None:
    """It is never silently made again: the process ends, and says why."""
    with pytest.RaisesGroup(LogMissing, flatten_subgroups=True):
        async with open_store(broker) as store:
            await store.append("b1", [accept()])
            await store.js.call(f"STREAM.DELETE.{LOG}")
            store.journal("b1", ignore).record(settle("a"))
            await trio.sleep(60)
    assert LOG not in broker.jetstream.streams


async def test_a_purge_while_it_runs_ends_what_is_written(broker: Broker, store: JetStreamStore) -> None:
    """Where one build's log is removed by hand no other build is concerned."""
    for build in ("b1", "b2"):
        await store.append(build, [accept(build)])
    await store.js.purge(LOG, log_of("b1"))
    with pytest.raises(LogRemoved):
        await store.append("b1", [start("a")])
    await store.append("b2", [start("a")])
    assert broker.told("b2") == [["accepted"], ["started a"]]


async def test_a_failure_of_what_was_noted_is_told(broker: Broker, store: JetStreamStore) -> None:
    """The caller gets the error, since nothing can ever be appended again."""
    told: list[str] = []
    await store.append("b1", [accept()])
    journal = store.journal("b1", lambda error: told.append(type(error).__name__))
    broker.write(Loading(), epoch=2)
    journal.record(settle("a"))
    await wait_all_tasks_blocked()
    assert told == ["Fenced"]


async def test_a_build_that_only_waits_keeps_up_with_the_replies(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """From time to time its position is written down, if much was captured for others."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        await trio.sleep(100)
        assert broker.told() == [["accepted"]]
        store.positions.seen = Position(50_000, 1)
        await trio.sleep(100)
        assert broker.told() == [["accepted"], []]
        assert broker.positions() == [0, 50_000]


# ---- reading back


async def entries(store: JetStreamStore) -> dict[str, Entry]:
    return {entry.subject: entry async for batch in store.logs.entries() for entry in batch}


async def test_every_log_is_found_by_its_last_record(broker: Broker, store: JetStreamStore) -> None:
    """With its headings, the number of that record, and its time; without reading any of them."""
    for number in range(3):
        await store.append(f"b{number}", [accept(f"b{number}")])
    await store.append("b1", [settle("a"), Finished(None)])
    broker.publish("scheduler.log.strange", b"rubbish")
    assert sum([len(batch) async for batch in store.logs.entries()]) == 4
    found = await entries(store)
    [*_, create] = [one for one in broker.line.passed if ".CONSUMER.CREATE." in one.subject]
    assert json.loads(create.data)["config"]["headers_only"]
    assert set(found) == {log_of("b0"), log_of("b1"), log_of("b2"), "scheduler.log.strange"}
    headings = found[log_of("b1")].headings
    assert not isinstance(headings, UnreadableLog)
    assert (headings.status, headings.loads) == (Status.FINISHED, 0)
    assert found[log_of("b1")].sequence == broker.messages(LOG, log_of("b1"))[-1].sequence
    assert abs(found[log_of("b1")].time / 1e9 - wall_clock()) < 5
    assert isinstance(found["scheduler.log.strange"].headings, UnreadableLog)


async def test_an_empty_stream_has_no_logs(store: JetStreamStore) -> None:
    """Nor has one whose logs were removed."""
    assert await entries(store) == {}
    await store.append("b1", [accept()])
    await store.js.purge(LOG, log_of("b1"))
    assert await entries(store) == {}


async def test_entries_of_a_silent_server_are_unavailable(autojump_clock: MockClock, broker: Broker) -> None:
    """To be asked again, and never half of them."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        broker.jetstream.silent = True
        with pytest.raises(JetStreamUnavailable):
            await entries(store)


async def test_a_history_is_what_was_told(broker: Broker, store: JetStreamStore) -> None:
    """All of it, in order, and of this build only."""
    await store.append("b1", [accept()])
    await store.append("b2", [accept("b2")])
    await store.append("b1", [start("a"), start("b")])
    await store.append("b1", [sent("a"), settle("a")])
    history = await store.logs.history(log_of("b1"))
    assert [type(step).__name__ for step in history.steps] == [
        "Accepted",
        *["Started"] * 2,
        "Sent",
        "Settled",
    ]
    assert list(history.in_flight) == ["b"]
    assert (history.n, history.status) == (3, Status.OPEN)


async def test_a_history_has_what_was_put_elsewhere(autojump_clock: MockClock, broker: Broker) -> None:
    """In its place, as it was told."""
    broker.bus.max_payload = 20_000
    async with open_store(broker) as store:
        await store.append("b1", [accept(size=20_000)])
        await store.append("b1", [start("a"), start("b")])
        await store.append("b1", [settle("a"), settle("b", 30_000)])
        assert flat(broker.told()).count("elsewhere") == 2
        history = await store.logs.history(log_of("b1"))
        [outcome] = [step for step in history.steps if step == settle("b", 30_000)]
        assert encode_event(replace(outcome, time=None)) == encode_event(settle("b", 30_000))
        assert history.accepted is not None
        assert len(bytes(history.accepted.document["x"])) == 20_002
        assert [type(step).__name__ for step in history.steps[-2:]] == ["Settled", "Settled"]


async def test_a_history_of_many_records(autojump_clock: MockClock, broker: Broker) -> None:
    """More than are read at a time."""
    async with open_store(broker) as store:
        await store.append("b1", [accept()])
        for _ in range(1_200):
            broker.write(Loading(), Released())
        assert (await store.logs.history(log_of("b1"))).n == 1_201


async def test_a_history_with_a_hole_cannot_be_read(broker: Broker, store: JetStreamStore) -> None:
    """Half a log is worse than none."""
    await store.append("b1", [accept()])
    await store.append("b1", [start("a")])
    await store.append("b1", [settle("a")])
    message = broker.messages(LOG)[1]
    await store.js.call(f"STREAM.MSG.DELETE.{LOG}", {"seq": message.sequence})
    with pytest.raises(UnreadableLog):
        await store.logs.history(log_of("b1"))


async def test_a_history_without_its_objects_cannot_be_read(
    autojump_clock: MockClock, broker: Broker
) -> None:
    """An event that is gone is not passed over."""
    broker.bus.max_payload = 20_000
    async with open_store(broker) as store:
        await store.append("b1", [accept(size=20_000)])
        await store.objects.delete(broker.objects[0])
        with pytest.raises(UnreadableLog, match="is gone"):
            await store.logs.history(log_of("b1"))


async def test_no_history(store: JetStreamStore) -> None:
    """A log without records says nothing."""
    history = await store.logs.history(log_of("b1"))
    assert (history.n, history.accepted) == (0, None)


async def test_what_cannot_be_decoded_leaves_nothing_open(broker: Broker, store: JetStreamStore) -> None:
    """A caller that gives up on a log has stopped reading it."""
    await store.append("b1", [accept()])
    broker.publish(log_of("b1"), b"{}")
    before = len(broker.bus.subjects)
    with pytest.raises(UnreadableLog):
        await store.logs.history(log_of("b1"))
    await wait_all_tasks_blocked()
    assert len(broker.bus.subjects) == before
    assert broker.jetstream.streams[LOG].consumers == {}
