"""Notifications of builds: a service on a bus in memory, and a poster under control of the test."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Sequence
from typing import Any

import pytest
import structlog
import trio
from support.asking import ask
from support.durable import LOGS, Fate, Plant
from support.fake_bus import FakeBus
from support.fakes import JSON, Reply, change, document, encode, ignore, open_service, prepare, succeed
from support.receivers import SECRET, FakePoster
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.destinations import AllowedHosts, Destination, read_destination
from scheduler.errors import NotPosted
from scheduler.journal.timings import Timings
from scheduler.notifying import Kind, Notice
from scheduler.notifying.poster import Answer
from scheduler.plan import Plan, Request
from scheduler.plan.outcome import failure
from scheduler.supervision.feed import Feed, Track
from scheduler.supervision.notices import Notices, failed_component

OURS = "https://ours.example.com/x"
THEIRS = "https://theirs.example.com/y"
SIGNED: dict[str, Any] = {"notify": (OURS,), "notify_secret": SECRET, "name": "s1"}


def only_a_fails(component: JSON) -> Sequence[Reply]:
    """`a` fails, and nothing else is ever answered."""
    if component["_component_id"] != "a":
        return []
    return [Reply("errored", fields={"error": "no: password=hunter2hunter2"})]


def types(poster: FakePoster, url: str = "") -> list[str]:
    return [body["type"] for body in poster.bodies(url)]


async def test_the_end_of_a_build_is_told_when_its_report_is_out() -> None:
    """Whoever hears of it finds the report."""
    bus = FakeBus()
    before: list[str] = []

    def taken(_url: str, _number: int) -> Answer:
        before.extend(one.subject for one in bus.published)
        return Answer(204)

    poster = FakePoster(taken)
    async with open_service(bus=bus, poster=poster, **SIGNED) as site:
        await site.submit(document("ab", [("a", "b")]))
        await wait_all_tasks_blocked()
    [body] = poster.bodies()
    assert body.pop("time").endswith("Z")
    assert body == {
        "type": "build.finished",
        "id": "b1",
        "name": "test",
        "action": "build.create",
        "run": 1,
        "status": "done",
        "total": 2,
        "counts": {"waiting": 0, "running": 0, "retrying": 0, "completed": 2, "errored": 0, "skipped": 0},
        "instance": "s1",
    }
    assert "build.create.done" in before
    assert poster.posts[0][1].is_signed_with(SECRET)


async def test_the_first_failure_is_told_at_once_and_the_end_later() -> None:
    """While others are still in flight; both name the component, and neither has a secret in it."""
    poster = FakePoster()
    async with open_service(script=only_a_fails, poster=poster, **SIGNED) as site:
        await site.submit(document("ab"))
        await wait_all_tasks_blocked()
        [body] = poster.bodies()
        assert (body["type"], body["status"], body["counts"]["running"]) == ("build.failing", "halted", 1)
        site.cloud.answer("b", Reply("errored", fields={"error": "another"}))
        await wait_all_tasks_blocked()
    assert types(poster) == ["build.failing", "build.finished"]
    assert poster.bodies()[1]["status"] == "errored"
    for body in poster.bodies():
        assert (body["component"], body["error"]) == ("a", "a: no: password=***")
    assert len({post.headers["webhook-id"] for _, post in poster.posts}) == 2


async def test_a_cancelled_build_is_told_as_that() -> None:
    """It has no first failure, whatever becomes of what was in flight."""
    poster = FakePoster()
    async with open_service(script=ignore, poster=poster, **SIGNED) as site:
        await site.submit(document("a"))
        await site.submit(encode({"id": "b1", "reason": "enough"}), "scheduler.build.cancel")
        site.cloud.answer("a", Reply("errored", fields={"error": "no"}))
        await wait_all_tasks_blocked()
    [body] = poster.bodies()
    assert (body["type"], body["status"]) == ("build.finished", "cancelled")
    assert "component" not in body


async def test_a_build_may_name_a_destination_of_an_allowed_host() -> None:
    """Beside those of the operator, each once; another build does not reach it."""
    poster = FakePoster()
    hosts = ("theirs.example.com", "ours.example.com")
    async with open_service(poster=poster, notify_hosts=hosts, **SIGNED) as site:
        await site.submit(document("a", notify=[THEIRS, OURS]))
        await site.submit(document("a", build="b2"))
        await wait_all_tasks_blocked()
        [(_, first), (_, second)] = site.reports
    assert sorted(body["id"] for body in poster.bodies(OURS)) == ["b1", "b2"]
    assert [body["id"] for body in poster.bodies(THEIRS)] == ["b1"]
    assert (first["notify"], "notify" in second) == ([THEIRS, OURS], False)


async def test_a_build_that_names_another_host_is_rejected() -> None:
    """With the place and the cure, and without the path."""
    hosts = ("theirs.example.com",)
    async with open_service(poster=FakePoster(), notify_hosts=hosts, notify_secret=SECRET) as site:
        answer = await site.submit(document("a", notify="https://evil.example/hunter2"))
        assert answer["status"] == "rejected"
        [detail] = answer["error"]["details"]
        assert detail.startswith("notify: 'evil.example:443' is none of the hosts that builds may notify")
        assert "hunter2" not in detail
        assert site.cloud.asked == []


async def test_without_allowed_hosts_the_field_is_the_builds_own() -> None:
    """It is passed on as any other one, whatever its shape, and nothing is posted."""
    poster = FakePoster()
    async with open_service(poster=poster, **SIGNED) as site:
        await site.submit(document("a", notify={"by": "mail"}))
        await wait_all_tasks_blocked()
        assert site.report[1]["notify"] == {"by": "mail"}
    assert poster.bodies(THEIRS) == []


async def test_a_receiver_that_never_answers_holds_up_no_build() -> None:
    """Every build is done, and its report out, while the first notification is still being posted."""
    poster = FakePoster(held={OURS: trio.Event()})
    async with open_service(poster=poster, **SIGNED) as site:
        for number in range(20):
            await site.submit(document("a", build=f"b{number}"))
        await wait_all_tasks_blocked()
        assert len(site.reports) == 20
        assert len(poster.posts) == 1
        poster.held[OURS].set()
        await wait_all_tasks_blocked()
    assert len(poster.posts) == 20


async def test_discovery_has_the_counters() -> None:
    """With the others, and only where there are notifications."""
    for settings, expected in (
        (SIGNED, {"delivered": 1, "failed": 0, "dropped": 0, "waiting": 0}),
        ({}, None),
    ):
        async with open_service(poster=FakePoster(), **settings) as site:
            await site.submit(document("a"))
            await wait_all_tasks_blocked()
            stats = await site.submit(b"", "$SRV.STATS.scheduler")
            assert stats.get("notifications") == expected


@pytest.mark.parametrize("answers", [True, False])
async def test_a_stop_waits_a_moment_for_what_is_queued(answers: bool, autojump_clock: MockClock) -> None:
    """What was to be tried again is tried once more, and a dead receiver keeps nobody."""
    poster = FakePoster(lambda _, number: Answer(204) if answers and number > 1 else NotPosted("no"))
    with structlog.testing.capture_logs() as logs:
        async with open_service(poster=poster, **SIGNED) as site:
            await site.submit(document("a"))
            await wait_all_tasks_blocked()
            assert len(poster.posts) == 1
            began = trio.current_time()
            site.service.stop()
            await trio.sleep(0.5)
            assert logs[-1]["event"] == "stopped"
            assert trio.current_time() - began <= 1
    assert len(poster.posts) == 2
    assert any(one["event"] == "a notification was not delivered" for one in logs) is not answers


async def test_a_silent_receiver_costs_a_stop_one_second(autojump_clock: MockClock) -> None:
    """What is left is logged by number."""
    poster = FakePoster(held={OURS: trio.Event()})
    with structlog.testing.capture_logs() as logs:
        async with open_service(poster=poster, **SIGNED) as site:
            await site.submit(document("a"))
            await site.submit(document("a", build="b2"))
            await wait_all_tasks_blocked()
            site.service.stop()
            await trio.sleep(0.9)
            assert logs[-1]["event"] != "stopped"
            await trio.sleep(0.2)
            assert logs[-1]["event"] == "stopped"
    [line] = [one for one in logs if one["event"] == "notifications were not delivered before the end"]
    assert line["count"] == 2


# ---- over a restart


async def test_a_failure_that_a_process_saw_before_it_died_is_told_again(autojump_clock: MockClock) -> None:
    """It may have died before anyone heard; the id is the same, so that a receiver can drop the second."""
    plant = Plant(only_a_fails, **SIGNED)
    plant.poster = poster = FakePoster()
    async with plant.run() as process:
        await process.submit(document("ab"))
        await trio.sleep(2)
    async with plant.run():
        await trio.sleep(2)
        plant.answer("b")
        await trio.sleep(2)
    assert types(poster) == ["build.failing", "build.failing", "build.finished"]
    first, again, _ = (post.headers["webhook-id"] for _, post in poster.posts)
    assert first == again
    assert poster.bodies()[0]["component"] == poster.bodies()[1]["component"] == "a"


async def test_a_build_that_runs_well_is_not_told_again(autojump_clock: MockClock) -> None:
    """A restart is no news."""
    plant = Plant(ignore, **SIGNED)
    plant.poster = poster = FakePoster()
    async with plant.run() as process:
        await process.submit(document("a"))
        await trio.sleep(2)
    async with plant.run():
        await trio.sleep(2)
        assert poster.posts == []


@pytest.mark.parametrize("script", [succeed, only_a_fails])
async def test_a_report_that_the_next_process_publishes_is_told_by_it(
    script: Any, autojump_clock: MockClock
) -> None:
    """As the first one would have told it, but for the time."""
    plant = Plant(script, **SIGNED, notify_hosts=("theirs.example.com",))
    async with plant.run() as process:
        process.bus.lose = lambda message: message.subject.startswith("build.create.")
        plant.poster = None
        plant.broker.line.plan(LOGS, *[Fate.PASS] * 3, *[Fate.LOSE] * 100)
        await process.submit(document("a", notify=THEIRS))
        await trio.sleep(2)
    plant.broker.line.clear()
    plant.poster = poster = FakePoster()
    async with plant.run():
        await trio.sleep(5)
    assert plant.broker.told()[-1] == ["reported"]
    assert len(plant.broker.reports()) == 1
    assert types(poster, THEIRS) == types(poster, OURS) == ["build.finished"]
    body = poster.bodies(THEIRS)[0]
    assert body["status"] == ("done" if script is succeed else "errored")
    assert body.get("error") == (None if script is succeed else "a: no: password=***")


async def test_a_run_of_its_own_is_told_on_its_own(autojump_clock: MockClock) -> None:
    """A retry of a finished build is a new run: its end is another one."""
    plant = Plant(only_a_fails, **SIGNED)
    plant.poster = poster = FakePoster()
    async with plant.run() as process:
        await process.submit(document("a"))
        await trio.sleep(2)
        await process.submit(encode({"id": "b1"}), "scheduler.build.retry")
        await trio.sleep(2)
    assert [(body["type"], body["run"]) for body in poster.bodies()] == [
        ("build.failing", 1), ("build.finished", 1), ("build.failing", 2), ("build.finished", 2)
    ]  # fmt: skip
    assert len({post.headers["webhook-id"] for _, post in poster.posts}) == 4


async def test_a_gate_that_asks_again_in_the_same_run_is_told_again(autojump_clock: MockClock) -> None:
    """A receiver that drops repetitions would keep it from people otherwise; a restart asks nothing new."""
    plant = Plant(ignore, **SIGNED)
    plant.poster = poster = FakePoster()
    async with plant.run() as process:
        await process.submit(document(["a", change("g", action="approve")]))
        await trio.sleep(2)
        await ask(process, "reject", component="g")
        await ask(process, "retry", component="g")
        await trio.sleep(2)
    async with plant.run():
        await trio.sleep(2)
    asked = [post.headers["webhook-id"] for _, post in poster.posts if b"build.gated" in post.body]
    assert asked[0] != asked[1] == asked[2]
    assert {body["run"] for body in poster.bodies()} == {1}


# ---- what is said, and to whom


class Sent:
    """Notices of a plan, and what they send."""

    def __init__(self, value: JSON, *, own: Sequence[str] = (OURS,), allowed: AllowedHosts | None = None):
        self.plan = Plan(prepare(value), mark="m1")
        self.sent: list[tuple[Notice, list[str]]] = []
        own_ones = [read_destination(url) for url in own]
        self.notices = Notices(self._take, own=own_ones, allowed=allowed, instance="s1")

    def _take(self, notice: Notice, destinations: Sequence[Destination]) -> None:
        self.sent.append((notice, [one.url for one in destinations]))

    def fail(self, name: str, error: str) -> None:
        vertex = self.plan.graph.index[name]
        request = self.plan.begin(vertex)
        assert isinstance(request, Request)
        self.plan.sent(vertex)
        self.plan.settle(request, failure(error))


def test_a_gate_is_told_with_its_component_from_the_event_of_that_name() -> None:
    """Each of them once, however often it is told."""
    sent = Sent(document("ab"))
    track = Track(Feed(FakeBus()), sent.plan, Timings(2, 0.0, lambda: 0.0), lambda *_: None, sent.notices)
    for vertex in (0, 1, 0):
        track.happened("gated", vertex)
    notices = [notice for notice, _ in sent.sent]
    assert [notice.kind for notice in notices] == [Kind.GATED] * 3
    assert b'"component":"a"' in notices[0].body
    assert notices[0].identity == notices[2].identity != notices[1].identity


@pytest.mark.parametrize(
    ("ids", "error"), [(["a: b", "a"], "no"), (["a", "a: b"], "x: y: z"), (["x::y: z: w"], "")]
)
def test_the_failed_component_is_found_in_the_cause(ids: list[str], error: str) -> None:
    """Also where its id, or its error, has colons."""
    sent = Sent(document(ids))
    sent.fail(ids[0], error)
    assert failed_component(sent.plan) == ids[0]


def test_a_cause_that_is_no_component_names_none() -> None:
    """Such as a store that does not answer."""
    sent = Sent(document(["store"]))
    assert failed_component(sent.plan) is None
    sent.plan.state.halt("store: no answer")
    assert failed_component(sent.plan) is None


def test_nothing_is_made_where_nobody_is_to_be_told() -> None:
    """A build without destinations costs nothing."""
    sent = Sent(document("a"), own=())
    sent.notices.finished(sent.plan, 0.0)
    assert sent.sent == []


def test_a_host_that_is_allowed_no_more_gets_nothing_and_the_log_says_so() -> None:
    """A build that was accepted before; the operator's own destinations are told."""
    sent = Sent(document("a", notify=THEIRS), allowed=AllowedHosts.of(["other.example"]))
    with structlog.testing.capture_logs() as logs:
        # The log's clock is that of the loop.
        trio.run(_finish, sent)
    assert [urls for _, urls in sent.sent] == [[OURS]]
    assert (logs[0]["event"], logs[0]["build"]) == ("a build is not notified as it asks", "b1")


async def _finish(sent: Sent) -> None:
    sent.notices.finished(sent.plan, 0.0)
