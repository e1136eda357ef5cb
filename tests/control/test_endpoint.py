"""What operators ask, and how they are answered: every endpoint, over a bus in memory."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
from support.asking import ask, ask_raw, refused
from support.durable import Plant, until
from support.fake_bus import FakeBus
from support.fakes import (
    JSON,
    LOST,
    FakeStore,
    Reply,
    Site,
    change,
    document,
    encode,
    ignore,
    open_service,
    started,
    states,
    unmarked,
)
from support.walks import fail
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.client.progress import STATES
from scheduler.control import reports
from scheduler.control.context import Context
from scheduler.control.endpoint import Control
from scheduler.control.eta import EtaEstimator
from scheduler.control.finished import FinishedBuilds
from scheduler.control.questions import Pace
from scheduler.definition.rules import parse_limits
from scheduler.errors import NoResponders, StoreUnavailable
from scheduler.journal.events import Cancelled, Paused
from scheduler.stores.log import BuildLog
from scheduler.stores.log_reader import LogReader

VERBS = ("list", "get", "why", "plan", "cancel", "pause", "resume", "retry", "skip", "extend", "limit")
STEERING = VERBS[4:]
CHAIN = document("ab", [("a", "b")])
WHOLE: dict[str, JSON] = {"skip": {"component": "a"}, "extend": {"component": "a", "seconds": 5}}
"""What a verb needs beside the id of the build."""
WHOLE["limit"] = {"limits": {"*": 3}}


def part(start: int, **fields: Any) -> JSON:
    """Asks for components from one on."""
    return {"from": start, **fields}


async def run(site: Site, value: JSON) -> None:
    """Have a build run as far as it gets."""
    assert (await site.submit(value))["status"] == "accepted"
    await wait_all_tasks_blocked()


async def found(site: Site, component: str, build: str = "b1") -> JSON:
    """How a component stands."""
    one: JSON
    [one] = [one for one in (await ask(site, "get", build))["components"] if one["id"] == component]
    return one


@asynccontextmanager
async def running(value: JSON = CHAIN, **options: Any) -> AsyncIterator[Site]:
    """A service with a build whose first requests nobody has answered yet."""
    async with open_service(**{"script": ignore, **options}) as site:
        await run(site, value)
        yield site


# ---- what is asked


async def test_a_list_is_of_what_runs_here_by_id() -> None:
    """With how each stands; what is over is not in it."""
    async with open_service(script=ignore) as site:
        assert await ask(site, "list") == {"builds": [], "next": None}
        for name in ("b3", "b1", "b2"):
            await run(site, document("ab", [("a", "b")], build=name))
        site.cloud.answer("a")
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        builds = (await ask(site, "list"))["builds"]
        assert [one["id"] for one in builds] == ["b1", "b2", "b3"]
        assert {one["status"] for one in builds} == {"running"}
        counts = dict.fromkeys(("running", "retrying", "errored", "skipped"), 0)
        assert builds[1]["counts"] == {**counts, "completed": 1, "running": 1, "waiting": 0}
        assert builds[0]["counts"] == {**counts, "completed": 0, "running": 1, "waiting": 1}
        assert (builds[0]["total"], builds[0]["run"], builds[0]["name"]) == (2, 1, "test")
        site.cloud.answer("b")
        await wait_all_tasks_blocked()
        assert [one["id"] for one in (await ask(site, "list", all=True))["builds"]] == ["b1", "b3"]


async def test_a_list_comes_in_pages() -> None:
    """Each says where the next one begins, and the last one that there is none."""
    async with open_service(script=ignore) as site:
        for number in range(7):
            await run(site, document("a", build=f"b{number}"))
        pages, after = [], None
        while True:
            page = await ask(site, "list", limit=3, **({"after": after} if after else {}))
            pages.append([one["id"] for one in page["builds"]])
            after = page["next"]
            if after is None:
                break
        assert pages == [["b0", "b1", "b2"], ["b3", "b4", "b5"], ["b6"]]
        whole = await ask(site, "list", limit=7)
        assert (len(whole["builds"]), whole["next"]) == (7, None)


async def test_get_says_how_every_component_stands(autojump_clock: MockClock) -> None:
    """With the times of what has happened to it, and the error of what has failed."""
    value = document(
        ["a", "b", change("c", _retry={"attempts": 2}), "d"],
        [("a", "d")],
        options={"on_error": "continue"},
    )
    async with running(value) as site:
        site.cloud.answer("b")
        site.cloud.answer("a", Reply("errored", fields={"error": "quota"}))
        site.cloud.answer("c", Reply("errored", fields={"error": "busy", "retry_after": 60}))
        await wait_all_tasks_blocked()
        answer = await ask(site, "get")
        assert [one["state"] for one in answer["components"]] == [
            "errored",
            "completed",
            "retrying",
            "skipped",
        ]
        a, b, c, d = answer["components"]
        assert (a["error"], c["error"]) == ("quota", "busy")
        assert set(b) == {"id", "subject", "state", "attempt", "due", "sent", "ended"}
        assert set(d) == {"id", "subject", "state", "attempt"}
        assert c["attempt"] == 1
        assert c["retry_at"] - answer["now"] == pytest.approx(60, abs=1)
        assert (answer["status"], answer["error"], answer["paused"]) == ("running", "a: quota", False)
        assert sum(answer["counts"].values()) == answer["total"] == 4
        assert answer["next"] is None


async def test_get_comes_in_pages_and_with_the_graph() -> None:
    """As asked for; a page beyond the end is empty."""
    async with running(document("abcde", pairwise("abcde"))) as site:
        page = await ask(site, "get", **part(1, limit=3, graph=True))
        assert [(one["id"], one["needs"]) for one in page["components"]] == [
            ("b", ["a"]),
            ("c", ["b"]),
            ("d", ["c"]),
        ]
        assert page["next"] == 4
        last = await ask(site, "get", **part(4))
        assert ([one["id"] for one in last["components"]], last["next"]) == (["e"], None)
        assert "needs" not in last["components"][0]
        beyond = await ask(site, "get", **part(99))
        assert (beyond["components"], beyond["next"]) == ([], None)
        assert (await ask(site, "get", components=False))["components"] == []


async def test_get_says_up_to_which_event_it_is_true() -> None:
    """So that whoever follows the events applies those that come after it."""
    async with running() as site:
        before = (await ask(site, "get"))["seq"]
        await ask(site, "pause")
        after = (await ask(site, "get"))["seq"]
        assert after == before + 1
        await trio.sleep(0.2)
        told = [
            event
            for one in site.bus.published
            if one.subject.startswith("scheduler.event.")
            for event in json.loads(one.data)["events"]
        ]
        assert (told[-1]["seq"], told[-1]["event"]) == (after, "paused")


async def test_get_and_why_tell_who_waits_for_which_limit() -> None:
    """The limit as its setting writes it."""
    async with running(document("abc"), rules=parse_limits("vpc.create.*=1")) as site:
        assert (await ask(site, "get"))["limits"] == [{"limit": "vpc.create.*=1", "waiting": 2}]
        answer = await ask(site, "why")
        assert answer["reasons"][0]["limit"] == "vpc.create.*=1"
        assert answer["reasons"][0]["text"] == "2 components wait for the limit vpc.create.*=1"


async def test_why_is_told_of_a_build_and_of_a_component() -> None:
    """What runs, what that waits for, and for how long already."""
    async with running() as site:
        answer = await ask(site, "why")
        assert (answer["id"], answer["status"], answer["more"]) == ("b1", "running", 0)
        [reason] = answer["reasons"]
        assert (reason["component"], reason["subject"]) == ("a", "vpc.create.aws")
        [reason] = (await ask(site, "why", component="b"))["reasons"]
        assert (reason["text"], reason["waits_for"]) == ("it waits for a (running)", ["a"])


async def test_a_plan_is_of_a_build_that_is_given_or_that_is_here() -> None:
    """Both in the same form; what is only asked about is not run."""
    async with running() as site:
        of_here = await ask(site, "plan")
        of_given = (await ask_raw(site, "plan", encode({"build": {**CHAIN, "id": "b9"}}))).body
        assert {**of_given, "id": "b1"} == of_here
        assert site.cloud.asked == ["a"]
        assert await refused(site, "get", "b9") == ("unknown", "there is no build 'b9' here")


@pytest.mark.parametrize(
    ("own", "action"), [("", "build.create"), ("build.nope", "build.create"), ("service.sync",) * 2]
)
async def test_a_plan_of_a_build_that_came_in_on_no_subject_is_of_what_it_says(own: str, action: str) -> None:
    """Nobody has submitted it yet: where it says nothing, it is a creation."""
    async with open_service() as site:
        plan = (await ask_raw(site, "plan", encode({"build": {**CHAIN, "action": own}}))).body
        assert plan["action"] == action


async def test_a_build_that_is_wrong_has_no_plan() -> None:
    """All that is wrong is said."""
    async with open_service() as site:
        wrong = document(["a", "a"], [("a", "zzz")])
        answer = await ask_raw(site, "plan", encode({"build": wrong}))
        assert answer.code == "invalid"
        assert "changes[1]._component_id" in answer.text
        assert "edges[0].destination" in answer.text
        answer = await ask_raw(site, "plan", encode({"build": "b1"}))
        assert answer.text.startswith("build: the build itself, an object")


# ---- what is to be done


async def test_paused_and_resumed() -> None:
    """The answer says what is in flight, and how the build stands now."""
    async with running() as site:
        text = "paused: nothing new is sent; 1 component in flight"
        assert await ask(site, "pause") == {"id": "b1", "status": "paused", "text": text}
        assert (await ask(site, "get"))["paused"] is True
        assert (await ask(site, "get"))["eta"] is None
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert await refused(site, "pause") == ("conflict", "it is paused already")
        assert site.cloud.asked == ["a"]
        assert await ask(site, "resume") == {"id": "b1", "status": "running", "text": "resumed"}
        assert await refused(site, "resume") == ("conflict", "it is not paused")
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["a", "b"]


async def test_cancelled_with_a_reason() -> None:
    """What is in flight is awaited; nothing can be paused any more, and a second one is refused."""
    async with running() as site:
        text = "cancelled: 1 component in flight will be awaited"
        assert await ask(site, "cancel", reason="oops") == {"id": "b1", "status": "halted", "text": text}
        assert (await refused(site, "cancel"))[0] == "conflict"
        code, why = await refused(site, "pause")
        assert (code, why) == ("conflict", "nothing new is sent any more: cancelled: oops")
        assert (await refused(site, "retry"))[0] == "conflict"
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert site.report[1]["error"] == "cancelled: oops"


async def test_cancelled_now() -> None:
    """Nothing is awaited: the report follows."""
    async with running() as site:
        answer = await ask(site, "cancel", now=True)
        assert answer["text"] == ("cancelled: gave up on 1 component in flight, their outcome unknown")
        await wait_all_tasks_blocked()
        assert states(site.report[1]) == {"a": "errored", "b": "waiting"}


async def test_tried_again_while_the_build_drains() -> None:
    """One component, or all that have failed; what has not failed cannot be tried again."""
    async with running(document("abc", [("a", "c")])) as site:
        site.cloud.answer("a", Reply("errored", fields={"error": "busy"}))
        await wait_all_tasks_blocked()
        assert (await refused(site, "retry", component="b"))[1].startswith("b is running: only what")
        assert await ask(site, "retry", component="a") == {
            "id": "b1",
            "status": "running",
            "text": "2 components will be sent, 1 of them again",
            "components": 2,
        }
        await wait_all_tasks_blocked()
        assert (set(site.cloud.asked[:2]), site.cloud.asked[2:]) == ({"a", "b"}, ["a"])
        assert await refused(site, "retry") == ("conflict", "no component has failed")


async def test_skipped_with_an_output() -> None:
    """It is completed with that, now or when it is due."""
    async with running(document("abc", pairwise("abc"))) as site:
        answer = await ask(site, "skip", component="b", output={"vpc_id": "v"})
        assert answer["text"] == "b will be completed with this output when it is due"
        answer = await ask(site, "skip", component="a")
        assert answer == {
            "id": "b1",
            "status": "running",
            "text": "a is completed with this output",
            "components": 1,
        }
        assert await refused(site, "skip", component="a") == ("conflict", "a is completed already")
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["a", "c"]


async def test_extended(autojump_clock: MockClock) -> None:
    """An attempt in flight fails as much later."""
    async with running(document([change("a", _timeout=10), "b"], [("a", "b")])) as site:
        answer = await ask(site, "extend", component="a", seconds=20)
        assert answer == {"id": "b1", "status": "running", "text": "a has 20 s more", "components": 1}
        assert (await refused(site, "extend", component="b", seconds=1))[0] == "conflict"
        await trio.sleep(25)
        assert site.reports == []
        await trio.sleep(10)
        assert site.report[1]["error"] == "a: timed out after 30 s"


async def test_limited() -> None:
    """The build has these limits of its own from now on, or none any more."""
    async with running(document("abcd", options={"limits": {"*": 1}})) as site:
        assert len(site.cloud.asked) == 1
        answer = await ask(site, "limit", limits={"vpc.create.*": 3})
        assert answer == {"id": "b1", "status": "running", "text": "limits: vpc.create.*=3"}
        await wait_all_tasks_blocked()
        assert len(site.cloud.asked) == 3
        assert (await ask(site, "limit", limits={}))["text"] == "limits: none"
        await wait_all_tasks_blocked()
        assert len(site.cloud.asked) == 4


async def test_an_order_is_answered_when_it_is_persisted() -> None:
    """It has effect before that."""
    store = FakeStore()
    gate = store.hold(lambda event: isinstance(event, Paused))
    async with running(store=store) as site, trio.open_nursery() as nursery:
        answers: list[JSON] = []

        async def pause() -> None:
            answers.append(await ask(site, "pause"))

        nursery.start_soon(pause)
        await gate.reached.wait()
        await wait_all_tasks_blocked()
        assert answers == []
        assert (await ask(site, "get"))["status"] == "paused"
        gate.open()
        await wait_all_tasks_blocked()
        assert [one["status"] for one in answers] == ["paused"]


async def test_an_order_that_cannot_be_persisted_is_unavailable() -> None:
    """The build is halted by that, as by any step that cannot be."""
    store = FakeStore()
    store.fail(lambda event: isinstance(event, Paused), StoreUnavailable("gone"))
    async with running(store=store) as site:
        code, text = await refused(site, "pause")
        assert (code, text) == ("unavailable", "it could not be persisted: store: gone")
        assert (await ask(site, "get"))["status"] == "halted"


async def test_an_order_that_the_store_does_not_take_in_time_is_unavailable(
    autojump_clock: MockClock,
) -> None:
    """It may be done yet, and the answer says so."""
    store = FakeStore()
    store.hold(lambda event: isinstance(event, Cancelled))
    async with running(store=store) as site:
        began = trio.current_time()
        code, text = await refused(site, "cancel")
        assert (code, text) == ("unavailable", "not done within 30 s; it may be done yet")
        assert trio.current_time() - began == pytest.approx(30)


# ---- what makes no sense


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
        answer = await ask_raw(site, verb, encode({**WHOLE.get(verb, {}), **fields}) if data else b"")
        assert answer.code == "invalid"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "list"])
async def test_a_build_that_is_not_here_is_unknown(verb: str) -> None:
    """Of the memory store also one that is over."""
    async with open_service() as site:
        code, text = await refused(site, verb, "nobody", **WHOLE.get(verb, {}))
        assert code == "unknown"
        assert "'nobody'" in text
        await run(site, CHAIN)
        assert site.report[0] == "build.create.done"
        assert (await refused(site, verb, **WHOLE.get(verb, {})))[0] == "unknown"


async def test_what_a_memory_store_does_not_keep_is_not_tried_again() -> None:
    """That is said, with what to do instead."""
    async with open_service(script=fail("a")) as site:
        await run(site, CHAIN)
        for verb in ("retry", "skip"):
            code, text = await refused(site, verb, component="a")
            assert code == "unknown"
            assert "the store memory keeps none that is over" in text
            assert "submit what is left" in text


@pytest.mark.parametrize("verb", ["why", "retry", "skip", "extend"])
async def test_a_component_that_is_not_there_is_unknown(verb: str) -> None:
    """The answer says of which build."""
    async with running() as site:
        fields = {**WHOLE.get(verb, {}), "component": "zzz"}
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


async def test_what_is_just_being_persisted_cannot_be_extended() -> None:
    """Only what is in flight has a time."""
    store = FakeStore()
    gate = store.hold(started("a"))
    async with open_service(store=store, script=ignore) as site:
        await site.submit(document("a"))
        await gate.reached.wait()
        assert (await refused(site, "extend", component="a", seconds=1))[0] == "conflict"
        assert (await found(site, "a"))["state"] == "running"
        gate.open()


# ---- who is answered


async def test_without_a_reply_subject_an_order_is_carried_out() -> None:
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
        await trio.sleep(0.2)  # its events are published
        before = len(site.bus.published)
        site.bus.deliver("scheduler.build.get", data, reply=reply)
        await wait_all_tasks_blocked()
        assert site.bus.published[before:] == []


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


# ---- builds that are over, in a log


def flaky(name: str, times: int) -> Callable[[JSON], list[Reply]]:
    """Connectors that fail this component so many times, and do everything else."""
    left = [times]

    def script(component: JSON) -> list[Reply]:
        if component["_component_id"] == name and left[0]:
            left[0] -= 1
            return [Reply("errored", fields={"error": "busy"})]
        return [Reply()]

    return script


async def test_a_build_that_has_failed_is_tried_again_in_a_new_run(autojump_clock: MockClock) -> None:
    """Only what failed and what depends on it is sent, and that run has a report of its own."""
    plant = Plant(flaky("b", 1))
    async with plant.run() as process:
        await process.submit(document("abc", pairwise("abc")))
        await until(lambda: process.reports)
        await trio.sleep(1)
        answer = await ask(process, "get")
        assert (answer["status"], answer["run"], answer["error"]) == ("errored", 1, "b: busy")
        assert answer["ended"] >= answer["accepted"]
        assert await ask(process, "retry") == {
            "id": "b1",
            "status": "running",
            "text": "run 2 begins: 2 components will be sent, 1 of them again",
            "components": 2,
        }
        await until(lambda: len(process.reports) == 2)
        subject, report = process.reports[-1]
        assert subject == "build.create.done"
        assert set(states(report).values()) == {"completed"}
        assert process.requests == ["a", "b", "b", "c"]
        await trio.sleep(1)
        answer = await ask(process, "get")
        assert (answer["status"], answer["run"]) == ("done", 2)
        assert answer["counts"]["completed"] == 3
        assert [one.get("error") for one in plant.broker.reports()] == [
            "b: busy",
            None,
        ]
        code, text = await refused(process, "retry")
        assert (code, text) == (
            "conflict",
            "every component is completed: there is nothing to be tried again",
        )


async def test_a_component_of_a_build_that_is_over_is_skipped(autojump_clock: MockClock) -> None:
    """In a new run: what depends on it sees the output."""
    value = document(["a", change("b", vpc="{{ components['a'].vpc_id }}")], [("a", "b")])
    plant = Plant(fail("a"))
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: process.reports)
        await trio.sleep(1)
        answer = await ask(process, "skip", component="a", output={"vpc_id": "vpc-7"})
        assert answer["text"] == "run 2 begins: a is completed with this output"
        await until(lambda: len(process.reports) == 2)
        assert process.reports[-1][0] == "build.create.done"
        assert plant.requests[-1][1]["vpc"] == "vpc-7"
        assert process.requests == ["a", "b"]


async def test_a_new_run_that_is_refused_leaves_the_log_as_it_was(autojump_clock: MockClock) -> None:
    """A component that did not fail, or is not there."""
    plant = Plant(fail("b"))
    async with plant.run() as process:
        await process.submit(document("ab"))
        await until(lambda: process.reports)
        await trio.sleep(1)
        before = plant.broker.told()
        assert (await refused(process, "retry", component="a"))[0] == "conflict"
        assert (await refused(process, "retry", component="zzz"))[0] == "unknown"
        assert (await refused(process, "skip", component="a"))[0] == "conflict"
        assert (await refused(process, "retry", "nobody"))[0] == "unknown"
        assert plant.broker.told() == before
        assert (await ask(process, "retry"))["components"] == 1


async def test_what_is_over_cannot_be_steered_otherwise(autojump_clock: MockClock) -> None:
    """Each order is refused with how it ended."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        for verb in set(STEERING) - {"retry", "skip"}:
            code, text = await refused(process, verb, **WHOLE.get(verb, {}))
            assert (code, text) == ("conflict", "b1 is over (done)"), verb
        [reason] = (await ask(process, "why"))["reasons"]
        assert reason["text"] == "it is over"
        [reason] = (await ask(process, "why", component="a"))["reasons"]
        assert reason["text"] == "it is completed"
        assert (await ask(process, "plan"))["id"] == "b1"


async def test_what_was_cancelled_is_told_from_what_failed(autojump_clock: MockClock) -> None:
    """In the list and when one asks for it; tried again, all that was never sent is sent, and said so."""
    plant = Plant(lambda _: [Reply(after=5.0)])
    async with plant.run() as process:
        await process.submit(document("abc", pairwise("abc"), name="\u7f51" * 500))
        await trio.sleep(1)
        await ask(process, "cancel")
        await until(lambda: process.reports)
        await trio.sleep(1)
        [build] = (await ask(process, "list", all=True))["builds"]
        assert (build["status"], build["total"]) == ("cancelled", 3)
        assert build["counts"] == {**dict.fromkeys(STATES, 0), "completed": 1, "waiting": 2}
        assert build["name"] == "\u7f51" * 40
        answer = await ask(process, "get")
        assert (answer["status"], answer["error"]) == ("cancelled", "cancelled")
        assert abs(answer["accepted"] - build["accepted"]) < 0.1
        answer = await ask(process, "retry")
        assert (answer["text"], answer["components"]) == ("run 2 begins: 2 components will be sent", 2)


async def test_a_list_of_all_has_what_is_over(autojump_clock: MockClock) -> None:
    """With how it ended, by its last run; beside what runs."""
    plant = Plant(flaky("a", 1))
    async with plant.run() as process:
        await process.submit(document("a", build="b1"))
        await process.submit(document("x", build="b2"), "service.import")
        await until(lambda: len(process.reports) == 2)
        await trio.sleep(1)
        assert (await ask(process, "list"))["builds"] == []
        builds = (await ask(process, "list", all=True))["builds"]
        assert [(one["id"], one["status"], one["run"]) for one in builds] == [
            ("b1", "errored", 1),
            ("b2", "done", 1),
        ]
        assert [one["action"] for one in builds] == ["build.create", "service.import"]
        assert [(one["name"], one["total"]) for one in builds] == [("test", 1), ("test", 1)]
        zero = dict.fromkeys(STATES, 0)
        assert [one["counts"] for one in builds] == [{**zero, "errored": 1}, {**zero, "completed": 1}]
        assert all(one["accepted"] <= one["ended"] for one in builds)
        await ask(process, "retry", "b1")
        await until(lambda: len(process.reports) == 3)
        await trio.sleep(1)
        page = await ask(process, "list", all=True, limit=1)
        assert [(one["id"], one["status"], one["run"]) for one in page["builds"]] == [("b1", "done", 2)]
        assert page["next"] == "b1"
        page = await ask(process, "list", all=True, limit=1, after="b1")
        assert ([one["id"] for one in page["builds"]], page["next"]) == (["b2"], None)


def counting(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """What an asynchronous method is called with from now on."""
    calls: list[Any] = []
    original = getattr(owner, name)

    async def counted(*args: Any, **options: Any) -> Any:
        calls.append(args[1:])
        return await original(*args, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


async def test_a_log_is_read_once_for_all_who_look_at_a_build_that_is_over(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page, question by question; again where it has grown, or nobody asked for a while."""
    reads = counting(monkeypatch, LogReader, "history")
    plant = Plant(flaky("b", 1))
    async with plant.run() as process:
        await process.submit(document("abc", pairwise("abc")))
        await until(lambda: process.reports)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            for start in range(3):
                nursery.start_soon(partial(ask, process, "get", **part(start, limit=1)))
                nursery.start_soon(partial(ask, process, "why", component="b"))
        assert len(reads) == 1
        await refused(process, "pause")
        await trio.sleep(50)
        assert (await ask(process, "get"))["run"] == 1
        assert len(reads) == 1
        await ask(process, "retry")
        await until(lambda: len(process.reports) == 2)
        await trio.sleep(1)
        del reads[:]
        assert (await ask(process, "get"))["run"] == 2
        assert (await ask(process, "get"))["status"] == "done"
        assert len(reads) == 1
        await trio.sleep(70)
        await ask(process, "get")
        assert len(reads) == 2


async def test_builds_that_are_over_are_kept_by_bytes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one however large it is, since it comes in pages."""
    monkeypatch.setattr(FinishedBuilds.__init__, "__defaults__", (1,))
    reads = counting(monkeypatch, LogReader, "history")
    async with Plant().run() as process:
        for name in ("b1", "b2"):
            await process.submit(document("ab", build=name))
        await until(lambda: len(process.reports) == 2)
        await trio.sleep(1)
        for name in ("b1", "b1", "b2", "b2", "b1"):
            await ask(process, "get", name)
        assert reads == [(f"scheduler.log.{name}",) for name in ("b1", "b2", "b1")]


async def test_reports_are_read_once_for_all_pages_of_a_list(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again when there is another one."""
    reads = counting(monkeypatch, reports, "_read_reports")
    async with Plant().run() as process:
        for number in range(4):
            await process.submit(document("a", build=f"b{number}"))
        await until(lambda: len(process.reports) == 4)
        await trio.sleep(1)
        after: str | None = None
        for number in range(4):
            page = await ask(process, "list", all=True, limit=1, **({"after": after} if after else {}))
            assert [one["id"] for one in page["builds"]] == [f"b{number}"]
            after = page["next"]
        assert (after, len(reads)) == (None, 1)
        await process.submit(document("a", build="b9"))
        await until(lambda: len(process.reports) == 5)
        await trio.sleep(1)
        assert len((await ask(process, "list", all=True))["builds"]) == 5


async def test_orders_questions_and_what_takes_a_log_wait_apart() -> None:
    """Whatever the order names; a build that runs is in memory, any other is looked for in the log."""
    async with running() as site:
        service = site.service
        eta = EtaEstimator(service._supervisor.durations, (), 1)
        one = Control(site.bus, Context.of(service._supervisor, eta, service._reader, None))
        assert {one.pace(verb, {"id": name}) for verb in STEERING for name in ("b1", "b2", 5)} == {
            Pace.COMMAND
        }
        looks = ["get", "why", "plan"]
        assert {one.pace(verb, {"id": "b1"}) for verb in looks} == {Pace.QUICK}
        assert {one.pace(verb, asked) for verb in looks for asked in ({"id": "b2"}, {})} == {Pace.SLOW}
        assert [one.pace("list", asked) for asked in ({}, {"all": True})] == [Pace.QUICK, Pace.SLOW]


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


async def test_many_who_ask_for_the_same_plan_cost_one_preview(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is good for a second at least; of another build there is another."""
    previews = counting(monkeypatch, EtaEstimator, "preview")
    async with running() as site:
        await run(site, document("xyz", build="b2"))
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, site, "plan")
        assert len(previews) == 1
        assert (await ask(site, "plan"))["total"] == (await ask(site, "get"))["total"] == 2
        assert (await ask(site, "plan", "b2"))["total"] == 3
        await trio.sleep(1.1)
        await ask(site, "plan", "b2")
        assert len(previews) == 3


async def test_many_who_ask_at_once_cost_one_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large build that is made in a thread, which takes its time from everybody."""
    monkeypatch.setattr("scheduler.control.eta._ON_THE_SPOT", 0)
    jobs: list[Any] = []
    original = EtaEstimator._job

    async def counted(self: EtaEstimator, seen: Any) -> Any:
        jobs.append(seen)
        return await original(self, seen)

    monkeypatch.setattr(EtaEstimator, "_job", counted)
    async with running() as site, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, site, "get")
    assert len(jobs) == 1


async def test_a_build_is_listed_once(autojump_clock: MockClock) -> None:
    """One whose second run is quarantined has the report of the first: what counts is how it stands."""
    plant = Plant(fail("a"))
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        process.service._supervisor.quarantined["b1"] = "it cannot be read"
        [one] = (await ask(process, "list", all=True))["builds"]
        assert (one["id"], one["status"], one["error"]) == ("b1", "quarantined", "it cannot be read")


async def test_a_new_run_survives_the_process(autojump_clock: MockClock) -> None:
    """The next one goes on with it, and reports it as the second."""
    plant = Plant(flaky("a", 1))
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
    async with plant.run(ignore) as process:
        await trio.sleep(3)
        await ask(process, "retry")
        await trio.sleep(2)
        assert process.requests == ["a"]
    plant.answer("a")
    async with plant.run() as process:
        await until(lambda: process.reports)
        assert states(process.report[1]) == {"a": "completed", "b": "completed"}
        assert process.requests == ["b"]
        await trio.sleep(1)
        assert (await ask(process, "get"))["run"] == 2
    ids = [unmarked((message.headers or {})["Nats-Msg-Id"]) for message, _ in plant.requests]
    assert ids == ["b1/a/1", "b1/a/2", "b1/b/1"]


async def test_of_many_who_try_it_again_at_once_one_does(autojump_clock: MockClock) -> None:
    """The others are told to ask again, or that it runs; there is one second run."""
    plant = Plant(flaky("a", 1))
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        answers: list[JSON] = []

        async def retry() -> None:
            answers.append((await ask_raw(process, "retry", encode({"id": "b1"}))).body)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(retry)
        await until(lambda: len(process.reports) == 2)
        assert sum("error" not in one for one in answers) == 1
        codes = {one["error"]["code"] for one in answers if "error" in one}
        assert codes <= {"unavailable", "conflict"}
        assert process.requests == ["a", "a", "b"]


async def test_a_log_that_cannot_be_written_refuses_a_new_run(autojump_clock: MockClock) -> None:
    """And the build stays as it was: it can be tried again later."""
    plant = Plant(flaky("a", 1))
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        before = plant.broker.told()

        async def lost(*_: object, **__: object) -> None:
            raise LOST

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BuildLog, "append", lost)
            assert (await refused(process, "retry"))[0] == "unavailable"
        assert plant.broker.told() == before
        await ask(process, "retry")
        await until(lambda: len(process.reports) == 2)
        assert process.reports[-1][0] == "build.create.done"
