"""What is told of a build's times: the same by whoever runs it, by the next process, and by the log."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from itertools import pairwise
from typing import Any

import pytest
import trio
from support.asking import ask
from support.durable import Plant, Process, until
from support.fakes import JSON, Reply, change, document, ignore
from trio.testing import MockClock

from scheduler.client.progress import Progress
from scheduler.client.timeline import Timeline, Wait, read_timeline
from scheduler.client.view import News


class Listener:
    """Somebody who follows a build, whichever process has it."""

    def __init__(self, *, informed: bool) -> None:
        self.progress = Progress("b1", "build.create", trio.current_time(), informed=informed)
        self.progress.behind = not informed
        self.news: list[News] = []
        self._heard = 0

    async def listen(self, process: Process) -> None:
        """Take in what a process told since the last time, and ask where something was missed."""
        told = [one for one in process.bus.published if one.subject == "scheduler.event.b1"]
        if self.progress.behind:
            await self._ask(process)
        for message in told[self._heard :]:
            self.news += self.progress.apply(json.loads(message.data), trio.current_time())
        self._heard = len(told)
        if self.progress.behind:
            await self._ask(process)

    async def _ask(self, process: Process) -> None:
        self.news += self.progress.snapshot(await ask(process, "get"), trio.current_time())

    def goes(self) -> None:
        """The process is gone; the next one has not told anything yet."""
        self._heard = 0

    @property
    def ends(self) -> dict[str, float | None]:
        """What completed, and how long it took."""
        return {item.component: item.took for item in self.news if item.state == "completed"}


async def timeline(process: Process) -> Timeline:
    """As a scheduler answers for it."""
    return read_timeline(await ask(process, "get", graph=True))


def rounded(found: Timeline) -> list[Any]:
    """To a millisecond, from the beginning."""
    return [
        (
            span.component,
            [[round(at - found.began, 2) for at in part] for part in span.attempts],
            {kind.value: round(seconds, 2) for kind, seconds in span.waits.items() if seconds > 0.005},
        )
        for span in found.spans
    ]


CHAIN = document(["a", "b", "c", "x", "y"], [("a", "b"), ("b", "c"), ("x", "y")])


async def test_who_follows_over_a_restart_loses_nothing(autojump_clock: MockClock) -> None:
    """What was in flight took its whole time, each end is heard of, and all agree on the critical path."""
    plant, run, watch = Plant(ignore), Listener(informed=True), Listener(informed=False)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(1)
        await run.listen(process)
        await trio.sleep(2)
        # Answered, and gone before it could say so.
        plant.answer("x")
        await trio.sleep(0.05)
    run.goes()
    async with plant.run() as process:
        await trio.sleep(1)
        await run.listen(process)
        await watch.listen(process)
        await trio.sleep(3)
        plant.answer("a")
        await trio.sleep(1)
        plant.answer("b")
        await trio.sleep(1)
        plant.answer("y")
        await trio.sleep(1)
        plant.answer("c")
        await trio.sleep(0.01)
        live = await timeline(process)
        await until(lambda: process.reports)
        await run.listen(process)
        await watch.listen(process)
        await trio.sleep(5)
        late = await ask(process, "get", graph=True)
    assert [span.component for span in live.path] == ["a", "b", "c"]
    assert live.began == late["accepted"]
    assert rounded(live) == rounded(read_timeline(late))
    for one in (run, watch):
        one.progress.explain(late)
        assert one.ends == {
            "a": pytest.approx(7.2, abs=0.3),
            "b": pytest.approx(1, abs=0.1),
            "c": pytest.approx(2, abs=0.1),
            "x": pytest.approx(3, abs=0.1),
            "y": pytest.approx(6, abs=0.3),
        }
    assert run.progress.path == watch.progress.path == read_timeline(late).path
    assert {name: took for took, name in run.progress.slowest} == pytest.approx(run.ends, abs=0.01)


async def test_the_whole_of_a_build_is_told_whoever_ended_it(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its seconds are those since it was accepted."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document(["a"]))
        await trio.sleep(30)
    async with plant.run() as process:
        await trio.sleep(10)
        plant.answer("a")
        await until(lambda: process.reports)
        await trio.sleep(1)
        answer = await ask(process, "get")
        assert answer["ended"] - answer["accepted"] == pytest.approx(40, abs=1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "build done" in line]
    assert float(line.rpartition("seconds=")[2]) == pytest.approx(40, abs=1)


async def test_a_chain_has_no_waiting_but_for_its_commits(autojump_clock: MockClock) -> None:
    """A request left when it did, not when the word of that was written."""
    plant = Plant(lambda _: [Reply(after=1.0)])
    names = [f"c{number}" for number in range(8)]
    async with plant.run() as process:
        await process.submit(document(names, list(pairwise(names))))
        await until(lambda: process.reports)
        found = await timeline(process)
        assert found.waiting < 0.05
        assert found.working == pytest.approx(8, abs=0.05)
        assert found.most == 1


@pytest.mark.parametrize("restarted", [False, True])
async def test_waiting_is_told_by_its_kind(autojump_clock: MockClock, restarted: bool) -> None:
    """For a slot, for another attempt, for the end of a pause: live, and after a restart."""
    plant = Plant(ignore)
    value = document(
        [change("a", _retry={"attempts": 2, "backoff": 0}), "b", "c"],
        [("a", "c")],
        options={"limits": {"*": 1}},
    )

    async def go_on(process: Process) -> None:
        await trio.sleep(1)
        plant.answer("b")
        await trio.sleep(4)
        await ask(process, "resume")
        await trio.sleep(2)
        plant.answer("a")
        await trio.sleep(1)
        plant.answer("c")
        await until(lambda: process.reports)
        await trio.sleep(1)
        found = await timeline(process)
        spans = {span.component: span for span in found.spans}
        assert found.most == 1
        a, b, c = (spans[name].waits for name in "abc")
        assert a[Wait.RETRY] == pytest.approx(3, abs=0.2)
        assert a[Wait.PAUSE] == pytest.approx(5, abs=2)
        assert b[Wait.SLOTS] == pytest.approx(2, abs=0.2)
        assert not b[Wait.RETRY]
        assert sum(c.values()) < 0.2
        assert spans["a"].working == pytest.approx(4, abs=0.3)
        assert len(spans["a"].attempts) == 2

    async with plant.run() as process:
        await process.submit(value)
        await trio.sleep(2)
        plant.answer("a", Reply("errored", fields={"error": "busy", "retry_after": 3.0}))
        await trio.sleep(2)
        await ask(process, "pause")
        await trio.sleep(1)
        if not restarted:
            await go_on(process)
    if restarted:
        async with plant.run() as process:
            await go_on(process)


async def test_an_outage_is_told_as_one(autojump_clock: MockClock) -> None:
    """What was due and could not be begun waited for the broker, from when its absence was noticed."""
    plant = Plant(ignore)
    value: JSON = document(["a", "b", "c"], [("a", "b")], options={"limits": {"*": 2}})
    async with plant.run() as process:
        await process.submit(value)
        await trio.sleep(2)
        plant.broker.jetstream.silent = True
        plant.answer("a")
        await trio.sleep(30)
        plant.broker.jetstream.silent = False
        await trio.sleep(10)
        plant.answer("b")
        plant.answer("c")
        await until(lambda: process.reports, 100)
        await trio.sleep(1)
        found = await timeline(process)
        (b,) = [span for span in found.spans if span.component == "b"]
        assert 15 < b.waits[Wait.OUTAGE] < b.waiting < 35
