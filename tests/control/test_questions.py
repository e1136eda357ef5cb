"""Questions and commands: whose turn it is, how many at a time, what is refused, and what the log says."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import structlog
import trio
from support.fake_bus import FakeBus
from support.fakes import JSON, encode
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.bus.discovery import ServiceEndpoint
from scheduler.control import questions
from scheduler.control.questions import QuestionLine, Questions
from scheduler.control.verbs import Document
from scheduler.runtime.courtesy import give_way

PACES = {"command": QuestionLine.COMMAND, "quick": QuestionLine.QUICK, "slow": QuestionLine.SLOW}


class Desk:
    """Questions whose answers the test gives, one by one."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.begun: list[str] = []
        self.gate = trio.Semaphore(0)
        self.glanced: list[Document] = []
        self.endpoints = {verb: ServiceEndpoint(verb, f"x.{verb}", "q") for verb in PACES}
        self.questions = Questions(self.bus, self.endpoints, self.pace, self.answer)
        self.handlers = {verb: self.questions.handler(verb) for verb in PACES}

    def pace(self, verb: str, document: Document) -> QuestionLine:
        self.glanced.append(document)
        return PACES[verb]

    async def answer(self, _verb: str, document: Document, _user: str) -> Document:
        self.begun.append(document["id"])
        await self.gate.acquire()
        return {"id": document["id"]}

    def ask(self, verb: str, build: str, sender: str = "one", **fields: Any) -> None:
        reply = f"_INBOX.{sender}.{build}"
        self.handlers[verb](Message(f"x.{verb}", encode({"id": build, **fields}), reply))

    async def next(self, count: int = 1) -> None:
        """Have so many that were begun be answered."""
        for _ in range(count):
            self.gate.release()
            await wait_all_tasks_blocked()

    async def answers(self) -> list[JSON]:
        await wait_all_tasks_blocked()
        return [json.loads(one.data) for one in self.bus.published]


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    async with trio.open_nursery() as nursery:
        one = Desk()
        nursery.start_soon(one.questions.run)
        yield one
        nursery.cancel_scope.cancel()


async def test_commands_wait_for_no_question() -> None:
    """However many there are of one who asks: also his own."""
    async with desk() as site:
        for number in range(200):
            site.ask("quick", f"q{number}")
            site.ask("slow", f"s{number}")
        await wait_all_tasks_blocked()
        busy = len(site.begun)
        assert busy == questions._AT_ONCE[QuestionLine.QUICK] + questions._AT_ONCE[QuestionLine.SLOW]
        site.ask("command", "stop")
        await wait_all_tasks_blocked()
        assert site.begun[busy:] == ["stop"]


async def test_what_is_soon_answered_waits_for_nothing_that_takes_a_log() -> None:
    """They have workers of their own."""
    async with desk() as site:
        for number in range(100):
            site.ask("slow", f"s{number}")
        await wait_all_tasks_blocked()
        site.ask("quick", "mine")
        await wait_all_tasks_blocked()
        assert site.begun[-1] == "mine"


@pytest.mark.parametrize("verb", list(PACES))
async def test_askers_take_turns(verb: str) -> None:
    """One with a thousand questions does not keep another from his one."""
    async with desk() as site:
        for number in range(200):
            site.ask(verb, f"f{number}", "flood")
        await wait_all_tasks_blocked()
        site.ask(verb, "mine", "healthy")
        await site.next(2)
        assert site.begun[-1] == "mine"


async def test_whoever_asks_too_much_is_refused_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by bytes; counted in service discovery, and logged once a second."""
    monkeypatch.setattr(questions, "_MOST", 100)
    monkeypatch.setattr(questions, "_MOST_BYTES", 100_000)
    async with desk() as site:
        with structlog.testing.capture_logs() as lines:
            for number in range(60):
                site.ask("quick", f"f{number}", "flood")
            for number in range(20):
                site.ask("slow", f"l{number}", "flood", pad="x" * 10_000)
            site.ask("quick", "mine", "healthy")
            site.ask("slow", "mine", "healthy", pad="x" * 10_000)
        refused = [one["error"]["code"] for one in await site.answers()]
        assert refused == ["unavailable"] * (10 + 15)
        assert [line["event"] for line in lines] == ["an operator was refused"]
        assert (site.endpoints["quick"].errors, site.endpoints["slow"].errors) == (10, 15)


async def test_of_a_flood_what_is_still_on_its_way_is_not_answered(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender hears nothing until the verb is listened to again; others are answered."""
    monkeypatch.setattr(questions, "_MOST", 40)
    monkeypatch.setattr(questions, "_FLOOD", 100)
    async with desk() as site:
        for number in range(1_000):
            site.ask("quick", f"f{number}", "flood")
        site.ask("quick", "mine", "healthy")
        assert len(await site.answers()) == 100
        assert site.endpoints["quick"].errors == 980
        site.gate.release()
        await site.next(4)
        assert "mine" in site.begun
        answered = len(site.bus.published)
        site.handlers["quick"] = site.questions.handler("quick")
        for number in range(100):
            site.ask("quick", f"f{number}", "flood")
        assert len(await site.answers()) > answered + 50


async def test_a_question_that_was_not_looked_at_in_time_is_refused(autojump_clock: MockClock) -> None:
    """Who asked has gone by then; it costs nobody anything any more."""
    async with desk() as site:
        for number in range(6):
            site.ask("quick", f"q{number}")
        await trio.sleep(29)
        await site.next()
        assert len(site.begun) == 5
        await trio.sleep(2)
        texts = {one["id"]: one["error"]["message"] for one in await site.answers() if "error" in one}
        assert len(site.begun) == 5
        late = {build for build, text in texts.items() if "it may be done yet" in text}
        assert late == {"q1", "q2", "q3", "q4"}
        assert texts[None].startswith("too many questions at a time: not looked at within 30 s")


async def test_a_command_with_a_reply_subject_of_the_system_is_not_carried_out() -> None:
    """Nor a question answered; counted, and logged once a second."""
    async with desk() as site:
        with structlog.testing.capture_logs() as lines:
            for reply in ("scheduler.log.b1", "vpc.create.aws", "$JS.API.INFO"):
                site.handlers["command"](Message("x.command", b'{"id": "b1"}', reply))
            await wait_all_tasks_blocked()
        assert (site.begun, site.bus.published) == ([], [])
        assert [(line["subject"], line["reply"]) for line in lines] == [("x.command", "scheduler.log.b1")]
        assert site.endpoints["command"].errors == 3


async def test_a_command_without_a_reply_subject_is_carried_out() -> None:
    """Nobody is answered."""
    async with desk() as site:
        site.handlers["command"](Message("x.command", b'{"id": "b1"}'))
        await site.next()
        assert (site.begun, site.bus.published) == (["b1"], [])


async def test_of_a_large_question_it_is_not_looked_at_which_line_it_is_for() -> None:
    """That would take time before anybody else has had a turn; what is no JSON object says nothing either."""
    async with desk() as site:
        site.ask("quick", "small")
        site.ask("quick", "large", pad="x" * 5_000)
        site.handlers["quick"](Message("x.quick", b"{", "_INBOX.x.1"))
        assert site.glanced == [{"id": "small"}, {}, {}]


async def test_work_for_those_who_look_gives_way_while_others_are_busy() -> None:
    """While something else is to be done it gets a part of the time; while nothing is, all of it."""

    async def look(times: int) -> float:
        began = trio.current_time()
        for _ in range(times):
            await give_way()
        return trio.current_time() - began

    async def work() -> None:
        for _ in count():
            await trio.lowlevel.checkpoint()

    assert await look(100) < 0.05
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        assert await look(40) > 0.05
        nursery.cancel_scope.cancel()
