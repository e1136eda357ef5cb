"""Streams of events: what viewers get, how much of it, and what nobody waits for."""

import math
from typing import Any

import msgspec
import pytest
import trio
from support.asking import run as run_build
from support.durable import until
from support.fakes import Reply, document
from support.pages import of, open_stream, visited

from scheduler.web import server
from scheduler.web.live import hub
from scheduler.web.page import answers
from scheduler.web.page.opening import deadline

MANY = document([f"c{number}" for number in range(300)])


async def test_a_viewer_sees_a_build_to_its_end() -> None:
    """At first all of it, then what changes, then why nothing more comes."""
    async with visited() as page, page.stream(of("b1", "stream")) as stream:
        first = await stream.next()
        assert first is not None
        snapshot = msgspec.convert(first.data, answers.Snapshot)
        assert (first.name, snapshot.states) == ("snapshot", "rw")
        assert snapshot.key == (await page.read(of("b1", "layout")))["key"]
        page.site.cloud.answer("a")
        letters = {0: "r", 1: "w"}
        while letters != {0: "c", 1: "r"}:
            event = await stream.until("update")
            update = msgspec.convert(event.data, answers.Update)
            letters |= dict(update.rows)
        page.site.cloud.answer("b")
        end = await stream.until("end")
        assert end.data == {"reason": "finished"}
        assert await stream.next() is None
        assert stream.over


async def test_the_last_update_before_the_end_has_the_last_states() -> None:
    """However late the scheduler says that a build has ended."""
    async with visited() as page, page.stream(of("b1", "stream")) as stream:
        await stream.until("snapshot")
        page.site.cloud.answer("a", Reply("errored", fields={"error": "no room"}))
        letters: dict[int, str] = {}
        status: dict[str, Any] = {}
        while (event := await stream.next()) is not None and event.name != "end":
            letters |= dict(event.data.get("rows", ()))
            status |= event.data.get("status", {})
    # What was not sent stays as it is.
    assert letters == {0: "e"}
    assert (status["status"], status["errors"][0]["error"]) == ("errored", "no room")


def test_streams_alone_go_on_for_ever() -> None:
    """Whatever ids there are."""
    for path in ("/api/stream", "/s/api/stream", "/api/builds/a%2Fb/stream", "/api/builds/stream/stream"):
        assert deadline(path) == math.inf
    for path in (
        "/api/builds/stream",
        "/api/builds/b1/components/stream",
        "/api/builds/a%2Fstream",
        "/stream",
    ):
        assert deadline(path) < math.inf


async def test_all_builds_are_seen() -> None:
    """One that comes, and one that changes."""
    async with visited() as page, page.stream("/api/stream") as stream:
        first = await stream.until("snapshot")
        assert [one.id for one in msgspec.convert(first.data, answers.BuildsSnapshot).builds] == ["b1"]
        await page.site.submit(document("a", id="b2"))
        while True:
            update = msgspec.convert((await stream.until("update")).data, answers.BuildsUpdate)
            if any(one.id == "b2" for one in update.builds):
                break


async def test_viewers_of_a_build_share_one_look() -> None:
    """What changes is encoded once; each viewer gets the same bytes, and fewer where there are many."""
    async with visited(MANY, max_in_flight_per_build=300) as page:
        readers = [await open_stream(page.address, of("b1", "stream")) for _ in range(12)]
        for reader in readers:
            await reader.until("snapshot")
        began = trio.current_time()
        seen: list[list[int]] = [[] for _ in readers]

        async def look(number: int) -> None:
            done: set[int] = set()
            while len(done) < 300:
                event = await readers[number].until("update")
                seen[number].append(event.revision)
                if states := event.data.get("states"):
                    done |= {vertex for vertex, letter in enumerate(states) if letter == "c"}
                done |= {vertex for vertex, letter in event.data.get("rows", ()) if letter == "c"}

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(look, number)
            for number in range(300):
                page.site.cloud.answer(f"c{number}")
                await trio.sleep(0.005)
        took = trio.current_time() - began
        assert all(one == seen[0] for one in seen)
        # One more than by the period, since it begins with one.
        assert len(seen[0]) <= took + 2
        for reader in readers:
            await reader.stream.aclose()


async def test_nothing_is_done_without_viewers() -> None:
    """When the last one has left, nobody asks or hears anything any more."""
    async with visited() as page:
        hubs = page.hubs
        async with page.stream(of("b1", "stream")) as stream:
            await stream.until("snapshot")
            assert (hubs.running, hubs.viewers) == (1, 1)
            assert any(subject.startswith("scheduler.event.") for subject in page.site.bus.subjects)
        await until(lambda: not hubs.running)
        assert hubs.viewers == 0
        assert not any(subject.startswith("scheduler.event.") for subject in page.site.bus.subjects)


async def test_a_stop_ends_streams_and_waits_for_nobody() -> None:
    """One that reads is told; one that does not read is cut off."""
    async with visited() as page:
        stalled = await open_stream(page.address, of("b1", "stream"), buffer=4_096)
        async with page.stream(of("b1", "stream")) as stream:
            await stream.until("snapshot")
            began = trio.current_time()
            page.site.service.stop()
            end = await stream.until("end")
            assert end.data == {"reason": "stopping"}
            assert trio.current_time() - began < 1.0
            late = await page.client.get(of("b1", "stream"))
            assert (late.status_code, late.json()["error"]) == (503, "unavailable")
    await stalled.stream.aclose()


async def test_a_viewer_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on, and its place is free."""
    monkeypatch.setattr(server, "WRITING", 1.0)
    value = document([f"component-with-a-long-name-{number:05}" for number in range(2_000)])
    async with visited(value, max_in_flight_per_build=2_000) as page:
        stalled = [await open_stream(page.address, of("b1", "stream"), buffer=1_024) for _ in range(3)]
        assert page.hubs.viewers == 3

        async def stir() -> None:
            number = 0
            while True:
                page.site.cloud.answer(f"component-with-a-long-name-{number:05}")
                number += 1
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stir)
            async with page.stream(of("b1", "stream")) as stream:
                await stream.until("snapshot")
                await until(lambda: page.hubs.viewers <= 1)
                await stream.until("update")
            nursery.cancel_scope.cancel()
        for one in stalled:
            await one.stream.aclose()


async def test_viewers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, with the reason."""
    monkeypatch.setattr(hub, "MOST_VIEWERS", 2)
    async with visited() as page:
        async with page.stream("/api/stream"), page.stream(of("b1", "stream")):
            found = await page.read("/api/stream", 429)
            assert found["error"] == "busy"
        await until(lambda: page.hubs.viewers == 0)
        async with page.stream("/api/stream") as stream:
            await stream.until("snapshot")


async def test_after_an_outage_the_whole_build_is_looked_at() -> None:
    """What was published meanwhile did not come here."""
    async with visited() as page, page.stream(of("b1", "stream")) as stream:
        await stream.until("snapshot")
        page.site.bus.disconnect()
        await trio.sleep(0.3)
        page.site.bus.reconnect()
        page.site.cloud.answer("a")
        letters = "rw"
        while letters != "cr":
            event = await stream.next()
            assert event is not None
            letters = event.data.get("states") or _with(letters, event.data.get("rows", ()))


def _with(letters: str, rows: list[tuple[int, str]]) -> str:
    found = list(letters)
    for vertex, letter in rows:
        found[vertex] = letter
    return "".join(found)


async def test_without_the_right_to_hear_events_a_build_is_asked_for() -> None:
    """A broker with the permissions of an earlier version allows no more."""
    async with visited(None) as page:
        page.site.bus.forbidden.add("scheduler.event.*")
        await run_build(page.site, document("ab", [("a", "b")]))
        async with page.stream(of("b1", "stream")) as stream:
            await stream.until("snapshot")
            page.site.cloud.answer("a")
            letters = "rw"
            while letters != "cr":
                event = await stream.next()
                assert event is not None
                letters = event.data.get("states") or _with(letters, event.data.get("rows", ()))


async def test_a_fault_in_a_view_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its viewers are told that it is over, and others see the build again."""

    async def broken(_: object) -> None:
        raise ValueError("a bug")

    async with visited() as page:
        with monkeypatch.context() as patch:
            patch.setattr(hub.BuildSource, "update", broken)
            async with page.stream(of("b1", "stream")) as stream:
                assert (await stream.until("end")).data["reason"] == "stopping"
        async with page.stream(of("b1", "stream")) as stream:
            assert (await stream.until("snapshot")).data["states"] == "rw"
