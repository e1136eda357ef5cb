"""Waiting for the end of a build, whatever happens meanwhile."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.client.wait import Waiting, progress_of
from scheduler.errors import SteeringError

JSON = dict[str, Any]
RUNNING: JSON = {"id": "b", "status": "running", "counts": {"completed": 3}, "total": 7}
DONE: JSON = {"id": "b", "status": "done", "run": 1}


def refusal(code: str) -> tuple[JSON, dict[str, str]]:
    return {"id": "b", "error": {"code": code, "message": f"it is {code}"}}, {"Nats-Service-Error": code}


class Answers:
    """A scheduler that says of a build what is next, and the last of it for ever."""

    def __init__(self, bus: FakeBus, get: list[Any], report: Any = None) -> None:
        self.bus = bus
        self.get = get
        self.report = refusal("unknown") if report is None else report
        self.asked: list[float] = []

    async def open(self) -> "Answers":
        await self.bus.subscribe("scheduler.build.get", self._take(self._next))
        await self.bus.subscribe("scheduler.build.report", self._take(lambda: self.report))
        return self

    def _next(self) -> Any:
        self.asked.append(trio.current_time())
        return self.get.pop(0) if len(self.get) > 1 else self.get[0]

    def _take(self, answer: Callable[[], Any]) -> Callable[[Message], None]:
        def handle(message: Message) -> None:
            said = answer()
            if said is None:
                return
            document, headers = said if isinstance(said, tuple) else (said, None)
            self.bus.deliver(message.reply, json.dumps(document).encode(), headers=headers)

        return handle


@pytest.mark.parametrize("status", ["done", "errored", "cancelled"])
async def test_a_build_that_has_ended_is_told_at_once(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, status: str
) -> None:
    """With its error, if it has one."""
    await Answers(fake_bus, [{**DONE, "status": status, "error": "why"}]).open()
    began = trio.current_time()
    ended = await Waiting(fake_bus, "b").run()
    assert (ended["status"], ended["error"]) == (status, "why")
    assert trio.current_time() == began


@pytest.mark.parametrize("status", ["running", "paused", "halted"])
async def test_it_waits_while_the_build_has_not_ended(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, status: str
) -> None:
    """Asking now and then."""
    answers = await Answers(fake_bus, [{**RUNNING, "status": status}] * 5 + [DONE]).open()
    assert (await Waiting(fake_bus, "b").run())["status"] == "done"
    assert len(answers.asked) == 6
    assert answers.asked[-1] - answers.asked[0] == 10


async def test_an_event_makes_the_end_known_sooner(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """One after which nothing is in flight; others do not make it ask more often."""
    answers = await Answers(fake_bus, [RUNNING, DONE]).open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Waiting(fake_bus, "b").run)
        await trio.sleep(0.5)
        for running in (2, 1, 0, 0, 0):
            fake_bus.deliver(
                "scheduler.event.b", json.dumps({"build": "b", "counts": {"running": running}}).encode()
            )
            await trio.sleep(0.01)
    first, second = answers.asked
    assert second - first == pytest.approx(0.52)


@pytest.mark.parametrize("trouble", [None, refusal("unavailable"), refusal("internal"), refusal("unknown")])
async def test_it_survives_a_restart(fake_bus: FakeBus, autojump_clock: trio.abc.Clock, trouble: Any) -> None:
    """No answer to any try, a refusal in passing, a build that is not taken up again yet: told once."""
    await Answers(fake_bus, [RUNNING, *[trouble] * (2 if trouble else 10), RUNNING, DONE]).open()
    notes: list[str] = []
    assert (await Waiting(fake_bus, "b", notes.append).run())["status"] == "done"
    assert len(notes) == 2
    assert notes[0].endswith("; still waiting")
    assert notes[1] == "the scheduler answers again"


async def test_it_survives_an_outage_of_the_broker(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Whatever was asked meanwhile is asked again."""
    await Answers(fake_bus, [RUNNING, DONE]).open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Waiting(fake_bus, "b").run)
        await trio.sleep(0.5)
        fake_bus.disconnect()
        await trio.sleep(60)
        fake_bus.reconnect()


async def test_a_build_that_only_its_report_tells_of(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """A store that keeps nothing else."""
    report = {"id": "b", "run": 1, "status": "errored", "identity": "x", "next": None}
    await Answers(fake_bus, [RUNNING, refusal("unknown")], report).open()
    assert (await Waiting(fake_bus, "b").run())["status"] == "errored"


@pytest.mark.parametrize("code", ["unknown", "invalid", "forbidden", "nobody"])
async def test_what_is_no_passing_trouble_ends_the_wait(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, code: str
) -> None:
    """At the first question also that nobody answers."""
    if code != "nobody":
        await Answers(fake_bus, [refusal(code)]).open()
    with pytest.raises(SteeringError) as caught:
        await Waiting(fake_bus, "b").run()
    assert caught.value.code == code


async def test_a_build_that_is_gone_is_not_waited_for_for_ever(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """A scheduler that keeps nothing was restarted."""
    await Answers(fake_bus, [RUNNING, refusal("unknown")]).open()
    began = trio.current_time()
    with pytest.raises(SteeringError, match="does not know b any more: it was restarted"):
        await Waiting(fake_bus, "b").run()
    assert 30 <= trio.current_time() - began < 40


def test_progress_for_people() -> None:
    """As far as it is known."""
    assert progress_of(RUNNING) == "running, 3 of 7"
    assert progress_of({}) == "unknown"
