"""Builds that have come in and wait: whose turn it is, how many at a time, and what is refused."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from support.fake_bus import FakeBus
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.supervision import admission
from scheduler.supervision.admission import Admission
from scheduler.supervision.intake import Receipts


class Taking:
    """An admission whose builds are taken one by one, as the test says."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.taken: list[str] = []
        self.senders: list[str] = []
        self.gate = trio.Semaphore(0)
        self.ended = trio.Event()
        self.admission = Admission(
            Receipts(self.bus, lambda _: False), self.take, lambda data: len(data) < 100
        )

    async def take(self, message: Message, sender: str) -> None:
        self.taken.append(json.loads(message.data)["id"])
        self.senders.append(sender)
        await self.gate.acquire()

    def send(self, build: str, sender: str, *, size: int = 0, headers: dict[str, str] | None = None) -> None:
        data = json.dumps({"id": build, "pad": "x" * size}).encode()
        self.admission.on_build(
            Message("build.create", data, f"_INBOX.{sender}.1" if sender else "", headers)
        )

    async def next(self, count: int = 1) -> None:
        """Have so many that were taken be done with."""
        for _ in range(count):
            self.gate.release()
            await wait_all_tasks_blocked()

    async def run(self) -> None:
        await self.admission.run()
        self.ended.set()


@asynccontextmanager
async def taking() -> AsyncIterator[Taking]:
    async with trio.open_nursery() as nursery:
        one = Taking()
        nursery.start_soon(one.run)
        yield one
        nursery.cancel_scope.cancel()


async def test_whoever_takes_a_build_is_told_who_sent_it() -> None:
    """As far as that can be told; of one sender it is the same text, which thousands of builds may keep."""
    async with taking() as site:
        for build, sender in (("a", "one"), ("b", ""), ("c", "one")):
            site.send(build, sender)
            await wait_all_tasks_blocked()
    assert site.senders == ["reply _INBOX.one", "", "reply _INBOX.one"]
    assert site.senders[0] is site.senders[2]


async def test_a_build_behind_a_thousand_of_another_sender_is_among_the_next() -> None:
    """It waits for those that are being taken, and for one turn of each other sender."""
    async with taking() as site:
        for number in range(1_000):
            site.send(f"f{number}", "flood")
        await wait_all_tasks_blocked()
        site.send("mine", "healthy")
        await site.next(2)
        assert len(site.taken) == admission._SMALL_AT_ONCE + 2
        assert site.taken[-2:] == [f"f{admission._SMALL_AT_ONCE}", "mine"]


async def test_users_of_another_account_have_a_turn_each() -> None:
    """As the server names them; without a reply subject, too."""
    async with taking() as site:
        for number in range(100):
            site.send(f"f{number}", "", headers={"Nats-Request-Info": '{"acc":"TEAM","user":"bob"}'})
        await wait_all_tasks_blocked()
        site.send("mine", "", headers={"Nats-Request-Info": '{"acc":"TEAM","user":"anna"}'})
        await site.next(2)
        assert site.taken[-1] == "mine"


async def test_large_builds_do_not_hold_up_small_ones() -> None:
    """They are taken apart, and two at a time."""
    async with taking() as site:
        for number in range(10):
            site.send(f"l{number}", "large", size=1_000)
        await wait_all_tasks_blocked()
        assert site.taken == ["l0", "l1"]
        site.send("small", "large")
        await wait_all_tasks_blocked()
        assert site.taken == ["l0", "l1", "small"]


async def test_whoever_fills_the_queue_is_refused_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number; each refusal is answered."""
    monkeypatch.setattr(admission, "_MOST", 100)
    async with taking() as site:
        for number in range(100):
            site.send(f"f{number}", "flood")
        site.send("mine", "healthy")
        await wait_all_tasks_blocked()
        refused = [json.loads(one.data) for one in site.bus.published]
        assert [one["id"] for one in refused] == [f"f{number}" for number in range(50, 100)]
        assert {one["error"]["code"] for one in refused} == {"busy"}
        await site.next(100)
        assert site.taken[1] == "mine"
        assert len(site.taken) == 51


async def test_what_waits_for_something_else_keeps_nobody_from_a_turn(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away, or a build of the same id that is being loaded; but not any number of them."""
    monkeypatch.setattr(admission, "_MOST_WAITING", 20)
    async with taking() as site:
        for number in range(100):
            site.send(f"b{number}", "x")
        await wait_all_tasks_blocked()
        assert len(site.taken) == 16
        await trio.sleep(1.6)
        assert len(site.taken) == 32
        await trio.sleep(60)
        assert len(site.taken) == 16 + 20
        for _ in range(100):
            site.gate.release()
        await trio.sleep(60)
        assert len(site.taken) == 100
        assert (site.admission._waiting, site.admission.bytes) == (0, 0)


async def test_what_waits_is_counted_in_bytes_until_it_is_dealt_with() -> None:
    """Its content counts, and what a message costs beside that."""
    async with taking() as site:
        assert site.admission.bytes == 0
        site.send("a", "x", size=1_000)
        await wait_all_tasks_blocked()
        assert 1_000 < site.admission.bytes < 2_000
        await site.next()
        assert site.admission.bytes == 0


async def test_closed_it_refuses_what_comes_and_ends_with_what_was_there() -> None:
    """Every build that came in has its answer by then."""
    async with taking() as site:
        for number in range(20):
            site.send(f"b{number}", "x")
        site.admission.close()
        site.send("late", "x")
        await wait_all_tasks_blocked()
        [refusal] = site.bus.published
        assert json.loads(refusal.data)["error"]["code"] == "shutting_down"
        assert not site.ended.is_set()
        await site.next(20)
        assert site.ended.is_set()
        assert len(site.taken) == 20


async def test_a_build_with_a_reply_subject_of_the_system_is_passed_over() -> None:
    """Whoever sends it is not answered, nor is it taken."""
    async with taking() as site:
        site.admission.on_build(Message("build.create", b'{"id": "b1"}', "scheduler.log.b2"))
        await wait_all_tasks_blocked()
        assert (site.taken, site.bus.published) == ([], [])
