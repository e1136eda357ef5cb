"""With the Ernest store: a store as another process, and schedulers that come and go."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from support.brokers import nats_server
from support.transcript import EXPECTED, FOLDER, Line, check, read, word_for

from integration.builds import build, chain, component, failing, held, silent
from integration.conftest import World
from integration.ernest import Ernest
from integration.harness import (
    Connectors,
    Feed,
    Message,
    Scheduler,
    Submitter,
    errors,
    eventually,
    states,
    within,
)

pytestmark = pytest.mark.integration

JSON = dict[str, Any]


@pytest.fixture(scope="module")
def ernest_without_schedulers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ernest]:
    """What the tests share."""
    with ExitStack() as stack:
        yield Ernest(stack, tmp_path_factory.mktemp("store"))


@pytest.fixture
def ernest(ernest_without_schedulers: Ernest) -> Iterator[Ernest]:
    """Ernest, with no scheduler before the test or after it."""
    yield ernest_without_schedulers
    for scheduler in ernest_without_schedulers.schedulers:
        scheduler.close()


def left_in_flight(ernest: Ernest, gate: str, how: str) -> JSON:
    """A build whose second component was in flight when its scheduler ended."""
    first = ernest.scheduler("--grace", "0.2")
    document = chain(component("vpc::1"), held("net::1", gate), component("vm::1"))
    ernest.submitter.accepted(document)
    ernest.connectors.await_requests(document["id"], "net::1")
    if how == "kill":
        first.kill()
    else:
        code, _ = first.stop()
        assert code == 0
        first.check_log()
    assert states(ernest.stored(document)) == {"vpc::1": "completed", "net::1": "running", "vm::1": "waiting"}
    assert not ernest.submitter.reports_of(document["id"])
    return document


def test_the_exact_requests_of_a_small_build(ernest: Ernest) -> None:
    """Each step is persisted, in the order of the specification, before the next one."""
    scheduler = ernest.scheduler()
    found = [{"_component_id": f"img::{n}", "_component": "img"} for n in (1, 2)]
    document = chain(
        component("vpc::1", name="a"),
        component("img::q", {"set": {"components": found}}, action="find"),
        component("vm::1", action="delete", ref='$(components.#[_component_id="vpc::1"].out)'),
        component("note::1", action="none"),
        components=[{"_component_id": "vm::1", "_component": "vm"}],
    )
    ernest.submitter.run(document)
    ernest.submitter.client.flush()
    ernest.stored(document)
    assert [
        (subject, body.get("_component_id"), body.get("_state"))
        for subject, body in ernest.store.requests(document["id"])
    ] == [
        ("build.set.mapping", None, None),
        ("build.set.mapping.change", "vpc::1", "running"),
        ("build.set.mapping.change", "vpc::1", "completed"),
        ("build.set.mapping.component", "vpc::1", "completed"),
        ("build.set.mapping.change", "img::q", "running"),
        ("build.set.mapping.change", "img::q", "completed"),
        ("build.set.mapping.component", "img::1", None),
        ("build.set.mapping.component", "img::2", None),
        ("build.set.mapping.change", "vm::1", "running"),
        ("build.set.mapping.change", "vm::1", "completed"),
        ("build.del.mapping.component", "vm::1", "completed"),
        ("build.set.mapping.change", "note::1", "completed"),
        ("build.create.done", None, None),
        ("build.get.mapping", None, None),
    ]
    requests = ernest.store.requests(document["id"])
    assert requests[0][1] == {"id": document["id"], "mapping": document}
    assert {body["service"] for subject, body in requests if ".mapping." in subject} == {document["id"]}
    running = next(body for _, body in requests if body.get("_component_id") == "vm::1")
    assert running["ref"] == '$(components.#[_component_id="vpc::1"].out)', "the change keeps its template"
    scheduler.end()


def test_builds_of_the_mapper_as_the_protocol_says(ernest: Ernest) -> None:
    """What store, connectors and submitter see is what the transcripts say, message for message."""
    scheduler = ernest.scheduler()
    client = ernest.submitter.client
    played = 0
    for path in sorted(FOLDER.glob("*.txt")):
        lines = list(read(path))
        if {line.word for line in lines} - EXPECTED - {"in", "reply"}:
            continue  # what takes hours, or a store that fails
        if any(".aws" in line.subject for line in lines):
            continue  # there is a connector for those here
        played += 1
        heard, told = client.listen(">"), 0
        for expected, group in groupby(lines, key=lambda line: line.word in EXPECTED):
            part = list(group)
            if not expected:
                for line in part:
                    client.publish(line.subject, line.body)
                continue
            messages = heard.count(told + len(part), _is_told)[told:]
            told += len(part)
            found = [Line(0, word_for(one.subject), one.subject, one.json) for one in messages]
            check(found, part, f"{path.name}, line {part[0].number}")
        client.flush()
        assert len([one for one in heard if _is_told(one)]) == told, path.name
    assert played >= 40
    scheduler.end()


def _is_told(message: Message) -> bool:
    """Whether a message is one of those that a transcript tells."""
    return bool(word_for(message.subject))


def test_a_failure_is_persisted_and_reported(ernest: Ernest) -> None:
    """The store has the error, and the report tells it that the build has ended."""
    scheduler = ernest.scheduler()
    document = chain(component("vpc::1"), failing("net::1"), component("vm::1"))
    ernest.submitter.accepted(document)
    ernest.submitter.failed(document)
    stored = ernest.stored(document)
    assert states(stored) == {"vpc::1": "completed", "net::1": "errored", "vm::1": "waiting"}
    assert errors(stored) == {"net::1": "no more quota"}
    found: Any = ernest.submitter.client.request("build.find", {"status": "in_progress"})
    assert found == []
    scheduler.end()


@pytest.mark.parametrize(("how", "moment"), [("stop", "before"), ("kill", "after")])
def test_a_build_is_taken_up_where_it_stands(ernest: Ernest, how: str, moment: str) -> None:
    """What runs is awaited and not sent again, whether the reply comes before or after the new scheduler."""
    document = left_in_flight(ernest, f"taken up {how}", how)
    second = ernest.scheduler()
    second.await_log("build taken up", build=document["id"])
    if moment == "after":
        second.await_log("build started", build=document["id"])
    ernest.connectors.release(f"taken up {how}")
    report = ernest.submitter.done(document)
    assert set(states(report).values()) == {"completed"}
    assert ernest.connectors.ids(document["id"]) == ["vpc::1", "net::1", "vm::1"]
    assert [one["_component_id"] for one in report["components"]] == ["vpc::1", "net::1", "vm::1"]
    ernest.check_one_report(document)
    second.end()


def test_a_gate_of_a_build_that_awaits_approval_waits_again(ernest: Ernest) -> None:
    """After a kill, and whether or not something else has told the store of it by then."""
    first = ernest.scheduler()
    document = chain(component("vpc::1"), component("gate::1", action="approve"), component("net::1"))
    ernest.submitter.accepted(document)
    client = ernest.submitter.client
    question = {"id": document["id"]}

    def is_gated() -> bool:
        return bool(client.request("scheduler.build.get", question).get("gated") == 1)

    eventually(is_gated, what="it waits for a person")
    first.kill()
    client.publish("build.set", {"id": document["id"], "status": "awaiting_approval"})
    second = ernest.scheduler()
    second.await_log("build taken up", build=document["id"])
    eventually(is_gated, what="it waits again")
    client.request("scheduler.build.approve", {**question, "component": "gate::1", "by": "ann"})
    report = ernest.submitter.done(document)
    assert set(states(report).values()) == {"completed"}
    assert ernest.connectors.ids(document["id"]) == ["vpc::1", "net::1"]
    assert [one["_component_id"] for one in report["components"]] == ["vpc::1", "net::1"]
    second.end()


def test_a_build_that_is_not_listed_is_taken_up_on_a_reply(ernest: Ernest) -> None:
    """Its reply makes the scheduler ask for the build, and counts for it; so with the next replies."""
    document = left_in_flight(ernest, "stray", "kill")
    ernest.submitter.client.publish("build.set", {"id": document["id"], "status": "unheard"})
    second = ernest.scheduler()
    assert not [line for line in second.err if "build taken up" in line]
    ernest.connectors.release("stray")
    ernest.submitter.done(document)
    assert ernest.connectors.ids(document["id"]) == ["vpc::1", "net::1", "vm::1"]
    ernest.check_one_report(document)
    second.end()


def is_about(name: str, message: Message) -> bool:
    """Whether a message is about a build."""
    return bool(message.json["id"] == name)


def test_a_reply_for_a_build_that_does_not_wait_for_it_takes_nothing_up(ernest: Ernest) -> None:
    """Unknown builds, and components that do not run: one question, and none more for ten seconds."""
    document = left_in_flight(ernest, "never", "kill")
    client = ernest.submitter.client
    client.publish("build.set", {"id": document["id"], "status": "unheard"})
    second = ernest.scheduler()
    asked = client.listen("build.get.mapping")
    for service in ("unknown", document["id"]):
        body = {"_component_id": "vm::1", "service": service, "_state": "completed"}
        for _ in range(20):
            client.publish("vm.create.aws.done", body)
        asked.first(partial(is_about, service))
    other = build(component("vpc::1"))
    ernest.submitter.run(other)
    assert sorted(message.json["id"] for message in asked) == sorted(["unknown", document["id"]])
    assert not [line for line in second.err if "build taken up" in line]
    assert not ernest.submitter.reports_of(document["id"])
    second.end()


def test_a_build_with_an_error_is_taken_up_halted(ernest: Ernest) -> None:
    """What runs is awaited, nothing new is sent, and then the error is reported."""
    first = ernest.scheduler()
    broken = {"error": "no more quota", "script": "{{ not ours }} {{"}
    document = build(
        component(
            "vpc::1",
            {"hold": "both sent", "state": "errored", "set": broken, "pad": 300_000},
            _raw=["behaviour"],
        ),
        held("net::1", "halted"),
        component("vm::1"),
        edges="net::1 vm::1",
    )
    ernest.submitter.accepted(document)
    ernest.connectors.await_requests(document["id"], "vpc::1", "net::1")
    ernest.connectors.release("both sent")
    first.await_log("component failed", build=document["id"])
    await_stored(ernest, document, {"vpc::1": "errored", "net::1": "running", "vm::1": "waiting"})
    first.kill()
    second = ernest.scheduler()
    second.await_log("build taken up", build=document["id"])
    ernest.connectors.release("halted")
    report = ernest.submitter.failed(document)
    assert report["error"] == "vpc::1: no more quota"
    assert states(report) == {"vpc::1": "errored", "net::1": "completed", "vm::1": "waiting"}
    assert "vm::1" not in ernest.connectors.ids(document["id"])
    ernest.check_one_report(document)
    second.end()


def await_stored(ernest: Ernest, document: JSON, expected: dict[str, str]) -> None:
    """Ask the store until it has these states; it answers one question at a time."""
    for _ in range(1_000):
        if states(ernest.stored(document)) == expected:
            return
    raise AssertionError(ernest.stored(document))


def test_sigterm_awaits_what_is_in_flight_and_leaves_the_rest(ernest: Ernest) -> None:
    """The next scheduler does what was not begun; nothing is sent twice, and one report is published."""
    first = ernest.scheduler()
    document = chain(held("vpc::1", "draining"), component("net::1"))
    ernest.submitter.accepted(document)
    ernest.connectors.await_requests(document["id"], "vpc::1")
    first.send(SIGTERM)
    first.await_log("stopping")
    ernest.connectors.release("draining")
    assert first.wait() == 0
    first.check_log()
    assert states(ernest.stored(document)) == {"vpc::1": "completed", "net::1": "waiting"}
    assert not ernest.submitter.reports_of(document["id"])
    second = ernest.scheduler()
    ernest.submitter.done(document)
    assert ernest.connectors.ids(document["id"]) == ["vpc::1", "net::1"]
    ernest.check_one_report(document)
    second.end()


def test_many_builds_survive_a_kill(ernest: Ernest) -> None:
    """Killed while twenty builds run: the next scheduler finishes each, and sends nothing a second time."""
    first = ernest.scheduler()
    builds = [chain(component("vpc::1"), held("net::1", "many"), component("vm::1")) for _ in range(20)]
    ernest.submitter.accepted(*builds)
    for one in builds:
        ernest.connectors.await_requests(one["id"], "net::1")
    first.kill()
    second = ernest.scheduler()
    for one in builds:
        second.await_log("build taken up", build=one["id"])
    ernest.connectors.release("many")
    for one in builds:
        ernest.submitter.done(one)
    for one in builds:
        assert ernest.connectors.ids(one["id"]) == ["vpc::1", "net::1", "vm::1"]
        ernest.check_one_report(one)
    second.end()


def test_a_second_scheduler_stands_by_and_takes_over(ernest: Ernest) -> None:
    """Silent while the first answers; then it takes up what is left and takes builds."""
    first = ernest.scheduler()
    second = ernest.scheduler(ready=False)
    second.await_log("standing by: another scheduler is there")
    (_,) = ernest.submitter.client.request_many("$SRV.PING.scheduler", 1)
    document = chain(component("vpc::1"), held("net::1", "over"), component("vm::1"))
    ernest.submitter.accepted(document)
    ernest.connectors.await_requests(document["id"], "net::1")
    assert not [line for line in second.err if '"ready"' in line or "build taken up" in line]
    first.kill()
    second.await_log("taking over: no other scheduler answers any more")
    second.await_log("build taken up", build=document["id"])
    ernest.connectors.release("over")
    ernest.submitter.done(document)
    assert ernest.connectors.ids(document["id"]) == ["vpc::1", "net::1", "vm::1"]
    ernest.check_one_report(document)
    ernest.submitter.run(build(component("vpc::1")))
    second.end()


def test_one_that_stands_by_ends_at_once(ernest: Ernest) -> None:
    """SIGTERM while standing by: exit code 0 within two seconds."""
    first = ernest.scheduler()

    def stop() -> float:
        second = ernest.scheduler(ready=False)
        second.await_log("standing by: another scheduler is there")
        code, seconds = second.stop()
        assert code == 0
        second.check_log()
        return seconds

    within(2, stop)
    first.end()


def test_a_slow_store_that_hears_everything(tmp_path: Path) -> None:
    """As the real one: 18 ms a message, subscribed to everything. Builds run, and in order."""
    with ExitStack() as stack:
        ernest = Ernest(stack, tmp_path, "--delay", "18", "--all")
        scheduler = ernest.scheduler()
        builds = [chain(component("vpc::1"), component("net::1", {"on": "inbox"})) for _ in range(5)]
        ernest.submitter.accepted(*builds)
        for one in builds:
            ernest.submitter.done(one)
            ernest.check_one_report(one)
            assert ernest.connectors.ids(one["id"]) == ["vpc::1", "net::1"]
        scheduler.end()


class Scripted:
    """A store that answers what a test says; where it says nothing, as a good one."""

    def __init__(self, world: World) -> None:
        self.asked: Feed[Message] = Feed()
        self.answers: dict[str, bytes | None] = {}
        self._client = world.client()
        for subject in ("build.set.mapping", "build.get.mapping", "build.find"):
            self._client.serve(subject, self._answer)
        for subject in ("build.set.mapping.*", "build.del.mapping.*"):
            self._client.serve(subject, self._answer)
        self.seen = self._client.listen("build.set.>", "build.get.>", "build.del.>", "build.find")

    def _answer(self, subject: str, _: bytes) -> bytes | None:
        good = {"build.find": b"[]", "build.get.mapping": b'{"_error": "record not found"}'}
        return self.answers.get(subject, good.get(subject, b""))


CHANGE = "build.set.mapping.change"
HALTING: dict[str, tuple[str, bytes | None, str]] = {
    "is silent": (CHANGE, None, "was not answered within 1 s"),
    "answers with an error": (CHANGE, b'{"_error": "disk full"}', "disk full"),
    "loses the build": (CHANGE, b'{"_error": "record not found"}', "record not found"),
    "answers nonsense": (CHANGE, b"<html>", "bad JSON"),
    "answers a list": (CHANGE, b"[1]", CHANGE),
    "cannot serialize for ever": (CHANGE, b'{"_error": "could not serialize access"}', "could not serialize"),
    "loses the component": ("build.set.mapping.component", b'{"_error": 5}', "build.set.mapping.component"),
}


@pytest.fixture(scope="module")
def scripted_world() -> Iterator["ScriptedWorld"]:
    """A broker, a scheduler with little patience, and connectors, that tests of bad stores share."""
    with ExitStack() as stack:
        world = World(stack, stack.enter_context(nats_server()))
        store = Scripted(world)
        scheduler = world.scheduler("--store", "ernest", "--store-timeout", "1")
        yield store, scheduler, world.connectors(), world.submitter()
        scheduler.end()


ScriptedWorld = tuple[Scripted, Scheduler, Connectors, Submitter]


@pytest.mark.parametrize("name", HALTING)
def test_a_build_halts_when_its_store(scripted_world: ScriptedWorld, name: str) -> None:
    """It reports what the store did wrong, once; nothing more is sent; the next build is not disturbed."""
    store, _, connectors, submitter = scripted_world
    subject, answer, expected = HALTING[name]
    document = chain(held("vpc::1", name), component("net::1"))
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::1")
    store.answers[subject] = answer
    connectors.release(name)
    report = submitter.failed(document)
    assert report["error"].startswith("store: ")
    assert not report["error"].startswith("store: store:")
    assert expected in report["error"]
    assert connectors.ids(document["id"]) == ["vpc::1"]
    store.answers.clear()
    submitter.run(chain(component("vpc::1"), component("net::1")))
    submitter.client.flush()
    assert len(submitter.reports_of(document["id"])) == 1


@pytest.mark.parametrize(
    "answer", [b'{"_error": "record not found"}', b"what?", None], ids=["error", "nonsense", "none"]
)
def test_a_build_that_cannot_be_persisted_is_refused(
    scripted_world: ScriptedWorld, answer: bytes | None
) -> None:
    """Nothing was sent: whoever asked is told, and can ask again."""
    store, _, connectors, submitter = scripted_world
    store.answers["build.set.mapping"] = answer
    document = build(component("vpc::1"))
    refusal = submitter.submit(document)
    assert refusal["status"] == "rejected"
    assert refusal["error"]["code"] == "store"
    assert "build.set.mapping" in refusal["error"]["message"]
    assert not connectors.requests(document["id"])
    store.answers.clear()
    submitter.run(document)


def test_a_store_that_comes_back_costs_nothing(scripted_world: ScriptedWorld) -> None:
    """Within ``store_timeout`` a request is repeated until it is answered."""
    store, scheduler, _, submitter = scripted_world
    document = chain(component("vpc::1"), component("net::1"))
    store.answers[CHANGE] = b'{"_error": "could not serialize access due to concurrent update"}'
    submitter.accepted(document)
    scheduler.await_log("the store is asked again", build=document["id"])
    store.answers.clear()
    submitter.done(document)


@pytest.mark.parametrize(
    "answer",
    [
        b"what?",
        b"{}",
        b'[{"id": 5}, null, {"id": "x\\r\\n", "status": "in_progress"}]',
        b'{"_error": "no"}',
        b"null",
        None,
    ],
    ids=["nonsense", "object", "rows", "error", "null", "none"],
)
def test_a_list_of_builds_that_makes_no_sense_keeps_nobody_from_serving(
    world: World, answer: bytes | None
) -> None:
    """It is logged, and builds are taken."""
    store = Scripted(world)
    store.answers["build.find"] = answer
    scheduler = world.scheduler("--store", "ernest", "--store-timeout", "0.5")
    world.connectors()
    world.submitter().run(build(component("vpc::1")))
    scheduler.end()


@pytest.mark.parametrize(
    "answer",
    [
        b"what?",
        b'{"id": "another", "action": "build.create"}',
        b'{"id": "lost", "changes": [null]}',
        b"[]",
        None,
    ],
    ids=["nonsense", "another", "invalid", "list", "none"],
)
def test_a_build_that_makes_no_sense_is_not_taken_up(world: World, answer: bytes | None) -> None:
    """It is logged, and the others are."""
    store = Scripted(world)
    store.answers["build.find"] = b'[{"id": "lost", "status": "in_progress", "type": "create"}]'
    store.answers["build.get.mapping"] = answer
    scheduler = world.scheduler("--store", "ernest", "--store-timeout", "0.5")
    scheduler.await_log("build not taken up", build="lost")
    world.connectors()
    world.submitter().run(build(component("vpc::1")))
    scheduler.end()


def test_without_a_store_builds_are_refused(world: World) -> None:
    """Nobody answers at all: the service is there, and says why it takes nothing."""
    scheduler = world.scheduler("--store", "ernest", "--store-timeout", "0.5")
    answer = world.submitter().submit(build(silent("vpc::1")))
    assert answer["error"]["code"] == "store"
    assert "nobody is subscribed" in answer["error"]["message"]
    scheduler.end()
