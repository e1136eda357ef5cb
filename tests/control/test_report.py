"""The report of a build that has ended, as operators ask for it: in pages, with secrets masked."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import gc
import json
import re
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.asking import ask, flaky, refused, run
from support.durable import Plant, until
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from support.fakes import JSON, FakeExecutor, Reply, Site, change, document, encode, ignore
from support.fakes import open_service as open_any_service
from support.stretches import measured_stretches
from trio.testing import MockClock

from scheduler.client.report import FetchedReport, fetch_report, fetch_status, fetch_value
from scheduler.control import report_reader
from scheduler.control.report_pages import ReportView, value_of
from scheduler.control.report_reader import ReportReader
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.splitting import split_build
from scheduler.definition.strictjson import encode as encode_json
from scheduler.errors import Refused
from scheduler.plan.report import Report
from scheduler.stores.ernest import ErnestStore
from scheduler.supervision.kept_reports import KeptReports

LISTS = ("components", "changes", "edges")
SECRET = "hunter2hunter2"


def open_service(**options: Any) -> AbstractAsyncContextManager[Site]:
    """A service whose long work takes no time: a thread's would not be waited for by the clock."""
    return open_any_service(executor=FakeExecutor(), **options)


def planted(script: Any) -> Plant:
    """Durable builds, in processes of the same kind."""
    plant = Plant(script)
    plant.executor = FakeExecutor()
    return plant


def published(bus: FakeBus) -> bytes:
    """The last report as it was published."""
    return [one.data for one in bus.published if one.subject.startswith("build.create.")][-1]


def made(**fields: Any) -> list[Reply]:
    """A connector's answer with these fields."""
    return [Reply(fields=fields)]


def with_secrets(_: JSON) -> list[Reply]:
    return made(password=SECRET, note=f"use {SECRET}", vpc_aws_id="vpc-1", tags={"a.b": [1, {"c": None}]})


def whole(report: FetchedReport) -> JSON:
    """A report that was fetched, read."""
    read: JSON = json.loads(b"".join(report.pieces()))
    return read


# One that is kept in memory.


async def test_a_report_is_the_build_as_it_was_published(autojump_clock: MockClock) -> None:
    """With its secrets the same, byte for byte; and how it ended."""
    async with open_service(script=with_secrets) as site:
        await run(site, document("ab", [("a", "b")]))
        found = await fetch_report(site.bus, "b1", secrets=True)
        assert b"".join(found.pieces()) == published(site.bus)
        assert (found.run, found.status, found.masked) == (1, "done", False)
        assert await fetch_status(site.bus, "b1") == "done"


async def test_secrets_are_masked(autojump_clock: MockClock) -> None:
    """Under their names, and in texts; ids are as they are, and all else, too."""
    async with open_service(script=with_secrets) as site:
        await run(site, document("ab", [("a", "b")]))
        found = await fetch_report(site.bus, "b1")
        expected = published(site.bus).replace(SECRET.encode(), b"***")
        assert whole(found) == json.loads(expected)
        assert found.masked
        assert (await ask(site, "report", component="a", field="password"))["value"] == "***"
        assert (await ask(site, "report", component="a", field="password"))["masked"] is True
        assert (await ask(site, "report", component="a", field="vpc_aws_id"))["masked"] is False
        assert (await ask(site, "unmasked", component="a", field="password"))["value"] == SECRET


async def test_a_secret_that_stands_nowhere_else_is_masked_in_an_error(autojump_clock: MockClock) -> None:
    """That of a component which the build deletes: its log tells it, and its report does not."""
    value = document("ab", [("a", "b")])
    value["components"] = [{**change("a"), "_state": "completed", "password": SECRET}]
    value["changes"][0]["_action"] = "delete"
    value["changes"][1]["header"] = "Basic {{ components['a'].password }}"

    def script(component: JSON) -> list[Reply]:
        if component["_component_id"] == "a":
            return [Reply()]
        return [Reply("errored", fields={"error": f"refused: {component['header']}", "header": ""})]

    plant = planted(script)
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: len(process.reports) == 1)
        report = process.reports[0][1]
        assert report["changes"][1]["error"] == f"refused: Basic {SECRET}"
        assert json.dumps(report).replace(report["error"], "").count(SECRET) == 1
        shown = (await ask(process, "report", component="b"))["component"]["error"]
        assert shown == "refused: Basic ***"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("vpc_aws_id", "vpc-1"),
        ("tags", {"a.b": [1, {"c": None}]}),
        (r"tags.a\.b.#", 2),
        (r"tags.a\.b.1.c", None),
        ("_state", "completed"),
    ],
)
async def test_a_field_is_named_by_its_path(path: str, value: Any) -> None:
    """In the grammar of references."""
    async with open_service(script=with_secrets) as site:
        await run(site, document("a"))
        found, _ = await fetch_value(site.bus, "b1", component="a", path=path, secrets=True)
        assert json.loads(found) == value


async def test_a_component_is_the_change_or_else_what_exists() -> None:
    """What was changed stands in both lists; what failed, in one; what had no change, in the other."""
    async with open_service(script=flaky("a", 1)) as site:
        value = document("a")
        value["components"] = [{**change("old"), "_state": "completed", "size": 3}]
        await run(site, value)
        assert (await ask(site, "report", component="a"))["component"]["error"] == "busy"
        assert (await ask(site, "report", component="old", field="size"))["value"] == 3
        assert (await ask(site, "report"))["status"] == "errored"


async def test_a_field_of_the_build_needs_no_component() -> None:
    """Lists are no fields: they have components."""
    async with open_service() as site:
        await run(site, document("a"))
        assert (await ask(site, "report", field="name"))["value"] == "test"
        for name in LISTS:
            code, text = await refused(site, "report", field=f"{name}.0")
            assert code == "invalid"
            assert re.fullmatch(
                rf"field: {name} is a list of [01]: name a component of it \(--component\)", text
            )


OF_RUN_1 = "the report of run 1 of b1 has no component"


def field(path: str) -> JSON:
    return {"component": "web-1", "field": path}


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ({"component": "web-11"}, "unknown", f"{OF_RUN_1} 'web-11'; did you mean 'web-1'?"),
        ({"component": "x"}, "unknown", f"{OF_RUN_1} 'x'; its components are: web-1"),
        (field("vpc_awsid"), "unknown", "web-1 has no field 'vpc_awsid'; did you mean 'vpc_aws_id'?"),
        (field("tags.b"), "unknown", "tags of web-1 has no field 'b'; its fields are: a.b"),
        (field(r"tags.a\.b.7"), "unknown", "tags.a.b of web-1 is a list of 2, and has no '7'"),
        (field("vpc_aws_id.x"), "unknown", "vpc_aws_id of web-1 is a string, and has no field 'x'"),
        (field("#["), "invalid", "field: a query that cannot be read"),
        ({"field": "nmae"}, "unknown", "build b1 has no field 'nmae'; did you mean 'name'?"),
        ({"run": 2}, "unknown", "b1 has no report of run 2; there is that of run 1"),
        ({"run": 0}, "invalid", "run: a whole number"),
        ({"identity": "another"}, "conflict", "the report of b1 is another one by now: begin with its first"),
    ],
)  # fmt: skip
async def test_what_there_is_not_is_said_with_what_there_is(asked: JSON, code: str, text: str) -> None:
    """The name that was probably meant, or those that there are."""
    async with open_service(script=with_secrets) as site:
        value = document("a")
        value["changes"][0]["_component_id"] = "web-1"
        await run(site, value)
        found = await refused(site, "report", **asked)
        assert found[0] == code
        assert found[1].startswith(text)


async def test_an_unknown_build_is_said_with_those_that_there_are(autojump_clock: MockClock) -> None:
    """And with what the store keeps."""
    async with open_service() as site:
        code, text = await refused(site, "report", "prod")
        assert (code, text.partition(" (")[0]) == ("unknown", "there is no report of a build 'prod' here")
        await run(site, document("a", build="prod-1"))
        assert (await refused(site, "report", "prod-2"))[1].endswith("; did you mean 'prod-1'?")
        assert (await refused(site, "report", "x"))[1].endswith("; there are: prod-1")


async def test_memory_says_what_it_keeps(autojump_clock: MockClock) -> None:
    """A report that had to go for others is not said to have never been."""
    async with open_service() as site:
        kept = site.service.persistence.kept
        assert kept is not None
        await run(site, document("a"))
        kept._most = 1
        await run(site, document("a", build="b2"))
        assert list(kept) == ["b2"]
        code, text = await refused(site, "report")
        assert code == "unknown"
        assert text.startswith(
            "the report of b1 is not kept any more: the store memory keeps the last 1 report"
        )


async def test_a_report_comes_at_the_end(autojump_clock: MockClock) -> None:
    """Before that the cure is said."""
    async with open_service(script=ignore) as site:
        await run(site, document("a"))
        for verb in ("report", "unmasked"):
            code, text = await refused(site, verb)
            assert code == "conflict"
            assert text.startswith(
                "b1 is running, and its report comes at the end: `scheduler wait` waits for"
            )


def test_names_that_are_shown_are_those_of_their_place() -> None:
    """The ends of an edge are; fields of a component that are called so are searched like any other."""
    hidden = {"source": {"password": SECRET}, "destination": f"to {SECRET}", "id": SECRET, "password": SECRET}
    report = {
        "id": "b1",
        "source": f"from {SECRET}",
        "changes": [{"_component_id": "a", "_component": "vm", "service": {"password": SECRET}, **hidden}],
        "edges": [{"source": "start", "destination": "a", "length": 1}],
    }
    view = ReportView(split_build(encode_json(report)), Secrets.of_document(report))
    page = view.page(0, 9, 9_000)
    text = b"".join(bytes(raw) for raw in page.parts.values()).decode()
    assert page.masked
    assert SECRET not in text
    assert '{"source":"start","destination":"a","length":1}' in text
    assert '"_component_id":"a"' in text


async def test_a_name_that_is_masked_is_told_by_no_refusal(autojump_clock: MockClock) -> None:
    """A path may lead to a value through the mask alone."""
    async with open_service(script=lambda _: made(password=SECRET, **{SECRET: 1})) as site:
        await run(site, document("a"))
        answer = await ask(site, "report", component="a", field=r"\*\*\*")
        assert (answer["value"], answer["masked"]) == (1, True)


# Pages.

ENTRIES = st.builds(
    lambda size, number: {"_component_id": f"c{number}", "x": "y" * size},
    st.integers(0, 60),
    st.integers(0, 9),
)
REPORTS = st.fixed_dictionaries(
    {"id": st.just("b1")}, optional={name: st.lists(ENTRIES, max_size=9) for name in LISTS}
)  # fmt: skip


@given(REPORTS, st.integers(1, 9), st.integers(150, 400))
def test_pages_are_the_report(report: JSON, limit: int, most: int) -> None:
    """Put together, in whatever sizes; none is larger than it may be, nor has more entries."""
    for secrets in (None, Secrets()):
        view = ReportView(split_build(encode_json(report)), secrets)
        found: JSON = {}
        start: int | None = 0
        while start is not None:
            page = view.page(start, limit, most)
            parts = {name: json.loads(bytes(raw)) for name, raw in page.parts.items()}
            found |= parts.pop("build", {})
            number = sum(map(len, parts.values()))
            assert number <= limit
            assert sum(len(bytes(raw)) for raw in page.parts.values()) <= most + 6
            for name, entries in parts.items():
                found.setdefault(name, []).extend(entries)
            assert page.next is None or page.next == start + number > start
            start = page.next
        assert found == report


def test_a_page_is_bounded_whatever_the_broker_takes() -> None:
    """Two megabytes, or one larger entry: more would hold the loop while it is sent."""
    sizes = (900_000, 900_000, 900_000, 5_000_000, 10)
    changes = [{"_component_id": f"c{number}", "x": "y" * size} for number, size in enumerate(sizes)]
    view = ReportView(split_build(encode_json({"id": "b1", "changes": changes})), None)
    starts: list[int | None] = [0]
    while (start := starts[-1]) is not None:
        starts.append(view.page(start, 9, 64_000_000).next)
    assert starts == [0, 2, 3, 4, None]


def test_an_entry_that_does_not_fit_is_named() -> None:
    """With what can be done about it: a field of it may fit."""
    report = {
        "id": "b1",
        "changes": [{"_component_id": "vpc::a"}, {"_component_id": "vpc::b", "x": "y" * 2_000}],
    }
    view = ReportView(split_build(encode_json(report)), None)
    assert view.page(0, 9, 1_000).next == 1
    with pytest.raises(Refused) as caught:
        view.page(1, 9, 1_000)
    assert str(caught.value).startswith(
        "changes[1], vpc::b, takes 2,033 bytes, over the 1,000 that an answer may have: ask for single fields"
    )
    with pytest.raises(Refused, match="the fields of the build itself"):
        view.page(0, 9, 5)


def test_a_value_behind_a_pattern_is_found() -> None:
    """Queries and patterns are those of references."""
    held = {"disks": [{"name": "root", "size": 8}, {"name": "data", "size": 99}]}
    assert value_of(held, 'disks.#[name="data"].size', "vm") == 99
    assert value_of(held, "dis*.#.size", "vm") == [8, 99]


async def test_pages_are_bounded_by_what_the_broker_takes(autojump_clock: MockClock) -> None:
    """A report of several times a message comes whole."""
    async with open_service(script=lambda _: made(x="y" * 9_000)) as site:
        await run(site, document("abcdefgh"))
        expected = json.loads(published(site.bus))
        site.bus.max_payload = 40_000
        first = await ask(site, "report")
        assert first["next"] == 3
        assert whole(await fetch_report(site.bus, "b1")) == expected
        site.bus.max_payload = 4_000
        code, text = await refused(site, "report", component="a")
        assert code == "invalid"
        assert text.startswith("a takes 9,")
        assert (await ask(site, "report", component="a", field="_state"))["value"] == "completed"


async def test_pages_of_two_reports_are_never_mixed(autojump_clock: MockClock) -> None:
    """A build of the same id that ends between two pages: the second one is refused."""
    async with open_service(script=lambda _: made(x="y" * 9_000)) as site:
        site.bus.max_payload = 1_000_000
        await run(site, document("abcd"))
        page = await ask(site, "report", limit=2)
        again = {"run": page["run"], "identity": page["identity"], "limit": 2, "from": page["next"]}
        await run(site, document("abcd", name="again"))
        assert [one["_component_id"] for one in (await ask(site, "report", **again))["components"]] == [
            "c",
            "d",
        ]
        await trio.sleep(100)
        assert (await refused(site, "report", **again))[0] == "conflict"
        assert (await ask(site, "report"))["identity"] != page["identity"]


# Reports in JetStream.


async def test_each_run_has_its_report(autojump_clock: MockClock) -> None:
    """The last one where none is named; while another one runs, those before."""
    gate = [True]

    def script(component: JSON) -> list[Reply]:
        return [Reply("errored", fields={"error": "busy"})] if gate[0] else []

    plant = planted(script)
    async with plant.run() as process:
        await process.submit(document("a"))
        await until(lambda: len(process.reports) == 1)
        assert (await ask(process, "report"))["status"] == "errored"
        gate[0] = False
        await ask(process, "retry")
        await trio.sleep(1)
        assert (await refused(process, "report"))[0] == "conflict"
        assert (await refused(process, "report", run=2))[0] == "conflict"
        assert await refused(process, "report", run=3) == (
            "unknown",
            "b1 has no run 3: the last one is run 2",
        )
        assert (await ask(process, "report", run=1))["changes"][0]["error"] == "busy"
        await ask(process, "cancel", now=True)
        await until(lambda: len(process.reports) == 2)
        last = await ask(process, "report")
        assert (last["run"], last["status"]) == (2, "cancelled")
        assert (await ask(process, "report", run=1))["status"] == "errored"
        assert (await refused(process, "report", run=5))[
            1
        ] == "b1 has no report of run 5; there is that of run 1, 2"


async def test_a_report_beyond_a_message_is_read_from_its_object(autojump_clock: MockClock) -> None:
    """By another process as well, and once for all of its pages."""
    plant = planted(lambda _: made(x="y" * 30_000))
    async with plant.run() as process:
        process.bus.max_payload = 100_000
        await process.submit(document("abcdefgh"))
        await until(lambda: len(process.reports) == 1)
        assert process.reports[0][1]["omitted"]
    async with plant.run() as process:
        process.bus.max_payload = 100_000
        found = await fetch_report(process.bus, "b1")
        assert {one["x"] for one in whole(found)["components"]} == {"y" * 30_000}
        assert len(whole(found)["changes"]) == 8


async def test_a_report_is_read_once_for_all_of_its_pages(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """And dropped a minute after the last question."""
    plant = planted(lambda _: made(x="y"))
    reads: list[str] = []
    original = ReportReader._take_apart

    async def counted(reader: ReportReader, stored: Any, *args: Any, **options: Any) -> Any:
        reads.append(stored.identity)
        return await original(reader, stored, *args, **options)

    monkeypatch.setattr(ReportReader, "_take_apart", counted)
    async with plant.run() as process:
        await process.submit(document("abcd"))
        await until(lambda: len(process.reports) == 1)
        await trio.sleep(10)
        page = await ask(process, "report", limit=1)
        for start in range(1, 8):
            more = {"run": 1, "identity": page["identity"], "limit": 1, "from": start}
            await ask(process, "report", **more)
        await ask(process, "unmasked")
        assert len(reads) == 1
        await trio.sleep(100)
        await ask(process, "report")
        assert reads == [reads[0]] * 2


async def test_reading_outlives_the_question(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A report that takes longer than a question may is there when it is asked for again, and read once."""
    slow: list[str] = []
    original = ReportReader._take_apart

    async def slowly(reader: ReportReader, stored: Any, *args: Any, **options: Any) -> Any:
        slow.append(stored.build)
        await trio.sleep(70)
        return await original(reader, stored, *args, **options)

    monkeypatch.setattr(ReportReader, "_take_apart", slowly)
    async with open_service() as site:
        await run(site, document("a"))
        assert whole(await fetch_report(site.bus, "b1"))["id"] == "b1"
        assert slow == ["b1"]


async def test_who_waits_for_a_report_is_told_of_a_stop(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """As of a refusal, and no fault: it was not read."""

    async def never(*_: Any, **__: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(ReportReader, "_take_apart", never)
    refusals = []

    async def wait(site: Site) -> None:
        control = site.service.console.control
        assert control is not None
        with pytest.raises(Refused) as caught:
            await control.ask("report", {"id": "b1"})
        refusals.append((caught.value.code, str(caught.value)))

    async with trio.open_nursery() as nursery, open_service() as site:
        await run(site, document("a"))
        nursery.start_soon(wait, site)
        await trio.sleep(1)
        assert not refusals
    assert refusals == [("unavailable", "the scheduler stops: ask another one, or again")]


async def test_reports_beyond_the_bound_are_dropped(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Those that were asked for last stay, one of them however large it is."""
    monkeypatch.setattr(report_reader, "_MOST_BYTES", 25_000)
    async with open_service(script=lambda _: made(x="y" * 5_000)) as site:
        for number in range(4):
            await run(site, document("a", build=f"b{number}"))
            await ask(site, "report", f"b{number}")
        assert await count_of(site) == 2
        await run(site, document("abcdef", build="large"))
        await ask(site, "report", "large")
        assert await count_of(site) == 1
        await trio.sleep(100)
        assert await count_of(site) == 0


async def count_of(site: Any) -> int:
    """The reports that a service keeps read."""

    [reader] = [
        one
        for one in gc.get_objects()
        if isinstance(one, ReportReader) and one._roster is site.service.roster
    ]
    return len(reader)


# An Ernest store.


async def test_a_report_of_an_ernest_store_is_its_mapping(autojump_clock: MockClock) -> None:
    """With secrets masked; while a change runs there it is none, and there is one run only."""
    bus, ernest = FakeBus(), ServiceStore()
    await ernest.attach(bus)
    async with open_service(store=ErnestStore(bus), bus=bus, script=with_secrets) as site:
        await run(site, document("a"))
        found = await fetch_report(bus, "b1", secrets=True)
        assert whole(found) == ernest.mapping("b1")
        assert (found.run, found.status) == (1, "done")
        assert (await ask(site, "report", component="a", field="password"))["value"] == "***"
        assert (await refused(site, "report", run=2))[1].startswith(
            "b1 has no report of run 2; there is that"
        )
        assert (await refused(site, "report", "b2"))[0] == "unknown"
        ernest.handle(
            "build.set.mapping.change", encode({**change("a"), "_state": "running", "service": "b1"})
        )
        code, text = await refused(site, "report")
        assert (code, text.partition(":")[0]) == ("conflict", "b1 has not ended")


# Kept in memory.


def report_of(run: int = 1, **fields: Any) -> Report:
    return Report("build.create", None, fields, [], [], [], {}, run)


def test_the_last_reports_are_kept() -> None:
    """Within a number and a size; one that is larger than all may be is not kept, and drops none."""
    reports = KeptReports(most=3, most_bytes=100)
    for number in range(5):
        reports.keep(f"b{number}", report_of(), b"x" * 10)
    assert list(reports) == ["b2", "b3", "b4"]
    reports.keep("b2", report_of(2), b"x" * 75)
    assert list(reports) == ["b3", "b4", "b2"]
    reports.keep("b5", report_of(), b"x" * 30)
    assert list(reports) == ["b5"]
    reports.keep("b6", report_of(), b"x" * 101)
    assert list(reports) == ["b5"]
    assert reports.get("b6") is None


# Large ones.


async def test_a_large_report_does_not_hold_the_loop() -> None:
    """Neither while it is read, split and searched for secrets, nor while its pages are made and sent."""
    parts = [
        {"_component_id": f"vm::{number}", "password": f"{SECRET}{number % 50}", "text": "x" * 300}
        for number in range(12_000)
    ]
    data = encode_json({"id": "b1", "components": parts, "changes": parts[:50], "edges": []})
    async with open_any_service() as site:
        kept = site.service.persistence.kept
        assert kept is not None
        kept.keep("b1", report_of(id="b1"), data)
        with measured_stretches() as measured:
            measured.kept = 1_000
            found = await fetch_report(site.bus, "b1", secrets=True)
            assert b"".join(found.pieces()) == data
            await ask(site, "report", limit=1)
            await ask(site, "report", component="vm::11999", field="text")
        service = [one for one in measured.tasks if "test_a_large" not in one.task]
        assert max(service).seconds < 0.01, service
