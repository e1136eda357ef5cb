"""What is told of builds: how their components stand, and each reason why one does not get on."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from itertools import pairwise

import pytest
import trio
from support.fake_bus import FakeListener
from support.fakes import (
    FakeStore,
    change,
    document,
    encode,
    ignore,
    open_world,
    settled,
    started,
)
from support.patients import DAY, Patient
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.reply_subjects import beat_subject
from scheduler.dispatch.slots import Slots
from scheduler.errors import StoreUnavailable
from scheduler.supervision.explainer import component, summary
from scheduler.supervision.reasons import Knowledge

# ---- a component


async def test_what_is_completed(autojump_clock: MockClock) -> None:
    """Since when."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("ab", [("a", "b")]))
        await patient.start(nursery)
        await trio.sleep(7)
        await patient.complete("a")
        await trio.sleep(5)
        assert patient.why("a") == {
            "text": "it is completed",
            "component": "a",
            "state": "completed",
            "since": DAY + 7,
            "seconds": 5.0,
        }
        nursery.cancel_scope.cancel()


async def test_what_has_failed_and_what_is_left_out_behind_it() -> None:
    """What is left out names what has failed, however far before it."""
    value = document("abcxy", [*pairwise("abc"), ("x", "c")], options={"on_error": "continue"})
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, value)
        await patient.start(nursery)
        await patient.fail("a")
        await patient.fail("x")
        assert patient.why("a")["text"] == "it has failed: quota"
        assert patient.why("b")["waits_for"] == ["a"]
        why = patient.why("c")
        assert why["text"] == "it is left out, since a, x failed"
        assert (why["state"], why["waits_for"]) == ("skipped", ["a", "x"])
        assert "since" not in why
        nursery.cancel_scope.cancel()


async def test_what_is_being_persisted() -> None:
    """It is not sent before that, and since when it is due."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        gate = world.fake_store.hold(started("a"))
        patient = Patient(world, document("a"))
        nursery.start_soon(patient.walk.run)
        await gate.reached.wait()
        why = patient.why("a")
        assert (why["text"], why["state"]) == ("its start is being persisted", "running")
        assert why["since"] >= DAY
        nursery.cancel_scope.cancel()


async def test_a_connector_that_does_not_answer(autojump_clock: MockClock) -> None:
    """For how long, on which subject, and which attempt that is."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("a"))
        await patient.start(nursery)
        await trio.sleep(90)
        assert patient.why("a") == {
            "text": "sent 1m30s ago: it waits for its connector to answer on vpc.create.aws; it times out in"
            " 58m30s",
            "component": "a",
            "state": "running",
            "since": DAY,
            "seconds": 90.0,
            "subject": "vpc.create.aws",
            "attempt": 1,
            "connector": "silent",
            "timeout": 3510.0,
            "cures": ["scheduler retry b1 a --now", "scheduler skip b1 a --output @FILE"],
        }
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lost", [False, True])
async def test_a_request_that_a_broker_may_have_kept(autojump_clock: MockClock, lost: bool) -> None:
    """It was sent over a connection that is gone, and is not known to have been answered."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("a"))
        await patient.start(nursery)
        await trio.sleep(5)
        if lost:
            world.bus.disconnect()
            await trio.sleep(5)
            world.bus.reconnect()
        await trio.sleep(5)
        text = patient.why("a")["text"]
        assert ("was lost: a broker that hangs may have kept it" in text) == lost
        nursery.cancel_scope.cancel()


async def test_what_is_usual_is_told(autojump_clock: MockClock) -> None:
    """What takes no longer needs no cure; what takes much longer does."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("a"))
        patient.knowledge = Knowledge({"vpc.create.aws": 7.0}.get, {"vpc.create.aws": True})
        await patient.start(nursery)
        await trio.sleep(15)
        why = patient.why("a")
        assert why["text"].startswith("sent 15.0s ago, usually 7.0s: it waits for its connector to answer")
        assert (why["usual"], why["connector"], why.get("cures")) == (7.0, "silent", None)
        await trio.sleep(225)
        why = patient.why("a")
        assert why["text"].startswith("sent 4m00s ago, usually 7.0s: it waits for its connector")
        assert why["cures"][0] == "scheduler retry b1 a --now"
        nursery.cancel_scope.cancel()


async def test_a_connector_that_has_gone(autojump_clock: MockClock) -> None:
    """It had the request, and nobody subscribes now: said at once, with what helps."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("a"))
        patient.knowledge = Knowledge(subscribed={"vpc.create.aws": False})
        await patient.start(nursery)
        await trio.sleep(1)
        why = patient.why("a")
        assert why["text"].startswith(
            "sent 1.0s ago: nobody is seen to subscribe to vpc.create.aws now: its connector may have ended"
        )
        assert why["connector"] == "gone"
        assert why["cures"][0] == "scheduler retry b1 a --now"
        nursery.cancel_scope.cancel()


async def test_what_is_about_to_time_out_can_be_given_more_time(autojump_clock: MockClock) -> None:
    """That is proposed when little of its time is left."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document([change("a", _timeout=700)]))
        await patient.start(nursery)
        await trio.sleep(99)
        assert not any("extend" in cure for cure in patient.why("a")["cures"])
        await trio.sleep(2)
        assert "scheduler extend b1 a 1h" in patient.why("a")["cures"]
        nursery.cancel_scope.cancel()


async def test_a_proposed_command_can_be_given_to_a_shell(autojump_clock: MockClock) -> None:
    """Ids that a shell would take apart are quoted."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document([change("a b")]))
        await patient.start(nursery)
        await patient.fail("a b")
        assert patient.why("a b")["cures"] == ["scheduler retry b1 'a b'"]
        nursery.cancel_scope.cancel()


async def test_a_connector_that_says_how_far_it_is(autojump_clock: MockClock) -> None:
    """Who it is, when it last said so, and what; in the answer about the component as well."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document([change("a", password="s3cret-word")]))
        await patient.start(nursery)
        to = beat_subject(world.sent[0].reply)
        world.bus.deliver(to, b'{"instance": "c-7", "progress": 0.4, "message": "s3cret-word\\u001b"}')
        await trio.sleep(2)
        why = patient.why("a")
        assert "; beats from c-7, the last 2.0s ago: 40 %, ***\\x1b; it times out" in why["text"]
        told = {"beat": 2.0, "instance": "c-7", "progress": 0.4, "message": "***\\x1b"}
        assert why.items() >= told.items()
        assert component(patient.seen, 0).items() >= told.items()
        await patient.complete("a")
        assert component(patient.seen, 0).keys().isdisjoint(told)
        nursery.cancel_scope.cancel()


async def test_a_connector_that_only_says_that_it_is_there(autojump_clock: MockClock) -> None:
    """An empty heartbeat has a time, and nothing more; without any there is nothing to tell."""
    async with open_world(script=ignore, heartbeat=30) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("a"))
        await patient.start(nursery)
        assert "beat" not in component(patient.seen, 0)
        world.bus.deliver(beat_subject(world.sent[0].reply), b"")
        await trio.sleep(1)
        assert patient.why("a")["text"].endswith("; beats, the last 1.0s ago; it times out in 59m59s")
        nursery.cancel_scope.cancel()


async def test_a_connector_that_is_not_there(autojump_clock: MockClock) -> None:
    """Nobody is subscribed, and the broker has said so."""
    async with open_world(cloud=False) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("a"))
        await patient.start(nursery)
        await trio.sleep(2)
        why = patient.why("a")
        assert (why["text"], why["connector"]) == ("no connector is subscribed to vpc.create.aws", "none")
        nursery.cancel_scope.cancel()


async def test_a_broker_that_is_away() -> None:
    """The request has not left."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        world.bus.disconnect()
        patient = Patient(world, document("a"))
        await patient.start(nursery)
        assert patient.why("a")["text"] == "its request waits for the connection to the broker"
        world.bus.reconnect()
        await wait_all_tasks_blocked()
        assert patient.why("a")["connector"] == "silent"
        nursery.cancel_scope.cancel()


async def test_what_is_tried_again(autojump_clock: MockClock) -> None:
    """Which attempt has failed, of what, and when the next one follows; and that a pause holds it."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document([change("a", _retry={"attempts": 3})]))
        await patient.start(nursery)
        await patient.fail("a", "busy", retry_after=100)
        await trio.sleep(40)
        text = "attempt 1 failed, the next one follows in 1m00s: busy"
        why = patient.why("a")
        assert (why["text"], why["state"], why["subject"]) == (text, "retrying", "vpc.create.aws")
        seen = component(patient.seen, 0)
        assert (seen["state"], seen["attempt"], seen["error"]) == ("retrying", 1, "busy")
        assert seen["retry_at"] == pytest.approx(DAY + 100)
        await patient.commands.pause()
        assert patient.why("a")["text"] == f"the build is paused; {text}"
        assert patient.reasons == [
            "it is paused: nothing new is sent until it is resumed",
            f"the build is paused; {text}",
        ]
        nursery.cancel_scope.cancel()


async def test_a_secret_that_is_learned_later_is_in_no_reason(autojump_clock: MockClock) -> None:
    """An error text is masked when it is told, and not only when it came."""
    value = document(["a", change("b", _retry={"attempts": 2}), "c"], options={"on_error": "continue"})
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, value)
        await patient.start(nursery)
        await patient.fail("a", "no hunter2hunter2")
        await patient.fail("b", "no hunter2hunter2", retry_after=100)
        await patient.complete("c", password="hunter2hunter2")
        for name in "ab":
            assert "hunter2" not in patient.why(name)["text"]
            assert "hunter2" not in str(component(patient.seen, patient.plan.graph.index[name]))
        nursery.cancel_scope.cancel()


async def test_what_waits_for_others(autojump_clock: MockClock) -> None:
    """Each that is missing with where that stands; of many, some and how many more."""
    names = [f"d{number:02}" for number in range(25)]
    edges = [(name, "z") for name in names]
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document([*names, "z"], edges))
        await patient.start(nursery)
        why = patient.why("z")
        assert why["text"].startswith("it waits for d00 (running), d01 (running), ")
        assert why["text"].endswith(" and 5 more")
        assert why["waits_for"] == names[:20]
        for name in names[2:]:
            await patient.complete(name)
        assert patient.why("z")["text"] == "it waits for d00 (running), d01 (running)"
        assert patient.why("z")["since"] == DAY
        nursery.cancel_scope.cancel()


async def test_what_a_pause_holds() -> None:
    """It is due, and since when."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("ab", [("a", "b")]))
        await patient.start(nursery)
        await patient.commands.pause()
        await patient.complete("a")
        why = patient.why("b")
        assert why["text"] == "it is due, and the build is paused"
        assert why["since"] >= DAY
        assert patient.reasons == ["it is paused: nothing new is sent until it is resumed"]
        nursery.cancel_scope.cancel()


async def test_what_a_limit_holds() -> None:
    """The limit as it is written, and the subject; of the build, how many wait for it."""
    value = document("abc", options={"limits": {"vpc.create.*": 1}})
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, value)
        await patient.start(nursery)
        [running] = world.cloud.asked
        [one, _] = [name for name in "abc" if name != running]
        why = patient.why(one)
        assert why["text"] == "it is due, and waits for the limit options.limits vpc.create.*=1"
        assert (why["limit"], why["subject"]) == ("options.limits vpc.create.*=1", "vpc.create.aws")
        reasons, more = patient.doctor.build()
        assert more == 0
        assert reasons[0] == {
            "text": "2 components wait for the limit options.limits vpc.create.*=1",
            "limit": "options.limits vpc.create.*=1",
        }
        nursery.cancel_scope.cancel()


async def test_what_a_limit_of_the_instance_holds() -> None:
    """Another build has the slot."""
    async with (
        open_world(script=ignore, slots=Slots(per_instance=1)) as world,
        trio.open_nursery() as nursery,
    ):
        first = Patient(world, document("a"))
        second = Patient(world, document("b", build="b2"))
        await first.start(nursery)
        await second.start(nursery)
        assert second.why("b")["text"].startswith("it is due, and waits for the limit ")
        assert second.reasons[0].startswith("1 component")
        nursery.cancel_scope.cancel()


async def test_what_waits_for_the_store() -> None:
    """Nothing can be persisted, so nothing is sent: said of the component and of the build."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("ab", [("a", "b")]))
        await patient.start(nursery)
        gate = world.fake_store.hold(settled("a"))
        world.cloud.answer("a")
        await gate.reached.wait()
        world.fake_store.available = False
        assert patient.why("b")["text"] == "it is due, and nothing can be persisted at the moment"
        assert patient.reasons[0] == "nothing can be persisted at the moment, so nothing new is sent"
        world.fake_store.available = True
        assert patient.why("b")["text"] == "it is about to be sent"
        nursery.cancel_scope.cancel()


async def test_what_a_halt_holds() -> None:
    """What was not sent will not be, and why."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("abc", [("b", "c")]))
        await patient.start(nursery)
        await patient.fail("a")
        assert patient.why("c")["text"] == "it will not be sent: a: quota"
        assert patient.reasons[:2] == ["nothing new is sent any more: a: quota", "it has failed: quota"]
        assert patient.seen.status == "halted"
        nursery.cancel_scope.cancel()


async def test_what_a_shutdown_holds() -> None:
    """It is no failure of the build."""
    async with (
        open_world(script=ignore, store=FakeStore(resumable=True)) as world,
        trio.open_nursery() as nursery,
    ):
        patient = Patient(world, document("ab", [("a", "b")]))
        await patient.start(nursery)
        patient.walk.stop()
        assert patient.reasons[0] == "the scheduler is shutting down"
        assert patient.why("b")["text"] == "it will not be sent: the scheduler is shutting down"
        nursery.cancel_scope.cancel()


# ---- a build


async def test_what_is_over() -> None:
    """How it ended, and what has failed."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        good, bad = Patient(world, document("a")), Patient(world, document("x", build="b2"))
        await good.start(nursery)
        await bad.start(nursery)
        await good.complete("a")
        await bad.fail("x")
        assert (good.seen.status, good.reasons) == ("done", ["it is finished"])
        assert bad.seen.status == "errored"
        assert bad.reasons == ["it is finished: x: quota", "it has failed: quota"]
        assert summary(bad.seen)["error"] == "x: quota"
        assert "error" not in summary(good.seen)


async def test_a_reply_that_may_have_been_missed() -> None:
    """What was in flight while nobody could hear its reply: what may have become of it, and what to do."""
    listener = FakeListener()
    async with open_world(script=ignore, listener=listener) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("a"))
        await patient.start(nursery)
        listener.deaf = True
        world.bus.disconnect()
        world.bus.reconnect()
        assert patient.why("a")["text"].endswith(
            "; it may have been answered while the broker was away: check whether it was done, then skip it"
            " (with what was returned)"
        )
        nursery.cancel_scope.cancel()


async def test_thousands_in_flight_are_a_few_reasons() -> None:
    """By subject, the oldest first; beyond ten subjects only how many more there are."""
    changes = [change(f"{kind}-{number}", kind=f"t{kind}") for number in range(30) for kind in range(13)]
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document(changes))
        await patient.start(nursery)
        reasons, more = patient.doctor.build()
        assert (len(reasons), more) == (10, 3)
        assert {reason["components"] for reason in reasons} == {30}
        assert f": it waits for its connector to answer on {reasons[0]['subject']}; " in reasons[0]["text"]
        assert reasons[0]["text"].endswith(f"; so do 29 more on {reasons[0]['subject']}, sent later")
        nursery.cancel_scope.cancel()


async def test_many_failures_are_a_few_reasons() -> None:
    """Ten are told, and how many more there are."""
    names = [f"c{number:02}" for number in range(14)]
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document([*names, "z"], options={"on_error": "continue"}))
        await patient.start(nursery)
        for name in names:
            await patient.fail(name)
        reasons, more = patient.doctor.build()
        assert [reason["component"] for reason in reasons] == [*names[:10], "z"]
        assert more == 4
        nursery.cancel_scope.cancel()


async def test_a_store_that_failed_is_the_cause() -> None:
    """As the report will say."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("abc", [("a", "b")]))
        await patient.start(nursery)
        world.fake_store.fail(settled("a"), StoreUnavailable("gone"))
        await patient.complete("a")
        assert patient.reasons[0] == "nothing new is sent any more: store: gone"
        nursery.cancel_scope.cancel()


async def test_the_times_of_a_component(autojump_clock: MockClock) -> None:
    """When it was due, sent and ended, each from when it happened."""
    async with open_world(script=ignore, slots=Slots(per_build=1)) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("ab"))
        await patient.start(nursery)
        [first] = world.cloud.asked
        await trio.sleep(3)
        await patient.complete(first)
        await trio.sleep(4)
        [_, second] = world.cloud.asked
        await patient.complete(second)
        one = component(patient.seen, patient.plan.graph.index[second])
        assert (one["due"], one["sent"], one["ended"]) == (DAY, DAY + 3, DAY + 7)


async def test_a_body_is_no_part_of_what_is_told() -> None:
    """Whatever connectors return: only states, times and errors are."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, document("ab", [("a", "b")]))
        await patient.start(nursery)
        await patient.complete("a", password="canary-4711")
        told = [summary(patient.seen), *(component(patient.seen, vertex, graph=True) for vertex in (0, 1))]
        assert b"canary" not in encode(told) + encode(patient.doctor.build())
        nursery.cancel_scope.cancel()
