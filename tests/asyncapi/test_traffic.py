"""Everything that a service says and hears, message by message, is what the AsyncAPI document says."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections import Counter
from typing import Any

from attrs import define, field
from support.asking import ask_raw
from support.durable import Plant
from support.fake_bus import FakeBus, Published
from support.fakes import Reply, change, document, encode, open_service
from support.instances import open_desk
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapi.wire import Wire
from scheduler.asyncapi.document import asyncapi
from scheduler.asyncapi.messages import messages
from scheduler.fleet.placing import Report
from scheduler.journal.events import Accepted
from scheduler.supervision.passing_wire import Headers, load_header
from scheduler.tracing.context import TraceContext

WIRE = Wire(asyncapi())


@define
class Judge:
    """Judges all that comes by, and counts it by channel."""

    seen: Counter[str] = field(factory=Counter)
    problems: list[str] = field(factory=list)
    _asked: dict[str, str] = field(factory=dict)
    """Channel of each question, by the subject for its answer."""

    def watch(self, bus: FakeBus) -> None:
        bus.taps.append(self.take)

    def take(self, message: Published) -> bool:
        if message.subject in self._asked and WIRE.is_inbox(message.subject):
            channel = self._asked[message.subject]
            names = WIRE.answers(channel)
            self.seen[f"answers.{channel}"] += 1
        else:
            channel = WIRE.channel(message.subject)
            names = WIRE.said(channel)
            self.seen[channel] += 1
        if message.reply:
            self._asked[message.reply] = channel
        problems = WIRE.judge(names, message.data, message.headers)
        self.problems += [f"{message.subject}: {problem}" for problem in problems]
        return False


def fail_once() -> Any:
    """Connectors that fail at first, say so in each way, and then do what they should."""
    tried: Counter[str] = Counter()

    def script(component: dict[str, Any]) -> list[Reply]:
        name = component["_component_id"]
        tried[name] += 1
        via = "reply" if name == "a" else "subject"
        if tried[name] == 1:
            return [Reply(state="errored", via=via, fields={"error": "throttled"})]
        return [Reply(via=via)]

    return script


RETRIED = document(
    [change("a", _retry={"attempts": 2, "backoff": 0}), change("b", _retry={"attempts": 2, "backoff": 0})],
    [("a", "b")],
)


async def test_a_durable_build_from_its_submission_to_its_report(autojump_clock: MockClock) -> None:
    """Intake, log, requests, replies, progress, leases, reports: every message fits."""
    judge, plant = Judge(), Plant(fail_once())
    judge.watch(plant.broker.bus)
    async with plant.run() as process:
        assert (await process.submit(RETRIED))["status"] == "accepted"
        await wait_all_tasks_blocked(0.5)
        assert (await ask_raw(process, "report", encode({"id": "b1"}))).body["status"] == "done"
        assert [subject for subject, _ in process.reports] == ["build.create.done"]
    assert judge.problems == []
    seen = {"builds", "answers.builds", "logs", "requests", "replies", "sharedReplies", "progress"}
    seen |= {"reports", "storedReports", "leases", "report", "answers.report", "jetstream"}
    assert seen <= set(judge.seen), seen - set(judge.seen)


ORDERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("list", {}),
    ("get", {"graph": True}),
    ("why", {}),
    ("history", {}),
    ("plan", {}),
    ("instances", {}),
    ("pause", {"by": "ann", "reason": "lunch"}),
    ("resume", {}),
    ("limit", {"limits": {"*": 3}}),
    ("extend", {"component": "a", "seconds": 5}),
    ("approve", {"component": "gate"}),
    ("skip", {"component": "nothing"}),
    ("retry", {"component": "a", "now": True}),
    ("cancel", {"now": True}),
)


async def test_operators_are_asked_and_answered(autojump_clock: MockClock) -> None:
    """Questions, commands, refusals, and word to connectors of what was given up."""
    judge = Judge()
    bus = FakeBus()
    judge.watch(bus)
    gate = {**change("gate"), "_action": "approve"}
    async with open_service(bus=bus, script=lambda _: []) as site:
        await site.submit(document(["a", gate]))
        for verb, more in ORDERS:
            await ask_raw(site, verb, encode({"id": "b1", **more}))
            # A request that has not left yet is given up without a word.
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked(0.5)
        cycle = document("ab", [("a", "b"), ("b", "a")])
        assert (await site.submit({**cycle, "id": "b2"}))["status"] == "rejected"
        await site.publish({**cycle, "id": "b3"})
        await wait_all_tasks_blocked(0.5)
    assert judge.problems == []
    assert judge.seen["cancellations"] == 2
    answered = {name for name in judge.seen if name.startswith("answers.")}
    assert len(answered) == 15
    assert judge.seen["reports"] == 2


async def test_instances_among_each_other(autojump_clock: MockClock) -> None:
    """What is passed on to the owner of a build and comes from it, the pings before, leases and news."""
    judge = Judge()
    async with open_desk() as desk:
        judge.watch(desk.broker.bus)
        other = await desk.join()
        desk.broker.write(Accepted(document("a")), build="b1")
        other.says = lambda verb, _: {"id": "b1", "status": "running", "text": verb}
        assert await desk.ask("pause", by="ann") == {"id": "b1", "status": "running", "text": "pause"}
        assert (await desk.refused("pause", build="b2"))[0] == "unknown"
        other.says = lambda *_: None
        other.there = False
        assert (await desk.refused("pause"))[0] == "unavailable"
        desk.fleet.tell_of_orphans()
        await desk.fleet.leave()
        await wait_all_tasks_blocked(0.5)
    assert judge.problems == []
    assert {"passedQuestions", "answers.passedQuestions", "pings", "leases", "news"} <= set(judge.seen)


def test_what_is_passed_on_has_the_headers_that_are_described() -> None:
    """A build with those of `Headers`, and its answer with the load."""
    described = {name: set(messages()[name].headers) for name in ("passedBuild", "buildAccepted")}
    context = TraceContext("a" * 32, "b" * 16, 1, "v=1")
    assert set(Headers("build.create", "ann", 1.0, context).encode()) == described["passedBuild"]
    assert set(load_header(Report(1, 2))) == described["buildAccepted"]
