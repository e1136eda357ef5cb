"""Submitting a build and following it to its report."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.client import Answer, open_following, show, submit
from scheduler.errors import MessageTooLarge, NoResponders
from scheduler.progress import News, Progress


class Notes:
    """A view that remembers what it was told."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.notes: list[str] = []
        self.updates = 0

    def start(self) -> None:
        pass

    def update(self, news: Any, now: float) -> None:
        self.updates += 1
        self.news += news

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stop(self) -> None:
        pass

    def summary(self, now: float) -> None:
        pass


def publish(bus: FakeBus, subject: str, document: Any) -> None:
    bus.publish(subject, document if isinstance(document, bytes) else json.dumps(document).encode())


def event(build: str, component: str, state: str, *, done: int = 0, total: int = 1) -> dict[str, Any]:
    events = [{"component": component, "state": state, "time": 1.0}]
    return {"v": 1, "build": build, "seq": 1, "time": 1.0, "total": total, "done": done, "events": events}


async def answer_with(bus: FakeBus, document: Any) -> None:
    def answer(message: Message) -> None:
        bus.publish(message.reply, document if isinstance(document, bytes) else json.dumps(document).encode())

    await bus.subscribe("build.create", answer)


async def test_an_accepted_build_is_accepted(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """The scheduler's yes comes back as a yes."""
    await answer_with(fake_bus, {"id": "b", "status": "accepted"})
    assert await submit(fake_bus, "build.create", b"{}") == Answer(accepted=True)


async def test_a_rejection_carries_every_detail(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Code, message and details of a rejection come back, whatever form the details have."""
    details = ["changes[0]: no", {"place": "edges[1]", "message": "what?"}, {"message": "alone"}]
    error = {"code": "invalid", "message": "two things", "details": details}
    await answer_with(fake_bus, {"id": "b", "status": "rejected", "error": error})
    answer = await submit(fake_bus, "build.create", b"{}")
    assert answer == Answer(
        accepted=False,
        code="invalid",
        message="two things",
        details=("changes[0]: no", "edges[1]: what?", "alone"),
    )


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"yes"', b'{"status": "maybe"}', b"\xff", b"[" * 9_999])
async def test_an_answer_of_another_kind_is_no_yes(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, data: bytes
) -> None:
    """Something else that answers on the intake subject does not pass for a scheduler."""
    await answer_with(fake_bus, data)
    answer = await submit(fake_bus, "build.create", b"{}")
    assert (answer.accepted, answer.code) == (False, "unreadable")


@pytest.mark.parametrize("error", [None, 5, {}, {"details": 5}])
async def test_a_bare_rejection_is_one(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, error: object
) -> None:
    """A rejection that says nothing more is a rejection."""
    await answer_with(fake_bus, {"status": "rejected", "error": error})
    assert not (await submit(fake_bus, "build.create", b"{}")).accepted


async def test_nobody_there_and_too_large_are_told_apart(autojump_clock: trio.abc.Clock) -> None:
    """No scheduler, and a build over the server's limit, each have their exception."""
    bus = FakeBus(max_payload=1_000)
    with pytest.raises(NoResponders):
        await submit(bus, "build.create", b"{}")
    with pytest.raises(MessageTooLarge):
        await submit(bus, "build.create", b"x" * 1_001)


Script = Callable[[FakeBus], None]


async def follow(bus: FakeBus, script: Any, build: str = "b:1/x") -> tuple[Progress, Notes]:
    progress = Progress(build, "build.create", trio.current_time(), total=1)
    notes = Notes()
    async with open_following(bus, build, "build.create") as following, trio.open_nursery() as nursery:
        nursery.start_soon(script)
        await show(bus, following, progress, notes)
    return progress, notes


async def test_a_build_is_followed_to_its_end(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Events of the build's own subject and its report make up the progress; ids are encoded in subjects."""

    async def script() -> None:
        publish(fake_bus, "scheduler.event.b=3A1=2Fx", event("b:1/x", "vpc::a", "running"))
        await trio.sleep(5)
        publish(fake_bus, "scheduler.event.b=3A1=2Fx", event("b:1/x", "vpc::a", "completed", done=1))
        await trio.sleep(5)
        changes = [{"_component_id": "vpc::a", "_state": "completed"}]
        publish(fake_bus, "build.create.done", {"id": "b:1/x", "changes": changes})

    progress, notes = await follow(fake_bus, script)
    assert (progress.done, progress.error) == (1, None)
    assert [item.component for item in notes.news] == ["vpc::a"]
    assert progress.ended == pytest.approx(10)
    assert 90 <= notes.updates <= 110
    assert notes.notes == []


async def test_an_error_report_ends_it_with_the_cause(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """A report on .error gives the first cause, and errors that no event told."""

    async def script() -> None:
        changes = [{"_component_id": "vpc::a", "_state": "errored", "error": "boom"}]
        publish(fake_bus, "build.create.error", {"id": "b:1/x", "error": "vpc::a: boom", "changes": changes})

    progress, notes = await follow(fake_bus, script)
    assert progress.error == "vpc::a: boom"
    assert [item.error for item in notes.news] == ["boom"]


async def test_other_builds_are_none_of_ours(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Reports of other builds, unreadable messages and events about another build change nothing."""

    async def script() -> None:
        for data in (b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"id": 5}', b'{"id": "other"}'):
            publish(fake_bus, "build.create.done", data)
            publish(fake_bus, "build.create.error", data)
            publish(fake_bus, "scheduler.event.b=3A1=2Fx", data)
        publish(fake_bus, "scheduler.event.b=3A1=2Fx", event("other", "vpc::z", "completed", done=1))
        await trio.sleep(5)
        publish(fake_bus, "build.create.done", {"id": "b:1/x"})
        publish(fake_bus, "build.create.error", {"id": "b:1/x", "error": "late"})

    progress, notes = await follow(fake_bus, script)
    assert progress.ended == pytest.approx(5)
    assert progress.error is None
    assert notes.news == []


async def test_following_survives_the_broker(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """When the broker goes and comes back it is said, and the report is still taken in."""

    async def script() -> None:
        fake_bus.disconnect()
        await trio.sleep(2)
        fake_bus.reconnect()
        await trio.sleep(2)
        publish(fake_bus, "build.create.done", {"id": "b:1/x"})

    progress, notes = await follow(fake_bus, script)
    assert progress.error is None
    assert [note.split(";")[0] for note in notes.notes] == ["the broker is away", "the broker is back"]


@pytest.mark.parametrize(("state", "error"), [("completed", None), ("errored", "vpc::a: failed")])
async def test_a_report_that_was_missed_is_not_waited_for(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, state: str, error: str | None
) -> None:
    """After a reconnect, a build that is over by its events ends without its report."""

    async def script() -> None:
        publish(
            fake_bus, "scheduler.event.b=3A1=2Fx", event("b:1/x", "vpc::a", state, done=state == "completed")
        )
        await trio.sleep(1)
        fake_bus.disconnect()
        await trio.sleep(1)
        fake_bus.reconnect()

    progress, notes = await follow(fake_bus, script)
    assert progress.error == error
    assert notes.notes[-1] == "the report was missed while the broker was away"
    assert progress.ended == pytest.approx(7, abs=0.5)


async def test_silence_after_a_reconnect_is_said_once(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """Where it cannot be known whether the build has ended meanwhile, the person is told, and decides."""

    async def script() -> None:
        publish(fake_bus, "scheduler.event.b=3A1=2Fx", event("b:1/x", "vpc::a", "running"))
        await trio.sleep(1)
        fake_bus.disconnect()
        await trio.sleep(1)
        fake_bus.reconnect()
        await trio.sleep(600)
        publish(fake_bus, "build.create.done", {"id": "b:1/x"})

    progress, notes = await follow(fake_bus, script)
    assert progress.error is None
    assert sum("no news" in note for note in notes.notes) == 1


async def test_following_leaves_no_subscription(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """When the context is left, nothing is listened to any more."""
    async with open_following(fake_bus, "b", "build.create") as following:
        pass
    publish(fake_bus, "build.create.done", {"id": "b"})
    await trio.sleep(1)
    assert not following.ended.is_set()
