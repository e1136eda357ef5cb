"""Questions and commands reach the instance that owns the build, whichever instance gets them."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from support.asking import NEEDED, STEERING
from support.durable import log_of, until
from support.fakes import JSON, document, encode
from support.instances import Desk, open_desk
from trio.testing import MockClock

from scheduler.bus import Message
from scheduler.control.origins import read_origin
from scheduler.fleet.absences import INSTANCE
from scheduler.fleet.lease import LEASE, Standing
from scheduler.jetstream.streams import LOG
from scheduler.journal.events import Accepted, Finished, Loading, Reported

ABOUT_ONE = ("get", "why", "history", "plan", "report", "unmasked", *STEERING)
"""Verbs about one build."""


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """The control of an instance."""
    async with open_desk() as desk:
        yield desk


def begin(desk: Desk, build: str = "b1") -> None:
    """Have the other instance begin a build."""
    desk.broker.write(Accepted(document("ab", [("a", "b")], build=build)), build=build)


def refusal(code: str, text: str) -> tuple[JSON, dict[str, str]]:
    headers = {"Nats-Service-Error": text, "Nats-Service-Error-Code": "409", "Status": "x"}
    return {"id": "b1", "error": {"code": code, "message": text}}, headers


@pytest.mark.parametrize("verb", ABOUT_ONE)
async def test_the_owner_is_asked_about_its_build(autojump_clock: MockClock, desk: Desk, verb: str) -> None:
    """With the question as it came; its answer is relayed as it is."""
    other = await desk.join()
    begin(desk)
    fields: dict[str, Any] = {**NEEDED.get(verb, {}), "more": 1}
    assert await desk.ask(verb, **fields) == {"id": "b1", "status": verb}
    [(asked, question, _)] = other.asked
    assert (asked, question) == (verb, {"id": "b1", **fields})


async def test_a_refusal_of_the_owner_is_relayed(autojump_clock: MockClock, desk: Desk) -> None:
    """With its headers of a refusal, and no others; it counts as an error."""
    other = await desk.join()
    begin(desk)
    other.says = lambda _verb, _question: refusal("conflict", "b1 is paused")
    answer = await desk.ask_raw("pause", encode({"id": "b1"}))
    assert (answer.code, answer.text) == ("conflict", "b1 is paused")
    endpoint = desk.control.endpoints["pause"]
    assert (endpoint.requests, endpoint.errors, endpoint.last_error) == (1, 1, "b1 is paused")


async def test_a_question_about_a_build_of_another_costs_one_read(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """Of the last record of its log."""
    await desk.join()
    begin(desk)
    before = desk.log_reads
    await desk.ask("get")
    assert desk.log_reads == before + 1


async def test_without_other_instances_nothing_more_is_read(autojump_clock: MockClock) -> None:
    """As in a store that one process uses: an unfinished build is shown by its log."""
    reads = []
    for shared in (False, True):
        async with open_desk(shared=shared) as desk:
            begin(desk)
            before = desk.log_reads
            assert (await desk.ask("get"))["status"] == "running"
            reads.append(desk.log_reads - before)
    assert reads[0] == reads[1]


async def test_a_build_that_has_ended_is_answered_by_anyone(autojump_clock: MockClock, desk: Desk) -> None:
    """From its log, whoever had it."""
    other = await desk.join()
    begin(desk)
    desk.broker.write(Finished(None), status="finished")
    desk.broker.write(Reported(1), status="reported")
    assert (await desk.ask("get"))["status"] == "done"
    assert await desk.refused("pause") == ("conflict", "b1 is finished (done)")
    assert await desk.refused("get", "b2") == ("unknown", "there is no build 'b2' here")
    assert other.asked == []


async def test_a_build_whose_report_is_not_out_is_its_owners(autojump_clock: MockClock, desk: Desk) -> None:
    """Only its owner knows why; where that is gone, the log has all that there is to say."""
    other = await desk.join()
    begin(desk)
    desk.broker.write(Finished(None), status="finished")
    assert await desk.ask("get") == {"id": "b1", "status": "get"}
    await other.renew(Standing.GONE)
    other.renews = False
    await trio.sleep(3)
    assert (await desk.ask("get"))["status"] == "done"


async def test_a_build_of_this_instance_that_is_not_held_yet_is_answered_here(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """As without a fleet: by its log."""
    other = await desk.join(instance="third")
    begin(desk)
    [first] = desk.broker.messages(LOG, log_of("b1"))
    first.headers["Scheduler-Record"] = "me-1-1-00000001"
    assert (await desk.ask("get"))["status"] == "running"
    assert other.asked == []


async def test_a_build_that_no_process_has_written_last_is_about_to_be_taken_over(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """Such as one that an operator released from quarantine, or that an instance has left: at once."""
    await desk.join()
    begin(desk)
    [first] = desk.broker.messages(LOG, log_of("b1"))
    first.headers["Scheduler-Record"] = "released"
    began = trio.current_time()
    assert await desk.refused("get") == ("unavailable", "b1 has no owner now; it is being taken over")
    assert trio.current_time() - began < 1


async def test_nobody_answers_for_an_owner_that_is_silent(autojump_clock: MockClock, desk: Desk) -> None:
    """Its name and the age of its lease are told, after two seconds."""
    other = await desk.join()
    begin(desk)
    other.there = False
    other.says = lambda _verb, _question: None
    began = trio.current_time()
    code, text = await desk.refused("pause")
    assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
    assert code == "unavailable"
    assert text.startswith("b1 is owned by beta, which does not answer; its lease is ")
    assert text.endswith(" s old; a command may still be carried out")


async def test_an_owner_that_works_at_its_answer_is_awaited(autojump_clock: MockClock, desk: Desk) -> None:
    """As long as it says that it is there: until the end of a question's time."""
    other = await desk.join()
    begin(desk)

    async def late(reply: str) -> None:
        await trio.sleep(7)
        desk.broker.bus.deliver(reply, b'{"id": "b1"}')

    other.says = lambda _verb, _question: None
    replies: list[str] = []
    await desk.broker.bus.subscribe(f"{INSTANCE}beta.plan", lambda message: replies.append(message.reply))
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await until(lambda: replies, 5)
            await late(replies[0])

        nursery.start_soon(answer)
        assert await desk.ask("plan") == {"id": "b1"}
    code, text = await desk.refused("plan")
    assert (code, text[:18]) == ("unavailable", "not done within 30")


async def test_an_owner_nobody_subscribes_for_is_told_at_once(autojump_clock: MockClock, desk: Desk) -> None:
    """Its lease holds still."""
    await desk.join()
    begin(desk)
    for interest in list(desk.broker.bus.interests.values()):
        if interest.subject.startswith(f"{INSTANCE}beta."):
            desk.broker.bus.end(interest)
    began = trio.current_time()
    code, text = await desk.refused("get")
    assert (code, text[:34]) == ("unavailable", "b1 is owned by beta, which does no")
    assert trio.current_time() - began < 0.5


async def test_a_build_whose_owner_is_gone_is_about_to_be_taken_over(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """Nobody answers for it in the meantime, by a log that the next owner may be writing."""
    other = await desk.join()
    begin(desk)
    other.renews = False
    await trio.sleep(LEASE + 6)
    said = ("unavailable", "b1 was owned by other, which is gone; it is being taken over")
    assert await desk.refused("get") == said
    assert await desk.refused("cancel") == said
    assert other.asked == []


async def test_a_new_instance_is_awaited_for_one_look_at_the_leases(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """A build that it has just taken is not said to be without an owner."""
    await desk.join(name="gamma", instance="third")
    begin(desk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.join)
        assert await desk.ask("get") == {"id": "b1", "status": "get"}


async def test_an_owner_that_never_had_a_lease_is_gone_after_one_look(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """As that of a process before a restart under the same name."""
    await desk.join(name="gamma", instance="third")
    begin(desk)
    began = trio.current_time()
    code, text = await desk.refused("get")
    assert (code, text[:21]) == ("unavailable", "b1 was owned by other")
    assert trio.current_time() - began < 2.6


async def test_a_build_that_was_taken_over_is_its_new_owners(autojump_clock: MockClock, desk: Desk) -> None:
    """The last record says whose it is."""
    old, new = await desk.join(name="old", instance="first"), await desk.join()
    begin(desk)
    desk.broker.write(Loading(), epoch=2)
    assert (await desk.ask("get"))["status"] == "get"
    assert ([one[0] for one in old.asked], [one[0] for one in new.asked]) == ([], ["get"])


async def test_what_was_passed_on_is_not_passed_on_again(autojump_clock: MockClock, desk: Desk) -> None:
    """Two instances that each take the other for the owner do not keep a question between them."""
    other = await desk.join()
    begin(desk)
    answer = await desk.ask_raw("get", b'{"id": "b1"}', to=desk.fleet.subject)
    assert (answer.code, answer.text) == ("unavailable", "b1 has just gone to beta: ask again")
    assert other.asked == []


async def test_the_sender_that_the_broker_vouches_for_goes_along(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """The owner's history has its name; what a client claims in our headers is dropped."""
    other = await desk.join()
    begin(desk)
    info = json.dumps({"acc": "SUBMITTERS", "user": "ör op"})
    replies: list[Message] = []
    await desk.broker.bus.subscribe("_R_.x.1", replies.append)
    headers = {"Nats-Request-Info": info, "Scheduler-User": "root", "Scheduler-Order": "o1", "X-Other": "1"}
    desk.broker.bus.deliver("scheduler.build.pause", b'{"id": "b1"}', reply="_R_.x.1", headers=headers)
    await until(lambda: replies, 5)
    [(_, _, passed)] = other.asked
    assert set(passed) == {"Scheduler-User", "Scheduler-Sender", "Scheduler-Order"}
    assert passed["Scheduler-Order"] == "o1"
    origin = read_origin("", "reply _INBOX.x", passed, passed=True)
    assert (origin.user, origin.sender) == ("SUBMITTERS/ör op", "user SUBMITTERS ör op")


async def test_nobody_but_instances_is_believed_who_asks() -> None:
    """On the subjects of all a header of ours says nothing; nor where the broker itself names the sender."""
    claim = {"Scheduler-User": "root", "Scheduler-Sender": "root"}
    assert read_origin("", "reply x", claim, passed=False).user == ""
    assert read_origin("OPS/eve", "user OPS eve", claim, passed=True).user == "OPS/eve"
    assert read_origin("", "reply x", claim, passed=True).user == "root"


async def test_one_hung_instance_holds_up_no_question_about_others(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """Only so many wait for it; the rest is told at once that it does not answer."""
    hung, well = await desk.join(), await desk.join(name="gamma", instance="third")
    begin(desk)
    hung.there = False
    hung.says = lambda _verb, _question: None
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(desk.refused, "get")
        await trio.sleep(0.1)
        assert len(hung.asked) == 16
        began = trio.current_time()
        assert await desk.refused("get", "nobody") == ("unknown", "there is no build 'nobody' here")
        assert trio.current_time() - began < 0.1
    assert well.asked == []


async def test_a_list_has_the_builds_of_all_instances(autojump_clock: MockClock, desk: Desk) -> None:
    """Each instance is asked for its own, and for the page that is wanted; finished ones are read here."""
    first, second = await desk.join(), await desk.join(name="gamma", instance="third")
    row = {"status": "running", "epoch": 1}
    first.says = lambda _verb, _question: {"builds": [{"id": "b3", "owner": "beta", **row}], "next": None}
    second.says = lambda _verb, _question: {"builds": [{"id": "b1", "owner": "gamma", **row}], "next": None}
    desk.parts.roster.quarantined["b2"] = "unreadable"
    answer = await desk.ask("list", after="b0", limit=7, all=True)
    assert [one["id"] for one in answer["builds"]] == ["b1", "b2", "b3"]
    assert (answer["next"], "silent" in answer) == (None, False)
    assert [question for _, question, _ in (*first.asked, *second.asked)] == [{"limit": 7, "after": "b0"}] * 2
    assert (await desk.ask("list", limit=2))["next"] == "b2"


async def test_instances_that_do_not_answer_are_named_in_a_list(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """After two seconds, for which the others are not awaited again."""
    silent = await desk.join()
    for name in ("gamma", "delta"):
        other = await desk.join(name=name, instance=f"p-{name}")
        other.says = lambda _verb, _question: {"builds": [{"id": "b1", "epoch": 1}], "next": None}
    other.says = lambda _verb, _question: refusal("internal", "a bug")
    silent.says = lambda _verb, _question: None
    began = trio.current_time()
    answer = await desk.ask("list")
    assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
    assert [one["id"] for one in answer["builds"]] == ["b1"]
    named = {one["name"]: one["instance"] for one in answer["silent"]}
    assert named == {"beta": "other", "delta": "p-delta"}


async def test_another_instance_is_told_of_the_builds_that_are_here_only(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """It asks every instance itself."""
    other = await desk.join()
    desk.parts.roster.quarantined["b2"] = "unreadable"
    answer = await desk.ask_raw("list", b"{}", to=desk.fleet.subject)
    assert [one["id"] for one in answer.body["builds"]] == ["b2"]
    assert other.asked == []


async def test_a_wrong_list_is_refused(autojump_clock: MockClock, desk: Desk) -> None:
    """Before anybody is asked."""
    other = await desk.join()
    assert await desk.refused("list", limit=0) == ("invalid", "limit: a whole number from 1")
    assert other.asked == []


async def test_the_instances_are_listed_with_what_they_do(autojump_clock: MockClock, desk: Desk) -> None:
    """Each with its lease, and which one answered."""
    other = await desk.join()
    await trio.sleep(3)
    answer = await desk.ask("instances")
    assert (answer["fleet"], answer["store"], answer["answered"]) == (True, "jetstream", "alpha")
    mine, theirs = answer["instances"]
    assert (mine["name"], mine["instance"], mine["standing"]) == ("alpha", "me", "active")
    assert (theirs["name"], theirs["instance"], theirs["version"]) == ("beta", "other", "1")
    assert (theirs["builds"], theirs["components"], theirs["in_flight"]) == (2, 30, 4)
    assert theirs["age"] <= 4
    other.renews = False
    await trio.sleep(LEASE + 6)
    assert (await desk.ask("instances"))["instances"][1]["standing"] == "lapsed"


async def test_an_instance_without_a_lease_says_so_of_itself_alone(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """Others were not seen to lapse."""
    await desk.join()
    await trio.sleep(3)
    desk.fleet.keeper.tenure.end()
    mine, theirs = (await desk.ask("instances"))["instances"]
    assert (mine["standing"], theirs["standing"]) == ("lapsed", "active")


async def test_a_store_that_one_process_uses_has_no_instances(autojump_clock: MockClock) -> None:
    """That is said, and is no error."""
    async with open_desk(shared=False) as desk:
        answer = await desk.ask("instances")
        assert answer == {"fleet": False, "store": "jetstream", "answered": "", "instances": []}
