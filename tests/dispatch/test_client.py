"""What is subscribed to for replies, on which connection, also for what an earlier process has sent."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from support.bench import KEY, SUBJECT, Bench, capture, reply, request
from support.fake_bus import FakeBus
from support.fakes import encode, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.reply_subjects import BEAT, beat_interest, interest, owner_of
from scheduler.definition.subjects import REPLY_SUBJECTS
from scheduler.dispatch.inherited import Inherited
from scheduler.journal.records import Position


async def test_replies_are_listened_to_by_verb(bench: Bench) -> None:
    """Nothing is subscribed to that would keep the server from saying that nobody listens."""
    ours = set(bench.bus.subjects) - {SUBJECT}
    said = {f"{BEAT}{bench.connectors.replies.split('.')[2]}.*.*", "scheduler.returned.*"}
    assert ours == {f"{bench.connectors.replies}*.*", *REPLY_SUBJECTS, *said}
    verbs = {subject.split(".")[1] for subject in REPLY_SUBJECTS}
    assert verbs == {"create", "update", "delete", "get", "find"}


async def test_replies_on_shared_subjects_come_in_on_a_connection_of_their_own(
    autojump_clock: MockClock,
) -> None:
    """However many somebody publishes there, and how large: those on reply subjects come in elsewhere."""
    shared = FakeBus()
    async with open_world(cloud=False, shared=shared) as world, trio.open_nursery() as nursery:
        bench = Bench(world, nursery)
        await bench.take_requests()
        assert not {*shared.subjects} & {*world.bus.subjects}
        assert [one for one in world.bus.subjects if one.startswith("scheduler.reply.")] == [
            f"{world.connectors.replies}*.*"
        ]
        assert {one.queue for one in shared.interests.values()} - {""} == {
            f"scheduler.{world.connectors.replies.split('.')[2]}"
        }
        by_verb, by_subject = await bench.send(request("a")), await bench.send(request("b"))
        shared.deliver("vpc.create.aws.done", encode(reply(_component_id="a")))
        world.bus.deliver(by_subject.call.reply, encode(reply(_component_id="b")))
        await wait_all_tasks_blocked()
        assert by_verb.call.answered
        assert by_subject.call.answered
        nursery.cancel_scope.cancel()


async def test_what_is_expected_is_known_by_the_subject_that_it_was_sent_with(bench: Bench) -> None:
    """The next process makes the same reply subject of the build's key, and sends nothing for that."""
    attempt = await bench.watch(bench.connectors.expect(request(), KEY))
    await bench.say(f"{bench.connectors.replies}aws.{KEY}", {"_state": "completed"})
    assert attempt.outcome.completed
    assert bench.requests == []


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("to", ["scheduler.reply.k-0", f"{{other}}aws.{'5' * 32}", f"{{own}}aws.{'5' * 32}"])
async def test_what_an_earlier_process_sent_is_answered_under_each_of_its_names(
    bench: Bench, to: str, captured: bool
) -> None:
    """An old reply subject, that of the process before, and our own; afterwards none is heard any more."""
    bench.nursery.start_soon(bench.connectors.hearing.run)
    heard = await bench.connectors.hear(["before"], old=True)
    owner = owner_of("before")
    assert heard == ("scheduler.reply.*", interest(owner), beat_interest(owner))
    call = bench.connectors.expect(request(), "5" * 32, Position(), Inherited("k-0", heard))
    bench.connectors.hearing.release(heard)
    attempt = await bench.watch(call)
    assert set(heard) < set(bench.bus.subjects)
    subject = to.format(own=bench.connectors.replies, other=f"scheduler.reply.{owner_of('before')}.")
    if captured:
        capture(bench, subject, reply(_state="completed"), 1)
        await wait_all_tasks_blocked()
    else:
        await bench.say(subject, reply(_state="completed"))
    assert attempt.outcome.completed
    assert set(heard) < set(bench.bus.subjects)
    call.close()
    await wait_all_tasks_blocked()
    assert set(heard).isdisjoint(bench.bus.subjects)
    assert bench.connectors.router._by_old_token == {}
