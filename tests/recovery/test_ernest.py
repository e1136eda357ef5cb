"""Taking up what an earlier process left: at start, on a stray reply, and only one scheduler at a time."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog
import trio
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus, tell_subscribers
from support.fake_jetstream import plug_into
from support.fakes import JSON, FakeStore, Reply, Site, change, document, encode, ignore, open_service, states
from support.leaving import leave_service
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus.server import SUBJECT as SERVER_INFO
from scheduler.config import Settings
from scheduler.errors import StoreError, StoreUnavailable
from scheduler.fleet.bucket import ELECTION, STREAM, LeaseBucket
from scheduler.fleet.election import Election
from scheduler.fleet.lease import Lease, Standing, read_lease
from scheduler.jetstream.api import JetStream
from scheduler.service import Service, Stopping
from scheduler.stores.ernest import ErnestStore
from scheduler.supervision.runner import Runner


@pytest.fixture(autouse=True)
def _no_threads_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is no task: a clock that jumps would not wait for it."""

    async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", run_sync)


LEFT = document([change("a", _state="running"), "b"], [("a", "b")])


def store_with(*builds: JSON, unfinished: bool = False) -> FakeStore:
    store = FakeStore(resumable=True)
    store.documents = {build["id"]: build for build in builds}
    if unfinished:
        store.unfinished_ids = list(store.documents)
    return store


async def reply(site: Site, name: str, *, build: str = "b1", **fields: Any) -> None:
    """A connector answers what an earlier process asked for."""
    body = {"service": build, "_component_id": name, "_state": "completed", **fields}
    site.bus.deliver("vpc.create.aws.done", encode(body))
    await wait_all_tasks_blocked()


# ---- at start


async def test_at_start_it_goes_on_with_what_is_unfinished(autojump_clock: MockClock) -> None:
    """What waits is sent, what runs is awaited, and the build is reported."""
    store = store_with(document([change("a", _state="running"), "b", "c"], [("a", "c")]), unfinished=True)
    async with open_service(store=store) as site:
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["b"]
        await reply(site, "a", vpc_id="vpc-1")
        assert site.cloud.asked == ["b", "c"]
        subject, report = site.report
        assert subject == "build.create.done"
        assert report["changes"][0]["vpc_id"] == "vpc-1"


async def test_nothing_is_sent_before_replies_are_listened_to(autojump_clock: MockClock) -> None:
    """What is taken up is sent only when its replies would be heard."""

    class Watching(FakeBus):
        sent_deaf = False

        def publish(self, subject: str, data: bytes, **options: Any) -> Any:
            if options.get("reply", "").startswith("scheduler.reply."):
                self.sent_deaf |= (
                    len({one for one in self.subjects if one.endswith((".done", ".error"))}) < 10
                )
            return super().publish(subject, data, **options)

    bus = Watching()
    store = store_with(document("a"), unfinished=True)
    async with open_service(store=store, bus=bus) as site:
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["a"]
        assert not bus.sent_deaf


@pytest.mark.parametrize("error", [StoreError("broken"), StoreUnavailable("silent")])
async def test_a_store_that_cannot_say_what_is_unfinished_is_no_reason_not_to_serve(
    autojump_clock: MockClock, error: Exception
) -> None:
    """The service takes new builds all the same, and says in its log what it does not know."""

    class Broken(FakeStore):
        async def unfinished(self) -> AsyncIterator[str]:
            for build in self.unfinished_ids:
                yield build
            raise error

    with structlog.testing.capture_logs() as logs:
        async with open_service(store=Broken(resumable=True)) as site:
            assert (await site.submit(document("a")))["status"] == "accepted"
            await wait_all_tasks_blocked()
            assert site.report[0] == "build.create.done"
    assert any("does not say which builds" in line["event"] for line in logs)


async def test_a_store_that_starts_later_is_asked_again(autojump_clock: MockClock) -> None:
    """What is unfinished is taken up as soon as the store can say it, however late that is."""

    class Late(FakeStore):
        asked = 0

        async def unfinished(self) -> AsyncIterator[str]:
            self.asked += 1
            if self.asked < 4:
                raise StoreUnavailable("silent")
            for build in self.documents:
                yield build

    store = Late(resumable=True)
    store.documents = store_with(document("a")).documents
    async with open_service(store=store) as site:
        await trio.sleep(60)
        assert site.report[0] == "build.create.done"
    assert store.asked == 4


async def test_a_stale_reply_before_the_store_has_answered_keeps_no_build_from_being_resumed(
    autojump_clock: MockClock,
) -> None:
    """The store is asked about its build because of the reply, and only then says that there is work."""
    listed, loaded = trio.Event(), trio.Event()

    class Slow(FakeStore):
        async def unfinished(self) -> AsyncIterator[str]:
            await listed.wait()
            for build in self.documents:
                yield build

    async def loading(_build: str) -> None:
        await loaded.wait()

    store = Slow(resumable=True)
    changes: list[str | JSON] = [change("a", _state="running"), change("z", _state="completed"), "b"]
    store.documents = store_with(document(changes, [("a", "b")])).documents
    store.loading = loading
    async with open_service(store=store) as site:
        await reply(site, "z")
        assert store.loads == ["b1"]
        listed.set()
        await wait_all_tasks_blocked()
        loaded.set()
        await wait_all_tasks_blocked()
        await reply(site, "a")
        assert site.cloud.asked == ["b"]
        assert site.report[0] == "build.create.done"


async def test_a_build_that_is_submitted_meanwhile_is_not_taken_up_as_well(
    autojump_clock: MockClock,
) -> None:
    """What comes in by itself while the store is asked about it runs once."""
    store = store_with(document("a"), unfinished=True)
    gate = trio.Event()

    async def loading(_build: str) -> None:
        await gate.wait()

    store.loading = loading
    async with open_service(store=store, script=ignore) as site:
        await wait_all_tasks_blocked()
        assert store.loads == ["b1"]
        await site.submit(document("a"))
        await wait_all_tasks_blocked()
        gate.set()
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["a"]
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert len(site.reports) == 1


GARBAGE: list[JSON] = [
    {"id": "b1"},
    {"id": "b1", "action": "build.create", "changes": [None]},
    {"id": "b1", "action": "build.create", "changes": 7},
    {"id": "other", "action": "build.create", "changes": []},
    {"id": 7, "action": "build.create", "changes": []},
    document("ab", [("a", "b"), ("b", "a")]),
    document(["a", "a"]),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_a_mapping_that_is_no_build_is_logged_and_hurts_nobody(
    autojump_clock: MockClock, garbage: JSON
) -> None:
    """Whatever the store says of one build, the others are taken up."""
    store = store_with(document("z", build="b2"))
    store.documents["b1"] = garbage
    store.unfinished_ids = ["b1", "b2"]
    with structlog.testing.capture_logs() as logs:
        async with open_service(store=store) as site:
            await wait_all_tasks_blocked()
            assert site.cloud.asked == ["z"]
            assert [report["id"] for _, report in site.reports] == ["b2"]
    assert any(line["event"].startswith("build not taken up") and line["build"] == "b1" for line in logs)


@pytest.mark.parametrize(
    ("own", "kind", "action"),
    [
        ("", "destroy", "build.delete"),
        (None, "apply", "build.create"),
        ("build.set.mapping", "import", "build.import"),
        ("", "sync", "build.sync"),
        ("", "", "build.create"),
        ("", "vpc.create.aws", "build.create"),
        # What a scheduler has kept says it itself.
        ("service.patch", "destroy", "service.patch"),
    ],
)
async def test_a_stored_build_is_what_the_store_says_unless_it_says_so_itself(
    autojump_clock: MockClock, fake_bus: FakeBus, own: Any, kind: str, action: str
) -> None:
    """What another scheduler left is gone on with and reported, whichever kind of build it is."""
    service = ServiceStore()
    # What it calls so is not over, either.
    status = "syncing" if kind in {"import", "sync"} else "in_progress"
    row = {"id": "b1", "type": kind, "status": status, "mapping": document("a", action=own)}
    service.handle("build.set", encode(row))
    await service.attach(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus) as site:
        await trio.sleep(1)
        assert site.cloud.asked == ["a"]
        subject, report = site.report
        assert (subject, report["action"]) == (f"{action}.done", action)


async def test_what_a_reply_points_to_is_what_the_store_says_too(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """A build that another scheduler began after we had asked what is unfinished."""
    service = ServiceStore()
    await service.attach(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus) as site:
        await trio.sleep(1)
        mapping = document([change("a", _state="running")], action="")
        service.handle("build.set", encode({"id": "b1", "type": "destroy", "mapping": mapping}))
        await reply(site, "a")
        await trio.sleep(1)
        assert site.report[0] == "build.delete.done"


@pytest.mark.parametrize("error", [StoreError("broken"), StoreUnavailable("silent"), RuntimeError("a bug")])
async def test_a_store_that_fails_over_one_build_hurts_no_other(
    autojump_clock: MockClock, error: Exception
) -> None:
    """A mapping that cannot be got costs that build."""
    store = store_with(document("a", build="b1"), document("z", build="b2"), unfinished=True)

    async def loading(build: str) -> None:
        await trio.lowlevel.checkpoint()
        if build == "b1":
            raise error

    store.loading = loading
    with structlog.testing.capture_logs():
        async with open_service(store=store) as site:
            await wait_all_tasks_blocked()
            assert site.cloud.asked == ["z"]


async def test_what_connectors_returned_may_be_larger_deeper_and_look_like_a_template(
    autojump_clock: MockClock,
) -> None:
    """Limits and templates are for what users submit: a build is not stranded by what came back to it."""
    deep: Any = "bottom"
    for _ in range(62):
        deep = [deep]
    blob = {"blob": "x" * 300_000, "deep": deep, "text": "{{ not a template", "other": "$(nothing.at.all)"}
    value = document([change("a", _state="completed", **blob), "b"], [("a", "b")])
    value["components"] = [value["changes"][0]]
    async with open_service(store=store_with(value, unfinished=True)) as site:
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["b"]
        assert site.report[0] == "build.create.done"


# ---- on a stray reply


async def test_a_stray_reply_takes_its_build_up_and_counts_there(autojump_clock: MockClock) -> None:
    """The reply that pointed to a build is not lost: it is the first one applied after the taking up."""
    store = store_with(LEFT)
    async with open_service(store=store) as site:
        await reply(site, "a", vpc_id="vpc-1")
        assert store.loads == ["b1"]
        assert site.cloud.asked == ["b"]
        subject, report = site.report
        assert subject == "build.create.done"
        assert report["changes"][0]["vpc_id"] == "vpc-1"


async def test_replies_that_come_while_the_store_is_asked_are_not_lost_either(
    autojump_clock: MockClock,
) -> None:
    """One question per build at a time; whatever comes meanwhile waits for its answer."""
    names = [f"c{number}" for number in range(50)]
    store = store_with(document([change(name, _state="running") for name in names]))
    gate = trio.Event()

    async def loading(_build: str) -> None:
        await gate.wait()

    store.loading = loading
    async with open_service(store=store) as site:
        for name in names:
            await reply(site, name)
        assert store.loads == ["b1"]
        gate.set()
        await wait_all_tasks_blocked()
        assert set(states(site.report[1]).values()) == {"completed"}
        assert site.cloud.asked == []


async def test_a_reply_between_the_taking_up_and_the_listening_is_not_lost(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that comes when the build is held and its walk has not begun is applied as well."""
    store = store_with(document([change("a", _state="running"), change("z", _state="running")]))
    async with open_service(store=store) as site:
        connectors = site.service.connectors
        start = Runner.start

        def start_and_hear(*arguments: Any) -> None:
            start(*arguments)
            body = encode({"service": "b1", "_component_id": "z"})
            connectors.take(_message("vpc.create.aws.done", body))

        monkeypatch.setattr(Runner, "start", start_and_hear)
        await reply(site, "a")
        assert states(site.report[1]) == {"a": "completed", "z": "completed"}


def _message(subject: str, data: bytes) -> Any:
    from scheduler.bus import Message  # noqa: PLC0415

    return Message(subject, data)


@pytest.mark.parametrize(
    "value",
    [
        None,
        document("ab"),
        document([change("a", _state="completed"), change("b", _state="running")]),
        document([change("a", _state="errored"), change("b", _state="running")]),
        document([change("b", _state="running")]),
    ],
    ids=["unknown", "waiting", "completed", "errored", "not in it"],
)
async def test_only_where_the_replying_component_runs_the_build_is_taken_up(
    autojump_clock: MockClock, value: JSON | None
) -> None:
    """A late or foreign reply revives nothing; the store is not asked again for ten seconds."""
    store = store_with(*([value] if value else []))
    async with open_service(store=store) as site:
        for _ in range(20):
            await reply(site, "a")
        assert store.loads == ["b1"]
        assert site.reports == []
        assert site.cloud.asked == []
        await trio.sleep(9.9)
        await reply(site, "a")
        assert store.loads == ["b1"]
        await trio.sleep(0.2)
        await reply(site, "a")
        assert store.loads == ["b1", "b1"]


async def test_after_a_no_a_build_can_still_be_taken_up_later(autojump_clock: MockClock) -> None:
    """What the store did not know a while ago it may know now."""
    store = store_with()
    async with open_service(store=store) as site:
        await reply(site, "a")
        store.documents["b1"] = LEFT
        await trio.sleep(11)
        await reply(site, "a")
        assert site.report[0] == "build.create.done"


async def test_a_build_that_was_reported_here_is_not_revived_by_a_late_reply(
    autojump_clock: MockClock,
) -> None:
    """Even where the store says it runs: a report went out, and there is one per run."""
    store = FakeStore(resumable=True)
    store.fail(lambda event: type(event).__name__ == "Settled", StoreError("broken"))
    async with open_service(store=store, script=ignore) as site:
        await site.submit(document("ab", [("a", "b")]))
        await wait_all_tasks_blocked()
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert site.report[1]["error"] == "store: broken"
        store.recover()
        store.documents["b1"] = LEFT
        site.cloud.answer("a")
        await trio.sleep(30)
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert store.loads == []
        assert len(site.reports) == 1
        assert (await site.submit(document("ab", [("a", "b")])))["status"] == "accepted"


async def test_a_flood_of_foreign_replies_asks_about_a_bounded_number_of_builds(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who invents builds cannot have the store asked about all of them at a time."""
    monkeypatch.setattr("scheduler.recovery.strays._MOST_ASKED", 10)
    store = store_with()

    async def loading(_build: str) -> None:
        await trio.sleep(1)

    store.loading = loading
    async with open_service(store=store) as site:
        for number in range(500):
            await reply(site, "a", build=f"b{number}")
        assert len(store.loads) == 10
        dropped = site.service.connectors.dropped
        assert dropped["for no running component"] == 490
        await trio.sleep(5)
        assert dropped["for no running component"] == 500


async def test_nothing_is_taken_up_while_it_stops(autojump_clock: MockClock) -> None:
    """A stray reply during the grace leaves its build to the next process."""
    store = store_with(LEFT)
    async with open_service(store=store, script=ignore) as site:
        await site.submit(document("z", build="b2"))
        await wait_all_tasks_blocked()
        site.service.stop()
        await wait_all_tasks_blocked()
        with structlog.testing.capture_logs() as logs:
            await reply(site, "a")
        assert any("not taken up" in line["event"] for line in logs)
        assert site.cloud.asked == ["z"]
        assert not any(build == "b1" for build, _ in store.events)


async def test_a_store_that_cannot_be_resumed_is_never_asked() -> None:
    """With the memory store a stray reply is counted and dropped."""
    store = FakeStore()
    async with open_service(store=store) as site:
        await reply(site, "a")
        assert store.loads == []
        assert site.service.connectors.dropped == {"for no running component": 1}


# ---- with a store as Ernest's


async def test_a_scheduler_that_dies_is_followed_by_one_that_goes_on(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Over Ernest's store: killed in the middle, the next one sends nothing twice and reports once."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore) as first:
        await first.submit(document("abc", [("a", "b"), ("b", "c")]))
        await wait_all_tasks_blocked()
        first.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert first.cloud.asked == ["a", "b"]
    fake_bus.interests = {
        sid: one
        for sid, one in fake_bus.interests.items()
        if one.subject in {"build.>", fake_bus.inbox.subject}
    }
    assert {one["_component_id"]: one["_state"] for one in ernest.mapping("b1")["changes"]} == {
        "a": "completed",
        "b": "running",
        "c": "waiting",
    }
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus) as second:
        await trio.sleep(1)
        assert second.cloud.asked == []
        await reply(second, "b")
        await trio.sleep(1)
        assert second.cloud.asked == ["c"]
        [(subject, report)] = second.reports
        assert subject == "build.create.done"
        assert set(states(report).values()) == {"completed"}
        assert ernest.rows["b1"].status == "done"


def attempts(site: Site) -> list[str]:
    """The attempt ids that connectors were asked under, in order."""
    return [(message.headers or {})["Nats-Msg-Id"] for message, _ in site.cloud.requests]


async def test_attempts_are_counted_on_by_the_next_scheduler(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Over Ernest's store: what waits for its third attempt is sent as that, and there is no fourth."""
    busy = Reply("errored", fields={"error": "busy", "retry_after": 60})
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore) as first:
        await first.submit(document([change("a", _retry={"attempts": 3, "max_backoff": 60})]))
        await trio.sleep(1)
        first.cloud.answer("a", busy)
        await trio.sleep(61)
        first.cloud.answer("a", busy)
        await trio.sleep(1)
        assert attempts(first) == ["b1/a/1", "b1/a/2"]
    [kept] = ernest.mapping("b1")["changes"]
    assert (kept["_state"], kept["_attempts"]) == ("waiting", 2)
    leave_service(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore) as second:
        await trio.sleep(1)
        assert attempts(second) == ["b1/a/3"]
        [kept] = ernest.mapping("b1")["changes"]
        assert (kept["_state"], kept["_attempts"]) == ("running", 2)
        second.cloud.answer("a", busy)
        await trio.sleep(100)
        assert attempts(second) == ["b1/a/3"]
        assert second.report[1]["error"] == "a: busy (after 3 attempts)"


async def test_an_attempt_in_flight_is_awaited_by_the_next_scheduler(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Over Ernest's store: the second attempt was sent, and its reply counts; nothing is sent again."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore) as first:
        await first.submit(document([change("a", _retry={"attempts": 3, "backoff": 0}), "b"], [("a", "b")]))
        await trio.sleep(1)
        first.cloud.answer("a", Reply("errored", fields={"error": "busy"}))
        await trio.sleep(1)
        assert attempts(first) == ["b1/a/1", "b1/a/2"]
    leave_service(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus) as second:
        await trio.sleep(1)
        assert attempts(second) == []
        await reply(second, "a")
        await trio.sleep(1)
        assert attempts(second) == ["b1/b/1"]
        assert set(states(second.report[1]).values()) == {"completed"}


# ---- standing by


class Standby:
    """A service that may stand by."""

    def __init__(self, bus: FakeBus, store: Any) -> None:
        self.service = Service(Settings(), bus, store)
        self.steps: list[str] = []

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.service.run)
            self.steps.append("ready")
        self.steps.append("ended")


async def answer_pings(bus: FakeBus) -> Any:
    """Another scheduler."""
    return await bus.subscribe(
        "$SRV.PING.scheduler",
        lambda message: _ignore(bus.publish(message.reply, b"{}")) if message.reply else None,
    )


async def tell_of_itself(bus: FakeBus, *, jetstream: bool) -> None:
    """Answer what every server answers of itself."""
    answer = encode({"server": {"name": "n", "ver": "2.11.0", "jetstream": jetstream}})
    await bus.subscribe(SERVER_INFO, lambda message: _ignore(bus.publish(message.reply, answer)))


def _ignore(_: object) -> None:
    pass


async def test_it_stands_by_silent_while_another_answers_and_takes_over(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """It takes nothing up, takes no builds, says so once, and begins when the other one is gone."""
    other = await answer_pings(fake_bus)
    store = store_with(document("a"), unfinished=True)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            standby = Standby(fake_bus, store)
            nursery.start_soon(standby.run)
            await trio.sleep(100)
            assert standby.steps == []
            assert store.loads == []
            assert fake_bus.subjects == ["$SRV.PING.scheduler", "scheduler.candidate"]
            await other.unsubscribe()
            await trio.sleep(10)
            assert standby.steps == ["ready"]
            assert store.loads == ["b1"]
            nursery.cancel_scope.cancel()
    assert sum(line["event"].startswith("standing by") for line in logs) == 1
    assert sum(line["event"].startswith("taking over") for line in logs) == 1


async def test_stopped_while_it_stands_by_it_ends(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """A stop needs no other scheduler to go away."""
    await answer_pings(fake_bus)
    async with trio.open_nursery() as nursery:
        standby = Standby(fake_bus, FakeStore(resumable=True))
        nursery.start_soon(standby.run)
        await trio.sleep(10)
        standby.service.stop()
        await wait_all_tasks_blocked()
        assert standby.steps == ["ready", "ended"]
        assert fake_bus.subjects == ["$SRV.PING.scheduler", "scheduler.candidate"]


async def test_while_the_broker_is_away_nobody_takes_over(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Silence that may be the broker's is no sign that the other scheduler is gone."""
    other = await answer_pings(fake_bus)
    async with trio.open_nursery() as nursery:
        standby = Standby(fake_bus, FakeStore(resumable=True))
        nursery.start_soon(standby.run)
        await trio.sleep(10)
        fake_bus.disconnect()
        await trio.sleep(60)
        assert standby.steps == []
        # The other one is back a little later than we are.
        await other.unsubscribe()
        fake_bus.reconnect()
        await trio.sleep(0.5)
        await answer_pings(fake_bus)
        await trio.sleep(60)
        assert standby.steps == []
        nursery.cancel_scope.cancel()


async def test_a_broker_on_which_somebody_listens_to_everything_does_not_keep_it(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Ernest's store and monitor listen to `>`: then nobody says that nobody answers, and others tell."""
    await fake_bus.subscribe(">", _ignore)
    await tell_subscribers(fake_bus, ">")
    await tell_of_itself(fake_bus, jetstream=False)
    async with trio.open_nursery() as nursery:
        standby = Standby(fake_bus, FakeStore(resumable=True))
        nursery.start_soon(standby.run)
        await trio.sleep(5)
        assert standby.steps == ["ready"]
        nursery.cancel_scope.cancel()


# ---- elected by lease


async def test_while_the_lease_is_out_nothing_leaves_and_nothing_fails(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Neither requests nor reports, nor what the store is to be told; later all goes on where it stood."""
    server, ernest = plug_into(fake_bus), ServiceStore()
    await ernest.attach(fake_bus)
    settings: dict[str, Any] = {"attempt_timeout": 60, "store_timeout": 30}
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore, **settings) as site:
        await site.submit(document(["a", "b", "c"], [("a", "b"), ("b", "c")]))
        await trio.sleep(5)
        site.cloud.answer("a")
        await trio.sleep(1)
        assert attempts(site) == ["b1/a/1", "b1/b/1"]
        server.silent = True
        await trio.sleep(15)
        asked, sent = len(ernest.requests), len(fake_bus.published)
        site.cloud.answer("b")
        await trio.sleep(300)
        assert len(ernest.requests) == asked
        assert {one.subject for one in fake_bus.published[sent:]} <= {
            "$KV.SCHEDULER.ernest.active",
            "$JS.API.STREAM.MSG.GET.KV_SCHEDULER",
        }
        server.silent = False
        await trio.sleep(5)
        assert attempts(site) == ["b1/a/1", "b1/b/1", "b1/c/1"]
        site.cloud.answer("c")
        await trio.sleep(1)
        assert set(states(site.report[1]).values()) == {"completed"}


@pytest.mark.parametrize("seconds", [1, 25])
async def test_what_waited_for_a_connection_leaves_only_with_the_lease(
    autojump_clock: MockClock, fake_bus: FakeBus, seconds: int
) -> None:
    """Another one may work by then: what was queued before the outage is not sent before the renewal."""
    server, ernest = plug_into(fake_bus), ServiceStore()
    await ernest.attach(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore) as site:
        await site.submit(document(["a", "b"], [("a", "b")]))
        await trio.sleep(5)
        fake_bus.disconnect()
        fake_bus.publish("build.create.done", b"{}")
        await trio.sleep(seconds)
        server.silent = True
        sent = len(fake_bus.published)
        fake_bus.reconnect()
        await trio.sleep(20)
        assert "build.create.done" not in {one.subject for one in fake_bus.published[sent:]}
        server.silent = False
        await trio.sleep(5)
        assert "build.create.done" in {one.subject for one in fake_bus.published[sent:]}


@pytest.mark.parametrize("taken", [True, False])
async def test_while_its_lease_is_offered_it_persists_what_comes_and_reports_nothing(
    autojump_clock: MockClock, fake_bus: FakeBus, taken: bool
) -> None:
    """The next one reports it, having read that from the store; if nobody takes the lease, it does itself."""
    plug_into(fake_bus)
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    other = Election(JetStream(fake_bus), instance="other")
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore) as site:
        await site.submit(document(["a"]))
        await trio.sleep(5)
        site.service.stop()
        await trio.sleep(0.05)
        site.cloud.answer("a")
        await trio.sleep(0.3)
        assert states(ernest.mapping("b1")) == {"a": "completed"}
        assert site.reports == []
        if taken:
            assert not await other.open()
            await other.take(never)
        await trio.sleep(60)
        assert len(site.reports) == (0 if taken else 1)
    assert other.fresh is False
    stored = await JetStream(fake_bus).last(STREAM, f"{ELECTION}active")
    assert stored is not None
    holder = read_lease(stored.data)
    assert holder is not None
    assert (holder.instance == "other") is taken


async def test_what_it_heard_before_another_one_took_the_lease_is_persisted(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """The other one may not have listened yet; and a busy process deals with it a little later."""
    plug_into(fake_bus)
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    other = Election(JetStream(fake_bus), instance="other")
    assert not await other.open()
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus, script=ignore) as site:
        await site.submit(document(["a"]))
        await trio.sleep(5)
        site.service.stop()
        await other.take(never)
        await wait_all_tasks_blocked()
        site.cloud.answer("a")
        await trio.sleep(2)
        assert states(ernest.mapping("b1")) == {"a": "completed"}
        assert site.reports == []


async def test_what_comes_while_it_is_being_elected_counts(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """The one that had the lease may not be able to persist it any more."""
    server, ernest = plug_into(fake_bus), ServiceStore()
    await ernest.attach(fake_bus)
    left = document([change("a", _state="running")])
    ernest.handle("build.set.mapping", encode({"id": "b1", "mapping": left}))
    assert not await Election(JetStream(fake_bus), instance="other").open()
    before = Lease("before", "before", standing=Standing.GONE)
    await LeaseBucket(JetStream(fake_bus), ELECTION).write("active", before, expected=0)
    service = Service(Settings(), fake_bus, ErnestStore(fake_bus))
    reports: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        while "*.create.*.done" not in fake_bus.subjects:
            await trio.lowlevel.checkpoint()
        server.silent = True
        election = service.persistence.election
        assert election is not None
        body = encode({"service": "b1", "_component_id": "a", "_state": "completed"})
        fake_bus.deliver("vpc.create.aws.done", body)
        await wait_all_tasks_blocked()
        server.silent = False
        await trio.sleep(20)
        assert election.fresh
        reports = [one.subject for one in fake_bus.published]
        nursery.cancel_scope.cancel()
    assert "build.create.done" in reports


async def test_what_a_candidate_heard_in_vain_is_forgotten(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Another one was elected, and deals with it; later it might answer another attempt."""
    server, ernest = plug_into(fake_bus), ServiceStore()
    await ernest.attach(fake_bus)
    left = document([change("a", _state="running")])
    ernest.handle("build.set.mapping", encode({"id": "b1", "mapping": left}))
    other = Election(JetStream(fake_bus), instance="other")
    assert not await other.open()
    before = Lease("before", "before", standing=Standing.GONE)
    await LeaseBucket(JetStream(fake_bus), ELECTION).write("active", before, expected=0)
    service = Service(Settings(), fake_bus, ErnestStore(fake_bus))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        while "*.create.*.error" not in fake_bus.subjects:
            await trio.lowlevel.checkpoint()
        server.silent = True
        body = encode({"service": "b1", "_component_id": "a", "_state": "errored", "error": "no"})
        fake_bus.deliver("vpc.create.aws.error", body)
        await wait_all_tasks_blocked()
        server.silent = False
        lease = Lease("other", "other")
        bucket = LeaseBucket(JetStream(fake_bus), ELECTION)
        found = await bucket.last("active")
        assert found is not None
        await bucket.write("active", lease, expected=found.sequence)
        await trio.sleep(60)
        assert service.persistence.election is not None
        assert service.persistence.election.fresh, "the lease of the other one has run out"
        reports = {one.subject for one in fake_bus.published}
        nursery.cancel_scope.cancel()
    assert "build.create.error" not in reports


@pytest.mark.parametrize("turns", range(12))
async def test_a_process_that_ends_before_it_is_ready_keeps_the_lease_from_nobody(
    autojump_clock: MockClock, fake_bus: FakeBus, turns: int
) -> None:
    """It gives the lease up, be it taken or being taken, and sends nothing; another one works at once."""
    plug_into(fake_bus)
    ernest, stopping = ServiceStore(), Stopping()
    await ernest.attach(fake_bus)
    other = Election(JetStream(fake_bus), instance="other")
    assert not await other.open()
    before = Lease("before", "before", standing=Standing.GONE)
    await LeaseBucket(JetStream(fake_bus), ELECTION).write("active", before, expected=0)
    service = Service(Settings(), fake_bus, ErnestStore(fake_bus), stopping=stopping)
    subject, known = f"{ELECTION}active", len(fake_bus.published)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        while subject not in {one.subject for one in fake_bus.published[known:]}:
            await trio.lowlevel.checkpoint()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        assert not stopping.ready
        assert stopping.give_up is not None
        await stopping.give_up()
        assert service.persistence.election is not None
        assert not service.persistence.election.fresh
        began = trio.current_time()
        await other.take(never)
        assert trio.current_time() - began < 0.1
        assert other.fresh
        nursery.cancel_scope.cancel()


async def never() -> bool:
    """Say of the holder of a lease that it may be there."""
    await trio.lowlevel.checkpoint()
    return False


async def test_how_it_came_to_work_is_told(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """Service discovery has its name, and whether it was elected by lease."""
    async with open_service(store=FakeStore(resumable=True), bus=fake_bus, instance="one") as site:
        assert site.service.persistence.description == {"store": "fake", "name": "one", "elected": "presence"}
    leave_service(fake_bus)
    plug_into(fake_bus)
    async with open_service(store=FakeStore(resumable=True), bus=fake_bus, instance="one") as site:
        assert site.service.persistence.description == {"store": "fake", "name": "one", "elected": "lease"}


async def test_where_jetstream_is_silent_it_is_waited_for(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Another scheduler may have the lease, and be silent for the same reason: presence would not tell."""
    server = plug_into(fake_bus)
    server.silent = True
    info = encode({"server": {"name": "n", "ver": "2.15.1", "jetstream": True}})
    await fake_bus.subscribe("$SYS.REQ.USER.INFO", lambda asked: fake_bus.deliver(asked.reply, info))
    ready = trio.Event()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            store = FakeStore(resumable=True)
            async with open_service(store=store, bus=fake_bus, instance="one") as site:
                assert site.service.persistence.description["elected"] == "lease"
                ready.set()

        nursery.start_soon(run)
        await trio.sleep(45)
        assert not ready.is_set()
        server.silent = False
        with trio.fail_after(30):
            await ready.wait()


async def test_a_memory_store_needs_no_standing_by(fake_bus: FakeBus) -> None:
    """Without a shared store several schedulers take builds side by side."""
    await answer_pings(fake_bus)
    async with open_service(bus=fake_bus) as site:
        assert (await site.submit(document("a")))["status"] == "accepted"


async def test_replies_that_wait_for_the_store_have_a_bound_in_bytes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond it is dropped and counted; what was kept is counted off when the store has spoken."""
    monkeypatch.setattr("scheduler.recovery.strays._MOST_BYTES", 5_000)
    gate = trio.Event()
    store = store_with()
    original = store.load

    async def load(build: str) -> Any:
        await gate.wait()
        return await original(build)

    monkeypatch.setattr(store, "load", load)
    async with open_service(store=store) as site:
        await wait_all_tasks_blocked()
        dropped = site.service.connectors.dropped
        for number in range(10):
            await reply(site, "a", build=f"b{number}", text="x" * 1_500)
        assert dropped["for no running component"] == 7
        gate.set()
        await wait_all_tasks_blocked()
        assert dropped["for no running component"] == 10
        gate = trio.Event()
        for number in range(10, 20):
            await reply(site, "a", build=f"b{number}", text="x" * 1_500)
        assert dropped["for no running component"] == 17
        gate.set()
