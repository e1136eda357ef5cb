"""The log of one build: group commit, compare-and-set, what is ambiguous, and what a record says."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define
from msgspec.structs import replace
from support.durable import LOGS, Broker, Fate, flat, log_of, stored, until, wall_clock, word
from support.fake_jetstream import UNAVAILABLE
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Outgoing
from scheduler.errors import AlreadyLogged, Fenced, LogMissing, LogRemoved, StoreError
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import LOG, OBJECTS
from scheduler.journal.events import Accepted, Event, Loading, Sent, Settled, Started
from scheduler.journal.records import (
    DIGEST_HEADER,
    Elsewhere,
    Position,
    Status,
    decode_event,
    encode_event,
)
from scheduler.stores.commit_health import CommitHealth
from scheduler.stores.log import BuildLog, LogContext

ACCEPTED = Accepted({"id": "b1"}, "d1")
LAST = "$JS.API.STREAM.MSG.GET.SCHEDULER_LOG"
ROOM = 8 * 1024
"""Of a message, what is not for the events of its record."""


def start(name: str) -> Started:
    return Started(name, f"b1/{name}/1", b"{}")


def settle(name: str, size: int = 0) -> Settled:
    return Settled(name, {"_component_id": name, "_state": "completed", "x": "x" * size})


def sent(name: str) -> Sent:
    return Sent(name, f"b1/{name}/1")


@define
class Departing:
    """A request on its way out, as a call of `dispatch.client.ConnectorClient` is."""

    outgoing: Outgoing | None
    unheard: bool = False
    closed: bool = False
    reached: bool = False


def reached(departure: Departing) -> bool:
    """Whether it is known by now to have left."""
    return departure.reached


class Bench:
    """One log on a JetStream in memory."""

    def __init__(self, broker: Broker, nursery: trio.Nursery, record_bytes: int) -> None:
        self.broker = broker
        self.line = broker.line
        self.bus = broker.bus
        self.nursery = nursery
        self.bus.max_payload = record_bytes + ROOM
        self.health = CommitHealth(600)
        self.position = Position()
        self.writing = 0
        """How many tasks write."""
        js = JetStream(broker.bus)
        self.desk = LogContext(
            bus=broker.bus,
            js=js,
            objects=Objects(js),
            health=self.health,
            instance="me",
            position=lambda _: self.position,
            wall_clock=wall_clock,
            start=self._start,
        )
        self.log = BuildLog("b1", self.desk)
        self.log.beside = {DIGEST_HEADER: "d1"}

    def _start(self, log: BuildLog) -> None:
        async def write() -> None:
            self.writing += 1
            assert self.writing == 1
            await log.write()
            self.writing -= 1

        self.nursery.start_soon(write)

    def put(self, *events: Event) -> None:
        """Tell the log, and don't wait."""
        self.log.put(map(encode_event, events))

    def watch(self, action: Callable[[], Any]) -> list[str]:
        """Await something beside everything else; how it ended is in the list then."""
        ends: list[str] = []

        async def run() -> None:
            try:
                await action()
            except StoreError as error:
                ends.append(type(error).__name__)
            else:
                ends.append("done")

        self.nursery.start_soon(run)
        return ends

    def depart(self, name: str, *, note: bool = True) -> Departing:
        """Send a request, and have that noted."""
        departure = Departing(self.bus.publish(f"vpc.create.{name}", b"{}", reply=f"scheduler.reply.{name}"))
        if note:
            self.log.note_sent(sent(name), departure)
        return departure

    def is_fine(self) -> bool:
        """Whether commits go through."""
        return self.health.good

    def reconnect(self) -> None:
        """The connection is lost, and there is another one."""
        self.bus.disconnect()
        self.broker.jetstream.restart()
        self.bus.reconnect()

    @property
    def told(self) -> list[list[str]]:
        return self.broker.told()

    @property
    def appends(self) -> list[tuple[bytes, str]]:
        """The records that arrived, stored or not: their bytes, and the sequence that they expected."""
        passed = [one for one in self.line.passed if one.subject == log_of("b1")]
        return [(one.data, (one.headers or {})["Nats-Expected-Last-Subject-Sequence"]) for one in passed]


@asynccontextmanager
async def open_bench(record_bytes: int = 100_000) -> AsyncIterator[Bench]:
    broker = Broker()
    await broker.set_up()
    async with trio.open_nursery() as nursery:
        yield Bench(broker, nursery, record_bytes)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as bench:
        yield bench


@pytest.fixture
async def begun(bench: Bench) -> Bench:
    """A bench whose build is accepted."""
    await bench.log.append(ACCEPTED)
    return bench


# ---- group commit


async def test_an_idle_log_commits_at_once(begun: Bench) -> None:
    """An event for an idle log is a record, and stored when `append` returns."""
    await begun.log.append(start("a"))
    assert begun.told == [["accepted"], ["started a"]]


async def test_what_is_put_while_an_append_is_in_flight_rides_in_the_next_record(begun: Bench) -> None:
    """One append is under way at a time; whatever came meanwhile is the next record, in its order."""
    begun.line.plan(LOGS, Fate.HOLD)
    begun.put(start("a"))
    await wait_all_tasks_blocked()
    for event in (settle("a"), start("b"), start("c")):
        begun.put(event)
        await wait_all_tasks_blocked()
    assert begun.told == [["accepted"]]
    assert len(begun.line.held) == 1
    begun.line.release()
    await wait_all_tasks_blocked()
    assert begun.told == [["accepted"], ["started a"], ["settled a", "started b", "started c"]]


async def test_what_is_put_in_one_breath_shares_a_record(begun: Bench) -> None:
    """An outcome and the start of what waited for it, put by the task that it woke, are one commit."""
    settled = trio.Event()

    async def dependent() -> None:
        await settled.wait()
        await begun.log.append(start("b"))

    begun.nursery.start_soon(dependent)
    await wait_all_tasks_blocked()
    begun.put(settle("a"))
    settled.set()
    await wait_all_tasks_blocked()
    assert begun.told == [["accepted"], ["settled a", "started b"]]


async def test_a_commit_waits_for_what_was_put_before_and_for_nothing_else(begun: Bench) -> None:
    """Each waiting task continues with the record that holds its own events."""
    begun.line.plan(LOGS, Fate.HOLD, Fate.HOLD)
    first = begun.watch(lambda: begun.log.append(start("a")))
    await wait_all_tasks_blocked()
    second = begun.watch(lambda: begun.log.append(start("b")))
    await wait_all_tasks_blocked()
    begun.line.release()
    await wait_all_tasks_blocked()
    assert (first, second) == (["done"], [])
    begun.line.release()
    await wait_all_tasks_blocked()
    assert (first, second) == (["done"], ["done"])


async def test_a_commit_of_nothing_returns(begun: Bench) -> None:
    """Where everything is committed there is nothing to wait for."""
    await begun.log.commit()
    assert begun.told == [["accepted"]]


async def test_who_stops_waiting_takes_nothing_back(begun: Bench) -> None:
    """Queued events are committed, and others continue, whether or not a task still waits for it."""
    begun.line.plan(LOGS, Fate.HOLD)
    with trio.CancelScope() as scope:
        begun.nursery.start_soon(_cancel_soon, scope)
        await begun.log.append(start("a"))
    other = begun.watch(lambda: begun.log.append(start("b")))
    await wait_all_tasks_blocked()
    begun.line.release()
    await wait_all_tasks_blocked()
    assert flat(begun.told) == ["accepted", "started a", "started b"]
    assert other == ["done"]


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_record_says_who_wrote_it_and_when(autojump_clock: MockClock) -> None:
    """Records count up; each names its writer, its clock, how often the build was taken up, and itself."""
    async with open_bench() as bench:
        log = bench.log
        await log.append(ACCEPTED)
        await trio.sleep(100)
        await log.append(start("a"))
        records = bench.broker.records()
        assert [record.n for record in records] == [1, 2]
        assert {(record.epoch, record.instance) for record in records} == {(1, "me")}
        assert records[1].at - records[0].at == 100_000
        assert len({record.record_id for record in records}) == 2
        assert [one["Scheduler-Record"] for one in bench.broker.headers()] == [
            record.record_id for record in records
        ]


async def test_the_headers_say_how_far_the_build_is(begun: Bench) -> None:
    """Status and loads are those of the moment; the content's digest stands beside the first record."""
    begun.log.loads = 2
    await begun.log.append(Loading())
    begun.log.loads, begun.log.status = 0, Status.FINISHED
    await begun.log.append(start("a"))
    shown = [
        (one["Scheduler-Status"], one["Scheduler-Loads"], one.get("Scheduler-Digest"))
        for one in begun.broker.headers()
    ]
    assert shown == [("open", "0", "d1"), ("open", "2", None), ("finished", "0", None)]


async def test_a_log_that_is_written_on_goes_on_counting(begun: Bench) -> None:
    """A later process writes behind the last record, under its own epoch, without a digest."""
    [message] = begun.broker.messages(LOG)
    log = BuildLog("b1", begun.desk, sequence=message.sequence, n=1, epoch=7)
    await log.append(Loading())
    [_, record] = begun.broker.records()
    assert (record.n, record.epoch) == (2, 7)
    assert "Scheduler-Digest" not in begun.broker.headers()[1]


async def test_logs_of_other_builds_are_no_matter(begun: Bench) -> None:
    """The sequence that an append expects is that of its own subject."""
    begun.broker.write(ACCEPTED, build="b2")
    await begun.log.append(start("a"))
    assert begun.told == [["accepted"], ["started a"]]
    assert [expected for _, expected in begun.appends] == ["0", "1"]


# ---- appends whose end is not known


async def test_stored_and_the_answer_lost(autojump_clock: MockClock) -> None:
    """A record that is read back as ours is stored, and not sent again."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, Fate.MUTE)
        await bench.log.append(start("a"))
        await bench.log.append(start("b"))
        assert bench.told == [["accepted"], ["started a"], ["started b"]]
        assert len(bench.appends) == 3


async def test_lost_before_it_was_stored(autojump_clock: MockClock) -> None:
    """Where nothing is found the identical bytes go out again, expecting the same last record."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        lost = []
        bench.line.plan(LOGS, Fate.HOLD, Fate.HOLD)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await trio.sleep(12)
        lost, bench.line.held = bench.line.held, []
        bench.put(start("b"))
        await trio.sleep(10)
        assert ends == ["done"]
        assert bench.told == [["accepted"], ["started a"], ["started b"]]
        assert [(one.data, one.headers) for one in lost] == [
            (one.data, one.headers) for one in bench.line.passed if one.data == lost[0].data
        ] * 2


async def test_the_first_append_lost(autojump_clock: MockClock) -> None:
    """A log that does not exist yet is begun once, although the first copy of its record was lost."""
    async with open_bench() as bench:
        bench.line.plan(LOGS, Fate.LOSE, Fate.MUTE)
        await bench.log.append(ACCEPTED)
        assert bench.told == [["accepted"]]


async def test_a_first_copy_that_comes_after_the_second_is_refused(autojump_clock: MockClock) -> None:
    """Of all copies of a record one is stored, however late another one arrives."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, Fate.HOLD)
        await bench.log.append(start("a"))
        await bench.log.append(start("b"))
        bench.line.release()
        await wait_all_tasks_blocked()
        await bench.log.append(start("c"))
        assert bench.told == [["accepted"], ["started a"], ["started b"], ["started c"]]


async def test_a_copy_is_refused_long_after_the_servers_memory_for_duplicates(
    autojump_clock: MockClock,
) -> None:
    """Ten minutes later a copy is no less a copy."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, Fate.HOLD)
        await bench.log.append(start("a"))
        await trio.sleep(600)
        bench.line.release()
        assert bench.told == [["accepted"], ["started a"]]


async def test_a_first_copy_that_comes_between_the_look_and_the_second(autojump_clock: MockClock) -> None:
    """The second copy is refused with a wrong last sequence then; the record that stands there is ours."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, Fate.HOLD, Fate.HOLD)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await trio.sleep(7)
        first, second = bench.line.held
        assert first.data == second.data
        bench.line.release()
        await trio.sleep(1)
        assert ends == ["done"]
        await bench.log.append(start("b"))
        assert bench.told == [["accepted"], ["started a"], ["started b"]]


@pytest.mark.parametrize("fate", [Fate.MUTE, Fate.LOSE])
async def test_a_lost_connection_is_reason_enough_to_look(autojump_clock: MockClock, fate: Fate) -> None:
    """What was asked over a connection that is gone is looked for as soon as there is another one."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, fate)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await trio.sleep(1)
        bench.reconnect()
        assert await until(lambda: ends) < 0.5
        assert bench.told == [["accepted"], ["started a"]]


async def test_a_look_that_was_lost_with_a_connection_is_taken_again_at_once(
    autojump_clock: MockClock,
) -> None:
    """Work resumes within three seconds of the broker's return, whatever was under way when it went."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, Fate.LOSE)
        bench.line.plan(LAST, Fate.LOSE)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await trio.sleep(5.5)
        bench.reconnect()
        assert await until(lambda: ends) < 3.0


async def test_an_outage_of_any_length_costs_nothing(autojump_clock: MockClock) -> None:
    """Events from the time without a broker are committed once it is back, in order and once."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.bus.disconnect()
        bench.put(start("a"))
        await trio.sleep(60)
        bench.put(start("b"))
        ends = bench.watch(bench.log.commit)
        await trio.sleep(3_600)
        assert ends == []
        bench.bus.reconnect()
        await trio.sleep(3)
        assert ends == ["done"]
        assert flat(bench.told) == ["accepted", "started a", "started b"]


@pytest.mark.parametrize("trouble", ["silent", "no_room", "refusal"])
async def test_without_a_quorum_or_room_it_tries_again(autojump_clock: MockClock, trouble: str) -> None:
    """A JetStream that is silent, full or says not now fails nothing; it works on within three seconds."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        setattr(bench.broker.jetstream, trouble, UNAVAILABLE if trouble == "refusal" else True)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await trio.sleep(100)
        assert ends == []
        assert not bench.is_fine()
        setattr(bench.broker.jetstream, trouble, None if trouble == "refusal" else False)
        await trio.sleep(3 if trouble != "silent" else 6)
        assert ends == ["done"]
        assert bench.is_fine()
        assert bench.told == [["accepted"], ["started a"]]


async def test_a_closed_bus_ends_the_log(bench: Bench) -> None:
    """Without a bus nothing can be written any more, and waiting tasks get the error."""
    bench.line.plan(LOGS, Fate.HOLD)
    ends = bench.watch(lambda: bench.log.append(ACCEPTED))
    await wait_all_tasks_blocked()
    bench.bus.close()
    await wait_all_tasks_blocked()
    assert ends == ["StoreError"]


async def test_a_fault_of_ours_ends_one_log(bench: Bench) -> None:
    """A bug in writing is raised in the waiting tasks, and goes no further."""

    def broken(_: str) -> Position:
        raise ZeroDivisionError

    position, bench.desk.position = bench.desk.position, broken
    with pytest.raises(StoreError, match="internal error in the scheduler"):
        await bench.log.append(ACCEPTED)
    bench.desk.position = position
    await BuildLog("b2", bench.desk).append(ACCEPTED)


# ---- other writers


async def test_a_foreign_record_fences(begun: Bench) -> None:
    """A writer that finds another one's record behind its own has lost the build, and writes nothing more."""
    begun.broker.write(Loading(), epoch=2)
    with pytest.raises(Fenced, match="other-2-2"):
        await begun.log.append(start("a"))
    before = len(begun.line.passed)
    begun.put(start("b"))
    with pytest.raises(Fenced):
        await begun.log.append(start("c"))
    begun.depart("d")
    assert not begun.log.flush()
    begun.log.keep_up(0)
    with pytest.raises(Fenced):
        await begun.log.commit_all()
    await wait_all_tasks_blocked()
    assert [one.subject for one in begun.line.passed[before:]] == ["vpc.create.d"]
    assert begun.told == [["accepted"], ["loading"]]


async def test_who_wants_to_know_is_told_of_a_failure(begun: Bench) -> None:
    """A failure of noted events must not wait for the next task that waits."""
    told: list[str] = []
    begun.log.on_failure = lambda error: told.append(type(error).__name__)
    begun.broker.write(Loading(), epoch=2)
    begun.put(settle("a"))
    await wait_all_tasks_blocked()
    assert told == ["Fenced"]


async def test_everybody_who_waits_hears_of_a_fence(begun: Bench) -> None:
    """Not only the one whose record was refused."""
    begun.line.plan(LOGS, Fate.HOLD)
    ends = []
    for name in "abc":
        ends.append(begun.watch(partial(begun.log.append, start(name))))
        await wait_all_tasks_blocked()
    begun.broker.write(Loading(), epoch=2)
    begun.line.release()
    await wait_all_tasks_blocked()
    assert ends == [["Fenced"]] * 3
    assert begun.told == [["accepted"], ["loading"]]


async def test_a_record_of_ours_with_a_foreign_one_behind_it(autojump_clock: MockClock) -> None:
    """Although ours was stored, the process that has taken the build over has it."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, Fate.MUTE)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await wait_all_tasks_blocked()
        bench.broker.write(Loading(), epoch=2)
        await trio.sleep(10)
        assert ends == ["Fenced"]
        assert bench.told == [["accepted"], ["started a"], ["loading"]]


async def test_a_paused_writer_is_fenced_when_it_wakes(autojump_clock: MockClock) -> None:
    """A record that was under way while another process took the build over is refused."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan(LOGS, Fate.HOLD)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await wait_all_tasks_blocked()
        bench.broker.write(Loading(), epoch=2)
        bench.broker.write(start("a"), epoch=2)
        bench.line.release()
        await trio.sleep(10)
        assert ends == ["Fenced"]
        assert flat(bench.told) == ["accepted", "loading", "started a"]


@pytest.mark.parametrize("fate", [Fate.PASS, Fate.LOSE])
async def test_a_log_that_exists_is_not_begun(autojump_clock: MockClock, fate: Fate) -> None:
    """The first record finds another one there: that is said, and is no fence."""
    async with open_bench() as bench:
        bench.broker.write(ACCEPTED)
        bench.line.plan(LOGS, fate)
        with pytest.raises(AlreadyLogged):
            await bench.log.append(ACCEPTED)
        assert bench.told == [["accepted"]]


async def test_a_log_that_is_removed_by_hand_is_told_from_one_of_another_process(begun: Bench) -> None:
    """An operator purged it: nothing is written any more, and no other process has the build."""
    await begun.desk.js.purge(LOG, log_of("b1"))
    with pytest.raises(LogRemoved, match="removed"):
        await begun.log.append(start("a"))
    assert begun.told == []


async def test_a_log_that_was_removed_and_begun_anew_fences(begun: Bench) -> None:
    """Another build under the same id is not ours."""
    await begun.desk.js.purge(LOG, log_of("b1"))
    begun.broker.write(ACCEPTED)
    with pytest.raises(Fenced):
        await begun.log.append(start("a"))
    assert begun.told == [["accepted"]]


async def test_a_stream_that_is_gone_is_fatal(autojump_clock: MockClock) -> None:
    """Where the server knows no such stream for seconds, that ends the process, and not just this build."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        await bench.desk.js.call(f"STREAM.DELETE.{LOG}")
        bench.put(start("a"))
        with trio.fail_after(3), pytest.raises(trio.TooSlowError):
            with trio.fail_after(2):
                await bench.health.watch()
        with trio.fail_after(10), pytest.raises(LogMissing):
            await bench.health.watch()


async def test_a_stream_that_comes_late_is_not_missing(autojump_clock: MockClock) -> None:
    """A server that has just started may not know its streams yet."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        stream = bench.broker.jetstream.streams.pop(LOG)
        ends = bench.watch(lambda: bench.log.append(start("a")))
        await trio.sleep(2.5)
        bench.broker.jetstream.streams[LOG] = stream
        await trio.sleep(3)
        assert ends == ["done"]
        with trio.move_on_after(5):
            await bench.health.watch()


# ---- large things


async def test_what_does_not_fit_into_one_record_goes_into_several(autojump_clock: MockClock) -> None:
    """Events are cut into records of a bounded size, in order, none lost and none twice."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        names = [f"c{number}" for number in range(40)]
        await bench.log.append(*(settle(name, 900) for name in names))
        assert flat(bench.told) == ["accepted", *(f"settled {name}" for name in names)]
        assert 5 <= len(bench.told) <= 7
        sizes = [len(one.data) for one in bench.broker.messages(LOG)]
        assert max(sizes) <= 10_000 + 1_000


async def test_an_event_that_is_larger_than_a_record_is_put_elsewhere(autojump_clock: MockClock) -> None:
    """It becomes an object, and its place in the log says where; the order stays as it was told."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        large = settle("b", 300_000)
        await bench.log.append(settle("a"), large, settle("c"))
        assert flat(bench.told) == ["accepted", "settled a", "elsewhere", "settled c"]
        [name] = bench.broker.objects
        assert name.startswith(f"{log_of('b1')}/")
        assert Elsewhere(name) in [event for record in bench.broker.records() for event in record.events]
        content = await stored(bench.broker, name)
        assert content is not None
        found = decode_event(content)
        assert isinstance(found, Settled)
        assert encode_event(replace(found, time=None)) == encode_event(large)


async def test_what_stands_before_a_large_event_does_not_wait_for_it(autojump_clock: MockClock) -> None:
    """Putting it elsewhere may take long; what was told before is committed meanwhile."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        bench.line.plan("$O.>", *[Fate.LOSE] * 100)
        bench.put(settle("a"), settle("b", 300_000))
        await trio.sleep(20)
        assert bench.told == [["accepted"], ["settled a"]]


async def test_several_large_events_have_objects_of_their_own(autojump_clock: MockClock) -> None:
    """Each is found under its own name."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        await bench.log.append(*(settle(name, 20_000) for name in "abc"))
        objects = [name for record in bench.broker.records() for name in record.objects]
        assert sorted(objects) == sorted(bench.broker.objects)
        contents = [decode_event(await stored(bench.broker, name) or b"") for name in objects]
        assert [word(event) for event in contents] == ["settled a", "settled b", "settled c"]


async def test_an_object_that_cannot_be_put_yet_is_waited_for(autojump_clock: MockClock) -> None:
    """Nothing is committed in its place, and what comes after it waits."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        bench.broker.jetstream.no_room = True
        ends = bench.watch(lambda: bench.log.append(settle("a", 20_000), settle("b")))
        await trio.sleep(60)
        assert ends == []
        assert bench.told == [["accepted"]]
        assert not bench.is_fine()
        bench.broker.jetstream.no_room = False
        await trio.sleep(8)
        assert flat(bench.told) == ["accepted", "elsewhere", "settled b"]


async def test_a_record_always_fits_into_a_message(autojump_clock: MockClock) -> None:
    """However much rides along with a large event, the record is within what the server takes."""
    async with open_bench(record_bytes=1024 * 1024 - 8 * 1024) as bench:
        await bench.log.append(ACCEPTED)
        for number in range(500):
            bench.depart(f"c{number}")
        await wait_all_tasks_blocked()
        bench.log.arrived(bench.bus.generation, bench.log.departures.count)
        ends = bench.watch(lambda: bench.log.append(settle("a", 1024 * 1024 - 9 * 1024)))
        await trio.sleep(60)
        assert ends == ["done"]
        assert flat(bench.told)[-1] == "settled a"


async def test_a_record_fits_however_much_waited_for_company(autojump_clock: MockClock) -> None:
    """Events that nothing waits for are cut into records of a bounded size as well."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        for number in range(1_000):
            bench.depart(f"c{number}")
        await wait_all_tasks_blocked()
        bench.log.arrived(bench.bus.generation, bench.log.departures.count)
        await bench.log.append(start("z"))
        await wait_all_tasks_blocked()
        assert max(len(one.data) for one in bench.broker.messages(LOG)) <= 10_000 + 1_000


# ---- up to where the replies were dealt with


async def test_a_record_says_how_far_the_replies_were_dealt_with(begun: Bench) -> None:
    """It is the position of the moment in which the record is made, with all that was told by then in it."""
    begun.position = Position(5, 50)
    await begun.log.append(settle("a"))
    begun.position = Position(7, 70)
    await begun.log.append(settle("b"))
    assert [record.position for record in begun.broker.records()] == [
        Position(),
        Position(5, 50),
        Position(7, 70),
    ]


async def test_a_record_is_not_ahead_of_what_waits_behind_it(autojump_clock: MockClock) -> None:
    """Where outcomes are cut into several records only the last one may say that all were dealt with."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        bench.position = Position(3, 30)
        await bench.log.append(*(settle(name, 4_000) for name in "abcde"))
        assert [len(record) for record in bench.told] == [1, 2, 2, 1]
        assert bench.broker.positions() == [0, 0, 0, 3]


async def test_a_record_is_not_ahead_of_what_is_told_while_it_is_under_way(begun: Bench) -> None:
    """A copy of a record that is sent again says what the first one said."""
    begun.line.plan(LOGS, Fate.HOLD)
    begun.position = Position(3, 30)
    begun.put(settle("a"))
    await wait_all_tasks_blocked()
    begun.position = Position(9, 90)
    begun.put(settle("b"))
    await wait_all_tasks_blocked()
    begun.line.release()
    await wait_all_tasks_blocked()
    assert begun.broker.positions() == [0, 3, 9]


async def test_a_log_that_falls_behind_notes_the_position_alone(begun: Bench) -> None:
    """A build that waits long has the next process read no more than it must."""
    begun.position = Position(500, 5_000)
    begun.log.keep_up(500)
    await wait_all_tasks_blocked()
    assert begun.told == [["accepted"]]
    begun.log.keep_up(499)
    await wait_all_tasks_blocked()
    assert begun.told == [["accepted"], []]
    assert begun.broker.positions() == [0, 500]
    begun.log.keep_up(499)
    await wait_all_tasks_blocked()
    assert len(begun.told) == 2


async def test_a_position_is_not_newer_than_a_long_upload(autojump_clock: MockClock) -> None:
    """While a large event is put elsewhere replies come in; the record does not claim them."""
    async with open_bench(record_bytes=10_000) as bench:
        await bench.log.append(ACCEPTED)
        bench.broker.jetstream.no_room = True
        bench.position = Position(3, 30)
        bench.put(settle("a", 20_000))
        await trio.sleep(1)
        bench.position = Position(9, 90)
        bench.put(settle("b"), settle("c", 9_900))
        bench.broker.jetstream.no_room = False
        await trio.sleep(10)
        assert bench.told == [["accepted"], ["elsewhere", "settled b"], ["settled c"]]
        assert bench.broker.positions() == [0, 3, 9]


# ---- requests that have left


async def test_a_request_is_noted_as_sent_behind_the_append_that_shows_it(begun: Bench) -> None:
    """An answered append went out behind the request over the same connection: so that has arrived, too."""
    departure = begun.depart("a")
    await begun.log.append(start("b"))
    assert reached(departure)
    assert flat(begun.told) == ["accepted", "started b"]
    await begun.log.append(start("c"))
    assert begun.told[2] == ["sent a", "started c"]


async def test_that_a_request_left_asks_for_no_record(autojump_clock: MockClock) -> None:
    """It waits for company, or until `flush` says that there will be none."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.depart("a")
        await bench.log.append(start("b"))
        await trio.sleep(100)
        assert bench.told == [["accepted"], ["started b"]]
        assert bench.log.flush()
        await wait_all_tasks_blocked()
        assert bench.told == [["accepted"], ["started b"], ["sent a"]]
        assert not bench.log.flush()


async def test_a_request_that_leaves_behind_an_append_is_not_shown_by_it(begun: Bench) -> None:
    """The answer to an append says nothing of what was sent after it."""
    begun.line.plan(LOGS, Fate.HOLD)
    begun.put(start("a"))
    await wait_all_tasks_blocked()
    departure = begun.depart("a")
    await wait_all_tasks_blocked()
    begun.line.release()
    await wait_all_tasks_blocked()
    assert not reached(departure)
    await begun.log.append(start("b"))
    assert reached(departure)


@pytest.mark.parametrize("why", ["unheard", "closed"])
async def test_a_request_that_nobody_heard_or_awaits_is_not_noted(begun: Bench, why: str) -> None:
    """A request without a receiver never left; an answered one needs no note."""
    departure = begun.depart("a")
    setattr(departure, why, True)
    await begun.log.append(start("b"))
    await begun.log.append(start("c"))
    assert flat(begun.told) == ["accepted", "started b", "started c"]
    assert not reached(departure)


async def test_a_request_that_went_out_again_is_noted_for_its_last_copy(begun: Bench) -> None:
    """A first copy without a receiver is not noted for the second one, which is still under way."""
    departure = begun.depart("a")
    await wait_all_tasks_blocked()
    begun.line.plan(LOGS, Fate.HOLD)
    begun.put(start("b"))
    await wait_all_tasks_blocked()
    departure.outgoing = begun.depart("a", note=False).outgoing
    begun.log.note_sent(sent("a"), departure)
    begun.line.release()
    await wait_all_tasks_blocked()
    assert not reached(departure)
    await begun.log.append(start("c"))
    assert reached(departure)
    await begun.log.append(start("d"))
    assert flat(begun.told).count("sent a") == 1


async def test_a_request_that_is_known_to_have_left_is_noted_once(begun: Bench) -> None:
    """However often it goes out again."""
    departure = begun.depart("a")
    await begun.log.append(start("b"))
    departure.outgoing = begun.depart("a", note=False).outgoing
    begun.log.note_sent(sent("a"), departure)
    for name in "cde":
        await begun.log.append(start(name))
    assert flat(begun.told).count("sent a") == 1


async def test_a_request_whose_connection_was_lost_is_not_noted(autojump_clock: MockClock) -> None:
    """Its arrival is unknown for ever, even after an append over the next connection."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        departure = bench.depart("a")
        await wait_all_tasks_blocked()
        bench.reconnect()
        for name in "bcd":
            await bench.log.append(start(name))
        assert not reached(departure)
        assert not bench.log.flush()
        assert flat(bench.told) == ["accepted", "started b", "started c", "started d"]


async def test_a_request_that_waits_for_a_connection_is_noted_when_it_has_left(
    autojump_clock: MockClock,
) -> None:
    """What stands in the queue has not arrived; it is noted once it has."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        bench.bus.disconnect()
        departure = bench.depart("a")
        bench.log.arrived(bench.bus.generation, bench.log.departures.count)
        assert not reached(departure)
        bench.bus.reconnect()
        await bench.log.append(start("b"))
        await bench.log.append(start("c"))
        assert flat(bench.told) == ["accepted", "started b", "sent a", "started c"]


@pytest.mark.parametrize("fate", [Fate.MUTE, Fate.LOSE])
async def test_an_append_that_was_not_answered_shows_nothing(autojump_clock: MockClock, fate: Fate) -> None:
    """A record that was read back, or sent twice, may have gone another way than the request."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        departure = bench.depart("a")
        bench.line.plan(LOGS, fate)
        await bench.log.append(start("b"))
        assert not reached(departure)
        await bench.log.append(start("c"))
        assert reached(departure)


async def test_a_connection_that_was_lost_during_an_append_shows_nothing(autojump_clock: MockClock) -> None:
    """The answer came, and by then it was another connection."""
    async with open_bench() as bench:
        await bench.log.append(ACCEPTED)
        departure = bench.depart("a")
        bench.line.plan(LOGS, Fate.MUTE)
        bench.put(start("b"))
        await wait_all_tasks_blocked()
        bench.reconnect()
        await trio.sleep(10)
        assert flat(bench.told) == ["accepted", "started b"]
        assert not reached(departure)


async def test_what_left_stands_before_the_outcome(begun: Bench) -> None:
    """In whichever way it is committed: an outcome that comes first would make the rest unreadable."""
    begun.depart("a")
    await begun.log.append(start("b"))
    begun.line.plan(LOGS, Fate.HOLD)
    begun.depart("b")
    await wait_all_tasks_blocked()
    begun.put(start("c"))
    await wait_all_tasks_blocked()
    assert len(begun.line.held) == 1
    # Shown by a flush of the bus, while the append is still under way.
    begun.log.arrived(begun.bus.generation, begun.log.departures.count)
    begun.put(settle("b"))
    ends = begun.watch(begun.log.commit_all)
    await wait_all_tasks_blocked()
    begun.line.release()
    await wait_all_tasks_blocked()
    assert ends == ["done"]
    told = flat(begun.told)
    assert told.index("sent b") < told.index("settled b")


async def test_all_is_committed_on_demand(begun: Bench) -> None:
    """What waits for company is committed without it."""
    begun.depart("a")
    await begun.log.append(start("b"))
    await begun.log.commit_all()
    assert begun.told == [["accepted"], ["started b"], ["sent a"]]


async def test_objects_of_a_lost_race_are_known(autojump_clock: MockClock) -> None:
    """What was put elsewhere for a record that is never written is remembered, to be removed."""
    async with open_bench(record_bytes=10_000) as bench:
        bench.broker.write(ACCEPTED)
        with pytest.raises(AlreadyLogged):
            await bench.log.append(Accepted({"id": "b1", "x": "x" * 20_000}))
        assert bench.log.loose == bench.broker.objects
        assert len(bench.broker.messages(OBJECTS, "$O.*.M.>")) == 1


async def test_those_that_wait_for_one_commit_go_on_a_few_at_a_time(begun: Bench) -> None:
    """Hundreds of requests may be about to leave then, and others have their turn between them."""
    gone_on: list[int] = []

    async def wait(number: int) -> None:
        await begun.log.commit(number)
        gone_on.append(number)

    numbers = [begun.log.note(start(f"c{n}")) for n in range(300)]
    for number in numbers:
        begun.nursery.start_soon(wait, number)
    together = []
    while len(gone_on) < 300:
        before = len(gone_on)
        await trio.lowlevel.checkpoint()
        together.append(len(gone_on) - before)
    assert max(together) <= 2 * 25, "two slices may follow each other: tasks run in any order"
    assert sorted(gone_on) == numbers


async def test_an_answer_counts_as_soon_as_it_is_read(begun: Bench) -> None:
    """In the bus's callback: who waits for the commit need not wait for the writing task as well."""
    begun.line.plan(LOGS, Fate.HOLD)
    begun.put(start("a"))
    ends = begun.watch(begun.log.commit)
    await wait_all_tasks_blocked()
    begun.line.release()
    assert begun.log.n == 2
    await wait_all_tasks_blocked()
    assert ends == ["done"]


async def test_an_answer_in_the_moment_of_a_new_connection_counts_once(begun: Bench) -> None:
    """The append is given up for the new connection, and its answer is read all the same: one record."""
    begun.line.plan(LOGS, Fate.HOLD)
    begun.put(start("a"))
    ends = begun.watch(begun.log.commit)
    await wait_all_tasks_blocked()
    begun.bus.reconnect()
    begun.line.release()
    await wait_all_tasks_blocked()
    assert ends == ["done"]
    assert begun.log.n == 2
    await begun.log.append(settle("a"))
    assert begun.told == [["accepted"], ["started a"], ["settled a"]]
