"""Questions over HTTP: answers in the form of their structures, and failures with a cure."""

import json
import subprocess
import sys
from typing import Any, cast

import msgspec
import pytest
import trio
from support.durable import until
from support.fakes import Reply, change, document
from support.pages import Visited, of, visited
from support.schemas import Checker
from trio.testing import wait_all_tasks_blocked

from scheduler.control.verbs import Reasons, ReportPart
from scheduler.web.drawing import layouts
from scheduler.web.page import answers, reads, wholes
from scheduler.web.page.openapi import openapi

NAMES = ["stream", "components", "a/b", "a/../b", "//", "...", "vpc::a@b", "-"]
HOSTILE = ["%2e%2e", "x y", "ü🧱", "<script>alert(1)</script>", "q\"uo'te", "a?b#c", "a;b=c&d", "{{csrf}}"]


def check(found: Any, struct: type[msgspec.Struct]) -> None:
    """Check an answer by its structure, and by the schema that the document has of it."""
    msgspec.convert(found, struct)
    schema = {"$ref": f"#/components/schemas/{struct.__name__}", "components": openapi()["components"]}
    assert Checker(json.loads(json.dumps(schema))).fits(found)


@pytest.mark.parametrize(
    ("path", "struct"),
    [
        ("/api/session", answers.Session),
        ("/api/builds", answers.BuildList),
        ("/api/builds?state=active,done&search=B1&limit=1", answers.BuildList),
        ("/api/builds/b1", answers.Status),
        ("/api/builds/b1/layout", answers.Layout),
        ("/api/builds/b1/states", answers.States),
        ("/api/builds/b1/components", answers.ComponentPage),
        ("/api/builds/b1/components?search=A&state=running&type=vpc&sort=id&limit=1", answers.ComponentPage),
        ("/api/builds/b1/components/b", answers.ComponentDetail),
        ("/api/builds/b1/timeline", answers.TimelineAnswer),
        ("/api/builds/b1/events", answers.EventPage),
        ("/api/builds/b1/events?after=-1&limit=1", answers.EventPage),
        ("/api/builds/b1/why", Reasons),
        ("/api/builds/b1/why?component=b", Reasons),
        ("/api/builds/b1/plan", answers.PlanAnswer),
    ],
    ids=str,
)
async def test_each_answer_has_the_form_that_the_document_says(path: str, struct: Any) -> None:
    """Of a build that runs."""
    async with visited() as page:
        check(await page.read(path), struct)


async def test_a_build_that_ended_is_read_in_the_same_form() -> None:
    """Its report, too, with secrets masked."""
    value = document([change("a", password="hunter2"), "b"], [("a", "b")])

    def script(component: Any) -> list[Reply]:
        failed = component["_component_id"] == "b"
        return [Reply("errored", fields={"error": "hunter2 is wrong"})] if failed else [Reply()]

    async with visited(value, script=script) as page:
        # The memory store keeps only the report.
        report = await page.read(of("b1", "report"))
        check(report, ReportPart)
        assert "hunter2" not in json.dumps(report)


def test_the_document_is_one_of_openapi() -> None:
    """As its validator says; and every path answers by a structure that has its schema."""
    found = json.loads(json.dumps(openapi()))
    # In a process of its own: it loads pydantic, by which cyclopts then checks defaults of flags.
    command = [sys.executable, "-m", "openapi_spec_validator", "--schema", "3.1", "-"]
    done = subprocess.run(command, input=json.dumps(found), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = json.dumps(found["paths"])
    assert all(
        f"schemas/{name}" in text for name in ("BuildList", "Status", "Layout", "OrderRequest", "Done")
    )


async def test_the_document_is_served() -> None:
    """Whoever may read it or not: it says nothing of any build."""
    async with visited(page={"token": "x" * 24}) as page:
        assert (await page.read("/api/openapi.json"))["openapi"] == "3.1.0"


async def test_the_status_says_what_is_in_flight() -> None:
    """With its number in the layout, and since when."""
    async with visited() as page:
        found = await page.read("/api/builds/b1")
        layout = await page.read("/api/builds/b1/layout")
    [running] = found["running"]
    assert (running["id"], layout["ids"][running["index"]]) == ("a", "a")
    assert running["sent"] <= found["now"]
    assert found["counts"]["running"] == 1


async def test_a_layout_is_sent_once() -> None:
    """It depends on the structure alone, and so does its ETag."""
    async with visited() as page:
        first = await page.client.get(of("b1", "layout"))
        again = await page.client.get(of("b1", "layout"), headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        page.site.cloud.answer("a")
        await wait_all_tasks_blocked(0.01)
        later = await page.client.get(of("b1", "layout"), headers={"if-none-match": first.headers["etag"]})
        assert later.status_code == 304
    assert first.json()["edges"] == [0, 1]
    assert first.json()["critical"] == [0, 1]
    assert first.json()["method"] == "ordered"


@pytest.mark.parametrize("name", NAMES)
async def test_an_id_may_have_any_character(name: str) -> None:
    """That of a build, and that of a component."""
    value = document([change(name), "z"], [(name, "z")], id=name)
    async with visited(value) as page:
        assert (await page.read(of(name)))["id"] == name
        found = await page.read(of(name, "components", name))
        assert found["component"]["id"] == name
        assert [one["id"] for one in found["needed_by"]] == ["z"]
        async with page.stream(of(name, "stream")) as stream:
            assert (await stream.until("snapshot")).data["status"]["id"] == name


@pytest.mark.parametrize("name", HOSTILE, ids=str)
async def test_what_an_address_says_is_in_no_page(name: str) -> None:
    """It is in JSON, as text, and otherwise nowhere."""
    async with visited() as page:
        found = await page.read(of(name), 404)
        assert repr(name) in found["message"]
        html = await page.client.get("/".join(["/builds", of(name).rpartition("/")[2], "graph"]))
        assert html.status_code == 200
        assert name == "{{csrf}}" or name not in html.text
        assert "{{" not in html.text


@pytest.mark.parametrize(
    ("path", "status", "code", "text"),
    [
        ("/api/builds/none", 404, "unknown", "no build 'none'"),
        ("/api/builds/b1/components/none", 404, "unknown", "no component 'none'"),
        ("/api/builds/b1/nothing", 404, "unknown", "path"),
        ("/api/nothing", 404, "unknown", "path"),
        ("/nothing", 404, "unknown", "path"),
        ("/static/../app.py", 404, "unknown", "path"),
        ("/static/%2e%2e/app.py", 404, "unknown", "path"),
        ("/static/index.html", 404, "unknown", "path"),
        ("/api/builds?limit=0", 400, "invalid", "limit: a whole number from 1"),
        ("/api/builds?limit=x", 400, "invalid", "limit"),
        ("/api/builds?state=odd", 400, "invalid", "state: 'odd' is none of active"),
        ("/api/builds?after=odd", 400, "invalid", "after"),
        ("/api/builds/b1/components?sort=odd", 400, "invalid", "sort"),
        ("/api/builds/b1/components?state=odd", 400, "invalid", "state"),
        ("/api/builds/b1/events?after=-2", 400, "invalid", "after"),
        ("/api/builds/b1/report", 409, "conflict", "running"),
        ("/api/builds/%ff", 400, "invalid", "encoded"),
        ("/api/builds/none/stream", 404, "unknown", "no build"),
    ],
)
async def test_a_failure_names_what_is_wrong(path: str, status: int, code: str, text: str) -> None:
    """With the code of the control API."""
    async with visited() as page:
        # As it stands, without being tidied up by the client.
        found = await page.client.send(page.client.build_request("GET", f"http://{page.address}{path}"))
        assert (found.status_code, found.json()["error"]) == (status, code)
        assert text in found.json()["message"]


async def test_where_ordering_takes_too_long_waves_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is ended, and the graph is drawn all the same."""
    monkeypatch.setattr(layouts, "DEADLINE", 0.0)
    async with visited() as page:
        found = await page.read(of("b1", "layout"))
        assert (found["method"], found["wave"]) == ("waves", [0, 1])


async def test_where_ordering_fails_waves_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no process may be started."""
    async with visited() as page:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nothing")
            assert (await page.read(of("b1", "layout")))["method"] == "waves"


async def test_without_a_service_there_is_a_reason() -> None:
    """The page itself is there, and says why."""
    async with visited() as page:
        with page.board.showing(page.site.service.figures):
            found = await page.read("/api/builds", 503)
            assert found["error"] == "unavailable"
        page.board.console, page.board.figures = None, None
        assert (await page.read("/api/builds/b1", 503))["message"] == "it connects to the broker"
        assert (await page.client.get("/")).status_code == 200


async def test_whether_ended_builds_are_listed_is_told() -> None:
    """They are where their reports are in JetStream."""
    async with visited() as page:
        assert not (await page.read("/api/session"))["lists_ended"]
        page.site.service.console.described({"store": "jetstream"})
        assert (await page.read("/api/session"))["lists_ended"]


async def test_a_question_does_not_outlive_what_would_answer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks as the service stops is told so at once; the page itself is there yet."""

    class Slow:
        async def ask(self, *_: Any) -> Any:
            await trio.sleep_forever()

    async with visited() as page, trio.open_nursery() as nursery:
        console = page.site.service.console
        with monkeypatch.context() as patch:
            patch.setattr(console, "control", None)
            with console.answering(cast("Any", Slow())):
                found: list[Any] = []

                async def ask() -> None:
                    found.append(await page.read(of("b1", "why"), 503))

                nursery.start_soon(ask)
                await until(lambda: bool(console.questions))
            await until(lambda: bool(found))
        assert found[0]["message"] == "the scheduler stops; it may be done yet"
        assert not console.questions


async def test_a_change_of_status_is_seen_at_once() -> None:
    """However long a build is kept that took long to fetch."""
    async with visited() as page:
        await page.read(of("b1", "events"))
        await page.site.bus.request("scheduler.build.pause", b'{"id": "b1"}')
        assert (await page.read(of("b1")))["status"] == "paused"
        found = await page.read(of("b1", "events"))
        assert found["status"] == "paused"
        assert "order" in {one["event"] for one in found["events"]}


async def test_builds_are_searched_filtered_and_paged() -> None:
    """Each is on one page; those that run come first, then the newest."""
    async with visited(None) as page:
        for number in range(5):
            await page.site.submit(document("a", id=f"b{number}"))
        names: list[str] = []
        after = ""
        while True:
            found = await page.read("/api/builds", params={"limit": 2, "after": after})
            names += [one["id"] for one in found["builds"]]
            if found["next"] is None:
                break
            after = found["next"]
        assert names == ["b4", "b3", "b2", "b1", "b0"]
        found = await page.read("/api/builds", params={"search": "B3", "state": "running"})
        assert [one["id"] for one in found["builds"]] == ["b3"]
        assert (found["matching"], found["statuses"]) == (1, {"running": 5})
        assert found["builds"][0]["waiting"]
        assert (await page.read("/api/builds", params={"state": "failed"}))["builds"] == []


async def test_components_are_sorted_by_age() -> None:
    """What is in flight first, the oldest at the front."""
    value = document("abcd", [("a", "d")])
    async with visited(value) as page:
        page.site.cloud.answer("b")
        page.site.cloud.answer("c", Reply("errored", fields={"error": "no"}))
        await wait_all_tasks_blocked(0.01)
        found = await page.read(of("b1", "components"))
        assert [(one["id"], one["state"]) for one in found["components"]] == [
            ("a", "running"),
            ("c", "errored"),
            ("d", "waiting"),
            ("b", "completed"),
        ]
        assert found["counts"] == {"running": 1, "errored": 1, "waiting": 1, "completed": 1}
        first = await page.read(of("b1", "components"), params={"limit": 2})
        assert (len(first["components"]), first["next"], first["matching"]) == (2, 2, 4)


async def test_what_happened_is_in_order() -> None:
    """Orders stand among the events of components."""
    async with visited() as page:
        await page.site.bus.request("scheduler.build.pause", b'{"id": "b1", "by": "ann", "reason": "lunch"}')
        page.site.cloud.answer("a")
        await wait_all_tasks_blocked(0.01)
        found = await page.read(of("b1", "events"))
    names = [(one["event"], one.get("component")) for one in found["events"]]
    assert names[0] == ("accepted", None)
    assert ("completed", "a") in names
    [order] = [one for one in found["events"] if one["event"] == "order"]
    assert (order["order"], order["by"], order["reason"]) == ("pause", "ann", "lunch")
    times = [one["time"] for one in found["events"]]
    assert times == sorted(times)
    assert [one["n"] for one in found["events"]] == list(range(found["total"]))


async def test_what_many_ask_of_a_build_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as that build is kept; and what is asked otherwise is another answer."""
    made: list[str] = []
    for name in ("components_of", "timeline_of", "events_of"):
        original = getattr(reads, name)

        def counted(*args: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            made.append(name)
            return original(*args, **options)

        monkeypatch.setattr(reads, name, counted)
    monkeypatch.setattr(wholes, "_FRESH", 100.0)
    async with visited() as page:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for path in ("components", "timeline", "events"):
                    for _ in range(5):
                        nursery.start_soon(page.read, of("b1", path))
        assert sorted(made) == ["components_of", "events_of", "timeline_of"]
        found = await page.read(of("b1", "components"), params={"search": "a"})
        assert [one["id"] for one in found["components"]] == ["a"]


async def test_a_prediction_stands_beside_what_happened() -> None:
    """By subject, and along the critical path."""
    async with visited(document("abc", [("a", "b"), ("b", "c")])) as page:
        page.site.cloud.answer("a")
        await wait_all_tasks_blocked(0.01)
        found = await page.read(of("b1", "plan"))
    [subject] = found["subjects"]
    assert (subject["subject"], subject["components"], subject["done"]) == ("vpc.create.aws", 3, 1)
    assert subject["mean"] is not None
    assert [(one["id"], one["actual"] is None) for one in found["predicted_path"]] == [
        ("a", False),
        ("b", True),
        ("c", True),
    ]
    assert [one["id"] for one in found["critical_path"]] == ["a", "b"]


async def times(page: Visited) -> Any:
    """The timeline of the build."""
    return await page.read(of("b1", "timeline"))


async def test_a_timeline_tells_work_from_waiting() -> None:
    """A column for each; rows do not overlap."""
    async with visited(document("abc", [("a", "c"), ("b", "c")])) as page:
        page.site.cloud.answer("a")
        await wait_all_tasks_blocked(0.01)
        found = await times(page)
    assert found["live"]
    assert len(found["index"]) == 2
    assert found["lanes"] == 2
    assert all(
        due <= sent <= end for due, sent, end in zip(found["due"], found["sent"], found["end"], strict=True)
    )
