"""How operators are answered: every verb, over a bus in memory."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json

import pytest
import trio
from support.asking import CHAIN, NEEDED, STEERING, VERBS, ask, ask_raw, refused, run, running
from support.fake_bus import FakeBus
from support.fakes import (
    JSON,
    FakeExecutor,
    Reply,
    document,
    encode,
    open_service,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.control.endpoint import Control
from scheduler.control.eta import EtaEstimator
from scheduler.control.parts import Parts
from scheduler.control.questions import QuestionLine
from scheduler.errors import NoResponders


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "a JSON object is required"),
        (b'"b1"', "a JSON object is required"),
    ],
)
async def test_what_is_no_object_is_refused(verb: str, data: bytes, says: str) -> None:
    """By every endpoint, and without the id of a build."""
    async with running() as site:
        answer = await ask_raw(site, verb, data)
        assert answer.code == "invalid"
        assert answer.body["id"] is None
        assert answer.text.startswith(says)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "list"])
@pytest.mark.parametrize("data", [b"", b"{}", b'{"id": null}', b'{"id": 7}', b'{"id": ""}'])
async def test_a_build_must_be_named(verb: str, data: bytes) -> None:
    """By a text."""
    async with running() as site:
        fields = {} if not data else json.loads(data)
        answer = await ask_raw(site, verb, encode({**NEEDED.get(verb, {}), **fields}) if data else b"")
        assert answer.code == "invalid"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "list"])
async def test_a_build_that_is_not_here_is_unknown(verb: str) -> None:
    """Of the memory store also one that is over, but for its report and its history."""
    async with open_service(executor=FakeExecutor()) as site:
        code, text = await refused(site, verb, "nobody", **NEEDED.get(verb, {}))
        assert code == "unknown"
        assert "'nobody'" in text
        await run(site, CHAIN)
        assert site.report[0] == "build.create.done"
        if verb not in {"report", "unmasked", "history"}:
            assert (await refused(site, verb, **NEEDED.get(verb, {})))[0] == "unknown"


@pytest.mark.parametrize("verb", ["why", "retry", "skip", "extend"])
async def test_a_component_that_is_not_there_is_unknown(verb: str) -> None:
    """The answer says of which build."""
    async with running() as site:
        fields = {**NEEDED.get(verb, {}), "component": "zzz"}
        assert await refused(site, verb, **fields) == ("unknown", "b1 has no component 'zzz'")


@pytest.mark.parametrize(
    ("verb", "fields", "says"),
    [
        ("list", {"all": 1}, "all: true or false"),
        ("list", {"limit": 0}, "limit: a whole number from 1"),
        ("list", {"limit": True}, "limit: a whole number from 1"),
        ("list", {"limit": 1.5}, "limit: a whole number from 1"),
        ("list", {"after": 3}, "after: a text is required"),
        ("get", {"components": "yes"}, "components: true or false"),
        ("get", {"graph": None}, "graph: true or false"),
        ("get", {"from": -1}, "from: a whole number from 0"),
        ("get", {"limit": "9"}, "limit: a whole number from 1"),
        ("why", {"component": 3}, "component: a text is required"),
        ("cancel", {"now": "yes"}, "now: true or false"),
        ("cancel", {"reason": 3}, "reason: a text is required"),
        ("retry", {"component": ["a"]}, "component: a text is required"),
        ("retry", {"from": 7}, "from: a text is required"),
        ("retry", {"component": "a", "from": "b"}, "from: instead of another component, not beside it"),
        ("skip", {}, "component: a text is required"),
        ("skip", {"component": "a", "output": [1]}, "output: an object"),
        ("extend", {"component": "a"}, "seconds: a number is required"),
        ("extend", {"component": "a", "seconds": "9"}, "seconds: a number is required"),
        ("extend", {"component": "a", "seconds": True}, "seconds: a number is required"),
        ("extend", {"component": "a", "seconds": 0}, "seconds: above 0"),
        ("extend", {"component": "a", "seconds": -1}, "seconds: above 0"),
        ("extend", {"component": "a", "seconds": 1e9}, "seconds: above 0"),
        ("extend", {"component": "a", "seconds": 10**299}, "seconds: above 0"),
        ("extend", {"seconds": 5}, "component: a text is required"),
        ("limit", {}, "limits: an object such as"),
        ("limit", {"limits": "*=3"}, "limits: an object such as"),
        ("limit", {"limits": {"vpc": 4}}, "limits: 'vpc'"),
        ("limit", {"limits": {"*": 0}}, "limits: '*': '0'"),
        ("limit", {"limits": {"*": "3/year"}}, "limits: '*': '3/year'"),
        ("limit", {"limits": {"*": True}}, "limits: '*': a whole number"),
    ],
)
async def test_what_cannot_be_meant_is_invalid(verb: str, fields: JSON, says: str) -> None:
    """The answer names the field, and nothing is changed."""
    async with running() as site:
        code, text = await refused(site, verb, **fields)
        assert code == "invalid", text
        assert text.startswith(says)
        answer = await ask(site, "get")
        assert (answer["status"], answer["seq"]) == ("running", 1)


async def test_a_refusal_cannot_forge_a_header() -> None:
    """What is no printable ASCII is replaced there; the body has all of it."""
    async with running(document("ab")) as site:
        site.cloud.answer("a", Reply("errored", fields={"error": "l\u00fcge\r\nStatus: 503"}))
        await wait_all_tasks_blocked()
        answer = await ask_raw(site, "pause", encode({"id": "b1"}))
        assert answer.code == "conflict"
        assert answer.headers["Nats-Service-Error"].endswith("a: l?ge??Status: 503")
        assert answer.text.endswith("a: l\u00fcge\r\nStatus: 503")


async def test_without_a_reply_subject_a_command_is_carried_out() -> None:
    """As a message that nobody awaits the answer to."""
    async with running() as site:
        before = len(site.bus.published)
        site.bus.deliver("scheduler.build.pause", encode({"id": "b1"}))
        site.bus.deliver("scheduler.build.pause", b"{")
        await wait_all_tasks_blocked()
        assert (await ask(site, "get"))["status"] == "paused"
        told = {one.subject.partition(".")[0] for one in site.bus.published[before:]}
        assert told <= {"_INBOX", "scheduler"}


@pytest.mark.parametrize("data", [b'{"id": "b1"}', b'{"id": "nobody"}', b"{"])
@pytest.mark.parametrize(
    "reply", ["scheduler.log.b1", "build.create", "$JS.API.STREAM.DELETE.X", "vpc.create.aws.done", ".x"]
)
async def test_no_answer_goes_to_a_subject_of_the_system(reply: str, data: bytes) -> None:
    """A question cannot have us write a log, a report, or a request to the broker."""
    async with running() as site:
        site.bus.deliver("scheduler.build.get", data, reply=reply)
        # It has been dealt with once a later question is answered.
        await ask(site, "get")
        assert reply not in {one.subject for one in site.bus.published}


async def test_too_many_questions_at_a_time_are_refused() -> None:
    """Every one is answered, those beyond the queue with `unavailable`."""
    async with running() as site:
        answers: list[Message] = []
        inbox = site.bus.new_inbox()
        await site.bus.subscribe(inbox, answers.append)
        for _ in range(300):
            site.bus.deliver("scheduler.build.list", b"{}", reply=inbox)
        await wait_all_tasks_blocked()
        bodies = [json.loads(one.data) for one in answers]
        refusals = [one["error"] for one in bodies if "error" in one]
        assert len(answers) == 300
        assert {one["code"] for one in refusals} == {"unavailable"}
        assert 250 <= len(answers) - len(refusals) < 260
        assert len((await ask(site, "list"))["builds"]) == 1


async def test_an_answer_that_is_too_large_is_refused() -> None:
    """With what to do: ask for less."""
    bus = FakeBus(max_payload=2_000)
    async with running(document([f"c{number}" for number in range(40)]), bus=bus) as site:
        code, text = await refused(site, "get")
        assert code == "invalid"
        assert text.endswith("ask for less at a time (limit)")
        assert len((await ask(site, "get", limit=5))["components"]) == 5


async def test_a_fault_costs_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered as `internal`; the next one is answered as ever."""

    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    async with running() as site:
        for _ in range(25):
            with monkeypatch.context() as patch:
                patch.setattr(EtaEstimator, "eta", broken)
                code, text = await refused(site, "get")
            assert (code, text) == ("internal", "internal error in the scheduler (RuntimeError); see its log")
        assert (await ask(site, "get"))["status"] == "running"


async def test_service_discovery_shows_and_counts_every_endpoint() -> None:
    """Its name, subject, queue group and schemas; how many questions came, and how many were refused."""
    async with running() as site:
        await ask(site, "get")
        await refused(site, "get", "nobody")
        info = json.loads((await site.bus.request("$SRV.INFO.scheduler", b"")).data)
        shown = {one["subject"]: one for one in info["endpoints"]}
        for verb in VERBS:
            one = shown[f"scheduler.build.{verb}"]
            assert (one["name"], one["queue_group"]) == (f"build-{verb}", "scheduler")
            for schema in ("request_schema", "response_schema"):
                assert json.loads(one["metadata"][schema])["type"] == "object"
        stats = json.loads((await site.bus.request("$SRV.STATS.scheduler", b"")).data)
        [get] = [one for one in stats["endpoints"] if one["name"] == "build-get"]
        assert (get["num_requests"], get["num_errors"]) == (2, 1)
        assert get["last_error"] == "there is no build 'nobody' here"


async def test_of_two_schedulers_one_answers(fake_bus: FakeBus) -> None:
    """They share their questions, as they share builds."""
    async with open_service(bus=fake_bus), open_service(bus=fake_bus):
        queues = {
            one.queue for one in fake_bus.interests.values() if one.subject.startswith("scheduler.build.")
        }
        assert queues == {"scheduler"}


async def test_commands_questions_and_what_takes_a_log_wait_apart() -> None:
    """Whatever a command names; a build that runs is in memory, any other is looked for in the log."""
    async with running() as site:
        service = site.service
        eta = EtaEstimator(service.planner.durations, (), 1)
        store = service.persistence.store
        one = Control(
            site.bus, Parts.of(service.roster, store, service.slots, eta=eta, reader=service.reader)
        )
        assert {one.pace(verb, {"id": name}) for verb in STEERING for name in ("b1", "b2", 5)} == {
            QuestionLine.COMMAND
        }
        looks = ["get", "why", "plan"]
        assert {one.pace(verb, {"id": "b1"}) for verb in looks} == {QuestionLine.QUICK}
        assert {one.pace(verb, asked) for verb in looks for asked in ({"id": "b2"}, {})} == {
            QuestionLine.SLOW
        }
        assert [one.pace("list", asked) for asked in ({}, {"all": True})] == [
            QuestionLine.QUICK,
            QuestionLine.SLOW,
        ]


async def test_of_a_flood_of_questions_the_broker_is_left_to_refuse_the_rest(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while none of that verb are taken, and all others are; builds would have to stand behind them."""
    monkeypatch.setattr("scheduler.control.questions._MOST", 40)
    monkeypatch.setattr("scheduler.control.questions._FLOOD", 100)
    async with running() as site:
        for _ in range(119):
            site.bus.deliver("scheduler.build.why", b'{"id": "b1"}', reply="_INBOX.flood.1")
        await wait_all_tasks_blocked()
        assert (await ask(site, "why"))["id"] == "b1"
        await trio.sleep(1)
        for _ in range(120):
            site.bus.deliver("scheduler.build.why", b'{"id": "b1"}', reply="_INBOX.flood.1")
        await wait_all_tasks_blocked()
        with pytest.raises(NoResponders):
            await ask(site, "why")
        assert (await ask(site, "get"))["id"] == "b1"
        await trio.sleep(2.5)
        assert (await ask(site, "why"))["id"] == "b1"
