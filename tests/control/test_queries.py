"""What operators ask of builds, and what they are told."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
from support.asking import CHAIN, ask, ask_raw, flaky, refused, run, running
from support.durable import Plant, until
from support.fakes import (
    JSON,
    Reply,
    change,
    document,
    encode,
    ignore,
    open_service,
)
from support.walks import fail
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.client.counts import STATES
from scheduler.control import reports
from scheduler.control.eta import EtaEstimator
from scheduler.control.finished import FinishedBuilds
from scheduler.definition.rules import parse_limits
from scheduler.stores.log_reader import LogReader


def part(start: int, **fields: Any) -> JSON:
    """Asks for components from one on."""
    return {"from": start, **fields}


def counting(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """What an asynchronous method is called with from now on."""
    calls: list[Any] = []
    original = getattr(owner, name)

    async def counted(*args: Any, **options: Any) -> Any:
        calls.append(args[1:])
        return await original(*args, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


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


async def test_a_build_is_listed_once(autojump_clock: MockClock) -> None:
    """One whose second run is quarantined has the report of the first: what counts is how it stands."""
    plant = Plant(fail("a"))
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        process.service.roster.quarantined["b1"] = "it cannot be read"
        [one] = (await ask(process, "list", all=True))["builds"]
        assert (one["id"], one["status"], one["error"]) == ("b1", "quarantined", "it cannot be read")


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
