"""What becomes of a build whose connectors beat, are lost, are told to stop, or come back."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from support.asking import ask
from support.durable import Plant, Process
from support.fakes import JSON, Reply, World, change, document, ignore, open_world, states
from support.walks import Run, attempts, steering_of, tick
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.reply_subjects import beat_subject


def told(world: World) -> list[tuple[str, str]]:
    """Attempts that connectors were told to be given up, and why."""
    published = [one for one in world.bus.published if one.subject.startswith("scheduler.cancel.")]
    return [(said["attempt"], said["reason"]) for one in published for said in [json.loads(one.data)]]


async def say(world: World, subject: str, **said: Any) -> None:
    world.bus.deliver(subject, json.dumps(said).encode())
    await wait_all_tasks_blocked()


# ---- heartbeats


async def test_a_lost_connector_is_followed_by_another_attempt(autojump_clock: MockClock) -> None:
    """By the rule for retries, as after a timeout; the connectors are told which attempt was given up."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document([change("a", _heartbeat=5, _retry={"attempts": 2, "backoff": 0})]))
        await run.start(nursery)
        await tick(5.1)
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        lost = "connector lost: no heartbeat for 5 s (it never sent one)"
        assert told(world) == [("b1/a/1", lost)]
        world.cloud.answer("a")
        await tick()
        assert states(run.done) == {"a": "completed"}
        run.check_end()
        assert world.connectors.sending.pulses == {}


async def test_a_late_success_of_a_lost_connector_counts(autojump_clock: MockClock) -> None:
    """It had only been cut off: what it made is not made again."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        rule = {"attempts": 2, "backoff": 1_000}
        run = Run(world, document([change("a", _heartbeat=5, _retry=rule)]))
        await run.start(nursery)
        await tick(6)
        world.cloud.say(*world.cloud.requests[0], Reply(via="reply"))
        await tick()
        assert states(run.done) == {"a": "completed"}
        assert attempts(world, "a") == ["b1/a/1"]
        run.check_end()


async def test_a_reply_that_says_running_fails_the_component_as_ever(autojump_clock: MockClock) -> None:
    """A heartbeat has a subject of its own."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("a"))
        await run.start(nursery)
        await say(world, world.sent[0].reply, _state="running", progress=0.5)
        await tick()
        assert states(run.done) == {"a": "errored"}


# ---- given up


async def test_cancel_now_tells_connectors(autojump_clock: MockClock) -> None:
    """Each attempt in flight, with the operator's reason; what was not sent is not named."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abc", [("a", "c")]))
        await run.start(nursery)
        await steering_of(run).cancel(now=False, reason="first")
        assert told(world) == []
        await steering_of(run).cancel(now=True, reason="too dear")
        await tick()
        why = "given up by an operator, who cancelled the build: too dear"
        assert sorted(told(world)) == [("b1/a/1", why), ("b1/b/1", why)]
        assert states(run.done) == {"a": "errored", "b": "errored", "c": "waiting"}
        run.check_end()


async def test_what_was_answered_before_a_cancel_is_not_cancelled(autojump_clock: MockClock) -> None:
    """Its connector is done."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab"))
        await run.start(nursery)
        world.cloud.answer("a")
        await tick()
        await steering_of(run).cancel(now=True, reason="")
        await tick()
        assert [attempt for attempt, _ in told(world)] == ["b1/b/1"]


# ---- coming back


@pytest.mark.parametrize("order", ["", "pause", "cancel"])
async def test_a_connector_that_is_back_gets_its_request_again(autojump_clock: MockClock, order: str) -> None:
    """Also in a build that is paused, or sends nothing more: the attempt is in flight."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", [("a", "b")]))
        await run.start(nursery)
        if order == "pause":
            await steering_of(run).pause()
        elif order == "cancel":
            await steering_of(run).cancel(now=False, reason="")
        await say(world, "scheduler.returned.aws", attempts=["b1/a/1", "b1/b/1"])
        assert attempts(world, "a") == ["b1/a/1"] * 2
        assert attempts(world, "b") == []
        world.cloud.answer("a")
        await tick()
        assert run.plan.phases.settled == 1
        nursery.cancel_scope.cancel()


async def test_an_attempt_that_was_given_up_is_not_sent_again(autojump_clock: MockClock) -> None:
    """While it waits for the next attempt, and when that is in flight."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        rule = {"attempts": 3, "backoff": 0}
        run = Run(world, document([change("a", _timeout=5, _retry=rule)]))
        await run.start(nursery)
        await tick(5.1)
        await say(world, "scheduler.returned.aws", attempts=["b1/a/1"])
        assert attempts(world, "a") == ["b1/a/1", "b1/a/2"]
        nursery.cancel_scope.cancel()


# ---- after a restart


def script(component: JSON) -> Sequence[Reply]:
    """Connectors that never answer by themselves."""
    return ignore(component)


async def test_what_an_earlier_process_sent_is_sent_again_to_a_connector_that_is_back(
    autojump_clock: MockClock,
) -> None:
    """Once, under the same attempt id, although it was known to have reached the broker."""
    plant = Plant(script)
    async with plant.run() as process:
        await process.submit(document("a"))
        await trio.sleep(2)
    async with plant.run() as process:
        await trio.sleep(5)
        [first] = [message for message, _ in plant.requests]
        attempt = (first.headers or {})["Nats-Msg-Id"]
        for _ in range(2):
            process.bus.deliver("scheduler.returned.aws", json.dumps({"attempts": [attempt]}).encode())
        await trio.sleep(5)
        again = [(message.headers or {})["Nats-Msg-Id"] for message, _ in plant.requests]
        assert again == [attempt] * 2
        plant.answer("a", Reply(via="reply"))
        await trio.sleep(5)
        assert [one["_state"] for one in process.reports[-1][1]["changes"]] == ["completed"]


async def test_heartbeats_to_an_earlier_process_keep_an_attempt_alive(autojump_clock: MockClock) -> None:
    """The connector beats on the subject of the process that asked it; without that it is lost."""
    plant = Plant(script)
    async with plant.run() as process:
        await process.submit(document([change("a", _heartbeat=20)]))
        await trio.sleep(15)
    async with plant.run() as process:
        to = beat_subject(plant.requests[0][0].reply)
        for _ in range(10):
            await trio.sleep(15)
            process.bus.deliver(to, b'{"instance": "c-7"}')
        assert process.reports == []
        await trio.sleep(30)
        [(_, report)] = process.reports
        assert "connector lost: no heartbeat for 20 s (the last one from c-7)" in report["error"]


@pytest.mark.parametrize("order", ["resume", "cancel"])
async def test_what_is_held_back_and_sent_again_to_a_connector_that_is_back_is_in_flight(
    autojump_clock: MockClock, order: str
) -> None:
    """So the end of the pause does not send it once more, and a cancel awaits its reply."""
    plant = Plant(script)
    async with plant.run(connectors=False) as process:
        process.bus.lose = lambda message: message.subject == "vpc.create.aws"
        await process.submit(document("a"))
        await trio.sleep(1)
        assert (await ask(process, "pause"))["status"] == "paused"
        await trio.sleep(1)
    async with plant.run() as process:
        await trio.sleep(5)
        assert process.requests == []
        attempt = (await ask(process, "get"))["components"][0]["attempt"]
        assert attempt == 1
        [call] = process.service.connectors.router.by_component.values()
        await say_to(process, attempts=[call.request.attempt])
        assert process.requests == ["a"]
        await ask(process, order)
        await trio.sleep(5)
        assert process.requests == ["a"]
        assert process.reports == []
        plant.answer("a", Reply(via="reply"))
        await trio.sleep(5)
        [(_, report)] = process.reports
        assert [one["_state"] for one in report["changes"]] == ["completed"]


async def say_to(process: Process, **said: Any) -> None:
    process.bus.deliver("scheduler.returned.aws", json.dumps(said).encode())
    await trio.sleep(2)
