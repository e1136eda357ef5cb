"""Answers to builds that come in: accepted, or rejected with every reason, whoever asked and however."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
import time
from collections.abc import Callable

import pytest
import structlog
import trio
from support.fake_bus import FakeBus, Published
from support.fakes import JSON, document, encode
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.client.submit import INTAKE_ACTIONS
from scheduler.errors import InvalidBuild, Problem
from scheduler.supervision import intake

NO_ROOM = InvalidBuild("busy", [Problem("", "2 builds are running; max_builds is 2")])


def message(value: JSON | bytes, *, reply: str = "", subject: str = "build.create") -> Message:
    return Message(subject, value if isinstance(value, bytes) else encode(value), reply)


async def published(bus: FakeBus) -> list[Published]:
    await wait_all_tasks_blocked()
    return bus.published


def holds_nothing(_build: str) -> bool:
    return False


def holds_everything(_build: str) -> bool:
    return True


def receipts(bus: FakeBus, holds: Callable[[str], bool] = holds_nothing) -> intake.Receipts:
    return intake.Receipts(bus, holds)


def test_builds_come_in_on_ten_subjects() -> None:
    """The intake subjects are those of the wire, and those that the client knows."""
    assert set(intake.SUBJECTS) == INTAKE_ACTIONS
    assert len(intake.SUBJECTS) == 10


async def test_an_accepted_build_is_answered_with_its_id(fake_bus: FakeBus) -> None:
    """Whoever asked is told that the build is ours; where nobody asked nothing is said."""
    receipts(fake_bus).accept(message(document("a"), reply="inbox"), "b1")
    receipts(fake_bus).accept(message(document("a")), "b1")
    [answer] = await published(fake_bus)
    assert answer.subject == "inbox"
    assert json.loads(answer.data) == {"id": "b1", "status": "accepted"}


@pytest.mark.parametrize(
    "reply",
    ["scheduler.log.b2", "$JS.API.STREAM.DELETE.SCHEDULER_LOG", "build.create.done", "vpc.create.aws.done"],
)
async def test_nobody_has_us_publish_on_a_subject_of_the_system(fake_bus: FakeBus, reply: str) -> None:
    """An answer goes to no log, no API, and is no report or reply, whatever subject was asked for it."""
    receipts(fake_bus).accept(message(document("a"), reply=reply), "b1")
    receipts(fake_bus).reject(message(document("a"), reply=reply), NO_ROOM)
    assert await published(fake_bus) == []


async def test_a_rejected_build_is_answered_with_every_problem(fake_bus: FakeBus) -> None:
    """Whoever asked is told the code, the first problem, and all of them with their places."""
    problems = [Problem("changes[3]._provider", "required, and it is missing"), Problem("", "no good")]
    receipts(fake_bus).reject(message(document("a"), reply="inbox"), InvalidBuild("invalid", problems))
    [answer] = await published(fake_bus)
    assert answer.subject == "inbox"
    assert json.loads(answer.data) == {
        "id": "b1",
        "status": "rejected",
        "error": {
            "code": "invalid",
            "message": "changes[3]._provider: required, and it is missing (and 1 more)",
            "details": ["changes[3]._provider: required, and it is missing", "no good"],
        },
    }


async def test_without_anybody_to_answer_the_build_is_published_whole_with_the_error(
    fake_bus: FakeBus,
) -> None:
    """On `<intake>.error` the build stands as it came, what is malformed in it included."""
    value = document(["a"], options={"n": 2**70}, error="of an earlier run")
    value["changes"] += [None, 7, {"_component_id": 5}]
    receipts(fake_bus).reject(message(value, subject="service.patch"), NO_ROOM)
    [one] = await published(fake_bus)
    assert one.subject == "service.patch.error"
    assert json.loads(one.data) == {**value, "error": "2 builds are running; max_builds is 2"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no JSON",
        b"[]",
        b"null",
        b'"b1"',
        b"{}",
        b'{"id":7}',
        b'{"id":""}',
        b'{"id":"a b"}',
        b'{"id":"\xff"}',
    ],
)
async def test_a_build_whose_id_cannot_be_read_is_only_logged(fake_bus: FakeBus, data: bytes) -> None:
    """Where nobody asked, and nobody can tell which build it is, there is a line in the log."""
    with structlog.testing.capture_logs() as logs:
        receipts(fake_bus).reject(message(data), NO_ROOM)
    assert await published(fake_bus) == []
    [line] = logs
    assert (line["event"], line["build"], line["code"]) == ("build rejected", None, "busy")


async def test_an_unreadable_build_is_answered_where_somebody_asked(fake_bus: FakeBus) -> None:
    """Whoever asked is answered, with null for the id that could not be read."""
    receipts(fake_bus).reject(message(b"no JSON", reply="inbox"), NO_ROOM)
    [answer] = await published(fake_bus)
    assert json.loads(answer.data)["id"] is None


@pytest.mark.parametrize("code", ["running", "invalid", "busy", "shutting_down"])
async def test_a_running_build_is_never_published_as_failed(fake_bus: FakeBus, code: str) -> None:
    """Whatever is wrong with a second build of the same id, its store must not take the first for failed."""
    refusal = InvalidBuild(code, [Problem("", "no")])
    receipts(fake_bus, holds_everything).reject(message(document("a")), refusal)
    assert await published(fake_bus) == []


async def test_refused_as_running_it_is_not_published_though_the_other_ended_just_now(
    fake_bus: FakeBus,
) -> None:
    """The other build's report says how it ended; this one's refusal must not contradict it."""
    refusal = InvalidBuild("running", [Problem("", "no")])
    receipts(fake_bus).reject(message(document("a")), refusal)
    assert await published(fake_bus) == []


@pytest.mark.parametrize("max_payload", [1024 * 1024, 64 * 1024, 8 * 1024])
@pytest.mark.parametrize("text", ["plain", '"\x00\\"' * 40, "ü" * 100])
async def test_too_many_problems_are_cut_so_that_the_answer_fits(max_payload: int, text: str) -> None:
    """As many problems as fit are told, and how many there are beside them."""
    bus = FakeBus(max_payload=max_payload)
    problems = [Problem(f"changes[{number}]", text) for number in range(20_000)]
    receipts(bus).reject(message(document("a"), reply="inbox"), InvalidBuild("invalid", problems))
    [answer] = await published(bus)
    assert len(answer.data) < max_payload
    details = json.loads(answer.data)["error"]["details"]
    assert details[0] == f"changes[0]: {text}"
    assert details[-1] == f"... and {20_000 - len(details) + 1} more"
    assert len(answer.data) > min(max_payload, 256 * 1024) // 4, "room is left"


async def test_a_single_problem_longer_than_the_answer_is_left_out() -> None:
    """An answer that does not fit goes out without its details rather than not at all."""
    bus = FakeBus(max_payload=3_000)
    refusal = InvalidBuild("invalid", [Problem("", "x" * 5_000)])
    receipts(bus).reject(message(document("a"), reply="inbox"), refusal)
    [answer] = await published(bus)
    assert json.loads(answer.data)["error"]["details"] == ["... and 1 more"]


async def test_an_answer_that_cannot_be_sent_is_logged() -> None:
    """A bus that takes nothing, or an address that is none, costs a line in the log and nothing else."""
    with structlog.testing.capture_logs() as logs:
        receipts(FakeBus(max_payload=10)).accept(message(document("a"), reply="inbox"), "b1")
        receipts(FakeBus(max_payload=10)).reject(message(document("a"), reply="inbox"), NO_ROOM)
    assert [line["event"] for line in logs] == [
        "intake not answered",
        "build rejected",
        "intake not answered",
    ]


async def test_a_flood_of_rejections_is_one_line_a_second(autojump_clock: MockClock) -> None:
    """The first at once and in full; the next one says how many there were between."""
    bus = FakeBus()
    answering = receipts(bus)
    with structlog.testing.capture_logs() as logs:
        for number in range(100):
            answering.reject(message(document("a", build=f"b{number}"), reply="inbox"), NO_ROOM)
        await trio.sleep(1)
        answering.reject(message(document("a", build="last"), reply="inbox"), NO_ROOM)
    assert [(line["build"], line.get("left_out")) for line in logs] == [("b0", None), ("last", 99)]
    assert len(await published(bus)) == 101


@pytest.mark.parametrize(
    "reply", ["scheduler.log.b2", "build.create.done", "vpc.create.aws", "$JS.API.INFO", "not allowed", "a.*"]
)
async def test_a_build_that_is_to_be_answered_elsewhere_is_not_taken(fake_bus: FakeBus, reply: str) -> None:
    """Whoever sends one wants to have us publish something; the log says so, once a second."""
    asked = receipts(fake_bus)
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            assert not asked.may_be_taken(message(document("a"), reply=reply))
    [line] = logs
    assert (line["subject"], line["reply"]) == ("build.create", reply)


async def test_a_build_out_of_a_stream_is_taken_as_one_without_a_reply_subject(fake_bus: FakeBus) -> None:
    """Its reply subject is the server's, for acknowledgements: nothing is sent there."""
    delivered = message(document("a"), reply="$JS.ACK.BUILDS.worker.1.2.3.4.5")
    assert receipts(fake_bus).may_be_taken(delivered)
    receipts(fake_bus).accept(delivered, "b1")
    receipts(fake_bus).reject(delivered, NO_ROOM)
    assert [one.subject for one in await published(fake_bus)] == ["build.create.error"]


async def test_of_two_errors_of_a_large_build_ours_is_the_last(fake_bus: FakeBus) -> None:
    """It is not taken apart for that: JSON's readers take the last of two members of a name."""
    value = document(["a"], pad="x" * 100_000, error="of an earlier run")
    receipts(fake_bus).reject(message(value), NO_ROOM)
    [one] = await published(fake_bus)
    assert json.loads(one.data) == {**value, "error": "2 builds are running; max_builds is 2"}


async def test_a_rejection_takes_no_longer_for_what_is_beside_the_id(fake_bus: FakeBus) -> None:
    """Thousands of members of no use are neither kept nor written again one by one."""
    data = b'{"id":"b1",' + b",".join(b'"k%d":1' % number for number in range(75_000)) + b"}"
    began = time.thread_time()
    receipts(fake_bus).reject(message(data), NO_ROOM)
    assert time.thread_time() - began < 0.02
    [one] = await published(fake_bus)
    assert one.data.startswith(data[:-1])


async def test_a_build_too_large_to_be_published_whole_is_published_without_its_lists() -> None:
    """With the error the message would be over the limit: it says so, and names the build."""
    bus = FakeBus(max_payload=4_000)
    value = document([f"c{number}" for number in range(40)], name="x" * 2_000)
    receipts(bus).reject(message(value), NO_ROOM)
    [one] = await published(bus)
    assert json.loads(one.data) == {
        "id": "b1",
        "action": "build.create",
        "error": "2 builds are running; max_builds is 2",
        "omitted": ["components", "changes", "edges"],
    }


async def test_a_rejection_that_cannot_be_published_is_logged() -> None:
    """A bus that takes nothing costs a line in the log and nothing else."""
    with structlog.testing.capture_logs() as logs:
        receipts(FakeBus(max_payload=10)).reject(message(document("a")), NO_ROOM)
    assert [line["event"] for line in logs] == ["build rejected", "rejection not published"]
