"""What operators do to builds that run, and to finished ones."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from itertools import pairwise

import pytest
import trio
from support.asking import CHAIN, NEEDED, STEERING, ask, ask_raw, flaky, refused, run, running
from support.durable import Plant, until
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

from scheduler.client.counts import STATES
from scheduler.errors import StoreUnavailable
from scheduler.journal.events import Cancelled, Paused
from scheduler.stores.log import BuildLog


async def found(site: Site, component: str, build: str = "b1") -> JSON:
    """How a component stands."""
    one: JSON
    [one] = [one for one in (await ask(site, "get", build))["components"] if one["id"] == component]
    return one


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


async def test_given_up_and_sent_again() -> None:
    """One component, whose attempt hangs; the answer says so, and so does the history."""
    async with running() as site:
        assert await refused(site, "retry", now=True) == (
            "invalid",
            "now: with one component, whose attempt is given up",
        )
        answer = await ask(site, "retry", component="a", now=True, reason="it hangs", by="ann")
        assert answer == {
            "id": "b1",
            "status": "running",
            "text": "gave up on attempt 1 of a; it is sent again now",
            "components": 1,
        }
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["a", "a"]
        assert (await found(site, "a"))["attempt"] == 2
        [order] = (await ask(site, "history"))["orders"]
        assert (order["verb"], order["component"], order["reason"]) == ("retry", "a", "it hangs")
        assert (await refused(site, "retry", component="b", now=True))[0] == "conflict"


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


async def test_a_command_is_answered_when_it_is_persisted() -> None:
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


async def test_a_command_that_cannot_be_persisted_is_unavailable() -> None:
    """The build is halted by that, as by any step that cannot be."""
    store = FakeStore()
    store.fail(lambda event: isinstance(event, Paused), StoreUnavailable("gone"))
    async with running(store=store) as site:
        code, text = await refused(site, "pause")
        assert (code, text) == ("unavailable", "it could not be persisted: store: gone")
        assert (await ask(site, "get"))["status"] == "halted"


async def test_a_command_that_the_store_does_not_take_in_time_is_unavailable(
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


async def test_what_a_memory_store_does_not_keep_is_not_tried_again() -> None:
    """That is said, with what to do instead."""
    async with open_service(script=fail("a")) as site:
        await run(site, CHAIN)
        for verb in ("retry", "skip"):
            code, text = await refused(site, verb, component="a")
            assert code == "unknown"
            assert "the store memory keeps none that is finished" in text
            assert "submit what is left" in text


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


async def test_what_failed_behind_a_component_is_tried_again(autojump_clock: MockClock) -> None:
    """In the same run or a new one; what is completed is not sent again, nor what failed elsewhere."""
    value = document("abcx", [("a", "b"), ("b", "c")]) | {"options": {"on_error": "continue"}}
    of_b, of_x = flaky("b", 2), flaky("x", 1)
    plant = Plant(lambda one: (of_x if one["_component_id"] == "x" else of_b)(one))
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: process.reports)
        await trio.sleep(1)
        answer = await ask(process, "retry", **{"from": "a"})
        assert answer["text"] == "run 2 begins: 2 components will be sent, 1 of them again"
        await until(lambda: len(process.reports) == 2)
        await trio.sleep(1)
        await ask(process, "retry", **{"from": "b"})
        await until(lambda: len(process.reports) == 3)
        assert sorted(process.requests) == ["a", "b", "b", "b", "c", "x"]
        assert states(process.reports[-1][1]) == {
            **dict.fromkeys("abc", "completed"),
            "x": "errored",
        }


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
    """Each command is refused with how it ended."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        for verb in set(STEERING) - {"retry", "skip"}:
            code, text = await refused(process, verb, **NEEDED.get(verb, {}))
            assert (code, text) == ("conflict", "b1 is finished (done)"), verb
        [reason] = (await ask(process, "why"))["reasons"]
        assert reason["text"] == "it is finished"
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
