"""Components that take long to be rendered: in a thread, while everything else goes on."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from support.durable import Plant, until
from support.fakes import (
    JSON,
    FakeExecutor,
    Gate,
    Reply,
    World,
    change,
    document,
    encode,
    ignore,
    open_world,
    states,
)
from support.walks import Run, steering_of, tick
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.config import parse_rules
from scheduler.definition.strictjson import Raw
from scheduler.dispatch.slots import Slots
from scheduler.plan import steering
from scheduler.walk import render

LONG: JSON = {"numbers": [{"n": f"{n:07}", "x": "x" * 40} for n in range(400)]}
"""What `HEAVY` looks through."""
HEAVY = "{{ (components['a'].numbers | tojson | length) ~ (components['a'].numbers | tojson | length) }}"
"""More work than is done on the spot."""


def laborious(name: str) -> JSON:
    return change(name, x=HEAVY)


@asynccontextmanager
async def begun(value: JSON, **options: object) -> AsyncIterator[tuple[World, Run, Gate]]:
    """A build whose laborious components are being rendered, and what holds them there."""
    async with open_world(**options) as world:  # type: ignore[arg-type]
        gate = world.executor.gate = Gate()
        run = Run(world, value)
        async with trio.open_nursery() as nursery:
            await run.start(nursery)
            await gate.reached.wait()
            await wait_all_tasks_blocked()
            yield world, run, gate
            gate.open()


async def test_what_takes_long_is_rendered_elsewhere_and_sent(autojump_clock: MockClock) -> None:
    value = document([change("a", **LONG), laborious("b")], [("a", "b")])
    async with begun(value) as (world, run, _):
        assert world.cloud.asked == ["a"]
    assert world.executor.owners == ["b1"]
    assert world.cloud.asked == ["a", "b"]
    sent = json.loads(world.cloud.requests[-1][0].data)
    size = len(json.dumps(LONG["numbers"], separators=(",", ":")))
    assert sent["x"] == f"{size}{size}"
    run.check_end()
    assert set(states(run.done).values()) == {"completed"}


async def test_others_begin_while_one_is_rendered(autojump_clock: MockClock) -> None:
    names = ["d", "e", "f"]
    edges = [("a", name) for name in ["b", "c", *names]]
    value = document([change("a", **LONG), laborious("b"), laborious("c"), *names], edges)
    async with begun(value) as (world, run, _):
        assert world.cloud.asked == ["a", *names]
        assert world.executor.owners == ["b1"], "one of a build at a time"
    assert sorted(world.cloud.asked[4:]) == ["b", "c"], "which of the two is rendered first is left open"
    run.check_end()


@pytest.mark.parametrize("end", ["halt", "stop"])
async def test_nothing_of_it_leaves_once_the_build_is_halted(autojump_clock: MockClock, end: str) -> None:
    value = document([change("a", **LONG), laborious("b"), laborious("c")], [("a", "b"), ("a", "c")])
    async with begun(value) as (world, run, _):
        if end == "halt":
            run.walk.halt("enough")
        else:
            run.walk.stop()
        await wait_all_tasks_blocked()
        assert run.ends == 1, "it does not wait for the thread"
    assert world.cloud.asked == ["a"]
    run.check_end()


async def test_a_pause_meanwhile_holds_it_back(autojump_clock: MockClock) -> None:
    value = document([change("a", **LONG), laborious("b"), laborious("c")], [("a", "b"), ("a", "c")])
    async with begun(value) as (world, run, gate):
        steering.pause(run.plan, on=True)
        run.walk._hold.pause()
        gate.open()
        world.executor.gate = None
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        assert len(world.executor.owners) == 1, "nothing more is rendered for nothing"
        assert world.slots.taken == 0
        steering.pause(run.plan, on=False)
        run.walk._hold.unpause()
        await wait_all_tasks_blocked()
    assert world.cloud.asked == ["a", "b", "c"]
    run.check_end()
    assert not run.plan.requests._renderings


async def test_what_is_skipped_meanwhile_is_not_sent(autojump_clock: MockClock) -> None:
    value = document([change("a", **LONG), laborious("b"), change("c")], [("a", "b"), ("b", "c")])
    async with begun(value) as (world, run, gate):
        vertex = run.plan.graph.index["b"]
        gate.open()
        world.executor.gate = None
        await render(run.plan, vertex, world.executor)
        steering.supply(run.plan, vertex, {"y": 1})
        run.walk._lineup.stir(vertex)
        run.walk._lineup.respawn()
        await wait_all_tasks_blocked()
    assert world.cloud.asked == ["a", "c"]
    run.check_end()
    assert states(run.done) == {"a": "completed", "b": "completed", "c": "completed"}


async def test_it_is_refused_where_it_is_too_much_work(autojump_clock: MockClock) -> None:
    costly = "{{ " + " ~ ".join(["(components['a'].numbers | tojson)"] * 90) + " }}"
    value = document([change("a", **LONG), change("b", tags={"x": costly}), "c"], [("a", "b")])
    async with open_world() as world:
        run = Run(world, value)
        await run.go()
    run.check_end()
    [error] = [one["error"] for one in run.done["changes"] if one["_component_id"] == "b"]
    assert error.startswith("tags.x: takes more"), error


async def test_the_slots_are_those_of_the_subject_that_comes_out(autojump_clock: MockClock) -> None:
    """A limit cannot be got round by a provider that takes long to be told."""
    provider = (
        "{{ 'gcp' if (components['a'].numbers | tojson | length) ~ (components['a'].numbers | tojson) }}"
    )
    names = ["b", "c", "d"]
    value = document(
        [change("a", **LONG), *(change(name, provider=provider) for name in names)],
        [("a", name) for name in names],
    )
    most = 0
    async with open_world(slots=Slots(parse_rules("*.*.gcp=1"))) as world:
        run = Run(world, value)
        sending = world.connectors.send

        def send(*args: object) -> object:
            nonlocal most
            flights = [call for call in run.walk.calls() if call.request.subject == "vpc.create.gcp"]
            most = max(most, len(flights) + 1)
            return sending(*args)  # type: ignore[arg-type]

        world.connectors.send = send  # type: ignore[assignment]
        await run.go()
    assert most == 1
    assert len(world.executor.owners) == 2 * len(names), "once for the subject, and once to be sent"
    run.check_end()
    assert set(states(run.done).values()) == {"completed"}


async def test_the_next_process_knows_its_request_again(autojump_clock: MockClock) -> None:
    """What was sent is rendered again after a restart, beside the loop, and its reply is taken."""
    plant = Plant(lambda component: [] if component["_component_id"] == "b" else [Reply()])
    executor = FakeExecutor()
    plant.executor = executor
    value = document([change("a", **LONG), laborious("b"), "c"], [("a", "b"), ("b", "c")])
    async with plant.run() as process:
        await process.submit(value)
        # Until the log says that it has left.
        await trio.sleep(5)
        assert process.requests == ["a", "b"]
    first = len(executor.owners)
    async with plant.run() as process:
        await trio.sleep(1)
        assert len(executor.owners) > first
        plant.answer("b")
        await until(lambda: process.reports)
        assert process.requests == ["c"]
        assert set(states(process.report[1]).values()) == {"completed"}


async def test_an_operator_may_skip_what_takes_long(autojump_clock: MockClock) -> None:
    """What it is completed with is rendered as far as it can be, beside the loop, before anything changes."""

    def script(component: JSON) -> list[Reply]:
        return [Reply("errored" if component["_component_id"] == "b" else "completed")]

    plant = Plant(script)
    executor = FakeExecutor()
    plant.executor = executor
    value = document([change("a", **LONG), laborious("b"), "c"], [("a", "b"), ("b", "c")])
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: process.reports)
        before = len(executor.owners)
        inbox, answers = process.bus.new_inbox(), []
        await process.bus.subscribe(inbox, lambda message: answers.append(json.loads(message.data)))
        process.bus.deliver(
            "scheduler.build.skip", encode({"id": "b1", "component": "b", "output": {"y": 1}}), reply=inbox
        )
        await until(lambda: len(process.reports) == 2)
        assert len(executor.owners) > before
        assert "error" not in answers[0], answers
        [b] = [one for one in process.reports[1][1]["changes"] if one["_component_id"] == "b"]
        assert b["_state"] == "completed"
        assert b["y"] == 1
        assert b["x"].isdigit(), "it was rendered"


@pytest.mark.parametrize("size", [1_000, 40_000])
async def test_the_secrets_of_a_large_request_are_learnt_elsewhere(
    autojump_clock: MockClock, size: int
) -> None:
    """What references fetch is known before the request leaves, and a long search is not done on the loop."""
    value = document(
        [change("a", note="c4nary" + "x" * size), change("b", password="{{ components['a'].note }}")],
        [("a", "b")],
    )
    async with open_world() as world:
        run = Run(world, value)
        await run.go()
        assert world.cloud.asked == ["a", "b"]
        assert len(world.executor.owners) == (2 if size > 16_384 else 0)
        assert "c4nary" not in run.plan.texts.masked("it is c4nary" + "x" * size)
    run.check_end()
    assert not run.plan.requests._renderings


async def test_a_large_reply_is_looked_through_elsewhere_and_kept_small(autojump_clock: MockClock) -> None:
    """Its secrets are known, and whoever refers to what is in it finds that; the report has all of it."""
    numbers = [{"n": number, "tags": ["x"]} for number in range(4_000)]
    fields = {"numbers": numbers, "passwords": ["c4nary-bird", *["other-bird"] * 4_000]}

    def script(component: JSON) -> list[Reply]:
        return [Reply(fields=fields if component["_component_id"] == "a" else {})]

    value = document(
        [
            "a",
            change("b", x="{{ components['a'].numbers[3999].n }}"),
            change("c", x='$(components.#[_component_id="a"].numbers.7.n)'),
        ],
        [("a", "b"), ("a", "c")],
    )
    async with open_world(script=script) as world:
        run = Run(world, value)
        await run.go()
        assert world.executor.owners
        kept = run.plan.state.ledger.final[run.plan.graph.index["a"]]
        assert isinstance(kept["numbers"], Raw)
        assert "c4nary" not in run.plan.texts.masked("it is c4nary-bird")
    run.check_end()
    a, b, c = run.done["changes"]
    assert (a["numbers"], a["passwords"]) == (numbers, fields["passwords"])
    assert (b["x"], c["x"]) == (3_999, "7")


@pytest.mark.parametrize("command", ["supply", "retry"])
async def test_a_command_for_another_one_while_a_subject_is_found_out(
    autojump_clock: MockClock, command: str
) -> None:
    """Two tasks then wait for the same component to be rendered; it is sent once, and the build lives on."""
    open_ = change("b", x=HEAVY, _provider="{{ 'g' ~ 'cp' }}")
    value = document([change("a", **LONG), open_, "c", "d", "e"], [("a", "b")], options={"max_failures": 3})
    async with open_world(script=ignore) as world:
        run = Run(world, value)
        async with trio.open_nursery() as nursery:
            await run.start(nursery)
            gate = world.executor.gate = Gate()
            if command == "retry":
                world.cloud.answer("c", Reply("errored", fields={"error": "no"}))
                await tick(1)
            world.cloud.answer("a", Reply(fields=LONG))
            await gate.reached.wait()
            await wait_all_tasks_blocked()
            vertex, commands = run.plan.graph.index["c"], steering_of(run)
            if command == "supply":
                await commands.supply(vertex, {"y": 1})
            else:
                await commands.retry(vertex)
            await wait_all_tasks_blocked()
            gate.open()
            world.executor.gate = None
            await tick(1)
            assert run.ends == 0
            assert world.cloud.asked.count("b") == 1
            nursery.cancel_scope.cancel()
