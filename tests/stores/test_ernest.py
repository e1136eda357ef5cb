# A clock works by being asked for.
# ruff: noqa: ARG001

import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import pytest
import structlog
import trio
from attrs import define, field, frozen
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.definition.strictjson import encode
from scheduler.errors import BuildLost, StoreError, StoreUnavailable
from scheduler.journal.events import Accepted, Event, Finished, Retrying, Settled, Started, Withdrawn
from scheduler.stores import DocumentStore, ernest, ernest_protocol
from scheduler.stores.asking import Backoff
from scheduler.stores.ernest import ErnestStore

JSON: TypeAlias = dict[str, Any]

CHANGE = "build.set.mapping.change"
COMPONENT = "build.set.mapping.component"
DELETE = "build.del.mapping.component"

STEADY = Backoff(first=0.1, factor=2.0, most=2.0, jitter=0.0)


@frozen
class Request:
    """What reached the scripted store."""

    time: float
    subject: str
    body: JSON


Answer: TypeAlias = bytes | None
"""None: no answer at all."""


@define
class Script:
    """A store that takes ``delay`` seconds for anything, all requests side by side, and answers as told."""

    bus: FakeBus
    nursery: trio.Nursery
    delay: float = 0.0
    answer: Callable[[Request], Answer] = lambda _: b""
    requests: list[Request] = field(factory=list)
    in_flight: Counter[str] = field(factory=Counter)
    most: Counter[str] = field(factory=Counter)
    """The most requests in flight at a time: of each build, and, under an empty id, of all."""

    def handle(self, message: Message) -> None:
        request = Request(trio.current_time(), message.subject, json.loads(message.data))
        self.requests.append(request)
        self.nursery.start_soon(self._reply, request, message.reply)

    async def _reply(self, request: Request, reply: str) -> None:
        for key in ("", request.body.get("service", "")):
            self.in_flight[key] += 1
            self.most[key] = max(self.most[key], self.in_flight[key])
        await trio.sleep(self.delay)
        answer = self.answer(request)
        for key in ("", request.body.get("service", "")):
            self.in_flight[key] -= 1
        if answer is not None:
            self.bus.publish(reply, answer)

    @property
    def subjects(self) -> list[str]:
        return [request.subject for request in self.requests]

    @property
    def components(self) -> list[str]:
        return [request.body["_component_id"] for request in self.requests]


@pytest.fixture
async def script(fake_bus: FakeBus, nursery: trio.Nursery) -> Script:
    """A scripted store at the other end of the bus."""
    script = Script(fake_bus, nursery)
    await fake_bus.subscribe("build.>", script.handle)
    return script


@pytest.fixture
async def service(fake_bus: FakeBus) -> ServiceStore:
    """The fake of the real service at the other end of the bus, with the build ``b``."""
    service = ServiceStore()
    changes = [_change("vpc::a"), _change("network::n"), _change("instance::i")]
    service.handle("build.set.mapping", json.dumps({"id": "b", "mapping": _build(changes)}).encode())
    service.requests.clear()
    await service.attach(fake_bus)
    return service


@pytest.fixture
def store(fake_bus: FakeBus) -> ErnestStore:
    """The store under test, without chance in its delays."""
    return ErnestStore(fake_bus, backoff=STEADY)


def _change(id_: str, **fields: Any) -> JSON:
    return {"_component_id": id_, "_component": id_.partition("::")[0], "_state": "waiting", **fields}


def _build(changes: list[JSON], id_: str = "b") -> JSON:
    return {
        "id": id_,
        "action": "build.create",
        "components": [_change("vpc::old", _state="completed")],
        "changes": changes,
    }


def _started(id_: str = "vpc::a", **fields: Any) -> Started:
    return Started(id_, f"b/{id_}/1", encode(_change(id_, **fields)))


async def _failure(
    call: Callable[[], Awaitable[Any]], kind: type[StoreError] = StoreError
) -> tuple[str, float]:
    """What ``call`` raises, and after how many seconds."""
    before = trio.current_time()
    with pytest.raises(kind) as caught:
        await call()
    assert type(caught.value) is kind
    return str(caught.value), trio.current_time() - before


async def _unfinished(store: DocumentStore) -> list[str]:
    return [build async for build in store.unfinished()]


# What is asked, in which order.


async def test_satisfies_the_port(store: ErnestStore, autojump_clock: MockClock) -> None:
    """It is a Store from which a later process can resume."""
    port: DocumentStore = store
    assert isinstance(store, DocumentStore)
    assert (port.name, port.resumable) == ("ernest", True)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            Accepted(_build([_change("vpc::a")])),
            [("build.set.mapping", {"id": "b", "mapping": _build([_change("vpc::a")])})],
        ),
        (
            _started(x=2**70, service="of-another"),
            [(CHANGE, _change("vpc::a", _state="running", x=2**70, service="b"))],
        ),
        (
            Withdrawn("vpc::a", encode(_change("vpc::a", _state="running", service="of-another"))),
            [(CHANGE, _change("vpc::a", service="b"))],
        ),
        (
            Retrying("vpc::a", "b/vpc::a/2", "busy", 5.0, encode(_change("vpc::a")), 2),
            [(CHANGE, _change("vpc::a", _attempts=2, service="b"))],
        ),
        (
            Started("vpc::a", "b/vpc::a/3", encode(_change("vpc::a")), 2),
            [(CHANGE, _change("vpc::a", _state="running", _attempts=2, service="b"))],
        ),
        (
            Withdrawn("vpc::a", encode(_change("vpc::a", _state="running")), 2),
            [(CHANGE, _change("vpc::a", _attempts=2, service="b"))],
        ),
        # create, update and get look the same from here
        (
            Settled("vpc::a", _change("vpc::a", _state="completed"), upserts=(_change("vpc::a", v=1),)),
            [
                (CHANGE, _change("vpc::a", _state="completed", service="b")),
                (COMPONENT, _change("vpc::a", v=1, service="b")),
            ],
        ),
        (
            Settled("vpc::a", _change("vpc::a", _state="completed"), deletes=(_change("vpc::a", v=1),)),
            [
                (CHANGE, _change("vpc::a", _state="completed", service="b")),
                (DELETE, _change("vpc::a", v=1, service="b")),
            ],
        ),
        (
            Settled(
                "vpc::a",
                _change("vpc::a", _state="completed", service="of-another"),
                upserts=tuple(_change(f"vpc::{n}", service="of-another") for n in range(3)),
            ),
            [
                (CHANGE, _change("vpc::a", _state="completed", service="b")),
                *((COMPONENT, _change(f"vpc::{n}", service="b")) for n in range(3)),
            ],
        ),
        (
            Settled("vpc::a", _change("vpc::a", _state="errored", error="no")),
            [(CHANGE, _change("vpc::a", _state="errored", error="no", service="b"))],
        ),
        (Finished(None), []),
        (Finished("vpc::a: no"), []),
    ],
    ids=[
        "accepted",
        "started",
        "withdrawn",
        "retrying",
        "again",
        "withdrawn again",
        "create",
        "delete",
        "find",
        "errored",
        "finished",
        "failed",
    ],
)
async def test_asks_for_each_event_what_the_wire_says(
    store: ErnestStore,
    script: Script,
    event: Event,
    expected: list[tuple[str, JSON]],
    autojump_clock: MockClock,
) -> None:
    """An event becomes these requests, in this order, each component with the build's id as its service."""
    await store.append("b", [event])
    assert [(request.subject, request.body) for request in script.requests] == expected


async def test_keeps_the_order_of_events(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Several events of one append are carried out one after the other; no event asks nothing."""
    done = Settled("vpc::a", _change("vpc::a"), upserts=(_change("vpc::a"),), deletes=(_change("vpc::z"),))
    await store.append("b", [Accepted(_build([])), _started(), done, _started("network::n"), Finished(None)])
    await store.append("b", [])
    assert script.subjects == ["build.set.mapping", CHANGE, CHANGE, COMPONENT, DELETE, CHANGE]


async def test_a_large_build_arrives_whole(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A mapping of megabytes, written in slices, is the same at the other end."""
    bus = FakeBus(max_payload=8 * 1024 * 1024)
    script = Script(bus, nursery)
    await bus.subscribe("build.>", script.handle)
    build = _build([_change(f"vpc::{n}", big=2**80, text="é" * 200) for n in range(10_000)])
    await ErnestStore(bus).append("b", [Accepted(build)])
    assert script.requests[0].body == {"id": "b", "mapping": build}


async def test_the_service_holds_what_was_appended(
    store: ErnestStore, service: ServiceStore, autojump_clock: MockClock
) -> None:
    """What the plan says of components and changes is what the service answers afterwards."""
    await store.append("b", [_started()])
    assert service.mapping("b")["changes"][0]["_state"] == "running"
    completed = _change("vpc::a", _state="completed", vpc_aws_id="vpc-1")
    await store.append("b", [Settled("vpc::a", completed, (completed,), (_change("vpc::old"),))])

    loaded = await store.load("b")

    assert loaded is not None
    assert loaded["changes"][0] == loaded["components"][0] == {**completed, "service": "b"}
    assert len(loaded["components"]) == 1
    assert await _unfinished(store) == ["b"]


async def test_the_report_ends_the_build_in_the_service(
    store: ErnestStore, service: ServiceStore, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """After its report a build is not in progress any more, though Finished asks nothing."""
    await store.append("b", [Finished(None)])
    fake_bus.publish("build.create.done", b'{"id":"b"}')
    assert await _unfinished(store) == []
    assert service.rows["b"].status == "done"


# Pace.


async def test_one_request_of_a_build_at_a_time(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Appends made side by side are carried out in the order they were made, one request in flight."""
    script.delay = 1
    expected = []
    async with trio.open_nursery() as nursery:
        for n in range(10):
            settled = Settled("x", _change(f"vpc::{n}"), upserts=(_change(f"vpc::{n}"),))
            expected += [f"vpc::{n}"] * 2
            nursery.start_soon(store.append, "b", [settled])
            await wait_all_tasks_blocked()
    assert script.components == expected
    assert script.subjects == [CHANGE, COMPONENT] * 10
    assert script.most["b"] == 1
    assert trio.current_time() - script.requests[0].time == 20


async def test_late_comers_queue_as_well(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """An append made while others of its build come and go waits for them too."""
    script.delay = 2
    async with trio.open_nursery() as nursery:
        for n in range(6):
            nursery.start_soon(store.append, "b", [_started(f"vpc::{n}")])
            await trio.sleep(1.5)
    assert script.components == [f"vpc::{n}" for n in range(6)]
    assert script.most["b"] == 1


@pytest.mark.parametrize("limit", [1, 4, 7])
async def test_a_few_requests_at_a_time_of_all_builds(
    fake_bus: FakeBus, script: Script, limit: int, autojump_clock: MockClock
) -> None:
    """Of all builds together never more than ``per_instance`` requests are in flight, and that many are."""
    store = ErnestStore(fake_bus, per_instance=limit)
    script.delay = 1
    async with trio.open_nursery() as nursery:
        for n in range(28):
            nursery.start_soon(store.append, f"b{n}", [_started()])
    assert script.most[""] == limit
    assert trio.current_time() - script.requests[0].time == 28 / limit


def test_four_by_default() -> None:
    """The defaults are those of the wire."""
    defaults = {name: one.default for name, one in inspect.signature(ErnestStore.__init__).parameters.items()}
    assert (defaults["timeout"], defaults["store_timeout"], defaults["per_instance"]) == (5, 30, 4)


async def test_a_build_with_many_appends_does_not_delay_others(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """With one slot, and 500 appends of one build before it, another build's append is second or third."""
    store = ErnestStore(fake_bus, per_instance=1)
    script.delay = 1
    async with trio.open_nursery() as nursery:
        for n in range(500):
            nursery.start_soon(store.append, "huge", [_started(f"vpc::{n}")])
        await wait_all_tasks_blocked()
        nursery.start_soon(store.append, "small", [_started("small::1"), _started("small::2")])
    positions = [n for n, id_ in enumerate(script.components) if id_.startswith("small")]
    assert positions[0] <= 2
    assert positions[1] == positions[0] + 2


async def test_many_requests_of_one_append_do_not_delay_others(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """A find that returns 500 components takes its turn for each of them."""
    store = ErnestStore(fake_bus, per_instance=1)
    script.delay = 1
    found = Settled("x", _change("vpc::x"), upserts=tuple(_change(f"vpc::{n}") for n in range(500)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.append, "huge", [found])
        await wait_all_tasks_blocked()
        nursery.start_soon(store.append, "small", [_started("small::1")])
    assert script.components.index("small::1") <= 2


async def test_commits_are_counted_with_their_time_and_size(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Each change that was carried out, from its turn to the answer; and none that the store refused."""
    script.delay = 0.5
    await store.append("b", [_started("vpc::a"), _started("vpc::b")])
    await store.append("b", [Settled("vpc::a", _change("vpc::a"), upserts=(_change("vpc::c"),))])
    script.answer = lambda _: b'{"_error":"no"}'
    await _failure(lambda: store.append("b", [_started("vpc::d")]))
    counted = store.commits.document()
    assert (counted["count"], counted["mean"], counted["retries"]) == (4, 0.5, 0)
    sent = [len(encode(request.body)) for request in script.requests[:-1]]
    assert store.commits.sizes.sum == sum(sent)


async def test_attempts_without_a_final_answer_are_counted_as_retries(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Silence and "could not serialize"; the commit took all that time. Questions are no commits."""
    answers = iter([None, b'{"_error":"could not serialize"}', b""])
    script.answer = lambda request: next(answers) if request.subject == CHANGE else b"null"
    await store.append("b", [_started()])
    assert (store.commits.retries, store.commits.document()["count"]) == (2, 1)
    assert store.commits.seconds.sum == pytest.approx(5 + 0.1 + 0.2)
    await store.load("b")
    assert store.commits.document()["count"] == 1


async def test_a_build_that_pauses_leaves_its_place(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """Between two attempts a build holds no slot, so another one gets it."""
    store = ErnestStore(fake_bus, per_instance=1, backoff=Backoff(first=2, jitter=0))
    script.answer = lambda request: (
        b'{"_error":"could not serialize"}' if request.body["service"] == "a" and request.time < 2 else b""
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.append, "a", [_started("a::1")])
        await wait_all_tasks_blocked()
        nursery.start_soon(store.append, "b", [_started("b::1")])
    assert script.components == ["a::1", "b::1", "a::1"]


async def test_forgets_builds_that_ask_nothing(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Nothing is kept of a build once its calls are over, however they ended."""
    script.answer = lambda request: b'{"_error":"no"}' if request.body["service"] == "bad" else b""
    await store.append("good", [_started()])
    await _failure(lambda: store.append("bad", [_started()]))
    assert not store._lanes
    assert not store._asker._waiting


# Deadlines and attempts.


async def test_the_timeout_counts_from_sending(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """A request that queued for 40 s has its 5 s all the same, and no request is sent twice."""
    store = ErnestStore(fake_bus, per_instance=1)
    script.delay = 4
    async with trio.open_nursery() as nursery:
        for n in range(5):
            nursery.start_soon(store.append, "b", [_started(f"vpc::{n}")])
            nursery.start_soon(store.append, f"b{n}", [_started(f"vpc::{n}")])
    assert len(script.requests) == 10


async def test_a_silent_store_is_asked_until_the_deadline(
    store: ErnestStore, script: Script, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Each attempt has 5 s, the pauses grow, and after 30 s from the first sending it is StoreUnavailable."""
    script.answer = lambda _: None
    message, seconds = await _failure(lambda: store.append("b", [_started()]), StoreUnavailable)
    assert message == "store: build.set.mapping.change was not answered within 30 s"
    assert seconds == pytest.approx(30, abs=0.02)
    gaps = [later.time - earlier.time for earlier, later in _pairs(script.requests)]
    assert gaps == pytest.approx([5.1, 5.2, 5.4, 5.8, 6.6])
    assert fake_bus.queued == 0


def _pairs(requests: list[Request]) -> list[tuple[Request, Request]]:
    return list(pairwise(requests))


async def test_nobody_subscribed_is_asked_again_with_growing_pauses(
    store: ErnestStore, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """503 comes at once, so the pauses alone space the attempts: 0.1 s, doubled up to 2 s."""
    times = []

    def count(_: Any) -> bool:
        times.append(trio.current_time())
        return False

    fake_bus.lose = count
    message, seconds = await _failure(lambda: store.append("b", [_started()]), StoreUnavailable)
    assert message == (
        "store: build.set.mapping.change was not answered within 30 s: nobody is subscribed to it"
    )
    assert seconds == pytest.approx(30, abs=0.02)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert len(times) < 25


async def test_chance_shortens_the_pauses(autojump_clock: MockClock) -> None:
    """Jitter takes away up to its part of a delay and never adds to it, however often it is asked."""
    delays = Backoff(first=1, factor=2, most=8, jitter=0.5).delays()
    taken = [next(delays) for _ in range(5000)]
    assert all(0.5 * full <= one <= full for one, full in zip(taken, [1, 2, 4, *[8] * 4997], strict=True))
    assert len(set(taken)) > 4900


async def test_a_store_that_comes_back_is_enough(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """If the store answers within the deadline the append succeeds, and continues with the rest."""
    script.answer = lambda request: None if request.time < 20 else b""
    event = Settled("vpc::a", _change("vpc::a"), upserts=(_change("vpc::a"),))
    await store.append("b", [event])
    assert script.subjects == [CHANGE] * 5 + [COMPONENT]


async def test_each_request_has_a_deadline_of_its_own(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """An append of several requests may take longer than ``store_timeout``, a request may not."""
    script.delay = 4
    await store.append("b", [_started() for _ in range(20)])
    assert script.requests[-1].time - script.requests[0].time == 76


async def test_a_late_answer_is_harmless(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """The answer to an attempt that timed out is dropped, not taken for that of the next request."""
    script.answer = lambda request: (
        b'{"_error":"too late"}' if request.time == script.requests[0].time else b""
    )
    script.delay = 6
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.append, "b", [_started(), _started("network::n")])
        await trio.sleep(1)
        script.delay = 0
    await trio.sleep(10)
    assert script.components == ["vpc::a", "vpc::a", "network::n"]


async def test_appends_queued_behind_a_failed_one_fail_with_it(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """They say the same, at once; a call made afterwards asks the store again."""
    script.answer = lambda _: None
    ends: list[tuple[str, float]] = []

    async def append(n: int) -> None:
        ends.append(await _failure(lambda: store.append("b", [_started(f"vpc::{n}")]), StoreUnavailable))

    async with trio.open_nursery() as nursery:
        for n in range(500):
            nursery.start_soon(append, n)
    assert len(set(script.components)) == 1
    assert {text for text, _ in ends} == {"store: build.set.mapping.change was not answered within 30 s"}
    assert max(seconds for _, seconds in ends) == pytest.approx(30, abs=0.02)
    script.answer = lambda _: b""
    await store.append("b", [_started("vpc::later")])
    assert script.components[-1] == "vpc::later"


async def test_a_failure_is_not_held_against_later_appends(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """An append made after a failure is carried out, even while what was queued then is still under way."""
    script.answer = lambda request: b"" if request.time > 29.9 else None
    script.delay = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_failure, lambda: store.append("b", [_started()]), StoreUnavailable)
        await wait_all_tasks_blocked()
        nursery.start_soon(store.load, "b")
        await trio.sleep(30.5)
        nursery.start_soon(store.append, "b", [_started("vpc::later")])
    assert script.subjects[-2:] == ["build.get.mapping", CHANGE]


async def test_an_error_answer_leaves_the_queue_alone(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """What is queued behind an append that was answered with an error is carried out."""
    script.delay = 1
    script.answer = lambda request: b'{"_error":"no"}' if request.body["_component_id"] == "vpc::0" else b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_failure, lambda: store.append("b", [_started("vpc::0")]))
        await wait_all_tasks_blocked()
        nursery.start_soon(store.append, "b", [_started("vpc::1")])
    assert script.components == ["vpc::0", "vpc::1"]


async def test_a_silent_store_ends_every_wait(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """200 builds in the queue of a store that is silent towards all do not wait for their turns to fail."""
    store = ErnestStore(fake_bus, backoff=STEADY)
    await store.append("before", [_started()])
    script.requests.clear()
    script.answer = lambda _: None
    texts: Counter[str] = Counter()

    async def append(build: str) -> None:
        text, seconds = await _failure(lambda: store.append(build, [_started()]), StoreUnavailable)
        texts[text] += 1
        assert seconds < 61

    async with trio.open_nursery() as nursery:
        for n in range(200):
            nursery.start_soon(append, f"b{n}")
    sent = len({request.body["service"] for request in script.requests})
    assert texts["store: build.set.mapping.change was not answered within 30 s"] == sent
    assert (
        texts["store: build.set.mapping.change was not sent: nothing was answered within 30 s"] == 200 - sent
    )
    assert 0 < sent < 200


async def test_a_young_wait_survives_the_silence_of_others(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """A request that has waited less than ``store_timeout`` when the store is declared silent gets its
    turn."""
    store = ErnestStore(fake_bus, backoff=STEADY, per_instance=1)
    script.answer = lambda request: None if request.time < 31 else b""
    async with trio.open_nursery() as nursery:
        # These take turns of 5 s; the first two have given up on the store before it answers.
        for n in range(5):
            append = partial(store.append, f"old{n}", [_started()])
            nursery.start_soon(*([_failure, append, StoreUnavailable] if n < 2 else [append]))
            await wait_all_tasks_blocked()
        await trio.sleep(29)
        nursery.start_soon(store.append, "young", [_started()])
    assert script.requests[-1].body["service"] == "young"


async def test_a_slow_store_ends_no_wait(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """While anybody is answered a build waits for its turn, for minutes where it must."""
    store = ErnestStore(fake_bus, backoff=STEADY, per_instance=1)
    script.delay = 4
    script.answer = lambda request: None if request.body["service"] == "unlucky" else b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_failure, lambda: store.append("unlucky", [_started()]), StoreUnavailable)
        await wait_all_tasks_blocked()
        for n in range(50):
            nursery.start_soon(store.append, f"b{n}", [_started()])
    assert len({request.body["service"] for request in script.requests}) == 51
    assert script.requests[-1].time > 190


# The broker is away.


async def test_a_broker_that_is_away_fails_no_build(
    store: ErnestStore, script: Script, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """While the broker is away nothing is sent, for as long as it takes; then it resumes."""
    fake_bus.disconnect()
    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(store.append, f"b{n}", [_started()])
        await trio.sleep(3600)
        assert fake_bus.queued == 0
        assert not script.requests
        fake_bus.reconnect()
    assert len(script.requests) == 10
    assert trio.current_time() < 3601


async def test_a_restart_while_asking_does_not_count(
    store: ErnestStore, script: Script, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """Attempts during which the connection was lost are not held against the store."""
    script.answer = lambda _: None

    async def append() -> None:
        _, seconds = await _failure(lambda: store.append("b", [_started()]), StoreUnavailable)
        # Two attempts of 5 s before, the one that was cut, an hour away, and the rest of 30 s after.
        assert seconds == pytest.approx(12 + 3600 + 30 - 10.3, abs=0.4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append)
        await trio.sleep(12)
        fake_bus.disconnect()
        await trio.sleep(3600)
        fake_bus.reconnect()


async def test_a_restart_within_an_attempt_is_noticed(
    store: ErnestStore, script: Script, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A broker that was away for a moment between two looks has another generation: that attempt is free."""
    script.answer = lambda _: None

    async def append() -> None:
        _, seconds = await _failure(lambda: store.append("b", [_started()]), StoreUnavailable)
        assert seconds == pytest.approx(35, abs=0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append)
        await trio.sleep(2)
        fake_bus.disconnect()
        fake_bus.reconnect()


async def test_a_lost_request_is_repeated(
    store: ErnestStore, script: Script, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """What the broker lost is sent again after the timeout."""
    fake_bus.lose = lambda message: message.subject == CHANGE and trio.current_time() < 1
    await store.append("b", [_started()])
    assert [request.time for request in script.requests] == pytest.approx([5.1])


# Answers.


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"status":"ok"}'])
async def test_empty_is_success(
    store: ErnestStore, script: Script, answer: bytes, autojump_clock: MockClock
) -> None:
    """An empty answer, or an object without ``_error``, means that it was carried out."""
    script.answer = lambda _: answer
    await store.append("b", [_started()])
    assert len(script.requests) == 1


@pytest.mark.parametrize("text", ["record not found", "pg: record not found!", "build not found"])
async def test_an_unknown_build_is_lost(
    store: ErnestStore, script: Script, text: str, autojump_clock: MockClock
) -> None:
    """Where the store has no record of the build it is BuildLost, at once."""
    script.answer = lambda _: json.dumps({"_error": text}).encode()
    message, seconds = await _failure(lambda: store.append("b", [Accepted(_build([]))]), BuildLost)
    assert message == f"store: build.set.mapping: {text}"
    assert seconds == 0


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'{"_error":"change not found"}', "store: build.set.mapping.change: change not found"),
        (b'{"a":1, "_error" : ""}', "store: build.set.mapping.change: "),
        (b'{"_error":null}', "store: build.set.mapping.change: null"),
        (b'{"_error":{"code":5}}', 'store: build.set.mapping.change: {"code":5}'),
    ],
)
async def test_an_error_answer_is_an_error(
    store: ErnestStore, script: Script, answer: bytes, text: str, autojump_clock: MockClock
) -> None:
    """``_error`` is never ignored, whatever it holds: nothing is asked again, or after it."""
    script.answer = lambda _: answer
    message, _ = await _failure(lambda: store.append("b", [_started(), _started()]))
    assert message == text
    assert len(script.requests) == 1


async def test_a_long_error_is_cut(store: ErnestStore, script: Script, autojump_clock: MockClock) -> None:
    """A store that says megabytes does not have them repeated, and what matters in them is found."""
    script.answer = lambda _: json.dumps({"_error": "x" * 100_000}).encode()
    message, _ = await _failure(lambda: store.append("b", [_started()]))
    assert len(message) < 1200
    assert message.endswith("x... (100000 characters)")
    script.answer = lambda _: json.dumps({"_error": "x" * 100_000 + "record not found"}).encode()
    await _failure(lambda: store.append("b", [_started()]), BuildLost)


@pytest.mark.parametrize(
    "answer",
    [b"oops", b"[]", b"null", b'"ok"', b"5", b'{"a":', b"\xff", b" ", b'{"_error":NaN}', b"[" * 5000],
)
async def test_nonsense_is_an_error(
    store: ErnestStore, script: Script, answer: bytes, autojump_clock: MockClock
) -> None:
    """An answer that is neither empty nor an object is a StoreError, at once."""
    script.answer = lambda _: answer
    message, seconds = await _failure(lambda: store.append("b", [_started()]))
    assert message.startswith("store: build.set.mapping.change was answered with bad JSON: ")
    assert seconds == 0


async def test_could_not_serialize_is_repeated(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """The store's own conflict is repeated like silence, with pauses, until it is carried out."""
    conflict = b'{"_error":"pq: could not serialize access due to concurrent update"}'
    script.answer = lambda _: conflict if len(script.requests) < 4 else b""
    await store.append("b", [_started()])
    gaps = [later.time - earlier.time for earlier, later in _pairs(script.requests)]
    assert gaps == pytest.approx([0.1, 0.2, 0.4])


async def test_could_not_serialize_for_ever_is_unavailable(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Past the deadline the message says what the store said."""
    script.answer = lambda _: b'{"_error":"could not serialize access"}'
    message, seconds = await _failure(lambda: store.append("b", [_started()]), StoreUnavailable)
    assert message == (
        "store: build.set.mapping.change was not carried out within 30 s: could not serialize access"
    )
    assert seconds == pytest.approx(30, abs=0.02)


async def test_a_build_that_mentions_serialization_is_loaded(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Only the store's own error counts, not a component's."""
    build = _build([_change("db::d", error="could not serialize")])
    script.answer = lambda request: json.dumps(build if "id" in request.body else [build]).encode()
    assert await store.load("b") == build
    assert await _unfinished(store) == ["b"]


async def test_too_large_for_the_broker(autojump_clock: MockClock) -> None:
    """A build beyond ``max_payload`` is a StoreError that names both sizes; nothing is sent."""
    store = ErnestStore(FakeBus(max_payload=1000))
    message, _ = await _failure(lambda: store.append("b", [Accepted(_build([_change("v", x="y" * 2000)]))]))
    assert message.startswith("store: build.set.mapping: ")
    assert "max_payload of 1000 bytes" in message


async def test_a_full_queue(autojump_clock: MockClock) -> None:
    """No room in the outgoing queue is a StoreError that says so, and the slot is free again."""
    bus = FakeBus(max_queued_bytes=50)
    store = ErnestStore(bus, per_instance=1)
    message, _ = await _failure(lambda: store.append("b", [_started()]))
    assert message.startswith("store: build.set.mapping.change: ")
    assert store._asker._slots.borrowed_tokens == 0


async def test_a_closed_bus(store: ErnestStore, fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """After the bus was closed every call is a StoreError."""
    fake_bus.close()
    await _failure(lambda: store.append("b", [_started()]))
    await _failure(lambda: store.load("b"))


# Cancellation.


@pytest.mark.parametrize("sent", [True, False], ids=["in flight", "queued"])
async def test_a_cancelled_append_gives_up_its_turn(
    store: ErnestStore, script: Script, sent: bool, autojump_clock: MockClock
) -> None:
    """The next append of the build continues, in order, and nothing more is sent of the cancelled one."""
    script.delay = 3
    async with trio.open_nursery() as nursery:
        scopes = []

        async def append(n: int) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await store.append("b", [_started(f"vpc::{n}"), _started(f"vpc::{n}")])

        for n in range(4):
            nursery.start_soon(append, n)
            await wait_all_tasks_blocked()
        await trio.sleep(1)
        scopes[0 if sent else 1].cancel()
    one = ["vpc::0"] if sent else ["vpc::0", "vpc::0"]
    two = ["vpc::1", "vpc::1"] if sent else []
    assert script.components == [*one, *two, "vpc::2", "vpc::2", "vpc::3", "vpc::3"]
    assert not store._lanes
    assert store._asker._slots.borrowed_tokens == 0


async def test_a_cancelled_wait_for_a_slot_leaves_nothing(
    fake_bus: FakeBus, script: Script, autojump_clock: MockClock
) -> None:
    """Builds that are cancelled while they queue for a slot take none with them."""
    store = ErnestStore(fake_bus, per_instance=1)
    script.delay = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.append, "a", [_started()])
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await store.append("b", [_started()])
        nursery.start_soon(store.append, "c", [_started()])
    assert [request.body["service"] for request in script.requests] == ["a", "c"]
    assert not store._asker._waiting


async def test_cancelled_between_attempts(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """An append cancelled in its pause, or while the broker is away, ends and frees its build."""
    script.answer = lambda _: b'{"_error":"could not serialize"}'
    with trio.move_on_after(0.05) as scope:
        await store.append("b", [_started()])
    assert scope.cancelled_caught
    script.bus.disconnect()
    with trio.move_on_after(1000) as scope:
        await store.append("b", [_started()])
    assert scope.cancelled_caught
    assert not store._lanes
    assert store._asker._slots.borrowed_tokens == 0


# load


@pytest.mark.parametrize(
    "answer", [b"", b"null", b"{}", b'{"_error":"record not found"}', b'{"_error":"build not found"}']
)
async def test_no_such_build(
    store: ErnestStore, script: Script, answer: bytes, autojump_clock: MockClock
) -> None:
    """A build that the store does not have, or has no mapping of, is None."""
    script.answer = lambda _: answer
    assert await store.load("b") is None
    assert [(request.subject, request.body) for request in script.requests] == [
        ("build.get.mapping", {"id": "b"})
    ]


async def test_loads_large_builds(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A build of megabytes is read in slices, and is the same."""
    bus = FakeBus(max_payload=8 * 1024 * 1024)
    script = Script(bus, nursery)
    await bus.subscribe("build.>", script.handle)
    build = _build([_change(f"vpc::{n}", big=2**80, text="é" * 200) for n in range(10_000)])
    script.answer = lambda _: json.dumps(build, ensure_ascii=False).encode()
    assert await ErnestStore(bus).load("b") == build


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'{"_error":"disk full"}', "store: build.get.mapping: disk full"),
        (b'{"id":"c"}', "store: build.get.mapping for 'b' was answered with the build 'c'"),
        (b'{"changes":[]}', "store: build.get.mapping for 'b' was answered with the build None"),
        (b"[]", "store: build.get.mapping was answered with bad JSON: "),
        (b"nope", "store: build.get.mapping was answered with bad JSON: "),
        (b'{"id":"b","changes":[NaN]}', "store: build.get.mapping was answered with bad JSON: "),
        (b'{"id":"b","x":"\xff"}', "store: build.get.mapping was answered with bad JSON: "),
        (
            b'{"id":"b","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
            "store: build.get.mapping was answered with bad JSON: ",
        ),
    ],
)
async def test_loads_nothing_doubtful(
    store: ErnestStore, script: Script, answer: bytes, text: str, autojump_clock: MockClock
) -> None:
    """Errors, other builds and bad JSON are StoreErrors."""
    script.answer = lambda _: answer
    message, seconds = await _failure(lambda: store.load("b"))
    assert message.startswith(text)
    assert seconds == 0


async def test_load_fails_without_a_store(store: ErnestStore, autojump_clock: MockClock) -> None:
    """No store is StoreUnavailable after the deadline: it is not the same as no such build."""
    message, _ = await _failure(lambda: store.load("b"), StoreUnavailable)
    assert message == "store: build.get.mapping was not answered within 30 s: nobody is subscribed to it"


async def test_load_sees_the_appends_before_it(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """It waits for its turn among the build's calls."""
    script.delay = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.append, "b", [_started(), _started()])
        await wait_all_tasks_blocked()
        await store.load("b")
    assert script.subjects == [CHANGE, CHANGE, "build.get.mapping"]


# unfinished


async def test_finds_what_is_in_progress(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """In progress, syncing, or waiting for a person; it yields each id once, in order."""
    rows: list[JSON] = [
        {"id": "z", "status": "in_progress", "type": "apply", "mapping": {"id": "z", "changes": [1]}},
        {"id": "a", "status": "in_progress"},
        {"id": "z", "status": "in_progress"},
        {"id": "no-status"},
    ]
    syncing: list[JSON] = [{"id": "s", "status": "syncing", "type": "sync"}, {"id": "a", "status": "syncing"}]
    gated: list[JSON] = [{"id": "g", "status": "awaiting_approval", "type": "apply"}]
    script.answer = lambda request: json.dumps(
        _with(request, in_progress=rows, syncing=syncing, awaiting_approval=gated)
    ).encode()
    assert await _unfinished(store) == ["z", "a", "no-status", "s", "g"]
    assert [(request.subject, request.body) for request in script.requests] == [
        ("build.find", {"status": "in_progress"}),
        ("build.find", {"status": "syncing"}),
        ("build.find", {"status": "awaiting_approval"}),
    ]


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("apply", "build.create"), ("destroy", "build.delete"), ("import", "build.import"),
        ("patch", "build.patch"), ("sync", "build.sync"), ("", None), (None, None), ("vpc.create.aws", None),
        (5, None), ([], None),
    ],
)  # fmt: skip
async def test_says_what_an_unfinished_build_is(
    store: ErnestStore, script: Script, kind: Any, action: str | None, autojump_clock: MockClock
) -> None:
    """By the type that the service keeps beside it; asked once for all that are unfinished."""
    rows = [{"id": "x", "type": "sync"}, {"id": "a", "type": kind}]
    script.answer = lambda request: json.dumps(_with(request, in_progress=rows)).encode()
    assert await store.action_of("a") == action
    assert len(script.requests) == 3
    assert await store.action_of("x") == "build.sync"
    assert len(script.requests) == 3
    assert await store.action_of("nobody") is None


def _with(request: Request, **found: list[JSON]) -> list[JSON]:
    """What a find is answered with, by the status that it asks for."""
    return found.get(request.body["status"], [])


async def test_leaves_out_what_is_no_build(
    store: ErnestStore, script: Script, autojump_clock: MockClock
) -> None:
    """Entries of a wrong shape are counted in the log and left out; the others are found."""
    rows: list[Any] = [
        None,
        5,
        "x",
        [],
        {},
        {"id": 5},
        {"id": None},
        {"id": ""},
        {"id": {"a": 1}},
        {"id": ["b"]},
    ]
    rows += [{"id": "old", "status": "done"}, {"id": "odd", "status": 5}, {"id": "good"}]
    script.answer = lambda request: json.dumps(_with(request, in_progress=rows)).encode()
    with structlog.testing.capture_logs() as logs:
        assert await _unfinished(store) == ["good"]
    assert [(log["log_level"], log["entries"], log["found"]) for log in logs] == [("warning", 12, 13)]


@pytest.mark.parametrize("answer", [b"", b"null", b"[]", b" [ ] "])
async def test_nothing_is_in_progress(
    store: ErnestStore, script: Script, answer: bytes, autojump_clock: MockClock
) -> None:
    """An empty list, in whatever way Go writes it, yields nothing."""
    script.answer = lambda _: answer
    assert await _unfinished(store) == []


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "nobody"])
async def test_nobody_to_find_anything(
    store: ErnestStore, fake_bus: FakeBus, silent: bool, autojump_clock: MockClock
) -> None:
    """Without a store the unfinished builds are unknown, and that is raised after its time."""
    if silent:
        await fake_bus.subscribe(">", lambda _: None)
    with pytest.raises(StoreUnavailable, match=r"build\.find was not answered within 30 s"):
        await _unfinished(store)
    assert trio.current_time() == pytest.approx(30, abs=0.02)


async def test_a_store_that_starts_later_is_found(
    store: ErnestStore, fake_bus: FakeBus, autojump_clock: MockClock
) -> None:
    """A store that comes up while it is asked for gets the question."""
    service = ServiceStore()
    service.handle("build.set", b'{"id":"b"}')
    found: list[str] = []

    async def find() -> None:
        found.extend(await _unfinished(store))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(find)
        await trio.sleep(10)
        await service.attach(fake_bus)
    assert found == ["b"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'{"_error":"no"}', "store: build.find: no"),
        (b'{"_error":"record not found"}', "store: build.find: record not found"),
        (b"{}", "store: build.find was answered with an object, not with a list"),
        (b"oops", "store: build.find was answered with bad JSON: "),
        (b"5", "store: build.find was answered with bad JSON: "),
        (b"[1,", "store: build.find was answered with bad JSON: "),
        (b"[NaN]", "store: build.find was answered with bad JSON: "),
        (b"[" * 5000, "store: build.find was answered with bad JSON: "),
    ],
)
async def test_a_find_answered_with_nonsense(
    store: ErnestStore, script: Script, answer: bytes, text: str, autojump_clock: MockClock
) -> None:
    """An answer that is not a list is a StoreError."""
    script.answer = lambda _: answer
    with pytest.raises(StoreError) as caught:
        await _unfinished(store)
    assert str(caught.value).startswith(text)


async def test_finds_a_bounded_number(
    store: ErnestStore, script: Script, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Beyond the bound the rest is left out, and that is logged."""
    for module in (ernest, ernest_protocol):
        monkeypatch.setattr(module, "MAX_UNFINISHED", 3)
    script.answer = lambda _: json.dumps([{"id": f"b{n}"} for n in range(10)]).encode()
    with structlog.testing.capture_logs() as logs:
        assert await _unfinished(store) == ["b0", "b1", "b2"]
    assert logs[-1]["limit"] == 3
