"""Builds read from what comes in, from the object store, and from the log."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import evolve
from support.durable import Broker, Fate, Plant, stored, until
from support.fake_jetstream import UNAVAILABLE
from support.fakes import JSON, FakeExecutor, change, document, encode, states
from trio.testing import MockClock

from scheduler.config import Settings
from scheduler.definition.limits import Limits
from scheduler.definition.template import OnUnresolved, Templates
from scheduler.definition.validation import Prepared, read_build
from scheduler.errors import InvalidBuild
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import OBJECTS
from scheduler.journal.events import Accepted
from scheduler.supervision.reader import BuildReader, object_name

LARGE = document([change(f"c{number}", text="x" * 1_000) for number in range(100)])


class Library:
    """A reader with an object store."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self.broker = broker
        self.objects = Objects(JetStream(broker.bus))
        self.reader = BuildReader(settings, self.objects)

    async def put(self, value: JSON | bytes, name: str = "upload/1.json") -> bytes:
        """Upload a build; what is to be submitted for it."""
        await self.objects.put(name, value if isinstance(value, bytes) else encode(value))
        return encode({"id": "b1", "object": name})


@asynccontextmanager
async def open_library(**settings: object) -> AsyncIterator[Library]:
    broker = Broker()
    await broker.set_up()
    yield Library(broker, Settings(**settings))  # type: ignore[arg-type]


@pytest.fixture
async def library() -> AsyncIterator[Library]:
    async with open_library() as library:
        yield library


async def refused(library: Library, data: bytes) -> tuple[str, str]:
    """Why it is: the code, and the one problem."""
    with pytest.raises(InvalidBuild) as caught:
        await library.reader.read_submitted(data)
    [problem] = caught.value.problems
    return caught.value.code, str(problem)


def changes(prepared: Prepared) -> list[str]:
    return [change.id for change in prepared.build.changes]


async def test_a_build_in_the_object_store_is_what_it_was_submitted_on(library: Library) -> None:
    """As one in a message is; what it says itself counts where it came in on no subject."""
    data = await library.put({**LARGE, "action": "build.sync"})
    one = await library.reader.read_submitted(data, "build.delete")
    assert (one.build.action, one.build.fields["action"]) == ("build.delete", "build.delete")
    assert (await library.reader.read_submitted(data)).build.action == "build.sync"


@pytest.mark.parametrize(
    ("own", "action"),
    [("service.delete", "service.delete"), ("", "build.create"), ("environment.import.x", "build.create")],
)
async def test_a_build_in_a_log_is_what_stands_there(library: Library, own: str, action: str) -> None:
    """Logs of versions that took other actions lead to a report on a subject of builds, too."""
    value = {**LARGE, "action": own}
    prepared = await library.reader.read_accepted(encode(value), Accepted(value))
    assert (prepared.build.action, prepared.build.fields["action"]) == (action, action)


# ---- which messages are uploads


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"id": "b1", "object": "upload/1"}, "upload/1"),
        ({"object": "upload/1", "id": "b1", "note": "x"}, "upload/1"),
        ({"id": "b1", "object": ""}, None),
        ({"id": "b1", "object": 7}, None),
        ({"id": "b1", "object": None}, None),
        ({"id": "b1", "object": ["upload/1"]}, None),
        ({"id": "b1", "object": "x" * 513}, None),
        ({"id": "b1", "text": '"object"'}, None),
        ([{"object": "upload/1"}], None),
    ],
)
def test_a_message_names_an_object_or_is_a_build(value: object, name: str | None) -> None:
    """It does where it has a member of that name, a text of reasonable length, and is small."""
    assert object_name(json.dumps(value).encode()) == name


@pytest.mark.parametrize("member", ["action", "components", "changes", "edges"])
def test_a_build_with_a_field_of_that_name_is_a_build(member: str) -> None:
    """Any member that only a build has makes it one, whatever else it has."""
    assert object_name(encode({"id": "b1", "object": "upload/1", member: []})) is None


def test_a_large_message_is_a_build() -> None:
    """It is not even looked into."""
    assert object_name(encode({"id": "b1", "object": "upload/1", "note": "x" * 10_000})) is None


@pytest.mark.parametrize("data", [b"", b'"object"', b'{"object":', b'{"object": "\xff"}', b'{"object": NaN}'])
def test_what_cannot_be_read_names_no_object(data: bytes) -> None:
    """Whoever reads it as a build says what is wrong with it."""
    assert object_name(data) is None


# ---- reading


async def test_a_build_is_read_from_its_message(library: Library) -> None:
    """Small ones on the spot."""
    assert changes(await library.reader.read_submitted(encode(document("ab")))) == ["a", "b"]


async def test_a_build_is_read_from_its_object(library: Library) -> None:
    """As if it had come in itself."""
    data = await library.put(LARGE)
    prepared = await library.reader.read_submitted(data)
    direct = await library.reader.read_submitted(encode(LARGE))
    assert len(prepared.build.changes) == 100
    assert prepared.digest == direct.digest


async def test_what_is_wrong_with_an_uploaded_build_is_said(library: Library) -> None:
    """Every problem, each with its place, as for any other."""
    data = await library.put(document(["a", "a"], [("a", "zzz")]))
    with pytest.raises(InvalidBuild) as caught:
        await library.reader.read_submitted(data)
    assert len(caught.value.problems) == 2


async def test_an_object_that_is_not_there(library: Library) -> None:
    """It is named."""
    code, problem = await refused(library, encode({"id": "b1", "object": "upload/1.json"}))
    assert (code, problem) == ("invalid", "object: there is no object 'upload/1.json'")


@pytest.mark.parametrize("name", ["scheduler.log.b2/x", "scheduler.report.b2.1.json", "uploads", "x"])
async def test_what_belongs_to_somebody_else_is_not_read(library: Library, name: str) -> None:
    """Only what was put there to be submitted: another build's parts hold its credentials."""
    data = await library.put(document("a"), name)
    code, problem = await refused(library, data)
    assert code == "invalid"
    assert name in problem


async def test_an_object_over_the_limit_is_not_fetched(autojump_clock: MockClock) -> None:
    """Its size is known before; the limit is named with its value."""
    async with open_library(limits=Limits(max_definition_bytes=2_000)) as library:
        data = await library.put(LARGE)
        library.broker.line.passed.clear()
        code, problem = await refused(library, data)
        assert code == "invalid"
        assert "max_definition_bytes is 2000" in problem
        assert not [one for one in library.broker.line.passed if ".CONSUMER." in one.subject]


async def test_a_damaged_object_is_refused(autojump_clock: MockClock) -> None:
    """What is not as its digest says is not run."""
    async with open_library() as library:
        data = await library.put(document("a"))
        stream = library.broker.jetstream.streams[OBJECTS]
        [chunk] = [one for one in stream.messages.values() if ".C." in one.subject]
        stream.messages[chunk.sequence] = evolve(chunk, data=chunk.data.replace(b"b1", b"b2"))
        code, problem = await refused(library, data)
        assert code == "invalid"
        assert "damaged" in problem


@pytest.mark.parametrize("trouble", ["refusal", "silent"])
async def test_an_object_that_cannot_be_fetched_now(autojump_clock: MockClock, trouble: str) -> None:
    """That is the store's trouble, and not the build's: it may be submitted again."""
    async with open_library() as library:
        data = await library.put(document("a"))
        setattr(library.broker.jetstream, trouble, UNAVAILABLE if trouble == "refusal" else True)
        code, problem = await refused(library, data)
        assert code == "store"
        assert "upload/1.json" in problem


async def test_without_an_object_store_it_is_refused() -> None:
    """With the reason: another store keeps the builds of this scheduler."""
    with pytest.raises(InvalidBuild, match="JetStream store"):
        await BuildReader(Settings(), None).read_submitted(encode({"id": "b1", "object": "upload/1"}))


async def test_few_are_fetched_at_a_time(autojump_clock: MockClock) -> None:
    """However many are submitted at once: each may take tens of megabytes."""
    async with open_library() as library, trio.open_nursery() as nursery:
        data = await library.put(document("a"))
        reads = f"$JS.API.STREAM.MSG.GET.{OBJECTS}"
        library.broker.line.plan(reads, *[Fate.HOLD] * 50)
        done: list[Prepared] = []

        async def read() -> None:
            done.append(await library.reader.read_submitted(data))

        for _ in range(10):
            nursery.start_soon(read)
        await trio.sleep(1)
        assert len(library.broker.line.held) == 2
        library.broker.line.clear()
        await trio.sleep(1)
        assert len(done) == 10


# ---- reading back


async def test_what_is_ours_already_is_read_with_what_connectors_returned(library: Library) -> None:
    """It may be larger than what may be submitted."""
    value = document([change("a", text="x" * 300_000)])
    with pytest.raises(InvalidBuild, match="max_component_bytes"):
        await library.reader.read_submitted(encode(value))
    assert changes(await library.reader.read_back(encode(value))) == ["a"]


async def test_an_accepted_build_is_read_with_the_references_that_it_was_accepted_with() -> None:
    """Whatever the settings are now."""
    text = "{{ nothing.there }}"
    data = encode(document([change("a", text=text)]))
    strict = BuildReader(Settings(), None)
    with pytest.raises(InvalidBuild):
        await strict.read_submitted(data)
    accepted = Accepted({}, templates=Templates.ERNEST.value, unresolved=OnUnresolved.KEEP.value)
    prepared = await strict.read_accepted(data, accepted)
    assert changes(prepared) == ["a"]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_changes=1),
        Limits(max_edges=1),
        Limits(max_components=1),
        Limits(max_template_nodes=1),
        Limits(max_depth=4),
        Limits(max_digits=20),
        Limits(max_component_bytes=1_024),
        Limits(max_id_bytes=16),
    ],
)
async def test_an_accepted_build_is_read_whatever_the_limits_are_now(limits: Limits) -> None:
    """Accepted is accepted: lower limits are for what is submitted from now on."""
    value = document(
        [
            change("a", number=10**30, deep=[[[[[[1]]]]]], text="x" * 2_000),
            change("b" * 30, text="{{ components['a'].x }} {{ components['a'].y }}"),
        ],
        [("a", "b" * 30), ("start", "a")],
        components=[change("old"), change("older")],
    )
    accepted = Accepted({}, templates="all", unresolved="error")
    await BuildReader(Settings(), None).read_submitted(encode(value))
    prepared = await BuildReader(Settings(limits=limits), None).read_accepted(encode(value), accepted)
    assert len(prepared.build.changes) == 2


# ---- from end to end


async def test_a_build_is_submitted_by_its_object(autojump_clock: MockClock) -> None:
    """It is accepted under its id, runs, and is not needed any more once it is accepted."""
    plant = Plant()
    async with plant.run() as process:
        await process.store.objects.put("upload/1.json", encode(document("ab", [("a", "b")])))
        answer = await process.submit({"id": "b1", "object": "upload/1.json"})
        assert answer == {"id": "b1", "status": "accepted"}
        await process.store.objects.delete("upload/1.json")
        await trio.sleep(3)
        assert states(process.report[1]) == {"a": "completed", "b": "completed"}


async def test_an_object_that_is_gone_is_a_rejection_under_the_id(autojump_clock: MockClock) -> None:
    """Whoever submitted it is told which build it was, and why."""
    plant = Plant()
    async with plant.run() as process:
        answer = await process.submit({"id": "b1", "object": "upload/1.json"})
        assert (answer["id"], answer["status"], answer["error"]["code"]) == ("b1", "rejected", "invalid")


async def test_a_report_beyond_a_message_names_its_object(autojump_clock: MockClock) -> None:
    """The report of a large build goes out by name; the object has all of it."""
    plant = Plant()
    plant.broker.bus.max_payload = 20_000
    value = document([change(name, text="x" * 5_000) for name in "abcd"])
    async with plant.run() as process:
        await process.store.objects.put("upload/1.json", encode(value))
        assert (await process.submit({"id": "b1", "object": "upload/1.json"}))["status"] == "accepted"
        await until(lambda: process.reports)
        subject, report = process.report
        assert subject == "build.create.done"
        whole = json.loads(await stored(plant.broker, report["object"]) or b"{}")
        assert states(whole) == dict.fromkeys("abcd", "completed")


class Passes(trio.abc.Instrument):
    """Counts how often everybody had a turn."""

    def __init__(self) -> None:
        self.number = 0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1


async def test_of_builds_that_are_read_on_the_spot_one_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody else has one before the next, however many come together."""
    passes = Passes()
    read: list[int] = []

    def noted(data: bytes, **options: Any) -> Prepared:
        read.append(passes.number)
        return read_build(data, **options)

    monkeypatch.setattr("scheduler.supervision.reader.read_build", noted)
    async with open_library() as library, trio.open_nursery() as nursery:
        trio.lowlevel.add_instrument(passes)
        for number in range(10):
            nursery.start_soon(library.reader.read_submitted, encode(document("a", build=f"b{number}")))
    trio.lowlevel.remove_instrument(passes)
    assert len(set(read)) == len(read) == 10


async def test_small_is_what_is_read_on_the_spot() -> None:
    """Neither a large build, nor the name of one that has to be fetched."""
    async with open_library() as library:
        sizes = {
            "small": encode(document("a")),
            "large": encode(LARGE),
            "stored": encode({"id": "b1", "object": "upload/1.json"}),
        }
        assert [name for name, data in sizes.items() if library.reader.is_small(data)] == ["small"]


_NUMBERS = [{"n": f"{number:05}"} for number in range(300)]
_ONCE = "(build.numbers | tojson | length)"


@pytest.mark.parametrize(
    ("times", "padding", "long"),
    [
        (0, 0, []),
        (20, 0, [True]),
        (0, 40_000, [False]),
        (40, 40_000, [False, True]),
        (0, 1_100_000, [True]),
    ],
    ids=["small", "small and laborious", "medium", "medium and laborious", "large"],
)
async def test_what_takes_long_leaves_a_thread_to_others(times: int, padding: int, long: list[bool]) -> None:
    """A build is read on the spot, as a short job or as a long one, as its size and its references say."""
    executor = FakeExecutor()
    work = "{{ " + " ~ ".join([_ONCE] * times) + " }}" if times else ""
    components = [
        change(f"e{number}", _state="completed", text="x" * 20_000) for number in range(padding // 20_000)
    ]
    value = document([change(f"c{number}", x=work) for number in range(6)], numbers=_NUMBERS)
    value["components"] = components
    prepared = await BuildReader(Settings(), None, executor).read_submitted(encode(value))
    assert len(prepared.build.changes) == 6
    assert executor.long == long
