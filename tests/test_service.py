"""The service on a bus in memory: taking builds, reporting them, keeping them apart, ending in order."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import structlog
import trio
from support.durable import Peer, Plant, flat, until
from support.fake_bus import FakeBus, Published
from support.fakes import (
    JSON,
    LOST,
    FakeStore,
    Reply,
    accepted,
    change,
    document,
    encode,
    ignore,
    open_service,
    prepare,
    settled,
    started,
    states,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message, Outgoing
from scheduler.config import Settings
from scheduler.definition.limits import Limits
from scheduler.errors import BusFull, LogMissing
from scheduler.fleet.lease import Tenure
from scheduler.jetstream.streams import LOG
from scheduler.journal.events import Accepted, Resumed, Started
from scheduler.recovery.persistence import Persistence
from scheduler.service import Service
from scheduler.stores.memory import MemoryStore
from scheduler.supervision.explainer import Explainer
from scheduler.supervision.intake import SUBJECTS
from scheduler.supervision.reader import BuildReader

# ---- taking builds


async def test_a_build_is_accepted_run_and_reported() -> None:
    """From the intake over the connectors to the report, on the subjects of the wire."""
    async with open_service() as site:
        assert await site.submit(document("ab", [("a", "b")])) == {"id": "b1", "status": "accepted"}
        await wait_all_tasks_blocked()
        subject, report = site.report
        assert subject == "build.create.done"
        assert states(report) == {"a": "completed", "b": "completed"}
        assert "error" not in report
        assert report["edges"] == [{"source": "a", "destination": "b"}]


async def test_builds_and_questions_come_in_on_connections_of_their_own() -> None:
    """Neither stands behind the other, nor behind replies; replies are heard where requests leave.

    Discovery comes in with the questions: thousands of its questions are as quickly asked.
    """
    bus, asked, submitted = FakeBus(), FakeBus(), FakeBus()
    service = Service(Settings(), bus, MemoryStore(), asked=asked, submitted=submitted)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        submitted.deliver("build.create", encode(document("a")), reply="_INBOX.x.1")
        asked.deliver("scheduler.build.list", b"{}", reply="_INBOX.x.2")
        await wait_all_tasks_blocked()
        requests = [one.subject for one in bus.published if one.reply]
        nursery.cancel_scope.cancel()
    assert sorted(submitted.subjects) == sorted(SUBJECTS)
    questions = {one for one in asked.subjects if not one.startswith("$SRV.")}
    assert {one.rpartition(".")[0] for one in questions} == {"scheduler.build"}
    assert {".".join(one.split(".")[:2]) for one in {*asked.subjects} - questions} == {
        "$SRV.PING", "$SRV.INFO", "$SRV.STATS"
    }  # fmt: skip
    assert not {*submitted.subjects, *asked.subjects} & {*bus.subjects}
    assert "_INBOX.x.1" in [one.subject for one in bus.published]
    assert [one.subject for one in asked.published] == ["_INBOX.x.2"]
    assert len(set(requests)) == 1


async def test_what_was_probably_meant_otherwise_is_logged_once_a_build() -> None:
    """Names that are nearly ours are one line in the log, when the build is accepted and not again."""
    value = {**document("abcdefg"), "options": {"on_eror": "continue"}}
    for number, one in enumerate(value["changes"]):
        one[["_retries", "_timeouts", "_secrets", "_raws", "_time_out", "_rety", "x"][number]] = 1
    async with open_service(script=ignore) as site:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                assert (await site.submit(value))["status"] == "accepted"
        (line,) = [entry for entry in logs if "hints" in entry]
        assert (line["event"], line["log_level"]) == ("build may hold mistakes", "warning")
        assert (line["build"], line["found"], len(line["hints"])) == ("b1", 7, 5)
        assert line["hints"][0] == "d._raws: is unknown and has no effect; did you mean '_raw'?"


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_every_intake_subject_takes_builds_and_names_the_report(subject: str) -> None:
    """Whatever a build says that it is, the report says, and goes out on, what it came in on."""
    async with open_service() as site:
        await site.submit(document("a", action="service.import"), subject)
        await wait_all_tasks_blocked()
        subject_of_report, report = site.report
        assert (subject_of_report, report["action"]) == (f"{subject}.done", subject)


async def test_intake_is_shared_in_the_queue_group(fake_bus: FakeBus) -> None:
    """Of two schedulers one takes each build."""
    async with open_service(bus=fake_bus), open_service(bus=fake_bus):
        queues = {one.queue for one in fake_bus.interests.values() if one.subject in SUBJECTS}
        assert queues == {"scheduler"}


async def test_a_build_is_accepted_when_it_is_persisted_and_not_before() -> None:
    """While the store takes its time there is no answer, and nothing is sent."""
    store = FakeStore()
    gate = store.hold(accepted)
    async with open_service(store=store) as site, trio.open_nursery() as nursery:
        answers: list[JSON] = []

        async def submit() -> None:
            answers.append(await site.submit(document("a")))

        nursery.start_soon(submit)
        await gate.reached.wait()
        await wait_all_tasks_blocked()
        assert answers == []
        assert site.cloud.asked == []
        gate.open()
        await wait_all_tasks_blocked()
        assert answers == [{"id": "b1", "status": "accepted"}]
        assert site.cloud.asked == ["a"]


async def test_the_answer_leaves_before_the_report() -> None:
    """Whoever submits hears that the build is accepted before hearing that it is done."""
    async with open_service() as site:
        await site.submit(document([]))
        await wait_all_tasks_blocked()
        subjects = [one.subject for one in site.bus.published if not one.subject.startswith("scheduler.")]
        assert subjects[0].startswith("_INBOX")
        assert subjects[1] == "build.create.done"


async def test_a_build_that_is_wrong_is_rejected_with_every_problem() -> None:
    """All that is wrong is told, each with its place, and nothing runs."""
    async with open_service() as site:
        value = document(["a", "a", change("b", action="explode")], [("a", "zzz"), ("b", "b")])
        answer = await site.submit(value)
        assert answer["status"] == "rejected"
        assert answer["error"]["code"] == "invalid"
        places = {detail.partition(":")[0] for detail in answer["error"]["details"]}
        assert places == {
            "changes[1]._component_id",
            "changes[2]._action",
            "edges[0].destination",
            "edges[1]",
        }
        await wait_all_tasks_blocked()
        assert site.cloud.asked == []
        assert site.reports == []


async def test_without_a_reply_subject_a_wrong_build_is_published_as_failed() -> None:
    """Ernest publishes and forgets: its store learns from `.error` that the build was not taken."""
    async with open_service() as site:
        value = document("ab", [("a", "b"), ("b", "a")])
        await site.publish(value)
        subject, report = site.report
        assert subject == "build.create.error"
        assert report.pop("error").startswith("edges: cycle: ")
        assert report == value


async def test_a_store_that_fails_at_intake_rejects_the_build() -> None:
    """A build that cannot be persisted is not ours: it is rejected, and can be submitted again."""
    store = FakeStore()
    store.fail(accepted, LOST)
    async with open_service(store=store) as site:
        answer = await site.submit(document("a"))
        assert answer["error"]["code"] == "store"
        assert answer["error"]["message"] == "store: record not found"
        await site.publish(document("a"))
        assert site.report[0] == "build.create.error"
        store.recover()
        assert (await site.submit(document("a")))["status"] == "accepted"


# ---- the same id again


async def test_the_same_content_while_it_runs_is_accepted_and_changes_nothing() -> None:
    """White space and the order of keys make no other build of it."""
    async with open_service(script=ignore) as site:
        value = document("a")
        await site.submit(value)
        again = json.dumps(dict(reversed(value.items())), indent=3).encode()
        assert await site.submit(again) == {"id": "b1", "status": "accepted"}
        await site.publish(value)
        assert site.cloud.asked == ["a"]
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert [subject for subject, _ in site.reports] == ["build.create.done"]


async def test_other_content_while_it_runs_is_rejected_and_no_error_is_published() -> None:
    """The running build goes on, and nobody who listens takes it for failed."""
    async with open_service(script=ignore) as site:
        await site.submit(document("a"))
        answer = await site.submit(document("ab"))
        assert answer["error"]["code"] == "running"
        for wrong in (document("ab"), document("aa"), document("a", [("a", "a")]), {"id": "b1"}):
            await site.publish(wrong)
        assert site.reports == []
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert site.report[0] == "build.create.done"


@pytest.mark.parametrize("fails", [False, True])
async def test_simultaneous_duplicates_have_one_outcome(fails: bool) -> None:
    """Those who come while the first is being persisted wait, and are told what became of it."""
    store = FakeStore()
    gate = store.hold(accepted)
    if fails:
        store.fail(accepted, LOST)
    answers: dict[str, JSON] = {}
    async with open_service(store=store, script=ignore) as site, trio.open_nursery() as nursery:

        async def submit(name: str, value: JSON) -> None:
            answers[name] = await site.submit(value)

        nursery.start_soon(submit, "first", document("a"))
        await gate.reached.wait()
        nursery.start_soon(submit, "same", document("a"))
        nursery.start_soon(submit, "other", document("ab"))
        await wait_all_tasks_blocked()
        assert answers == {}
        gate.open()
        await wait_all_tasks_blocked()
        outcome = {name: answer.get("error", {}).get("code", "accepted") for name, answer in answers.items()}
        if fails:
            assert outcome == dict.fromkeys(("first", "same", "other"), "store")
        else:
            assert outcome == {"first": "accepted", "same": "accepted", "other": "running"}
            assert len(store.of("b1")) == 2, "accepted once, and a's start"


async def test_a_finished_build_can_be_run_again() -> None:
    """The same id after its end is a new run, with a report of its own."""
    fails = ["a"]

    def script(component: JSON) -> Sequence[Reply]:
        name = component["_component_id"]
        if name in fails:
            fails.remove(name)
            return [Reply("errored", fields={"error": "no"})]
        return [Reply()]

    async with open_service(script=script) as site:
        value = document("ab", [("a", "b")])
        await site.submit(value)
        await wait_all_tasks_blocked()
        [(subject, failed)] = site.reports
        assert subject == "build.create.error"
        assert (await site.submit(failed))["status"] == "accepted"
        await wait_all_tasks_blocked()
        subject, report = site.reports[1]
        assert subject == "build.create.done"
        assert states(report) == {"a": "completed", "b": "completed"}
        assert "error" not in report
        assert site.cloud.asked == ["a", "a", "b"]


# ---- limits


async def test_one_build_more_than_there_may_be_is_busy() -> None:
    """At `max_builds` the next one is rejected as busy, and taken once another ended."""
    async with open_service(script=ignore, max_builds=2) as site:
        for build in ("b1", "b2"):
            assert (await site.submit(document([f"of-{build}"], build=build)))["status"] == "accepted"
        answer = await site.submit(document("a", build="b3"))
        assert answer["error"]["code"] == "busy"
        assert "max_builds is 2" in answer["error"]["message"]
        site.cloud.answer("of-b1")
        await wait_all_tasks_blocked()
        assert (await site.submit(document("a", build="b3")))["status"] == "accepted"


async def test_one_sender_leaves_room_for_the_builds_of_others() -> None:
    """Of `max_builds` it has seven eighths, and more as its builds end; another one's build is taken."""
    async with open_service(script=ignore, max_builds=16) as site:
        for number in range(14):
            answer = await site.submit(document([f"of-{number}"], build=f"b{number}"), sender="one")
            assert answer["status"] == "accepted"
        answer = await site.submit(document("a", build="more"), sender="one")
        assert answer["error"]["code"] == "busy"
        assert "14 builds are running that you have sent" in answer["error"]["message"]
        assert "of max_builds=16 the last 2 are kept" in answer["error"]["message"]
        assert (await site.submit(document("a", build="b1"), sender="one"))["error"]["code"] == "running"
        assert (await site.submit(document("b", build="x"), sender="two"))["status"] == "accepted"
        for number in range(2):
            site.cloud.answer(f"of-{number}")
        await wait_all_tasks_blocked()
        assert (await site.submit(document("a", build="more"), sender="one"))["status"] == "accepted"


async def test_a_sender_with_silent_connectors_leaves_slots_for_others() -> None:
    """Many builds of it wait, and are told for what; what another one sends goes at once."""
    async with open_service(script=ignore, max_in_flight=16) as site:
        for number in range(20):
            await site.submit(document([f"of-{number}"], build=f"b{number}"), sender="one")
        await wait_all_tasks_blocked()
        assert len(site.cloud.asked) == 14
        await site.submit(document("a", build="x"), sender="two")
        await wait_all_tasks_blocked()
        assert site.cloud.asked[14:] == ["a"]
        seen = site.service.roster.see("b19")
        assert seen is not None
        why = Explainer(seen, site.service.slots, site.service.persistence.store).component(0)
        assert why["text"] == "it is due, and waits for the limit max_in_flight=16 (its sender's share)"
        for name in ("a", "of-0"):
            site.cloud.answer(name)
            await wait_all_tasks_blocked()
        assert site.cloud.asked[15:] == ["of-14"]


async def test_the_size_is_that_of_the_builds_that_run() -> None:
    """How many they are, and their components: what the collector of garbage goes by."""
    async with open_service(script=ignore) as site:
        roster = site.service.roster
        for build, names in (("b1", "abc"), ("b2", "d")):
            await site.submit(document(names, build=build))
        await wait_all_tasks_blocked()
        assert (len(roster), roster.components) == (2, 4)
        for name in "abc":
            site.cloud.answer(name)
        await wait_all_tasks_blocked()
        assert (len(roster), roster.components) == (1, 1)
        site.cloud.answer("d")
        await wait_all_tasks_blocked()
        assert (len(roster), roster.components) == (0, 0)


async def test_builds_share_the_slots_of_the_instance() -> None:
    """A build of one component beside a large one gets its slot in its turn."""
    async with open_service(script=ignore, max_in_flight=2, max_in_flight_per_build=2) as site:
        await site.submit(document([f"c{number}" for number in range(50)], build="large"))
        await wait_all_tasks_blocked()
        await site.submit(document("a", build="small"))
        await wait_all_tasks_blocked()
        assert len(site.cloud.asked) == 2
        for _ in range(2):
            site.cloud.answer(site.cloud.asked[0] if len(site.cloud.asked) == 2 else site.cloud.asked[1])
            await wait_all_tasks_blocked()
        assert "a" in site.cloud.asked


async def test_a_report_over_the_limit_is_reduced_and_names_it() -> None:
    """What the broker would not take is reported without its lists, with the size and the limit."""
    bus = FakeBus(max_payload=4_000)
    script = lambda _: [Reply(fields={"blob": "x" * 1_500})]  # noqa: E731
    async with open_service(bus=bus, script=script) as site:
        await site.submit(document("abc"))
        await wait_all_tasks_blocked()
        subject, report = site.report
        assert subject == "build.create.done"
        assert "over the server's max_payload of 4000 bytes" in report["error"]
        assert report["omitted"] == ["components", "changes", "edges"]
        assert report["states"] == {"completed": 3}


async def test_a_request_over_the_limit_fails_its_component() -> None:
    """What a connector could not be sent fails, and the report names the limit."""
    bus = FakeBus(max_payload=4_000)
    script = lambda _: [Reply(fields={"blob": "x" * 3_600})]  # noqa: E731
    value = document(["a", change("b", blob="{{ components['a'].blob }}{{ components['a'].blob }}")])
    async with open_service(bus=bus, script=script) as site:
        await site.submit(value)
        await wait_all_tasks_blocked()
        assert site.report[0] == "build.create.error"
        assert "b: the request cannot be sent" in site.report[1]["error"]
        assert "max_payload of 4000 bytes" in site.report[1]["error"]


class FullBus(FakeBus):
    """Has no room for reports until told otherwise."""

    full = True

    def publish(self, subject: str, data: bytes, **options: Any) -> Outgoing:
        if self.full and subject.startswith("build."):
            raise BusFull("no room")
        return super().publish(subject, data, **options)


async def test_a_report_waits_for_room(autojump_clock: MockClock) -> None:
    """While the outgoing queue is full a report is kept, and its build with it."""
    bus = FullBus()
    async with open_service(bus=bus) as site:
        await site.submit(document("a"))
        await trio.sleep(60)
        assert site.reports == []
        bus.full = False
        await trio.sleep(5)
        assert site.report[0] == "build.create.done"


async def test_a_limit_is_named_with_its_value() -> None:
    """A build over a limit is rejected with code `limit`, the limit's name and the value."""
    async with open_service(limits=Limits(max_changes=3)) as site:
        assert (await site.submit(document("abc")))["status"] == "accepted"
        answer = await site.submit(document("abcd", build="b2"))
        assert answer["error"]["code"] == "limit"
        assert "max_changes is 3" in answer["error"]["message"]


async def test_a_flood_is_refused_as_busy_and_what_was_taken_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When more comes in than the queue holds, the rest is told to come again."""
    monkeypatch.setattr("scheduler.supervision.admission._MOST", 10)
    async with open_service() as site:
        codes: list[str] = []
        await site.bus.subscribe("answers", lambda message: codes.append(json.loads(message.data)["status"]))
        for number in range(20):
            site.bus.deliver("build.create", encode(document("a", build=f"b{number}")), reply="answers")
        await wait_all_tasks_blocked()
        assert len(codes) == 20
        assert codes.count("accepted") >= 5
        assert codes.count("rejected") >= 5


async def test_however_few_are_read_at_once_all_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds that come in together are read in their turn, whatever became of those before."""
    monkeypatch.setattr("scheduler.supervision.admission._SMALL_AT_ONCE", 1)
    async with open_service() as site:
        for number in range(5):
            assert (await site.submit(document("a", build=f"b{number}")))["status"] == "accepted"
            assert (await site.submit(b"rubbish"))["status"] == "rejected"


# ---- bugs


async def test_a_bug_in_one_build_touches_no_other_build() -> None:
    """A store that breaks over one build: that one is reported as failed, the others run."""
    store = FakeStore()
    store.fail(started("bad"), RuntimeError("a bug"))
    async with open_service(store=store) as site:
        for name in ("bad", "good"):
            await site.submit(document([name], build=f"build-{name}"))
        await wait_all_tasks_blocked()
        reports = {report["id"]: (subject, report) for subject, report in site.reports}
        assert reports["build-good"][0] == "build.create.done"
        assert reports["build-bad"][0] == "build.create.error"
        assert "internal error in the scheduler" in reports["build-bad"][1]["error"]
        assert (await site.submit(document("a", build="b3")))["status"] == "accepted"


async def test_a_bug_at_intake_is_answered_and_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that sets off a bug is rejected as internal, and the next one is read."""
    read = BuildReader.read_submitted

    async def broken(self: BuildReader, data: bytes, action: str) -> Any:
        if b"poison" in data:
            raise RecursionError("a bug")
        return await read(self, data, action)

    monkeypatch.setattr(BuildReader, "read_submitted", broken)
    async with open_service() as site:
        with structlog.testing.capture_logs() as logs:
            answer = await site.submit(document(["poison"]))
        assert answer["error"]["code"] == "internal"
        assert any("internal error" in line["event"] for line in logs)
        assert (await site.submit(document("a")))["status"] == "accepted"


async def test_a_bug_at_intake_of_the_store_is_answered_and_the_id_is_free_again() -> None:
    """A store that raises what nobody foresaw rejects the build, and holds nothing back."""
    store = FakeStore()
    store.fail(accepted, RuntimeError("a bug"))
    async with open_service(store=store) as site:
        with structlog.testing.capture_logs():
            assert (await site.submit(document("a")))["error"]["code"] == "internal"
        store.recover()
        assert (await site.submit(document("a")))["status"] == "accepted"


async def test_a_report_that_cannot_be_written_costs_no_other_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug after the walk is logged, and the id is free again."""
    from scheduler.plan.report import Report  # noqa: PLC0415

    def broken(_self: Report) -> Any:
        raise RuntimeError("a bug")

    async with open_service() as site:
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            patch.setattr(Report, "chunks", broken)
            await site.submit(document("a"))
            await wait_all_tasks_blocked()
        assert any("without a report" in line["event"] for line in logs)
        assert (await site.submit(document("a")))["status"] == "accepted"
        await wait_all_tasks_blocked()
        assert site.report[0] == "build.create.done"


# ---- progress and discovery


async def test_progress_is_published_before_the_report(autojump_clock: MockClock) -> None:
    """Every state of every component is told, and all of it before the report."""
    async with open_service(script=lambda _: [Reply(after=0.25)]) as site:
        await site.submit(document("ab", [("a", "b")]))
        await trio.sleep(10)
        subjects = [one.subject for one in site.bus.published]
        progress = [index for index, one in enumerate(subjects) if one == "scheduler.event.b1"]
        assert max(progress) < subjects.index("build.create.done")
        *told, end = [
            event for index in progress for event in json.loads(site.bus.published[index].data)["events"]
        ]
        states = [(event["component"], event["state"]) for event in told]
        assert states == [("a", "running"), ("a", "completed"), ("b", "running"), ("b", "completed")]
        assert (end["event"], end["status"]) == ("finished", "done")


async def test_the_first_ping_is_answered_when_builds_are_taken() -> None:
    """Whoever gets an answer to PING can submit: before, nobody answers."""

    class Watching(FakeBus):
        pinged_too_early = False

        async def subscribe(self, subject: str, handler: Any, *, queue: str = "") -> Any:
            missing = set(SUBJECTS) - {one.subject for one in self.interests.values()}
            self.pinged_too_early |= subject.startswith("$SRV.") and bool(missing)
            return await super().subscribe(subject, handler, queue=queue)

    bus = Watching()
    async with open_service(bus=bus) as site:
        assert not bus.pinged_too_early
        ping = json.loads((await bus.request("$SRV.PING.scheduler", b"")).data)
        assert ping["name"] == "scheduler"
        await site.submit(document("a"))
        await site.submit(b"rubbish")
        stats = json.loads((await bus.request(f"$SRV.STATS.scheduler.{ping['id']}", b"")).data)
        [create] = [one for one in stats["endpoints"] if one["subject"] == "build.create"]
        assert (create["num_requests"], create["num_errors"]) == (2, 1)


# ---- the end


class Stopped:
    """A service that is run to its end."""

    def __init__(self, bus: FakeBus, store: Any, **settings: Any) -> None:
        self.service = Service(Settings(**settings), bus, store)
        self.ended_at: float | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC128 - passed on
        await self.service.run(task_status=task_status)
        self.ended_at = trio.current_time()


async def test_while_it_stops_builds_are_refused(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """After a stop a build is answered with `shutting_down`, or published on `.error`; duplicates are not."""
    async with open_service(script=ignore, bus=fake_bus) as site:
        await site.submit(document("a"))
        await wait_all_tasks_blocked()
        site.service.stop()
        await wait_all_tasks_blocked()
        answer = await site.submit(document("a", build="b2"))
        assert answer["error"]["code"] == "shutting_down"
        await site.publish(document("a", build="b3"))
        [(subject, refused)] = site.reports
        assert (subject, refused["id"]) == ("build.create.error", "b3")
        await site.publish(document("a"))
        assert len(site.reports) == 1, "b1 runs"


async def test_what_is_in_flight_is_awaited_and_then_the_service_ends(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Within the grace what was sent is answered and reported; nothing more is sent."""
    async with open_service(script=lambda _: [Reply(after=10.0)], bus=fake_bus, grace=25.0) as site:
        await site.submit(document("ab", [("a", "b")]))
        await trio.sleep(1)
        site.service.stop()
        await trio.sleep(20)
        subject, report = site.report
        assert subject == "build.create.error"
        assert states(report) == {"a": "completed", "b": "waiting"}
        assert report["error"] == "the scheduler was shut down before there was a reply"


async def test_nothing_is_sent_after_the_signal_while_others_are_told(
    autojump_clock: MockClock, fake_bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that hangs keeps that waiting; what is answered meanwhile makes nothing begin."""

    async def hang(_: Persistence) -> None:
        await trio.sleep(5)

    monkeypatch.setattr(Persistence, "begin_to_end", hang)
    async with open_service(script=lambda _: [Reply(after=2.0)], bus=fake_bus, grace=25.0) as site:
        await site.submit(document("ab", [("a", "b")]))
        await trio.sleep(1)
        site.service.stop()
        await trio.sleep(20)
        _, report = site.report
        assert states(report) == {"a": "completed", "b": "waiting"}


async def test_a_connector_that_comes_back_after_the_signal_gets_no_request_again(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Another process may have the build by then."""
    async with open_service(script=lambda _: [Reply(after=9.0)], bus=fake_bus, grace=25.0) as site:
        await site.submit(document("a"))
        await trio.sleep(1)
        site.service.stop()
        [request] = [one for one in fake_bus.published if one.subject == "vpc.create.aws"]
        attempt = (request.headers or {})["Nats-Msg-Id"]
        fake_bus.deliver("scheduler.returned.aws", encode({"attempts": [attempt]}))
        await trio.sleep(5)
        assert [one for one in fake_bus.published if one.subject == "vpc.create.aws"] == [request]


@pytest.mark.parametrize("resumable", [False, True])
async def test_when_the_grace_is_over_it_ends_within_two_seconds(
    autojump_clock: MockClock, fake_bus: FakeBus, resumable: bool
) -> None:
    """Memory: reported as an error. A store that can resume it: not reported, and left as running."""
    store = FakeStore(resumable=resumable)
    async with trio.open_nursery() as nursery:
        stopped = Stopped(fake_bus, store, grace=5.0)
        await fake_bus.subscribe("vpc.create.aws", lambda _: None)
        await nursery.start(stopped.run)
        fake_bus.deliver("build.create", encode(document("ab", [("a", "b")])))
        await trio.sleep(1)
        began = trio.current_time()
        stopped.service.stop()
        await trio.sleep(60)
        assert stopped.ended_at is not None
        assert 5 <= stopped.ended_at - began <= 7
        reports = [one for one in fake_bus.published if one.subject.startswith("build.")]
        if resumable:
            assert reports == []
            assert [type(event).__name__ for event in store.of("b1")] == ["Accepted", "Started"]
        else:
            [report] = reports
            assert report.subject == "build.create.error"
            assert states(json.loads(report.data)) == {"a": "errored", "b": "waiting"}


@pytest.mark.parametrize("resumable", [False, True])
async def test_idle_it_ends_at_once(autojump_clock: MockClock, fake_bus: FakeBus, resumable: bool) -> None:
    """Where nothing runs a stop waits for nothing."""
    async with trio.open_nursery() as nursery:
        stopped = Stopped(fake_bus, FakeStore(resumable=resumable))
        await nursery.start(stopped.run)
        began = trio.current_time()
        stopped.service.stop()
        await trio.sleep(60)
        assert stopped.ended_at is not None
        assert stopped.ended_at - began < 0.5


async def test_a_store_that_hangs_does_not_hold_up_the_end(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """What is being persisted has half a second when the grace is over."""
    store = FakeStore()
    store.hold(settled("a"))
    async with trio.open_nursery() as nursery:
        stopped = Stopped(fake_bus, store, grace=5.0)
        await fake_bus.subscribe("vpc.create.aws", lambda _: None)
        await nursery.start(stopped.run)
        fake_bus.deliver("build.create", encode(document("a")))
        await trio.sleep(1)
        fake_bus.deliver("vpc.create.aws.done", encode({"service": "b1", "_component_id": "a"}))
        await trio.sleep(1)
        began = trio.current_time()
        stopped.service.stop()
        await trio.sleep(60)
        assert stopped.ended_at is not None
        assert stopped.ended_at - began <= 7


async def test_a_build_that_is_being_persisted_when_the_stop_comes_is_answered(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Accepted is accepted: it is reported as cut short, and nothing of it is sent."""
    store = FakeStore()
    gate = store.hold(accepted)
    async with open_service(store=store, bus=fake_bus) as site, trio.open_nursery() as nursery:
        answers: list[JSON] = []

        async def submit() -> None:
            answers.append(await site.submit(document("a")))

        nursery.start_soon(submit)
        await gate.reached.wait()
        site.service.stop()
        await wait_all_tasks_blocked()
        gate.open()
        await wait_all_tasks_blocked()
        assert answers == [{"id": "b1", "status": "accepted"}]
        assert site.cloud.asked == []
        assert site.report[0] == "build.create.error"
        assert states(site.report[1]) == {"a": "waiting"}


async def test_a_long_wait_is_told_in_the_log(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """Once a minute the log says which build waits for which component, and for how long."""
    async with open_service(script=ignore, bus=fake_bus) as site:
        await site.submit(document("a"))
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(200)
        lines = [line for line in logs if line["event"] == "still waiting for a reply"]
        assert 2 <= len(lines) <= 3
        assert (lines[0]["build"], lines[0]["component"]) == ("b1", "a")


# ---- bad health


async def test_a_broker_that_comes_and_goes_costs_nothing(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Builds go through outages without a repeated request, a lost report or a failed component."""
    async with open_service(script=lambda _: [Reply(after=2.5)], bus=fake_bus) as site:
        for number in range(5):
            names = [f"c{number}-{step}" for step in range(6)]
            value = document(names, pairwise(names), build=f"b{number}")
            assert (await site.submit(value))["status"] == "accepted"
        for _ in range(6):
            # Away between two replies: those that a connector sends meanwhile would be lost.
            await trio.sleep(1.2)
            fake_bus.disconnect()
            await trio.sleep(0.1)
            fake_bus.reconnect()
            await trio.sleep(1.2)
        await trio.sleep(100)
        assert [subject for subject, _ in site.reports] == ["build.create.done"] * 5
        assert set(site.cloud.counts.values()) == {1}


async def test_a_report_leaves_when_the_broker_is_back(fake_bus: FakeBus) -> None:
    """A build that ends while the broker is away is reported afterwards, once."""
    async with open_service(bus=fake_bus, script=ignore) as site:
        await site.submit(document("a"))
        await wait_all_tasks_blocked()
        fake_bus.disconnect()
        site.service.connectors.take(_reply(site.cloud.requests[0][0].reply))
        await wait_all_tasks_blocked()
        assert site.reports == []
        fake_bus.reconnect()
        await wait_all_tasks_blocked()
        assert site.report[0] == "build.create.done"


def _reply(subject: str) -> Message:
    return Message(subject, b'{"_state":"completed"}')


async def test_the_memory_store_says_that_builds_end_with_the_process(fake_bus: FakeBus) -> None:
    """Without a store that lasts, the log says so at the start."""
    with structlog.testing.capture_logs() as logs:
        async with open_service(bus=fake_bus, store=MemoryStore()):
            pass
    assert any("live in this process only" in line["event"] for line in logs)


# ---- a build that is submitted again, where builds are kept


CHAIN = document("ab", [("a", "b")])
OTHER = document("abc", [("a", "b")])
ACCEPTED = {"id": "b1", "status": "accepted"}


def code(answer: JSON) -> str:
    """Why a build was rejected."""
    assert answer["status"] == "rejected"
    refused: str = answer["error"]["code"]
    return refused


async def test_the_same_build_again_changes_nothing(autojump_clock: MockClock) -> None:
    """While it runs it is accepted, whatever its white space and the order of its fields."""
    plant = Plant(ignore)
    async with plant.run() as process:
        assert await process.submit(CHAIN) == ACCEPTED
        await trio.sleep(1)
        before = plant.broker.told()
        again = json.dumps(dict(reversed(CHAIN.items())), indent=3).encode()
        assert await process.submit(again) == ACCEPTED
        await trio.sleep(1)
        assert plant.broker.told() == before
        assert process.requests == ["a"]


async def test_another_build_under_the_id_of_a_running_one_is_rejected(autojump_clock: MockClock) -> None:
    """It is told, the running one is not disturbed, and no error is published that would seem to be its."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
        assert code(await process.submit(OTHER)) == "running"
        await process.publish(OTHER)
        await trio.sleep(1)
        assert process.reports == []
        assert process.requests == ["a"]


async def test_many_that_submit_the_same_at_once(autojump_clock: MockClock) -> None:
    """All are accepted, and there is one build; of two contents the first one wins."""
    plant = Plant(ignore)
    async with plant.run() as process, trio.open_nursery() as nursery:
        answers: list[str] = []

        async def submit(value: JSON) -> None:
            answer = await process.submit(value)
            answers.append(answer["status"] if answer["status"] == "accepted" else code(answer))

        for number in range(10):
            nursery.start_soon(submit, OTHER if number % 2 else CHAIN)
        await trio.sleep(1)
        assert sorted(answers) == ["accepted"] * 5 + ["running"] * 5
        assert len(process.requests) == len(set(process.requests))
        assert flat(plant.broker.told()).count("accepted") == 1


async def test_the_same_build_again_when_it_is_over(autojump_clock: MockClock) -> None:
    """It is accepted, with the word that it is over, and does not run again, in whichever process."""
    plant = Plant()
    for _ in range(2):
        async with plant.run() as process:
            answers = [await process.submit(CHAIN)]
            await trio.sleep(2)
            answers.append(await process.submit(CHAIN))
            assert answers[-1] == {**ACCEPTED, "finished": True}
            await trio.sleep(2)
    assert len(plant.requests) == 2
    assert flat(plant.broker.told()).count("accepted") == 1


async def test_another_build_under_the_id_of_one_that_is_over_is_rejected(autojump_clock: MockClock) -> None:
    """As long as its log is kept, in whichever process."""
    plant = Plant()
    for number in range(2):
        async with plant.run() as process:
            if not number:
                await process.submit(CHAIN)
            await trio.sleep(2)
            assert code(await process.submit(OTHER)) == "finished"
    assert len(plant.requests) == 2


async def test_submitted_again_after_a_restart(autojump_clock: MockClock) -> None:
    """The log settles it: the same content goes on, another one is rejected."""
    plant = Plant(ignore)
    # Its states are kept otherwise than they were submitted.
    value = document([change("a", _state=""), change("b", _state="errored", error="x"), "c"], [("a", "b")])
    async with plant.run() as process:
        await process.submit(value)
        await trio.sleep(1)
    async with plant.run() as process:
        await trio.sleep(3)
        assert await process.submit(value) == ACCEPTED
        assert code(await process.submit(OTHER)) == "running"
        assert process.requests == []


async def test_submitted_again_to_somebody_else(autojump_clock: MockClock) -> None:
    """A scheduler that finds the log of another one's build says of it what the log says."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await Peer(process).open()
        plant.broker.write(Accepted(CHAIN, "00" * 16), digest="00" * 16)
        assert code(await process.submit(CHAIN)) == "running"
        digest = prepare(document("x", build="b2")).digest.hex()
        plant.broker.write(Accepted(document("x"), digest), build="b2", digest=digest)
        assert (await process.submit(document("x", build="b2")))["status"] == "accepted"
        await trio.sleep(100)
        assert process.requests == []
        assert not process.service.roster.holds("b2")


async def test_a_quarantined_build_is_rejected_with_the_reason(autojump_clock: MockClock) -> None:
    """Whatever its content: it does not run, and nobody is to believe that it does."""
    plant = Plant()
    digest = prepare(CHAIN).digest.hex()
    await plant.broker.set_up()
    plant.broker.write(Accepted(CHAIN, digest), digest=digest)
    plant.broker.write(Started("zzz", "b1/zzz/1", b""))
    async with plant.run() as process:
        await trio.sleep(3)
        for value in (CHAIN, OTHER):
            answer = await process.submit(value)
            assert code(answer) == "quarantined"
            assert "zzz" in answer["error"]["message"]
        assert process.requests == []


async def test_an_id_that_was_refused_is_free(autojump_clock: MockClock) -> None:
    """A build that was never accepted leaves no log."""
    plant = Plant()
    async with plant.run() as process:
        assert code(await process.submit(document("aa"))) == "invalid"
        assert await process.submit(CHAIN) == ACCEPTED
        await trio.sleep(2)
        assert process.report[0] == "build.create.done"


# ---- outages, where builds are kept


async def test_an_outage_is_written_down_for_what_is_in_flight(autojump_clock: MockClock) -> None:
    """So that the next process moves deadlines by as much; builds that wait for nothing are left alone."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(10)
        process.bus.disconnect()
        await trio.sleep(100)
        process.bus.reconnect()
        await trio.sleep(5)
        assert plant.broker.told()[-1] == ["suspended", "resumed"]
        events = [event for record in plant.broker.records() for event in record.events]
        [resumed] = [event for event in events if isinstance(event, Resumed)]
        assert resumed.seconds == pytest.approx(100, abs=1.01)


@pytest.mark.parametrize("trouble", ["no_room", "silent"])
async def test_without_commits_nothing_is_sent_and_nothing_fails(
    autojump_clock: MockClock, trouble: str
) -> None:
    """However long: builds wait, new ones are neither accepted nor rejected, and all goes on afterwards."""
    plant = Plant(ignore, attempt_timeout=100)
    async with plant.run() as process, trio.open_nursery() as nursery:
        await process.submit(document("abc", [("a", "b")]))
        await trio.sleep(10)
        setattr(plant.broker.jetstream, trouble, True)
        process.bus.dispatch(_captured_elsewhere(plant))
        answers: list[JSON] = []

        async def submit() -> None:
            answers.append(await process.submit(document("z", build="b2")))

        nursery.start_soon(submit)
        await trio.sleep(250)
        assert sorted(process.requests) == ["a", "c"]
        assert (process.reports, answers) == ([], [])
        setattr(plant.broker.jetstream, trouble, False)
        await trio.sleep(6)
        assert sorted(process.requests) == ["a", "b", "c", "z"]
        assert answers[0]["status"] == "accepted"
        for name in "bcz":
            plant.answer(name)
        await trio.sleep(3)
        assert [subject for subject, _ in process.reports] == ["build.create.done"] * 2


def _captured_elsewhere(plant: Plant) -> Published:
    """The reply to the request for a, as it comes in directly."""
    message, component = next(one for one in plant.requests if one[1]["_component_id"] == "a")
    return Published(f"{message.subject}.done", encode({**component, "_state": "completed"}), "", None)


async def test_time_stands_still_while_the_lease_is_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held back in that time has not had it, nor has what is in flight."""
    plant = Plant(ignore, attempt_timeout=20)
    async with plant.run() as process:
        await process.submit(document("a"))
        await trio.sleep(5)
        with monkeypatch.context() as lapsed:
            lapsed.setattr(Tenure, "holds", lambda *_: False)
            await trio.sleep(300)
            assert process.reports == []
        assert 10 < await until(lambda: process.reports, 60) < 30


async def test_a_log_that_is_gone_ends_the_service(autojump_clock: MockClock) -> None:
    """Loudly: to go on would be to forget every build."""
    plant = Plant(ignore)
    with pytest.RaisesGroup(LogMissing, flatten_subgroups=True):
        async with plant.run() as process:
            await process.submit(CHAIN)
            await trio.sleep(1)
            del plant.broker.jetstream.streams[LOG]
            plant.answer("a")
            await trio.sleep(60)
    assert LOG not in plant.broker.jetstream.streams
