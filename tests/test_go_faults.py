"""What the Go scheduler does wrong (ErnestIO's, measured), each as a test that this one does it right."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import trio
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from support.fakes import JSON, Reply, change, document, encode, ignore, open_service, states
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.config import Settings
from scheduler.service import Service
from scheduler.stores.ernest import ErnestStore


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is no task: a clock that jumps would not wait for it."""

    async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", run_sync)


async def test_crash_a_foreign_done_without_a_state(fake_bus: FakeBus) -> None:
    """A stranger's `x.done` with a `_component_id` and no `_state` is passed over."""
    async with open_service(bus=fake_bus, script=ignore) as site:
        await site.submit(document("a"))
        await wait_all_tasks_blocked()
        for body in (
            {"_component_id": "a"},
            {"_component_id": "a", "service": "b2"},
            {"_component_id": None},
        ):
            fake_bus.deliver("vpc.create.aws.done", encode(body))
        await wait_all_tasks_blocked()
        assert site.reports == []
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert site.report[0] == "build.create.done"


@pytest.mark.parametrize("where", ["changes", "components", "edges"])
async def test_crash_a_null_in_a_list(fake_bus: FakeBus, where: str) -> None:
    """A null among changes, components or edges is rejected, with its place."""
    value = document("a")
    value[where] = [*value[where], None]
    async with open_service(bus=fake_bus) as site:
        answer = await site.submit(value)
        place = f"{where}[{len(value[where]) - 1}]"
        assert answer["error"]["details"] == [f"{place}: expected an object, got null"]
        await site.publish(value)
        assert site.report[0] == "build.create.error"
        assert (await site.submit(document("a")))["status"] == "accepted"


async def test_crash_a_store_that_times_out(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """A store that falls silent in the middle halts the build: `store: ...`, one report, and on it goes."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    async with open_service(bus=fake_bus, store=ErnestStore(fake_bus), script=ignore) as site:
        await site.submit(document("ab", [("a", "b")]))
        await wait_all_tasks_blocked()
        ernest.script("build.set.mapping.change", *[None] * 100)
        site.cloud.answer("a")
        await trio.sleep(100)
        subject, report = site.report
        assert subject == "build.create.error"
        assert report["error"].startswith("store: build.set.mapping.change was not answered within 30 s")
        assert site.cloud.asked == ["a"]
        ernest.next.clear()
        assert (await site.submit(document("z", build="b2")))["status"] == "accepted"
        await wait_all_tasks_blocked()
        site.cloud.answer("z")
        await trio.sleep(1)
        assert site.reports[1][0] == "build.create.done"


@pytest.mark.parametrize(
    "text", ['$(components.#[_component_id="a"].x)', "{{ components['a'].x }}", "{{ component.x }}"]
)
async def test_crash_a_template_that_refers_to_itself(fake_bus: FakeBus, text: str) -> None:
    """A field that is defined by itself is refused or fails; nothing is sent, and nothing falls over."""
    async with open_service(bus=fake_bus) as site:
        answer = await site.submit(document([change("a", x=text)]))
        await wait_all_tasks_blocked()
        if answer["status"] == "accepted":
            assert site.report[0] == "build.create.error"
        else:
            assert answer["error"]["details"]
        assert site.cloud.asked == []
        assert (await site.submit(document("a", build="b2")))["status"] == "accepted"


async def test_hang_a_cycle(fake_bus: FakeBus) -> None:
    """A cycle is rejected, as a path."""
    async with open_service(bus=fake_bus) as site:
        answer = await site.submit(document("abc", [("a", "b"), ("b", "c"), ("c", "a")]))
        assert answer["error"]["details"] == ["edges: cycle: a -> b -> c -> a"]


async def test_hang_a_missing_start_edge(fake_bus: FakeBus) -> None:
    """A change that no edge leads to, or that no edge names at all, just runs."""
    async with open_service(bus=fake_bus) as site:
        await site.submit(document("abc", [("start", "a"), ("b", "end")]))
        await wait_all_tasks_blocked()
        assert set(site.cloud.asked) == set("abc")
        assert site.report[0] == "build.create.done"


async def test_hang_a_duplicate_id(fake_bus: FakeBus) -> None:
    """Two changes of the same id are rejected."""
    async with open_service(bus=fake_bus) as site:
        answer = await site.submit(document(["a", "a"]))
        assert answer["error"]["details"] == ["changes[1]._component_id: 'a' is the id of changes[0] already"]


async def test_hang_an_action_none_among_the_changes(fake_bus: FakeBus) -> None:
    """`_action: none` completes without being sent, and what depends on it goes on."""
    async with open_service(bus=fake_bus) as site:
        await site.submit(document(["a", change("n", action="none"), "z"], [("a", "n"), ("n", "z")]))
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["a", "z"]
        assert site.report[0] == "build.create.done"


@pytest.mark.parametrize("value", [None, "", 7, "missing"])
async def test_hang_a_provider_that_cannot_be_resolved(fake_bus: FakeBus, value: Any) -> None:
    """A `_provider` that refers to something that never comes fails its component, and is not sent."""

    def script(component: JSON) -> Sequence[Reply]:
        return [Reply(fields={} if value == "missing" else {"provider": value})]

    provider = '$(components.#[_component_id="a"].provider)'
    async with open_service(bus=fake_bus, script=script) as site:
        await site.submit(document(["a", change("b", provider=provider)]))
        await wait_all_tasks_blocked()
        if value == 7:
            assert site.cloud.requests[-1][0].subject == "vpc.create.7"
            return
        assert site.cloud.asked == ["a"]
        subject, report = site.report
        assert subject == "build.create.error"
        assert report["error"].startswith("b: _provider")


async def test_hang_a_reply_that_was_lost_in_a_restart(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """What an earlier process sent and whose reply nobody heard times out, and the build ends."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    value = document([change("a", _state="running", _timeout=600), "b"], [("a", "b")])
    ernest.handle("build.set.mapping", encode({"id": "b1", "mapping": value}))
    async with open_service(bus=fake_bus, store=ErnestStore(fake_bus)) as site:
        await trio.sleep(590)
        assert site.reports == []
        await trio.sleep(20)
        assert site.report[1]["error"] == "a: timed out after 600 s"
        assert site.cloud.asked == []


async def test_twice_what_is_completed_is_not_sent(fake_bus: FakeBus) -> None:
    """A change that says `completed` is done."""
    async with open_service(bus=fake_bus) as site:
        await site.submit(document([change("a", _state="completed"), "b"], [("a", "b")]))
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["b"]


async def test_twice_a_duplicate_reply_does_not_send_the_dependents_again(fake_bus: FakeBus) -> None:
    """However often a reply comes, in whatever way, what waits for it is sent once."""
    async with open_service(bus=fake_bus, script=ignore) as site:
        await site.submit(document("abc", [("a", "b"), ("a", "c")]))
        await wait_all_tasks_blocked()
        for _ in range(5):
            site.cloud.answer("a", Reply(via="both"))
            await wait_all_tasks_blocked()
        assert Counter(site.cloud.asked) == {"a": 1, "b": 1, "c": 1}
        for name in "bcbc":
            site.cloud.answer(name)
        await wait_all_tasks_blocked()
        assert len(site.reports) == 1


async def test_twice_an_error_is_reported_once_and_never_followed_by_done(fake_bus: FakeBus) -> None:
    """Two components fail, one of them then succeeds as well: one `.error`, and no `.done`."""
    async with open_service(bus=fake_bus, script=ignore) as site:
        await site.submit(document("abc", [("a", "c")]))
        await wait_all_tasks_blocked()
        for name, state in (("a", "errored"), ("a", "completed"), ("b", "errored"), ("b", "completed")):
            site.cloud.answer(name, Reply(state, fields={"error": "no"}))
            await wait_all_tasks_blocked()
        subject, report = site.report
        assert subject == "build.create.error"
        assert states(report) == {"a": "errored", "b": "errored", "c": "waiting"}


async def test_twice_a_second_scheduler_sends_nothing(autojump_clock: MockClock, fake_bus: FakeBus) -> None:
    """With Ernest's store a second one stands by: each component is sent once."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    async with (
        open_service(bus=fake_bus, store=ErnestStore(fake_bus)) as site,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(Service(Settings(), fake_bus, ErnestStore(fake_bus)).run)
        await trio.sleep(10)
        for number in range(10):
            value = document("abc", [("a", "b"), ("b", "c")], build=f"b{number}")
            assert (await site.submit(value))["status"] == "accepted"
        await trio.sleep(10)
        assert set(site.cloud.counts.values()) == {1}
        assert len(site.reports) == 10
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "provider",
    ["aws\r\nPUB build.create.done 2\r\n{}", "aws\n", "aws\r", "a b", "aws.done", "*", ">", "", "\x00"],
)
async def test_injection_through_a_provider(fake_bus: FakeBus, provider: str) -> None:
    """White space, dots and wildcards in `_provider`, submitted or rendered, never reach the broker."""
    script = lambda _: [Reply(fields={"p": provider})]  # noqa: E731
    async with open_service(bus=fake_bus, script=script) as site:
        answer = await site.submit(document([change("x", provider=provider)]))
        assert answer["status"] == "rejected" or not provider
        await site.submit(document(["a", change("b", provider="{{ components['a'].p }}")], build="b2"))
        await wait_all_tasks_blocked()
        assert site.cloud.asked == ["a"]
        [(subject, report)] = site.reports
        assert (subject, report["id"]) == ("build.create.error", "b2")
        assert report["error"].startswith("b: _provider")


async def test_digits_of_large_integers_are_kept(fake_bus: FakeBus) -> None:
    """Integers above 2^53 go out and come back with all their digits, in requests, replies and reports."""
    large = 2**53 + 1
    larger = 10**40 + 7
    script = lambda _: [Reply(fields={"serial": larger})]  # noqa: E731
    value = document(
        [change("a", n=large), change("b", m="{{ components['a'].serial }}")], options={"quota": larger}
    )
    async with open_service(bus=fake_bus, script=script) as site:
        await site.submit(value)
        await wait_all_tasks_blocked()
        assert site.cloud.requests[0][1]["n"] == large
        assert site.cloud.requests[1][1]["m"] == larger
        _, report = site.report
        assert report["options"]["quota"] == larger
        assert (report["changes"][0]["n"], report["changes"][0]["serial"]) == (large, larger)


@pytest.mark.parametrize(
    ("subject", "asked"),
    [
        ("build.set.mapping", []),
        ("build.set.mapping.change", []),
        ("build.set.mapping.component", ["a"]),
        ("build.del.mapping.component", ["a"]),
    ],
)
async def test_an_error_of_the_store_is_not_ignored(
    autojump_clock: MockClock, fake_bus: FakeBus, subject: str, asked: list[str]
) -> None:
    """Whatever the store answers with `_error`, nothing goes on as if it had been done."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    ernest.script(subject, json.dumps({"_error": "disk full"}).encode())
    action = "delete" if subject.startswith("build.del") else "create"
    value = document([change("a", action=action), "b"], [("a", "b")])
    value["components"] = [{"_component_id": "a"}] if action == "delete" else []
    async with open_service(bus=fake_bus, store=ErnestStore(fake_bus)) as site:
        await site.publish(value)
        await trio.sleep(5)
        assert site.cloud.asked == asked
        report_subject, report = site.report
        assert report_subject == "build.create.error"
        assert report["error"] == f"store: {subject}: disk full"


async def test_a_small_build_does_not_wait_behind_a_large_one(
    autojump_clock: MockClock, fake_bus: FakeBus
) -> None:
    """Beside a build of a thousand a build of one takes as long as its connector."""
    finished: dict[str, float] = {}

    def note(message: Any) -> None:
        finished[json.loads(message.data)["id"]] = trio.current_time()

    await fake_bus.subscribe("build.*.done", note)
    async with open_service(bus=fake_bus, script=lambda _: [Reply(after=1.0)], max_in_flight=100) as site:
        names = [f"c{number}" for number in range(1_000)]
        await site.submit(document(names, pairwise(names[:20]), build="large"))
        await trio.sleep(2)
        began = trio.current_time()
        await site.submit(document("a", build="small"))
        await trio.sleep(1_000)
        assert finished["small"] - began <= 2.5
        assert finished["large"] - began > 5


async def test_crash_two_thousand_components(fake_bus: FakeBus) -> None:
    """A layered build of two thousand is done, each component sent once."""
    names = [f"c{number}" for number in range(2_000)]
    edges = [(names[number - 20], names[number]) for number in range(20, 2_000)]
    async with open_service(bus=FakeBus(max_payload=8 * 1024 * 1024)) as site:
        await site.submit(document(names, edges))
        await wait_all_tasks_blocked()
        assert site.report[0] == "build.create.done"
        assert set(site.cloud.counts.values()) == {1}
        assert len(site.cloud.asked) == 2_000
