"""Pages of components: made once for all who look, and again when something has changed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.fakes import JSON, document, ignore, open_world
from support.patients import Patient

from scheduler.control import pages
from scheduler.control.pages import Pages
from scheduler.runtime import courtesy
from scheduler.supervision.explainer import component


class Looker:
    """Somebody who looks at a build, and what that costs."""

    def __init__(self, patient: Patient, monkeypatch: pytest.MonkeyPatch, most_bytes: int = 10**6) -> None:
        self.patient = patient
        self.pages = Pages(most_bytes)
        self.rows = 0
        self.turns = 0
        """How often the others had theirs."""
        row, give_way = component, courtesy.give_way

        def counted(*args: Any, **options: Any) -> JSON:
            self.rows += 1
            return row(*args, **options)

        async def waited() -> None:
            self.turns += 1
            await give_way()

        monkeypatch.setattr(pages, "component", counted)
        monkeypatch.setattr(pages, "give_way", waited)

    async def look(self, start: int = 0, end: int | None = None, *, graph: bool = False) -> list[JSON]:
        seen = self.patient.seen
        page = await self.pages.page(seen, start, len(seen.plan.phases) if end is None else end, graph=graph)
        rows: list[JSON] = json.loads(bytes(page))
        return rows


@asynccontextmanager
async def looking(
    value: JSON, monkeypatch: pytest.MonkeyPatch, most_bytes: int = 10**6
) -> AsyncIterator[Looker]:
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        patient = Patient(world, value)
        await patient.start(nursery)
        yield Looker(patient, monkeypatch, most_bytes)
        nursery.cancel_scope.cancel()


async def test_a_page_is_made_once_for_all_who_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same time or one after another, while nothing happens."""
    monkeypatch.setattr(pages, "_SLICE", 1)
    async with looking(document("abcd"), monkeypatch) as looker:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(looker.look)
        assert [row["id"] for row in await looker.look()] == ["a", "b", "c", "d"]
        assert looker.rows == 4
        assert [min(row) for row in await looker.look(1, 3, graph=True)] == ["attempt"] * 2
        assert looker.rows == 6


async def test_what_happens_to_a_build_is_on_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is as the build stands when it is answered."""
    async with looking(document("ab", [("a", "b")]), monkeypatch) as looker:
        assert [row["state"] for row in await looker.look()] == ["running", "waiting"]
        await looker.patient.complete("a")
        assert [row["state"] for row in await looker.look()] == ["completed", "running"]
        await looker.patient.fail("b")
        assert [row.get("error") for row in await looker.look()] == [None, "quota"]


async def test_that_a_component_is_due_is_on_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no event tells of it."""
    async with looking(document("ab", [("a", "b")]), monkeypatch) as looker:
        assert "due" not in (await looker.look())[1]
        looker.patient.track.due(1)
        assert "due" in (await looker.look())[1]


async def test_a_secret_that_is_learned_later_is_on_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the page of before is still there."""
    value = document("abc", options={"on_error": "continue"})
    async with looking(value, monkeypatch) as looker:
        await looker.patient.fail("a", "canary-4711 is wrong")
        assert (await looker.look())[0]["error"] == "canary-4711 is wrong"
        looker.patient.plan._secrets.add({"password": "canary-4711"})
        assert "canary" not in json.dumps(await looker.look())


async def test_pages_are_kept_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones that were asked for."""
    async with looking(document("abcd"), monkeypatch, most_bytes=300) as looker:
        for vertex in (0, 1, 2, 3, 3, 2):
            await looker.look(vertex, vertex + 1)
            assert looker.pages.kept_bytes <= 300
        assert looker.rows == 4
        await looker.look(0, 1)
        assert looker.rows == 5


async def test_long_errors_make_short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them costs as much as hundreds of components without."""
    names = [f"c{number}" for number in range(10)]
    value = document(names, options={"on_error": "continue"})
    async with looking(value, monkeypatch) as looker:
        for name in names:
            await looker.patient.fail(name, "x" * 60_000)
        await looker.look()
        assert looker.turns >= 9
