"""The walk of one build: order, slots, failures, the store, stopping, and going on where another left off."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import structlog
import trio
from support.fakes import (
    JSON,
    LOST,
    FakeStore,
    Match,
    Reply,
    accepted,
    change,
    document,
    finished,
    ignore,
    open_world,
    settled,
    started,
    states,
    withdrawn,
)
from support.walks import Run, fail
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.model import State
from scheduler.dispatch.slots import Slots
from scheduler.errors import StoreError, StoreUnavailable
from scheduler.journal.events import Finished, Settled, Started, Withdrawn
from scheduler.plan import Plan, Request
from scheduler.plan.outcome import failure
from scheduler.plan.phases import Phases


async def complete(value: JSON, **options: Any) -> Run:
    """Run a build to its end."""
    resumed = options.pop("resumed", False)
    async with open_world(**options) as world:
        run = Run(world, value, resumed=resumed)
        await run.go()
        run.check_end()
        return run


# ---- order


async def test_a_component_is_sent_when_everything_it_depends_on_is_done() -> None:
    """A diamond goes out top, both sides, bottom, and is done."""
    edges = [("start", "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "end")]
    run = await complete(document("abcd", edges))
    asked = run.world.cloud.asked
    assert (asked[0], set(asked[1:3]), asked[3]) == ("a", {"b", "c"}, "d")
    assert "error" not in run.done
    assert states(run.done) == dict.fromkeys("abcd", "completed")
    assert {one["_component_id"] for one in run.done["components"]} == set("abcd")


async def test_what_does_not_depend_on_one_another_is_in_flight_at_once() -> None:
    """All that is due is sent, before any of it is answered."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abcde", [("a", "e")]))
        await run.start(nursery)
        assert set(world.cloud.asked) == set("abcd")
        for name in "abcd":
            world.cloud.answer(name)
        await wait_all_tasks_blocked()
        world.cloud.answer("e")
        await wait_all_tasks_blocked()
        assert "error" not in run.done


async def test_each_step_is_persisted_before_the_next_one() -> None:
    """A start is persisted before its request leaves, an outcome before what depends on it starts."""
    async with open_world() as world, trio.open_nursery() as nursery:
        holds = [world.fake_store.hold(started("a")), world.fake_store.hold(settled("a"))]
        run = Run(world, document("ab", [("a", "b")]))
        await run.start(nursery)
        assert world.cloud.asked == []
        holds[0].open()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        assert not any(started("b")(event) for event in run.events)
        holds[1].open()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a", "b"]
        names = [(type(event).__name__, getattr(event, "component", "")) for event in run.events]
        assert names == [
            ("Started", "a"),
            ("Settled", "a"),
            ("Started", "b"),
            ("Settled", "b"),
            ("Finished", ""),
        ]
        assert isinstance(run.events[0], Started)
        assert run.events[0].attempt == "b1/a/1"


async def test_references_are_filled_with_what_the_dependencies_returned() -> None:
    """A component is rendered when it is due, with its dependency's reply."""
    script = lambda one: [Reply(fields={"vpc_id": f"id-of-{one['_component_id']}"})]  # noqa: E731
    run = await complete(document(["a", change("b", vpc="{{ components['a'].vpc_id }}")]), script=script)
    assert run.world.cloud.requests[1][1]["vpc"] == "id-of-a"


async def test_an_instant_completes_without_being_sent_and_without_a_slot() -> None:
    """`_action: none` is done once its dependencies are, though no slot is free."""
    value = document(["a", change("n", action="none"), "z"], [("a", "n"), ("n", "z")])
    run = await complete(value, slots=Slots(per_instance=1, per_build=1))
    assert run.world.cloud.asked == ["a", "z"]
    assert states(run.done) == dict.fromkeys("anz", "completed")
    async with open_world(slots=Slots(per_instance=1, per_build=1)) as world:
        assert world.slots.try_take("somebody else", "vpc.create.fake")
        one = Run(world, document([change("n", action="none")]))
        await one.go()
        assert states(one.done) == {"n": "completed"}


async def test_what_is_completed_already_is_not_sent() -> None:
    """A change that comes in completed is done, and satisfies what depends on it."""
    run = await complete(document([change("a", _state="completed"), "b"], [("a", "b")]))
    assert run.world.cloud.asked == ["b"]
    assert "error" not in run.done


async def test_a_build_without_changes_is_done_at_once() -> None:
    """Nothing to do is done."""
    run = await complete(document([]))
    assert "error" not in run.done
    assert [type(event) for event in run.events] == [Finished]


async def test_new_states_are_told_to_the_observer() -> None:
    """The observer is told that a component runs, and how it ended."""
    run = await complete(document("ab", [("a", "b")]), script=fail("b"))
    assert run.observed == [
        ("a", State.RUNNING, None),
        ("a", State.COMPLETED, None),
        ("b", State.RUNNING, None),
        ("b", State.ERRORED, "quota exceeded"),
    ]


# ---- slots


async def test_no_more_are_in_flight_than_the_build_may_have() -> None:
    """Beyond the limit components wait in the order in which they became due."""
    async with open_world(script=ignore, slots=Slots(per_instance=10, per_build=2)) as world:
        async with trio.open_nursery() as nursery:
            run = Run(world, document("abcde"))
            await run.start(nursery)
            sent = list(world.cloud.asked)
            assert len(sent) == 2
            while len(sent) < 5:
                world.cloud.answer(sent[len(sent) - 2])
                await wait_all_tasks_blocked()
                assert len(world.cloud.asked) == len(sent) + 1
                sent = list(world.cloud.asked)
            for name in sent[-2:]:
                world.cloud.answer(name)
        assert states(run.done) == dict.fromkeys("abcde", "completed")
        run.check_end()


async def test_after_an_error_those_who_wait_for_a_slot_are_not_sent() -> None:
    """An error lets go whoever queues for a slot, without a request, and what is in flight is awaited."""
    async with open_world(script=ignore, slots=Slots(per_instance=10, per_build=2)) as world:
        async with trio.open_nursery() as nursery:
            run = Run(world, document("abcde"))
            await run.start(nursery)
            first, second = world.cloud.asked
            world.cloud.answer(first, Reply("errored", fields={"error": "no"}))
            await wait_all_tasks_blocked()
            assert world.cloud.asked == [first, second]
            assert run.ends == 0, "the second one is in flight"
            world.cloud.answer(second)
        assert run.done["error"] == f"{first}: no"
        assert sorted(states(run.done).values()) == ["completed", "errored", "waiting", "waiting", "waiting"]
        run.check_end()


async def test_a_halted_build_does_not_wait_for_the_slots_of_others() -> None:
    """A build that is halted is reported, though others hold all the slots that it queued for."""
    async with open_world(slots=Slots(per_instance=1, per_build=1)) as world:
        assert world.slots.try_take("another build", "vpc.create.fake")
        async with trio.open_nursery() as nursery:
            run = Run(world, document("abc"))
            await run.start(nursery)
            run.walk.halt("enough")
            await wait_all_tasks_blocked()
            assert run.ends == 1
            nursery.cancel_scope.cancel()
        assert states(run.done) == dict.fromkeys("abc", "waiting")
        assert world.slots.taken == 1


# ---- failures


async def test_after_an_error_nothing_new_is_sent_and_what_is_in_flight_is_awaited() -> None:
    """The report comes when nothing is in flight: with the first cause, and the rest waiting."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abcd", [("a", "c"), ("b", "d")]))
        await run.start(nursery)
        world.cloud.answer("a", Reply("errored", fields={"error": "quota exceeded"}))
        await wait_all_tasks_blocked()
        assert run.ends == 0
        world.cloud.answer("b", Reply("errored", fields={"error": "another"}))
        await wait_all_tasks_blocked()
        assert run.done["error"] == "a: quota exceeded"
        assert states(run.done) == {"a": "errored", "b": "errored", "c": "waiting", "d": "waiting"}
        assert {one["_component_id"]: one.get("error") for one in run.done["changes"]} == {
            "a": "quota exceeded",
            "b": "another",
            "c": None,
            "d": None,
        }
        assert set(world.cloud.asked) == {"a", "b"}
        run.check_end()


async def test_halted_between_persisting_and_sending_the_start_is_taken_back() -> None:
    """After an error that comes while another's start is persisted that one is not sent, but taken back."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(started("b"))
        run = Run(world, document("ab"))
        await run.start(nursery)
        assert world.cloud.asked == ["a"]
        world.cloud.answer("a", Reply("errored"))
        await wait_all_tasks_blocked()
        assert run.ends == 0
        gate.open()
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["a"]
        assert states(run.done) == {"a": "errored", "b": "waiting"}
        kinds = [type(event) for event in run.events if getattr(event, "component", "") == "b"]
        assert kinds == [Started, Withdrawn]
        [back] = [event for event in run.events if isinstance(event, Withdrawn)]
        assert back.body["_state"] == "waiting"
        run.check_end()


async def test_a_reference_that_cannot_be_resolved_fails_the_component_before_it_is_sent() -> None:
    """What refers to something that the dependency did not return fails, and is not sent."""
    run = await complete(document(["a", change("b", vpc="{{ components['a'].vpc_id }}")]))
    assert run.world.cloud.asked == ["a"]
    assert states(run.done) == {"a": "completed", "b": "errored"}
    assert run.done["error"].startswith("b: ")


async def test_a_provider_that_renders_to_nonsense_fails_and_is_not_sent() -> None:
    """A token that would forge another subject fails its component."""
    for provider in ("x.y", "done", "*", "a b", "a\r\nPUB x 0"):
        script = lambda _, provider=provider: [Reply(fields={"p": provider})]  # noqa: E731
        value = document(["a", change("b", provider="{{ components['a'].p }}")])
        run = await complete(value, script=script)
        assert run.world.cloud.asked == ["a"]
        assert run.done["error"].startswith("b: _provider: ")


async def test_a_timed_out_component_keeps_its_late_success(autojump_clock: MockClock) -> None:
    """A success that comes after the timeout, while the build goes on, stands beside the error."""

    def script(component: JSON) -> Sequence[Reply]:
        late = component["_component_id"] == "late"
        return [Reply(after=150.0 if late else 300.0, fields={"x": 1})]

    value = document([change("late", _timeout=100), change("long", _timeout=1_000)])
    run = await complete(value, script=script)
    assert run.done["error"] == "late: timed out after 100 s"
    late, long = run.done["changes"]
    assert late["_state"] == "errored"
    assert late["adoptable"]["_state"] == "completed"
    assert late["adoptable"]["x"] == 1
    assert long["_state"] == "completed"
    adopted = [event for event in run.events if isinstance(event, Settled) and "adoptable" in event.body]
    assert [event.component for event in adopted] == ["late"]


async def test_a_queued_request_is_withdrawn_and_persisted_as_waiting() -> None:
    """A request in the queue of a broker that is away does not leave after a halt, and the store knows."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        world.bus.disconnect()
        run = Run(world, document("a"))
        await run.start(nursery)
        assert any(started("a")(event) for event in run.events)
        run.walk.halt("enough")
        await wait_all_tasks_blocked()
        assert states(run.done) == {"a": "waiting"}
        assert any(withdrawn("a")(event) for event in run.events)
        assert run.observed == [("a", State.RUNNING, None), ("a", State.WAITING, None)]
        world.bus.reconnect()
        await wait_all_tasks_blocked()
        assert world.sent == []


async def test_what_never_left_is_taken_back_when_another_fails() -> None:
    """When a component fails while the broker is away, what stands in the queue never leaves."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(started("b"))
        run = Run(world, document("ab"))
        await run.start(nursery)
        world.bus.disconnect()
        gate.open()
        await wait_all_tasks_blocked()
        assert world.bus.queued == 1
        [first, _] = run.walk.calls()
        first.deliver(failure("no"))
        await wait_all_tasks_blocked()
        world.bus.reconnect()
        await wait_all_tasks_blocked()
        assert states(run.done) == {"a": "errored", "b": "waiting"}
        assert world.cloud.asked == ["a"]


async def test_a_broker_that_comes_back_gets_each_request_once(autojump_clock: MockClock) -> None:
    """An outage in the middle of a build fails nothing and repeats nothing."""
    async with open_world(script=lambda _: [Reply(after=5.0)]) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abcd", [("a", "b"), ("b", "c"), ("c", "d")]))
        nursery.start_soon(run.go)
        await trio.sleep(7)
        world.bus.disconnect()
        await trio.sleep(1)
        world.bus.reconnect()
        await trio.sleep(1_000)
        assert states(run.done) == dict.fromkeys("abcd", "completed")
        assert set(world.cloud.counts.values()) == {1}


# ---- the store fails

ERRORS = [StoreError("relation does not exist"), StoreUnavailable("not answered within 30 s"), LOST]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", [started("b"), settled("b"), settled("a")], ids=["start", "end", "earlier"])
async def test_when_the_store_fails_the_build_halts_and_what_is_in_flight_is_awaited(
    error: Exception, where: Match
) -> None:
    """Wherever the store fails, nothing new is sent, what was sent is awaited, and one report says so."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        world.fake_store.fail(where, error)
        gate = world.fake_store.hold(started("b"))
        run = Run(world, document("abcd", [("a", "c"), ("b", "d")]))
        await run.start(nursery)
        gate.open()
        await wait_all_tasks_blocked()
        if "b" in world.cloud.asked:
            world.cloud.answer("b" if where(Settled("b", {})) else "a")
            await wait_all_tasks_blocked()
        assert run.ends == 0, "one is in flight"
        assert not {"c", "d"} & set(world.cloud.asked)
        for name in world.cloud.asked:
            world.cloud.answer(name)
        await wait_all_tasks_blocked()
        assert run.done["error"] == f"store: {error}"
        assert set(world.cloud.asked) <= {"a", "b"}
        assert states(run.done)["a"] == "completed"
        run.check_end()


async def test_a_store_that_says_store_by_itself_is_not_repeated() -> None:
    """The report's first words are `store:`, once."""
    store = FakeStore()
    store.fail(started("a"), StoreError("store: build.set.mapping.change: broken"))
    run = await complete(document("a"), store=store)
    assert run.done["error"] == "store: build.set.mapping.change: broken"


async def test_a_start_that_could_not_be_persisted_is_not_sent() -> None:
    """Without its start in the store a request does not leave."""
    store = FakeStore()
    store.fail(started("a"), LOST)
    run = await complete(document("ab", [("a", "b")]), store=store)
    assert run.world.sent == []
    assert states(run.done) == {"a": "waiting", "b": "waiting"}


async def test_when_the_end_cannot_be_persisted_the_report_says_so() -> None:
    """A store that fails at the very end makes the build an errored one."""
    store = FakeStore()
    store.fail(finished, LOST)
    run = await complete(document("a"), store=store)
    assert run.done["error"] == "store: record not found"
    assert states(run.done) == {"a": "completed"}


async def test_when_taking_back_a_start_fails_there_is_still_one_report() -> None:
    """The first cause stays the one reported when the store fails after it."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        world.fake_store.fail(withdrawn("b"), LOST)
        gate = world.fake_store.hold(started("b"))
        run = Run(world, document("ab"))
        await run.start(nursery)
        world.cloud.answer("a", Reply("errored", fields={"error": "no"}))
        await wait_all_tasks_blocked()
        gate.open()
        await wait_all_tasks_blocked()
        assert run.done["error"] == "a: no"


# ---- bugs


@pytest.mark.parametrize("where", [started("b"), settled("b"), finished], ids=["start", "end", "finish"])
async def test_a_bug_in_the_store_ends_the_build_with_a_report_that_says_so(where: Match) -> None:
    """An exception nobody foresaw ends this build, fails what was in flight, and the report says why."""
    store = FakeStore()
    store.fail(where, RuntimeError("a bug"))
    with structlog.testing.capture_logs() as logs:
        run = (
            await complete(
                document("ab"),
                store=store,
                script=lambda one: [Reply()] if one["_component_id"] == "b" else [],
            )
            if where is not finished
            else await complete(document("ab"), store=store)
        )
    assert "internal error in the scheduler" in run.done["error"]
    assert any(line["log_level"] == "error" and line.get("exc_info") for line in logs)
    if where is not finished:
        assert states(run.done)["a"] in {"errored", "waiting"}


async def test_a_store_that_never_works_again_costs_no_report() -> None:
    """Where a bug strikes at every append there is a report all the same."""
    store = FakeStore()
    store.fail(lambda event: not accepted(event), RuntimeError("a bug"))
    run = await complete(document("ab"), store=store)
    assert "internal error in the scheduler" in run.done["error"]


async def test_a_bug_while_sending_fails_what_is_in_flight() -> None:
    """A connector table that raises ends the build: what was sent has an unknown outcome and says so."""

    async with open_world(script=ignore) as world:
        run = Run(world, document("ab"))
        gate = world.fake_store.hold(started("b"))
        send = world.connectors.send

        def broken(request: Request, token: str = "", departing: Any = None) -> Any:
            if request.component == "b":
                raise RuntimeError("a bug")
            return send(request, token, departing)

        world.connectors.send = broken  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            await run.start(nursery)
            gate.open()
        assert states(run.done) == {"a": "errored", "b": "errored"}
        assert "outcome is unknown" in run.done["error"]
        run.check_end()


async def test_a_bug_in_one_build_does_not_reach_another() -> None:
    """Two builds share slots, connectors and store; a fault in one leaves the other to its work."""
    async with open_world(script=ignore) as world:
        world.fake_store.fail(settled("bad"), RuntimeError("a bug"))
        async with trio.open_nursery() as nursery:
            bad, good = (
                Run(world, document([name, f"{name}-2"], build=f"build-{name}")) for name in ("bad", "good")
            )
            await bad.start(nursery)
            await good.start(nursery)
            world.cloud.answer("bad")
            await wait_all_tasks_blocked()
            assert bad.ends == 1
            assert good.ends == 0
            world.cloud.answer("good")
            world.cloud.answer("good-2")
        assert "error" in bad.done
        assert "error" not in good.done
        good.check_end()


async def test_a_plan_that_is_stuck_is_a_bug_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that ends without a cause and with changes that never began raises, loudly, and reports."""
    async with open_world() as world:
        run = Run(world, document("ab"))
        monkeypatch.setattr(Phases, "unsettled", lambda _: [])
        with structlog.testing.capture_logs() as logs:
            await run.go()
        assert "internal error in the scheduler" in run.done["error"]
        assert any("internal error" in line["event"] for line in logs)


# ---- stopping


async def test_stopped_without_a_store_that_can_resume_it_is_reported_as_an_error() -> None:
    """With the memory store a build that is cut short fails: what waits was never sent."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", [("a", "b")]))
        await run.start(nursery)
        run.walk.stop()
        await wait_all_tasks_blocked()
        assert run.ends == 0, "what is in flight is awaited"
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert states(run.done) == {"a": "completed", "b": "waiting"}
        assert run.done["error"] == "the scheduler was shut down before there was a reply"
        run.check_end()


async def test_stopped_with_a_store_that_can_resume_it_is_not_reported() -> None:
    """With a resumable store a build that is cut short stays as it is, and no end is persisted."""
    async with open_world(script=ignore, store=FakeStore(resumable=True)) as world:
        async with trio.open_nursery() as nursery:
            run = Run(world, document("ab", [("a", "b")]))
            await run.start(nursery)
            run.walk.stop()
            world.cloud.answer("a")
            await wait_all_tasks_blocked()
        assert run.ends == 1
        assert run.report is None
        assert not any(map(finished, run.events))
        run.check_end()


async def test_stopped_when_all_is_done_it_is_reported_as_done() -> None:
    """A build whose last component completes after the stop is done, whatever the store."""
    for resumable in (False, True):
        async with open_world(script=ignore, store=FakeStore(resumable=resumable)) as world:
            async with trio.open_nursery() as nursery:
                run = Run(world, document("a"))
                await run.start(nursery)
                run.walk.stop()
                world.cloud.answer("a")
            assert "error" not in run.done


async def test_stopped_while_it_backs_off_the_request_is_taken_back(autojump_clock: MockClock) -> None:
    """A request that nobody takes is not repeated after a stop."""
    async with open_world(cloud=False, store=FakeStore(resumable=True)) as world:
        async with trio.open_nursery() as nursery:
            run = Run(world, document("a"))
            await run.start(nursery)
            sent = len(world.sent)
            run.walk.stop()
        assert len(world.sent) == sent
        assert run.report is None
        assert any(withdrawn("a")(event) for event in run.events)


async def test_given_up_without_a_store_that_can_resume_it_what_is_in_flight_fails() -> None:
    """When the grace is over the memory store's builds are reported, their outcomes unknown."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("abc", [("a", "c")]))
        await run.start(nursery)
        run.walk.stop()
        run.walk.abandon(0.5)
        await wait_all_tasks_blocked()
        assert states(run.done) == {"a": "errored", "b": "errored", "c": "waiting"}
        assert run.done["error"].endswith(
            "the scheduler was shut down before there was a reply: outcome unknown"
        )
        run.check_end()


async def test_given_up_with_a_store_that_can_resume_it_what_is_in_flight_stays_running() -> None:
    """When the grace is over a resumable build is left in the store as running."""
    async with open_world(script=ignore, store=FakeStore(resumable=True)) as world:
        async with trio.open_nursery() as nursery:
            run = Run(world, document("a"))
            await run.start(nursery)
            run.walk.stop()
            run.walk.abandon(0.5)
            await wait_all_tasks_blocked()
            assert run.ends == 1, "at once, without the time that is there for the store"
        assert run.report is None
        assert [type(event) for event in run.events] == [Started]
        assert world.connectors.router.by_token == {}
        assert world.slots.taken == 0


@pytest.mark.parametrize("resumable", [False, True])
async def test_given_up_what_is_being_persisted_has_a_little_time(
    resumable: bool, autojump_clock: MockClock
) -> None:
    """A store that hangs does not keep a walk that is given up."""
    async with open_world(store=FakeStore(resumable=resumable)) as world, trio.open_nursery() as nursery:
        for name in "ab":
            world.fake_store.hold(started(name))
        run = Run(world, document("ab"))
        await run.start(nursery)
        run.walk.stop()
        began = trio.current_time()
        run.walk.abandon(0.5)
        await trio.sleep(0.4)
        assert run.ends == 0
        await trio.sleep(0.2)
        assert run.ends == 1
        assert trio.current_time() - began < 1
        assert world.sent == []
        assert world.slots.taken == 0
        if resumable:
            assert run.report is None
        else:
            assert states(run.done) == {"a": "waiting", "b": "waiting"}


async def test_a_late_success_is_persisted_when_the_build_is_left_to_the_next_process(
    autojump_clock: MockClock,
) -> None:
    """What came late is not lost where a build is cut short and can be resumed."""

    def script(component: JSON) -> Sequence[Reply]:
        return [Reply(after=20.0)] if component["_component_id"] == "late" else []

    async with open_world(script=script, store=FakeStore(resumable=True)) as world:
        async with trio.open_nursery() as nursery:
            run = Run(world, document([change("late", _timeout=10), "long"]))
            nursery.start_soon(run.go)
            await trio.sleep(30)
            run.walk.stop()
            run.walk.abandon(0.5)
        assert run.report is None
        [kept] = [event for event in run.events if isinstance(event, Settled) and "adoptable" in event.body]
        assert kept.component == "late"


# ---- going on where another process left off


async def test_what_is_running_is_awaited_and_not_sent() -> None:
    """A build that is taken up sends what waits, and waits for what an earlier process sent."""
    value = document([change("a", _state="running"), "b", "c"], [("a", "c")])
    async with open_world() as world, trio.open_nursery() as nursery:
        run = Run(world, value, resumed=True)
        await run.start(nursery)
        assert run.walk.listening.is_set()
        assert world.cloud.asked == ["b"]
        world.bus.deliver(
            "vpc.create.aws.done", b'{"service":"b1","_component_id":"a","_state":"completed","x":1}'
        )
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["b", "c"]
        assert states(run.done) == dict.fromkeys("abc", "completed")
        assert not any(started("a")(event) for event in run.events)
        run.check_end()


async def test_what_is_running_times_out_from_when_it_was_taken_up(autojump_clock: MockClock) -> None:
    """A component that an earlier process sent and nobody answers fails after its whole timeout."""
    value = document([change("a", _state="running", _timeout=60)])
    async with open_world(cloud=False) as world, trio.open_nursery() as nursery:
        run = Run(world, value, resumed=True)
        nursery.start_soon(run.go)
        await trio.sleep(59)
        assert run.ends == 0
        await trio.sleep(2)
        assert run.done["error"] == "a: timed out after 60 s"
        assert world.sent == []


async def test_with_an_errored_change_it_is_taken_up_halted() -> None:
    """A build that failed before the restart sends nothing, awaits what runs, and is reported."""
    value = document(
        [change("a", _state="errored", error="quota"), change("b", _state="running"), "c"], [("b", "c")]
    )
    async with open_world() as world, trio.open_nursery() as nursery:
        run = Run(world, value, resumed=True)
        await run.start(nursery)
        assert run.ends == 0
        world.bus.deliver("vpc.create.aws.done", b'{"service":"b1","_component_id":"b"}')
        await wait_all_tasks_blocked()
        assert run.done["error"] == "a: quota"
        assert states(run.done) == {"a": "errored", "b": "completed", "c": "waiting"}
        assert world.sent == []


async def test_all_done_when_taken_up_it_is_reported() -> None:
    """A process that died before it reported leaves the report to the next one."""
    run = await complete(document([change("a", _state="completed")]), resumed=True)
    assert "error" not in run.done
    assert run.world.sent == []


async def test_a_running_change_whose_request_cannot_be_told_fails() -> None:
    """What was sent before a restart and can no longer be rendered fails; nobody waits for ever."""
    find = change("a", action="find", _state="completed", components=[{"_component_id": "x"}])
    value = document([find, change("b", _state="running", x="{{ components['x'].gone }}")], [("a", "b")])
    run = await complete(value, resumed=True)
    assert run.done["error"].startswith("b: sent before a restart")
    assert run.world.sent == []


async def test_a_fault_while_it_is_taken_up_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a walk to listen is let go even where it never does."""
    async with open_world() as world:
        run = Run(world, document([change("a", _state="running")]), resumed=True)

        def broken(_plan: Plan, _vertex: int) -> Any:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Plan, "resume", broken)
        await run.go()
        assert run.walk.listening.is_set()
        assert "internal error in the scheduler" in run.done["error"]


async def test_a_walk_that_cannot_be_prepared_awaits_no_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may never run: what it had begun to await is let go at once."""
    async with open_world() as world:
        run = Run(world, document([change(name, _state="running") for name in "ab"]), resumed=True)
        resume = Plan.resume

        def fragile(plan: Plan, vertex: int) -> Any:
            if vertex:
                raise RuntimeError("a bug")
            assert world.connectors.router.by_token == {}
            return resume(plan, vertex)

        monkeypatch.setattr(Plan, "resume", fragile)
        with pytest.raises(RuntimeError, match="a bug"):
            await run.walk.prepare()
        assert world.connectors.router.by_token == {}
        assert world.connectors.router.by_component == {}


async def test_the_longest_wait_is_that_of_the_oldest_request(autojump_clock: MockClock) -> None:
    """A walk can tell which request waits longest, and since when."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document("ab", [("a", "b")]))
        assert run.walk.longest_wait() is None
        await run.start(nursery)
        began = trio.current_time()
        await trio.sleep(5)
        assert run.walk.longest_wait() == ("a", began)
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert run.walk.longest_wait() == ("b", began + 5)
        nursery.cancel_scope.cancel()


# ---- large


async def test_a_wide_build_of_2000_comes_to_its_end() -> None:
    """Two thousand components that depend on nothing all go through 500 slots."""
    run = await complete(document([f"c{number}" for number in range(2_000)]))
    assert set(states(run.done).values()) == {"completed"}
    assert set(run.world.cloud.counts.values()) == {1}


async def test_a_chain_of_500_goes_out_in_order() -> None:
    """Each of five hundred waits for the one before it."""
    names = [f"c{number}" for number in range(500)]
    run = await complete(document(names, pairwise(names)))
    assert run.world.cloud.asked == names
    assert set(states(run.done).values()) == {"completed"}


async def test_an_answer_is_persisted_while_the_start_of_another_component_waits(
    autojump_clock: MockClock,
) -> None:
    """Step by step: the task that awaits the answer has no other component to begin."""
    store = FakeStore()
    store.hold(started("b"))
    async with open_world(script=ignore, store=store) as world, trio.open_nursery() as nursery:
        run = Run(world, document("rab", [("r", "a"), ("r", "b")]))
        await run.start(nursery)
        world.cloud.answer("r")
        await wait_all_tasks_blocked()
        assert world.cloud.asked == ["r", "a"]
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert any(settled("a")(event) for event in run.events)
        nursery.cancel_scope.cancel()
